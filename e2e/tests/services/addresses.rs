//! Which address a Service gets, how many Services a class accepts, and what remains of
//! retained load balancers.

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::words;
use crate::common::{
    ACCEPTED, OF_CLASS, PROGRAMMED, SOON, Site, annotated, finalizers, load_balancer,
};

pub(crate) async fn asked_for(site: &Site<'_>) -> Result<()> {
    let by_field = format!("{}, loadBalancerIP: 10.89.200.50", words(80));
    site.apply(&load_balancer("by-field", &by_field)).await?;
    ensure!(site.address("by-field").await?.to_string() == "10.89.200.50");

    let both = format!("{}, ipFamilyPolicy: RequireDualStack", words(80));
    let annotation = "ballast.dev/addresses: \"fd89:0:0:200::60, 10.89.200.60\"";
    site.apply(&annotated("by-annotation", annotation, &both))
        .await?;
    let service = site.programmed("by-annotation").await?;
    let addresses: Vec<String> = crate::common::addresses(&service)
        .iter()
        .map(ToString::to_string)
        .collect();
    ensure!(
        addresses == ["10.89.200.60", "fd89:0:0:200::60"],
        "{addresses:?}"
    );

    site.apply(&load_balancer("too-late", &by_field)).await?;
    let why = site
        .says("too-late", PROGRAMMED, "False", "AddressInUse")
        .await?;
    ensure!(
        why.contains("10.89.200.50") && why.contains("default/by-field"),
        "it names the address and its owner: {why}"
    );
    ensure!(crate::common::addresses(&site.get("too-late").await?).is_empty());
    let event = format!(
        "Warning SyncLoadBalancerFailed: Error syncing load balancer: failed to ensure load balancer: {why}"
    );
    site.has_events("too-late", &[&event]).await?;
    // When the other Service is gone, the waiting one gets the address.
    site.delete("by-field").await?;
    ensure!(site.address("too-late").await?.to_string() == "10.89.200.50");

    site.apply(&load_balancer(
        "outside",
        &format!("{}, loadBalancerIP: 192.0.2.77", words(80)),
    ))
    .await?;
    let why = site
        .says("outside", PROGRAMMED, "False", "NoAddressAvailable")
        .await?;
    ensure!(why.contains("192.0.2.77"), "{why}");
    // A Service that requests another address gets it; its former one is free.
    site.patch(
        "too-late",
        json!({"spec": {"loadBalancerIP": "10.89.200.51"}}),
    )
    .await?;
    site.service("too-late", |service| {
        let now = crate::common::addresses(service);
        ensure!(now.len() == 1 && now[0].to_string() == "10.89.200.51");
        Ok(())
    })
    .await?;
    for name in ["by-annotation", "too-late", "outside"] {
        site.delete(name).await?;
    }
    site.cloud_is_empty().await
}

pub(crate) async fn limited(site: &Site<'_>) -> Result<()> {
    site.ballast
        .mock_class("small", "maxLoadBalancers: 1")
        .await?;
    let of_small = words(80).replace(OF_CLASS, "loadBalancerClass: ballast.dev/small");
    site.apply(&load_balancer("one", &of_small)).await?;
    site.programmed("one").await?;
    for name in ["two", "three"] {
        another_second(site).await?;
        site.apply(&load_balancer(name, &of_small)).await?;
        let why = site.says(name, ACCEPTED, "False", "QuotaExceeded").await?;
        ensure!(why.contains("small allows 1 load balancers"), "{why}");
        let service = site.get(name).await?;
        ensure!(finalizers(&service).is_empty(), "{service:?}");
        ensure!(site.in_cloud(name).await?.is_none());
    }
    // The oldest gets a free place; then another place is added.
    site.delete("one").await?;
    site.programmed("two").await?;
    site.says("three", ACCEPTED, "False", "QuotaExceeded")
        .await?;
    site.ballast
        .mock_class("small", "maxLoadBalancers: 2")
        .await?;
    site.programmed("three").await?;
    // Services with a place keep it, whatever the limit is now.
    site.ballast
        .mock_class("small", "maxLoadBalancers: 0")
        .await?;
    site.apply(&load_balancer("four", &of_small)).await?;
    let why = site
        .says("four", ACCEPTED, "False", "QuotaExceeded")
        .await?;
    ensure!(why.contains("allows 0"), "{why}");
    for name in ["two", "three"] {
        site.programmed(name).await?;
        ensure!(
            site.in_cloud(name).await?.is_some(),
            "{name} lost its place"
        );
    }
    site.delete("four").await?;
    site.delete("two").await?;
    site.delete("three").await?;
    site.cloud_is_empty().await
}

/// Creation times are whole seconds: ages differ only from the next second on.
async fn another_second(site: &Site<'_>) -> Result<()> {
    eventually(SOON, || async {
        let all = site.services().list(&ListParams::default()).await?.items;
        let times = all
            .iter()
            .filter_map(|one| one.metadata.creation_timestamp.as_ref());
        let newest = times.map(|time| time.0.as_second()).max();
        let now = Timestamp::now().as_second();
        ensure!(newest.is_none_or(|then| then < now), "still {now}");
        Ok(())
    })
    .await
}

pub(crate) async fn retained(site: &Site<'_>) -> Result<()> {
    site.ballast
        .mock_class("keeper", "deletionPolicy: Retain")
        .await?;
    let of_keeper = words(80).replace(OF_CLASS, "loadBalancerClass: ballast.dev/keeper");
    site.apply(&load_balancer("kept", &of_keeper)).await?;
    let ip = site.address("kept").await?;
    site.delete("kept").await?;
    let there = site
        .in_cloud("kept")
        .await?
        .context("the load balancer is gone")?;
    ensure!(
        there["desired"]["tags"]["ballast.dev/retained"] != Value::Null,
        "{there}"
    );
    ensure!(there["addresses"] == json!([ip.to_string()]), "{there}");
    // The class is no longer in use.
    site.lab
        .kubectl(&["delete", "lbclass", "keeper", "--timeout=60s"])
        .await?;
    // A later event did happen: if it had been deleted with its class, it would be gone by now.
    site.apply(&load_balancer("later", &words(81))).await?;
    site.address("later").await?;
    ensure!(
        site.in_cloud("kept").await?.is_some(),
        "gone with its class"
    );
    site.delete("later").await
}
