//! `ballast migrate metallb` on a real cluster: what it prints, what it applies while `MetalLB`
//! runs, and that Services keep their addresses when `MetalLB` is gone. The test simulates
//! `MetalLB`: its kinds, its objects, pods with its labels, and the status that its controller
//! leaves on Services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use ballast_crds::{AddressPool, LoadBalancerClass};
use ballast_e2e::{AGNHOST, documents, eventually};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::common::command::{Ballast, Said, help_is_true};
use crate::common::{ACCEPTED, Plan, SOON, Site, addresses, annotated, load_balancer};

const REPLICA: &str = "ballast-1";
const PORTS: &str = "selector: {app: web}, ports: [{port: 80}]";
const THEIR_CLASS: &str = "metallb.example/inner";
const APPLY: [&str; 3] = ["migrate", "metallb", "--apply"];

/// With the shapes of `MetalLB`'s published samples.
const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: metallb-system}}
---
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: first, namespace: metallb-system}, spec: {addresses: [192.0.2.0/28, 'fc00:f853:0ccd:e799::/124', 192.0.2.32-192.0.2.40], avoidBuggyIPs: true}}
---
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: choosy, namespace: metallb-system}, spec: {addresses: [198.51.100.0/24], serviceAllocation: {priority: 50, namespaces: [shop], namespaceSelectors: [{matchLabels: {kubernetes.io/metadata.name: kube-system}}], serviceSelectors: [{matchExpressions: [{key: app, operator: In, values: [bar]}]}]}}}
---
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: torn, namespace: metallb-system}, spec: {addresses: [192.0.2.99-192.0.2.90]}}
---
{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: everything, namespace: metallb-system}, spec: {interfaces: [eth0]}}
---
{apiVersion: metallb.io/v1beta1, kind: BGPAdvertisement, metadata: {name: routes, namespace: metallb-system}, spec: {ipAddressPools: [first]}}
";

/// The Services with addresses from `MetalLB`.
const LEFT: [(&str, &[&str]); 6] = [
    ("web", &["192.0.2.3"]),
    ("dual", &["192.0.2.6", "fc00:f853:ccd:e799::6"]),
    ("shared-a", &["192.0.2.5"]),
    ("shared-b", &["192.0.2.5"]),
    ("sctp", &["192.0.2.1"]),
    ("classy", &["192.0.2.2"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn services_keep_their_addresses_when_metallb_goes() -> Result<()> {
    Plan {
        nodes: 1,
        controllers: 0,
        class: None,
        ..Plan::new("t-migrate")
    }
    .run(async |site| {
        let admin = Ballast::of(&site.lab.kubeconfig());
        // The API server may still be setting up new kinds.
        eventually(SOON, || async {
            let said = admin.run(&["migrate", "metallb"]).await?;
            let nothing = said.err.contains("no MetalLB objects found");
            ensure!(said.code == Some(4) && nothing, "{said:?}");
            Ok(())
        })
        .await?;
        metallb_was_here(site).await?;
        let seen = Seen::watch(site);
        prints(site, &admin).await?;
        beside_metallb(site, &admin).await?;
        when_it_is_gone(site, &admin).await?;
        a_class_of_its_own(site, &admin).await?;
        without_its_kinds(site, &admin).await?;
        after_a_restart(site).await?;
        seen.kept()
    })
    .await
}

fn crd(kind: &str) -> String {
    let (singular, plural) = (kind.to_lowercase(), format!("{}s", kind.to_lowercase()));
    format!(
        "---
{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: {plural}.metallb.io}}, spec: {{group: metallb.io, scope: Namespaced, names: {{kind: {kind}, plural: {plural}, singular: {singular}}}, versions: [{{name: v1beta1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]}}}}
"
    )
}

fn workload(kind: &str, component: &str, more: &str) -> String {
    let labels = format!("{{app: metallb, component: {component}}}");
    format!(
        "---
{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: {component}, namespace: metallb-system, labels: {labels}}}, spec: {{{more} selector: {{matchLabels: {labels}}}, template: {{metadata: {{labels: {labels}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: {component}, image: {AGNHOST}, args: [pause]}}]}}}}}}}}
"
    )
}

