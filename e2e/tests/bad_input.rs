//! Mistakes of users: each is reported where the user looks, affects no other Service, and
//! leaves nothing behind.

mod class_deleted;
pub(crate) mod hostile;
mod node_address;

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ballast_e2e::{Host, eventually};
use futures::{TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::common::{
    ACCEPTED, CLASS, FINALIZER, OF_CLASS, PROGRAMMED, Plan, SOON, Site, addresses, annotated,
    condition, finalizers, load_balancer, status_of, told, web,
};

#[tokio::test(flavor = "multi_thread")]
async fn bad_services_harm_only_themselves() -> Result<()> {
    let plan = Plan {
        // Like API servers before 1.36, which accept more than Ballast does.
        api_server: &["--feature-gates=StrictIPCIDRValidation=false"],
        ..Plan::new("t-bad-services")
    };
    plan.run(async |site| {
        site.pods("web", 2).await?;
        site.apply(&load_balancer("before", &web("web"))).await?;
        let before = site.programmed("before").await?;

        unknown_class(site).await?;
        sctp(site).await?;
        without_node_ports(site).await?;
        source_ranges(site).await?;
        too_many_ports(site).await?;
        annotations(site).await?;
        a_hundred_edits(site).await?;
        a_refused_edit(site).await?;
        a_dead_cloud(site).await?;
        node_address::test(site).await?;

        site.apply(&load_balancer("after", &web("web"))).await?;
        for name in ["before", "after"] {
            let ip = site.address(name).await?;
            site.answers(Host::Client, ip, 80).await?;
        }
        let now = site.get("before").await?;
        ensure!(
            crate::common::version(&now) == crate::common::version(&before),
            "it was written: {now:?}"
        );
        let log = site.lab.log("ballast-1")?;
        ensure!(!log.contains("panicked"), "the controller panicked: {log}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_deleted_while_in_use() -> Result<()> {
    let plan = Plan {
        nodes: 1,
        ..Plan::new("t-bad-class")
    };
    plan.run(class_deleted::test).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_annotations_harm_only_themselves() -> Result<()> {
    let plan = Plan {
        nodes: 0,
        ..Plan::new("t-bad-hostile")
    };
    // `long::hostile` has more of them, and a clock.
    plan.run(async |site| hostile::test(site, 15).await.map(drop))
        .await
}

/// Refused, and without effects: no finalizer, no address, nothing in the cloud.
async fn refused(site: &Site<'_>, name: &str, reason: &str, words: &[&str]) -> Result<String> {
    let message = site.says(name, ACCEPTED, "False", reason).await?;
    for word in words {
        ensure!(message.contains(word), "no \"{word}\" in: {message}");
    }
    let service = site.get(name).await?;
    ensure!(finalizers(&service).is_empty(), "{}", told(&service));
    ensure!(addresses(&service).is_empty(), "{}", told(&service));
    ensure!(site.in_cloud(name).await?.is_none(), "it is in the cloud");
    let event = format!("Warning SyncLoadBalancerFailed: Error syncing load balancer: {message}");
    let mut event: String = event.chars().take(1000).collect();
    event.truncate(event.trim_end().len());
    eventually(SOON, || async {
        let events = site.events(name).await?;
        let once = events.len() == 1 && events[0].starts_with(&event);
        ensure!(once, "{events:#?}, not once {event}");
        Ok(())
    })
    .await?;
    Ok(message)
}

async fn unknown_class(site: &Site<'_>) -> Result<()> {
    let spec = web("web").replace(OF_CLASS, "loadBalancerClass: ballast.dev/nope");
    site.apply(&load_balancer("unknown-class", &spec)).await?;
    refused(site, "unknown-class", "ClassNotFound", &["nope", CLASS]).await?;
    // The class is created later, and then serves the Service without an edit.
    site.ballast.mock_class("nope", "").await?;
    site.programmed("unknown-class").await?;
    ensure!(
        site.says("unknown-class", ACCEPTED, "True", "Accepted")
            .await?
            == "LoadBalancerClass nope serves this Service"
    );
    Ok(())
}

async fn sctp(site: &Site<'_>) -> Result<()> {
    let ports = "ports: [{name: http, port: 80}, {name: voice, port: 5060, protocol: SCTP}]";
    site.apply(&load_balancer("sctp", &format!("{OF_CLASS}, {ports}")))
        .await?;
    let words = ["spec.ports[1] \"voice\" is 5060/SCTP", "TCP and UDP"];
    refused(site, "sctp", "Unsupported", &words).await?;
    // Another controller's now: our conditions are removed.
    site.patch("sctp", json!({"spec": {"type": "ClusterIP"}}))
        .await?;
    site.service("sctp", |service| {
        ensure!(condition(service, ACCEPTED).is_none(), "it still speaks");
        Ok(())
    })
    .await
    .map(drop)
}

async fn without_node_ports(site: &Site<'_>) -> Result<()> {
    let spec = format!("{}, allocateLoadBalancerNodePorts: false", web("web"));
    site.apply(&load_balancer("portless", &spec)).await?;
    let message = refused(site, "portless", "NodePortsMissing", &["80/TCP"]).await?;
    // The advice of the message, pasted into a shell.
    let start = message.find("kubectl ").context("no advice")?;
    let advice = &message[start..];
    let folder = site.lab.program("kubectl");
    let folder = folder.parent().context("kubectl is in no folder")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let output = tokio::process::Command::new("sh")
        .args(["-c", advice])
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("KUBECONFIG", site.lab.kubeconfig())
        .stdin(Stdio::null())
        .output()
        .await?;
    ensure!(output.status.success(), "{advice}: {output:?}");
    let ip = site.address("portless").await?;
    site.answers(Host::Client, ip, 80).await?;
    ensure!(finalizers(&site.get("portless").await?) == [FINALIZER]);
    Ok(())
}

async fn source_ranges(site: &Site<'_>) -> Result<()> {
    let key = "service.beta.kubernetes.io/load-balancer-source-ranges";
    // Objects that the API server refuses.
    let by_field = format!(
        "{}, loadBalancerSourceRanges: [\"10.0.0.0/33\"]",
        web("web")
    );
    let by_annotation = annotated("ranges", &format!("{key}: \"10.0.0.0/33\""), &web("web"));
    for yaml in [load_balancer("ranges", &by_field), by_annotation] {
        let error = site.apply(&yaml).await.err().context("it was taken")?;
        let error = format!("{error:#}");
        ensure!(error.contains("10.0.0.0/33"), "{error}");
    }
    // Objects that it accepts and Ballast refuses.
    let odd = annotated("ranges", &format!("{key}: \"10.0.0.0/008\""), &web("web"));
    site.apply(&odd).await?;
    let words = [key, "10.0.0.0/008", "192.0.2.0/24"];
    refused(site, "ranges", "Invalid", &words).await?;
    let good = annotated("ranges", &format!("{key}: \" 10.0.0.0/8 \""), &web("web"));
    site.apply(&good).await?;
    let ip = site.address("ranges").await?;
    site.answers(Host::Client, ip, 80).await?;
    Ok(())
}

async fn too_many_ports(site: &Site<'_>) -> Result<()> {
    let ports: Vec<String> = (0..300)
        .map(|n| format!("{{name: p{n}, port: {}}}", 10_000 + n))
        .collect();
    let spec = format!("{OF_CLASS}, ports: [{}]", ports.join(", "));
    site.apply(&load_balancer("many", &spec)).await?;
    refused(site, "many", "Unsupported", &["300 ports", "256"]).await?;
    // The maximum number is accepted.
    let spec = format!("{OF_CLASS}, ports: [{}]", ports[..200].join(", "));
    site.apply(&load_balancer("many", &spec)).await?;
    site.programmed("many").await?;
    site.delete("many").await
}

async fn annotations(site: &Site<'_>) -> Result<()> {
    let odd = "ballast.dev/adresses: \"10.89.200.9\", ballast.dev/colour: blue, other.example/adresses: x";
    site.apply(&annotated("misspelt", odd, &web("web"))).await?;
    site.programmed("misspelt").await?;
    let message = site.says("misspelt", ACCEPTED, "True", "Accepted").await?;
    ensure!(
        message.ends_with("unknown annotations: ballast.dev/adresses (did you mean ballast.dev/addresses?), ballast.dev/colour"),
        "{message}"
    );
    for (name, value) in [("garbage-1", "not-an-ip"), ("garbage-2", "10.89.200.9/24")] {
        let annotation = format!("ballast.dev/addresses: \"{value}\"");
        site.apply(&annotated(name, &annotation, &web("web")))
            .await?;
        refused(site, name, "Invalid", &["ballast.dev/addresses", value]).await?;
    }
    let sixes = annotated(
        "garbage-3",
        "ballast.dev/addresses: \"fd89:0:0:200::9\"",
        &web("web"),
    );
    site.apply(&sixes).await?;
    refused(
        site,
        "garbage-3",
        "Invalid",
        &["no IPv6 in spec.ipFamilies"],
    )
    .await
    .map(drop)
}

async fn a_hundred_edits(site: &Site<'_>) -> Result<()> {
    site.apply(&load_balancer("restless", &web("web"))).await?;
    let port = |port: u16| json!({"spec": {"ports": [{"port": port, "targetPort": 8080}]}});
    let start = Instant::now();
    let edits = stream::iter((1..100).map(|n| Ok(1000 + n)));
    edits
        .try_for_each_concurrent(4, |n| async move {
            site.patch("restless", port(n)).await.map(drop)
        })
        .await?;
    site.patch("restless", port(1100)).await?;
    eprintln!("100 edits took {:.1} s", start.elapsed().as_secs_f32());
    let service = site
        .service("restless", |service| {
            let status = serde_json::to_value(&service.status)?;
            let entry = &status["loadBalancer"]["ingress"][0];
            ensure!(entry["ports"] == json!([{"port": 1100, "protocol": "TCP"}]));
            ensure!(status_of(service, PROGRAMMED) == "True");
            Ok(())
        })
        .await?;
    site.answers(Host::Client, addresses(&service)[0], 1100)
        .await?;
    let there = site
        .in_cloud("restless")
        .await?
        .context("not in the cloud")?;
    let listeners = there["desired"]["listeners"].as_array().map(Vec::len);
    ensure!(listeners == Some(1), "{there}");
    ensure!(there["desired"]["listeners"][0]["port"] == 1100, "{there}");
    site.delete("restless").await
}

async fn a_refused_edit(site: &Site<'_>) -> Result<()> {
    // Without a name, as a beginner writes it: a second port requires names for both, and the
    // API server gives a renamed port another node port.
    site.apply(&load_balancer("edited", &web("web"))).await?;
    let ip = site.address("edited").await?;
    let node_port = |service: &Service| {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        ports.and_then(|ports| ports[0].node_port)
    };
    let before = node_port(&site.get("edited").await?);
    let ports = |sctp: bool| {
        let mut ports = vec![json!({"name": "http", "port": 80, "targetPort": 8080})];
        if sctp {
            ports.push(json!({"name": "voice", "port": 5060, "protocol": "SCTP"}));
        }
        json!({"spec": {"ports": ports}})
    };
    site.patch("edited", ports(true)).await?;
    let why = site
        .says("edited", ACCEPTED, "False", "Unsupported")
        .await?;
    ensure!(why.contains("voice"), "{why}");
    let service = site.get("edited").await?;
    ensure!(addresses(&service) == [ip], "{}", told(&service));
    ensure!(finalizers(&service) == [FINALIZER], "{}", told(&service));
    ensure!(node_port(&service) != before, "the node port did not move");
    site.answers(Host::Client, ip, 80).await?;
    let there = site.in_cloud("edited").await?.context("not in the cloud")?;
    let listeners = there["desired"]["listeners"]
        .as_array()
        .context("no listeners")?;
    ensure!(
        listeners.len() == 1 && listeners[0]["port"] == 80,
        "{there}"
    );
    site.patch("edited", ports(false)).await?;
    site.says("edited", ACCEPTED, "True", "Accepted").await?;
    ensure!(addresses(&site.get("edited").await?) == [ip]);
    // A refused Service can also be deleted.
    site.patch("edited", ports(true)).await?;
    site.says("edited", ACCEPTED, "False", "Unsupported")
        .await?;
    site.delete("edited").await?;
    site.not_in_cloud("edited").await
}

/// A class whose cloud does not answer.
async fn a_dead_cloud(site: &Site<'_>) -> Result<()> {
    site.apply("apiVersion: ballast.dev/v1alpha1\nkind: LoadBalancerClass\nmetadata: {name: dead}\nspec: {mock: {endpoint: \"http://10.89.0.3:9\"}}\n")
        .await?;
    let spec = web("web").replace(OF_CLASS, "loadBalancerClass: ballast.dev/dead");
    site.apply(&load_balancer("of-dead", &spec)).await?;
    let why = site
        .says("of-dead", PROGRAMMED, "False", "CloudError")
        .await?;
    ensure!(why.contains("10.89.0.3:9"), "it names the endpoint: {why}");
    site.delete("of-dead").await?;
    let class = site
        .lab
        .kubectl(&["get", "lbclass", "dead", "-o", "json"])
        .await?;
    let class: Value = serde_json::from_str(&class)?;
    ensure!(class["status"]["loadBalancers"] == 0, "{class}");
    site.lab
        .kubectl(&["delete", "lbclass", "dead", "--timeout=60s"])
        .await
        .map(drop)
}
