//! The life of a Service on real Kubernetes: what it reports, what it keeps, and what is left
//! after its deletion. `services/classes.rs` tests which class serves it,
//! `services/addresses.rs` which address it gets, `services/contested.rs` what happens while
//! another controller rewrites it.

mod addresses;
mod classes;
mod contested;

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::installation::CLOUD;
use ballast_e2e::{Host, eventually};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::common::{
    ACCEPTED, FINALIZER, OF_CLASS, PROGRAMMED, Plan, SOON, Site, finalizers, load_balancer,
    service_yaml, status_of, url, version, web,
};

const ENSURED: &str = "Normal EnsuredLoadBalancer: Ensured load balancer";
const DELETED: &str = "Normal DeletedLoadBalancer: Deleted load balancer";

#[tokio::test(flavor = "multi_thread")]
async fn a_service_lives_and_changes() -> Result<()> {
    Plan::new("t-svc-life")
        .run(async |site| {
            site.pods("web", 2).await?;
            let beside = neighbours(site).await?;
            says_all_there_is_to_say(site).await?;
            families_keep_their_order(site).await?;
            edits_keep_the_address(site).await?;
            no_endpoints_and_back(site).await?;
            families_and_policies_change(site).await?;
            types_come_and_go(site).await?;
            deletion_leaves_nothing(site).await?;
            are_as_they_were(site, &beside).await
        })
        .await
}

/// Services that are not Ballast's, with their versions at creation.
async fn neighbours(site: &Site<'_>) -> Result<Vec<(&'static str, String)>> {
    let ports = "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]";
    let mut all = Vec::new();
    for (name, spec) in [
        ("by-cluster-ip", format!("type: ClusterIP, {ports}")),
        ("by-node-port", format!("type: NodePort, {ports}")),
        ("headless", format!("clusterIP: None, {ports}")),
        (
            "elsewhere",
            "type: ExternalName, externalName: example.com".to_owned(),
        ),
    ] {
        site.apply(&service_yaml(name, "", &spec)).await?;
        all.push((name, version(&site.get(name).await?).to_owned()));
    }
    Ok(all)
}

async fn are_as_they_were(site: &Site<'_>, before: &[(&str, String)]) -> Result<()> {
    for (name, then) in before {
        let now = site.get(name).await?;
        ensure!(version(&now) == then, "{name} was written: {now:?}");
    }
    Ok(())
}

async fn says_all_there_is_to_say(site: &Site<'_>) -> Result<()> {
    let spec = format!("{}, ipFamilyPolicy: RequireDualStack", web("web"));
    site.apply(&load_balancer("web", &spec)).await?;
    let service = site.programmed("web").await?;
    ensure!(finalizers(&service) == [FINALIZER], "{service:?}");
    ensure!(status_of(&service, ACCEPTED) == "True", "{service:?}");
    let entries = entries(&service);
    ensure!(entries.len() == 2, "{entries:?}");
    for (entry, family) in entries.iter().zip([IpAddr::is_ipv4, IpAddr::is_ipv6]) {
        let ip: IpAddr = entry["ip"].as_str().context("no ip")?.parse()?;
        ensure!(family(&ip), "IPv4 is the cluster's first: {entries:?}");
        ensure!(entry["ipMode"] == "Proxy", "{entry}");
        let ports = json!([{"port": 80, "protocol": "TCP"}]);
        ensure!(entry["ports"] == ports, "{entry}");
        site.answers(Host::Client, ip, 80).await?;
    }
    site.has_events("web", &[ENSURED]).await
}