/// The Services, and the status that `MetalLB` wrote. The waiting one is the oldest.
async fn metallb_was_here(site: &Site<'_>) -> Result<()> {
    let kinds = ["IPAddressPool", "L2Advertisement", "BGPAdvertisement"];
    site.apply(&kinds.map(crd).concat()).await?;
    site.apply(OBJECTS).await?;
    site.apply(&workload("Deployment", "controller", "replicas: 1,"))
        .await?;
    site.apply(&workload("DaemonSet", "speaker", "")).await?;
    let key = "metallb.universe.tf/allow-shared-ip: both";
    let other_port = PORTS.replace("80", "443");
    for service in [
        load_balancer("waits", PORTS),
        load_balancer("web", PORTS),
        load_balancer(
            "dual",
            &format!("{PORTS}, ipFamilyPolicy: RequireDualStack"),
        ),
        annotated("shared-a", key, PORTS),
        annotated("shared-b", key, &other_port),
        load_balancer("sctp", "ports: [{port: 9, protocol: SCTP}]"),
        load_balancer(
            "classy",
            &format!("{PORTS}, loadBalancerClass: {THEIR_CLASS}"),
        ),
    ] {
        site.apply(&service).await?;
    }
    for (name, ips) in LEFT {
        let ingress: Vec<Value> = ips
            .iter()
            .map(|ip| json!({"ip": ip, "ipMode": "VIP"}))
            .collect();
        let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        site.services()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await?;
    }
    Ok(())
}

async fn prints(site: &Site<'_>, admin: &Ballast) -> Result<()> {
    let said = admin.run(&["migrate", "metallb"]).await?;
    ensure!(said.code == Some(0), "{said:?}");
    let documents = documents(&said.out)?;
    let titles: Vec<String> = documents
        .iter()
        .map(|it| format!("{} {}", it["kind"], it["metadata"]["name"]).replace('"', ""))
        .collect();
    ensure!(
        titles
            == [
                "AddressPool choosy",
                "AddressPool first",
                "LoadBalancerClass metallb"
            ],
        "{titles:?}"
    );
    let namespaces = &documents[0]["spec"]["namespaceSelector"]["matchExpressions"][0]["values"];
    ensure!(
        *namespaces == json!(["kube-system", "shop"]),
        "{namespaces}"
    );
    ensure!(documents[2]["spec"]["default"] == false, "MetalLB runs");
    for words in [
        "IPAddressPool metallb-system/torn",
        "ends before it begins",
        "BGPAdvertisement metallb-system/routes",
        "keeps its address",
        "needs manual steps",
    ] {
        ensure!(said.err.contains(words), "no \"{words}\" in {}", said.err);
    }
    ensure!(
        said.out.contains("MetalLB's controller is running"),
        "{}",
        said.out
    );
    // From manifests, without a cluster, the result has the same pools.
    let alone = Ballast::alone()
        .run_with(&["migrate", "metallb", "-f", "-", "-o", "json"], OBJECTS)
        .await?;
    let report: Value = serde_json::from_str(&alone.out).with_context(|| format!("{alone:?}"))?;
    ensure!(report["objects"][1] == documents[1], "{report}");
    // Without `--apply`, nothing was applied.
    let pools: Api<AddressPool> = Api::all(site.lab.kube());
    ensure!(pools.get_opt("first").await?.is_none());
    Ok(())
}

/// Applies the objects; no Service is taken over.
async fn beside_metallb(site: &Site<'_>, admin: &Ballast) -> Result<()> {
    for expected in ["created", "unchanged"] {
        let said = admin.run(&APPLY).await?;
        ensure!(said.code == Some(5), "{said:?}");
        let results = results(&said);
        let all: BTreeSet<&str> = results.values().map(String::as_str).collect();
        ensure!(results.len() == 3 && all == [expected].into(), "{said:?}");
        let stop = "kubectl scale deployment controller -n metallb-system --replicas=0";
        ensure!(said.err.contains(stop), "{said:?}");
    }
    let classes: Api<LoadBalancerClass> = Api::all(site.lab.kube());
    ensure!(!classes.get("metallb").await?.spec.default);
    Ok(())
}

