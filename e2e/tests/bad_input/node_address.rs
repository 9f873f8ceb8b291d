//! A node and a load balancer of the mock cloud have the same address. The node is no target,
//! because it has the exclusion label.

use anyhow::{Context, Result, ensure};

use crate::common::{ACCEPTED, PROGRAMMED, SOON, Site, addresses, annotated, load_balancer, web};
use ballast_e2e::eventually;

const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers=";

pub(crate) async fn test(site: &Site<'_>) -> Result<()> {
    site.apply(&load_balancer("kept", &web("web"))).await?;
    let ip = site.address("kept").await?;
    site.paper_node("paper", &ip.to_string()).await?;
    let label = ["label", "node", "paper", EXCLUDED];
    site.lab.kubectl(&label).await?;

    let why = site.says("kept", ACCEPTED, "False", "AddressInUse").await?;
    ensure!(
        why.contains(&format!("{ip} is also the address of a node")),
        "{why}"
    );
    ensure!(addresses(&site.get("kept").await?) == [ip], "it has moved");
    eventually(SOON, || async {
        let events = site.events("kept").await?;
        let told = |event: &&String| event.contains("the address of a node");
        let count = events.iter().filter(told).count();
        ensure!(count == 1, "{count} in {events:#?}");
        Ok(())
    })
    .await?;

    // The address is free, and still nobody else gets it.
    site.delete("kept").await?;
    let wish = format!("ballast.dev/addresses: \"{ip}\"");
    site.apply(&annotated("wants-it", &wish, &web("web")))
        .await?;
    let why = site
        .says("wants-it", PROGRAMMED, "False", "AddressInUse")
        .await?;
    ensure!(why.contains("belongs to a node"), "{why}");
    ensure!(addresses(&site.get("wants-it").await?).is_empty());

    site.lab.kubectl(&["delete", "node", "paper"]).await?;
    site.programmed("wants-it").await?;
    let now = site.address("wants-it").await.context("no address")?;
    ensure!(now == ip, "{now}, not {ip}");
    site.delete("wants-it").await
}