fn entries(service: &Service) -> Vec<Value> {
    let status = serde_json::to_value(&service.status).unwrap_or_default();
    status["loadBalancer"]["ingress"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

async fn families_keep_their_order(site: &Site<'_>) -> Result<()> {
    let spec = format!(
        "{}, ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4]",
        web("web")
    );
    site.apply(&load_balancer("six-first", &spec)).await?;
    let service = site.programmed("six-first").await?;
    let addresses = crate::common::addresses(&service);
    ensure!(
        addresses.len() == 2 && addresses[0].is_ipv6() && addresses[1].is_ipv4(),
        "{addresses:?}"
    );
    site.delete("six-first").await
}

async fn edits_keep_the_address(site: &Site<'_>) -> Result<()> {
    let before = crate::common::addresses(&site.get("web").await?);
    let port = |port: u16| json!({"spec": {"ports": [{"port": port, "targetPort": 8080, "nodePort": 31_234}]}});
    site.patch("web", port(80)).await?;
    eventually(SOON, || async {
        let there = site
            .in_cloud("web")
            .await?
            .context("no load balancer in the cloud")?;
        let listener = &there["desired"]["listeners"][0];
        ensure!(listener["nodePort"] == 31_234, "{there}");
        Ok(())
    })
    .await?;
    for ip in &before {
        site.answers(Host::Client, *ip, 80)
            .await
            .context("by the new node port")?;
    }
    site.patch("web", port(81)).await?;
    let service = site
        .service("web", |service| {
            let entries = entries(service);
            ensure!(entries.iter().all(|entry| entry["ports"][0]["port"] == 81));
            ensure!(status_of(service, PROGRAMMED) == "True");
            Ok(())
        })
        .await?;
    ensure!(
        crate::common::addresses(&service) == before,
        "{before:?} changed"
    );
    for ip in &before {
        site.answers(Host::Client, *ip, 81).await?;
        let old = site.curl(Host::Client, &url(*ip, 80, "/hostname")).await;
        ensure!(old.is_err(), "port 80 of {ip} still answers");
    }
    Ok(())
}

async fn no_endpoints_and_back(site: &Site<'_>) -> Result<()> {
    let before = crate::common::addresses(&site.get("web").await?);
    site.lab
        .kubectl(&["scale", "deployment/web", "--replicas=0"])
        .await?;
    let page = url(before[0], 81, "/hostname");
    eventually(SOON, || async {
        match site.curl(Host::Client, &page).await {
            Ok(pod) => bail!("{pod} still answers"),
            Err(_) => Ok(()),
        }
    })
    .await?;
    let service = site.get("web").await?;
    ensure!(crate::common::addresses(&service) == before, "{service:?}");
    site.lab
        .kubectl(&["scale", "deployment/web", "--replicas=2"])
        .await?;
    site.rolled_out("web").await?;
    site.answers(Host::Client, before[0], 81).await?;
    let service = site.get("web").await?;
    ensure!(crate::common::addresses(&service) == before, "{service:?}");
    Ok(())
}

async fn families_and_policies_change(site: &Site<'_>) -> Result<()> {
    let before = crate::common::addresses(&site.get("web").await?);
    let first = site.get("web").await?.spec.and_then(|spec| spec.cluster_ip);
    let single = json!({"spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": [first]}});
    site.patch("web", single).await?;
    publishes(site, &before[..1]).await?;
    let dual =
        json!({"spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}});
    site.patch("web", dual).await?;
    let service = site
        .service("web", |service| {
            let now = crate::common::addresses(service);
            ensure!(now.len() == 2 && now[0] == before[0] && now[1].is_ipv6());
            Ok(())
        })
        .await?;
    let before = crate::common::addresses(&service);
    for ip in &before {
        site.answers(Host::Client, *ip, 81).await?;
    }
    for (policy, in_cloud) in [("Local", "local"), ("Cluster", "cluster")] {
        let patch = json!({"spec": {"externalTrafficPolicy": policy}});
        site.patch("web", patch).await?;
        eventually(SOON, || async {
            let there = site.in_cloud("web").await?.context("not in the cloud")?;
            let now = there["desired"]["trafficPolicy"].to_string();
            ensure!(now.contains(in_cloud), "{now}");
            Ok(())
        })
        .await?;
        publishes(site, &before).await?;
        for ip in &before {
            site.answers(Host::Client, *ip, 81).await?;
        }
    }
    Ok(())
}

/// Waits until exactly these addresses are published and traffic can flow.
async fn publishes(site: &Site<'_>, expected: &[IpAddr]) -> Result<()> {
    site.service("web", |service| {
        let now = crate::common::addresses(service);
        ensure!(now == expected, "{now:?}, not {expected:?}");
        ensure!(status_of(service, PROGRAMMED) == "True", "not Programmed");
        Ok(())
    })
    .await
    .map(drop)
}

async fn types_come_and_go(site: &Site<'_>) -> Result<()> {
    let other_types = [
        json!({"spec": {"type": "ClusterIP"}}),
        json!({"spec": {"type": "NodePort"}}),
        json!({"spec": {"type": "ExternalName", "externalName": "example.com"}}),
    ];
    for patch in other_types {
        site.patch("web", patch.clone()).await?;
        let service = site
            .service("web", |service| {
                ensure!(finalizers(service).is_empty(), "it is still held");
                Ok(())
            })
            .await
            .with_context(|| patch.to_string())?;
        let status = service.status.clone().unwrap_or_default();
        ensure!(
            status.conditions.unwrap_or_default().is_empty(),
            "{patch} leaves conditions"
        );
        ensure!(entries(&service).is_empty(), "{patch} leaves an address");
        site.not_in_cloud("web").await?;
        site.patch("web", json!({"spec": {"type": "LoadBalancer", "externalName": null, "loadBalancerClass": "ballast.dev/local"}}))
            .await?;
        let ip = site.address("web").await?;
        site.answers(Host::Client, ip, 81).await?;
    }
    Ok(())
}

async fn deletion_leaves_nothing(site: &Site<'_>) -> Result<()> {
    let ip = site.address("web").await?;
    site.delete("web").await?;
    site.cloud_is_empty().await?;
    let answer = site.curl(Host::Client, &url(ip, 81, "/hostname")).await;
    ensure!(answer.is_err(), "{ip} still answers: {answer:?}");
    site.apply(&load_balancer("plain", &web("web"))).await?;
    site.programmed("plain").await?;
    site.delete("plain").await?;
    site.has_events("plain", &[ENSURED, DELETED]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_cloud_that_is_killed() -> Result<()> {
    let plan = Plan {
        cloud: &["--provisioning-latency", "3s"],
        ..Plan::new("t-svc-slow")
    };
    plan.run(async |site| {
        site.pods("web", 1).await?;
        slow_work_is_announced(site).await?;
        some_do_not_wait(site).await?;
        the_cloud_restarts(site).await?;
        a_namespace_goes(site).await
    })
    .await
}

async fn slow_work_is_announced(site: &Site<'_>) -> Result<()> {
    site.apply(&load_balancer("web", &web("web"))).await?;
    site.says("web", PROGRAMMED, "False", "Provisioning")
        .await?;
    let ip = site.address("web").await?;
    site.answers(Host::Client, ip, 80).await?;
    let ensuring = "Normal EnsuringLoadBalancer: Ensuring load balancer";
    site.has_events("web", &[ensuring, ENSURED]).await
}

/// They are changed while their load balancers are still being created.
async fn some_do_not_wait(site: &Site<'_>) -> Result<()> {
    for name in ["deleted", "changed"] {
        site.apply(&load_balancer(name, &web("web"))).await?;
        site.says(name, PROGRAMMED, "False", "Provisioning").await?;
    }
    site.patch("changed", json!({"spec": {"type": "ClusterIP"}}))
        .await?;
    site.delete("deleted").await?;
    site.service("changed", |service| {
        ensure!(finalizers(service).is_empty(), "it is still held");
        Ok(())
    })
    .await?;
    for name in ["deleted", "changed"] {
        site.not_in_cloud(name).await?;
    }
    Ok(())
}

async fn the_cloud_restarts(site: &Site<'_>) -> Result<()> {
    let service = site.get("web").await?;
    let before = site.ballast.load_balancers().await?;
    let ip = site.address("web").await?;
    site.ballast.kill(CLOUD).await?;
    site.lab.start_again(CLOUD).await?;
    site.ballast.cloud_answers().await?;
    ensure!(site.ballast.load_balancers().await? == before);
    site.answers(Host::Client, ip, 80).await?;
    // The controller has found it again once another Service gets its address.
    site.apply(&load_balancer("later", &web("web"))).await?;
    site.programmed("later").await?;
    let after = site.get("web").await?;
    ensure!(
        version(&after) == version(&service),
        "it was written although nothing changed: {after:?}"
    );
    site.delete("later").await
}

async fn a_namespace_goes(site: &Site<'_>) -> Result<()> {
    site.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
        .await?;
    for name in ["one", "two", "three"] {
        let service = load_balancer(name, &web("web"));
        site.apply(&service.replace("namespace: default", "namespace: shop"))
            .await?;
    }
    let shop: Api<Service> = Api::namespaced(site.lab.kube(), "shop");
    eventually(SOON, || async {
        let all = shop.list(&kube::api::ListParams::default()).await?.items;
        let ready = all
            .iter()
            .filter(|one| status_of(one, PROGRAMMED) == "True");
        ensure!(ready.count() == 3, "{all:?}");
        Ok(())
    })
    .await?;
    let namespaces: Api<Namespace> = Api::all(site.lab.kube());
    namespaces.delete("shop", &DeleteParams::default()).await?;
    eventually(2 * SOON, || async {
        let left = namespaces.get_opt("shop").await?;
        ensure!(left.is_none(), "the namespace hangs: {left:?}");
        Ok(())
    })
    .await?;
    let left = site.ballast.load_balancers().await?;
    ensure!(left.len() == 1, "only default/web is to be left: {left:?}");
    site.delete("web").await?;
    site.cloud_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_claim_what_is_theirs() -> Result<()> {
    let plan = Plan {
        class: None,
        ..Plan::new("t-svc-classes")
    };
    plan.run(classes::claim).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_class_yields_to_another_controller() -> Result<()> {
    let plan = Plan {
        class: None,
        nodes: 1,
        ..Plan::new("t-svc-contested")
    };
    plan.run(classes::contested).await
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_limits_are_honoured() -> Result<()> {
    let plan = Plan {
        nodes: 1,
        ..Plan::new("t-svc-addresses")
    };
    plan.run(async |site| {
        addresses::asked_for(site).await?;
        addresses::limited(site).await?;
        addresses::retained(site).await
    })
    .await
}

/// A Service of the class without endpoints, for tests that only read its status.
fn words(port: u16) -> String {
    format!("{OF_CLASS}, ports: [{{port: {port}}}]")
}