/// The table of applied objects, by name.
fn results(said: &Said) -> BTreeMap<String, String> {
    let rows = said.out.lines().skip(1).take_while(|line| !line.is_empty());
    rows.filter_map(|row| {
        let mut words = row.split_whitespace().skip(1);
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    })
    .collect()
}

/// The class takes over before the controller starts, which finds only the status.
async fn when_it_is_gone(site: &Site<'_>, admin: &Ballast) -> Result<()> {
    let scale = [
        "scale",
        "deployment",
        "controller",
        "-n",
        "metallb-system",
        "--replicas=0",
    ];
    site.lab.kubectl(&scale).await?;
    let said = eventually(SOON, || async {
        let said = admin.run(&APPLY).await?;
        ensure!(said.code == Some(0), "{said:?}");
        Ok(said)
    })
    .await?;
    let configured = results(&said).get("metallb").map(String::as_str) == Some("configured");
    ensure!(configured, "{said:?}");
    ensure!(
        said.err.contains("DaemonSet metallb-system/speaker"),
        "{said:?}"
    );
    site.ballast.start_controller(REPLICA, &[]).await?;
    for (name, ips) in LEFT.iter().take(4) {
        let service = site
            .service(name, |service| {
                let now = crate::common::status_of(service, ACCEPTED);
                ensure!(now == "True", "not taken over");
                let held = crate::common::finalizers(service);
                ensure!(held.contains(&"ballast.dev/metallb"), "{held:?}");
                Ok(())
            })
            .await?;
        has(&service, ips)?;
    }
    // A Service that Ballast cannot serve keeps its address, and no other Service gets it.
    site.says("sctp", ACCEPTED, "False", "Unsupported").await?;
    let waits = site
        .service("waits", |service| {
            ensure!(!addresses(service).is_empty(), "no address");
            Ok(())
        })
        .await?;
    site.apply(&load_balancer("new", PORTS)).await?;
    let new = site
        .service("new", |service| {
            ensure!(!addresses(service).is_empty(), "no address");
            Ok(())
        })
        .await?;
    let (waits, new) = (addresses(&waits), addresses(&new));
    ensure!(waits != new, "{waits:?}");
    for (name, ips) in LEFT {
        has(&site.get(name).await?, ips)?;
        for given in waits.iter().chain(&new) {
            let taken = ips.contains(&given.to_string().as_str());
            ensure!(!taken, "{given} is {name}'s");
        }
    }
    // A second run changes nothing.
    let said = admin.run(&APPLY).await?;
    ensure!(said.code == Some(0), "{said:?}");
    ensure!(
        results(&said).values().all(|it| it == "unchanged"),
        "{said:?}"
    );
    ensure!(said.out.contains("already served"), "{said:?}");
    Ok(())
}

fn has(service: &Service, ips: &[&str]) -> Result<()> {
    let now: Vec<String> = addresses(service).iter().map(ToString::to_string).collect();
    ensure!(
        now == ips,
        "{:?} has {now:?}, not {ips:?}",
        service.metadata.name
    );
    Ok(())
}

/// The commands for a Service of another class have the promised result.
async fn a_class_of_its_own(site: &Site<'_>, admin: &Ballast) -> Result<()> {
    let report = admin.out(&["migrate", "metallb", "-o", "json"]).await?;
    let report: Value = serde_json::from_str(&report)?;
    let all = report["services"].as_array().context("no services")?;
    let classy = all.iter().find(|one| one["name"] == "classy");
    let classy = classy.with_context(|| report.to_string())?;
    ensure!(classy["outcome"] == "ByHand", "{classy}");
    let before = site.get("classy").await?;
    for command in classy["commands"].as_array().context("no commands")? {
        let command = command.as_str().context("no text")?;
        let kubectl = site.lab.program("kubectl");
        let mut shell = tokio::process::Command::new("bash");
        shell.args([
            "-ec",
            &command.replacen("kubectl", &kubectl.display().to_string(), 1),
        ]);
        let said = admin.finish(shell, "").await?;
        ensure!(said.code == Some(0), "{command}: {said:?}");
    }
    let after = site
        .service("classy", |service| {
            ensure!(
                crate::common::status_of(service, ACCEPTED) == "True",
                "not accepted"
            );
            has(service, &["192.0.2.2"])
        })
        .await?;
    let node_port = |service: &Service| service.spec.as_ref()?.ports.as_ref()?.first()?.node_port;
    ensure!(
        node_port(&before) == node_port(&after),
        "{before:?} {after:?}"
    );
    Ok(())
}

/// As after `helm uninstall`, which also deletes the CRDs.
async fn without_its_kinds(site: &Site<'_>, admin: &Ballast) -> Result<()> {
    for kind in ["ipaddresspools", "l2advertisements", "bgpadvertisements"] {
        let crd = format!("crd/{kind}.metallb.io");
        site.lab.kubectl(&["delete", &crd, "--wait=true"]).await?;
    }
    let said = admin.run(&APPLY).await?;
    ensure!(said.code == Some(0), "{said:?}");
    let results = results(&said);
    ensure!(results.len() == 3, "{said:?}");
    ensure!(results.values().all(|it| it == "unchanged"), "{said:?}");
    // Settings of another field manager are not overwritten.
    let pools: Api<AddressPool> = Api::all(site.lab.kube());
    pools
        .patch(
            "choosy",
            &PatchParams::apply("a-person").force(),
            &Patch::Apply(json!({"apiVersion": "ballast.dev/v1alpha1", "kind": "AddressPool", "metadata": {"name": "choosy"}, "spec": {"addresses": ["198.51.100.0/25"]}})),
        )
        .await?;
    let said = admin
        .run_with(&["migrate", "metallb", "--apply", "-f", "-"], OBJECTS)
        .await?;
    ensure!(said.code == Some(1), "{said:?}");
    ensure!(
        said.out.contains("choosy") && said.out.contains("a-person"),
        "{said:?}"
    );
    let now = pools.get("choosy").await?.spec.addresses;
    ensure!(now[0].0 == "198.51.100.0/25", "{now:?}");
    Ok(())
}

async fn after_a_restart(site: &Site<'_>) -> Result<()> {
    site.ballast.kill(REPLICA).await?;
    site.ballast.start_controller(REPLICA, &[]).await?;
    site.apply(&load_balancer("later", PORTS)).await?;
    site.service("later", |service| {
        ensure!(!addresses(service).is_empty(), "no address");
        Ok(())
    })
    .await?;
    for (name, ips) in LEFT {
        has(&site.get(name).await?, ips)?;
    }
    Ok(())
}

/// The addresses in every state of the watched Services.
struct Seen(
    Arc<Mutex<BTreeMap<String, Vec<Vec<String>>>>>,
    tokio::task::JoinHandle<Result<()>>,
);

impl Seen {
    fn watch(site: &Site<'_>) -> Self {
        let (api, all) = (
            site.services(),
            Arc::<Mutex<BTreeMap<_, Vec<_>>>>::default(),
        );
        let seen = Arc::clone(&all);
        let task = tokio::spawn(async move {
            let mut events = api.watch(&WatchParams::default(), "0").await?.boxed();
            while let Some(event) = events.next().await {
                let service = match event? {
                    WatchEvent::Added(service) | WatchEvent::Modified(service) => service,
                    WatchEvent::Error(error) => bail!("the watch broke: {error}"),
                    _ => continue,
                };
                let ips = addresses(&service)
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                let name = service.metadata.name.unwrap_or_default();
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.entry(name).or_default().push(ips);
            }
            bail!("the watch ended")
        });
        Self(all, task)
    }

    /// No Service ever lost or changed its address from `MetalLB`, except the one whose class
    /// was changed by hand.
    fn kept(self) -> Result<()> {
        ensure!(!self.1.is_finished(), "the watch did not last");
        self.1.abort();
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, ips) in LEFT.iter().filter(|(name, _)| *name != "classy") {
            let states = seen
                .get(*name)
                .with_context(|| format!("{name} was not seen"))?;
            ensure!(states.len() >= 2, "{name}: {states:?}");
            ensure!(
                states.iter().all(|state| state == ips),
                "{name}: {states:?}"
            );
        }
        Ok(())
    }
}

#[tokio::test]
async fn help_and_usage() -> Result<()> {
    help_is_true(&["migrate", "metallb"]).await?;
    help_is_true(&["migrate", "lbc"]).await?;
    let alone = Ballast::alone();
    for wrong in [
        vec!["migrate"],
        vec!["migrate", "elsewhere"],
        vec!["migrate", "metallb", "-o", "xml"],
        vec!["migrate", "metallb", "one"],
    ] {
        let said = alone.run(&wrong).await?;
        ensure!(
            said.code == Some(2) && !said.err.is_empty(),
            "{wrong:?}: {said:?}"
        );
    }
    for (wrong, words) in [
        (vec!["migrate", "metallb"], "KUBECONFIG"),
        (
            vec!["migrate", "metallb", "-f", "/nonexistent.yaml"],
            "/nonexistent.yaml",
        ),
        (
            vec!["migrate", "metallb", "-f", "-", "--apply"],
            "KUBECONFIG",
        ),
    ] {
        let said = alone.run(&wrong).await?;
        ensure!(
            said.code == Some(1) && said.err.contains(words),
            "{wrong:?}: {said:?}"
        );
        ensure!(said.err.lines().count() == 1, "{said:?}");
    }
    let torn = ["migrate", "metallb", "-f", "-"];
    let said = alone.run_with(&torn, "a: b\n---\n{").await?;
    ensure!(
        said.code == Some(1) && said.err.contains("line 3"),
        "{said:?}"
    );
    let said = alone.run_with(&torn, "kind: Nothing").await?;
    ensure!(said.code == Some(4), "{said:?}");
    Ok(())
}

/// `ballast migrate lbc` without a cluster: exit statuses, and what goes where.
#[tokio::test]
async fn services_of_aws() -> Result<()> {
    let alone = Ballast::alone();
    let service = |annotations: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop, annotations: {{{annotations}}}}}, spec: {{type: LoadBalancer, loadBalancerClass: service.k8s.aws/nlb, selector: {{app: web}}, ports: [{{port: 80}}]}}}}"
        )
    };
    let (good, bad) = (
        service(""),
        service("service.beta.kubernetes.io/aws-load-balancer-quic-enabled-ports: '80'"),
    );
    let files = ["migrate", "lbc", "-f", "-"];
    for (input, code, out, err) in [
        (
            &good,
            0,
            "web-ballast",
            "LoadBalancerClass nlb does not exist",
        ),
        (&bad, 5, "makes no QUIC listeners", "LoadBalancerClass nlb"),
        (
            &"kind: Nothing".to_owned(),
            4,
            "",
            "no Service of the AWS Load Balancer Controller",
        ),
        (&"a: b\n---\n{".to_owned(), 1, "", "standard input"),
    ] {
        let said = alone.run_with(&files, input).await?;
        ensure!(
            said.code == Some(code) && said.out.contains(out) && said.err.contains(err),
            "{input}: {said:?}"
        );
    }
    let manifests = ["migrate", "lbc", "-f", "-", "--manifests"];
    let said = alone.run_with(&manifests, &good).await?;
    ensure!(
        said.out.contains("loadBalancerClass: ballast.dev/nlb"),
        "{said:?}"
    );
    let said = alone.run_with(&manifests, &bad).await?;
    ensure!(
        said.code == Some(5) && said.out.is_empty() && said.err.contains("left out"),
        "{said:?}"
    );
    for (wrong, code) in [
        (vec!["migrate", "lbc", "--manifests", "-o", "json"], 2),
        (vec!["migrate", "lbc"], 1),
    ] {
        let said = alone.run(&wrong).await?;
        ensure!(said.code == Some(code), "{wrong:?}: {said:?}");
    }
    Ok(())
}
