//! Pools that change under Services with addresses.

use anyhow::{Result, ensure};
use serde_json::json;

use super::Corner;
use super::corner::tells;
use crate::common::Site;

pub(crate) async fn a_pool_shrinks_and_goes(site: &Site<'_>) -> Result<()> {
    let pools = [("one", "addresses: [198.18.20.1-198.18.20.3]")];
    let corner = Corner::of(site, "edits", &pools).await?;
    let here = &corner.site;
    for (name, address) in [
        ("a", "198.18.20.1"),
        ("b", "198.18.20.2"),
        ("c", "198.18.20.3"),
    ] {
        corner.add(name, "", "").await?;
        here.has(name, &[address]).await?;
    }
    corner
        .pool("one", "addresses: [198.18.20.1-198.18.20.2]")
        .await?;
    let said = here.keeps("c", "198.18.20.3", "AddressOutsidePool").await?;
    tells(&said, &["198.18.20.3", "reallocate"])?;
    here.has("a", &["198.18.20.1"]).await?;
    corner
        .pool("one", "addresses: [198.18.20.1-198.18.20.3]")
        .await?;
    here.has("c", &["198.18.20.3"]).await?;

    corner.delete_pool("one").await?;
    for (name, address) in [("a", "198.18.20.1"), ("c", "198.18.20.3")] {
        here.keeps(name, address, "AddressOutsidePool").await?;
    }
    // Without the setting, a pool accepts only new Services.
    corner
        .pool("two", "addresses: [198.18.21.1-198.18.21.6]")
        .await?;
    corner.add("new", "", "").await?;
    here.has("new", &["198.18.21.1"]).await?;
    here.keeps("a", "198.18.20.1", "AddressOutsidePool").await?;
    // A Service that requests its address keeps it.
    let wish = json!({"metadata": {"annotations": {"ballast.dev/addresses": "198.18.20.2"}}});
    here.patch("b", wish).await?;
    corner
        .pool(
            "two",
            "addresses: [198.18.21.1-198.18.21.6], reallocate: true",
        )
        .await?;
    for name in ["a", "c"] {
        let now = here.service(name, |service| {
            let now = super::corner::texts(service);
            ensure!(now[0].starts_with("198.18.21."), "still {now:?}");
            Ok(())
        });
        now.await?;
        here.given(name, 1).await?;
    }
    here.keeps("b", "198.18.20.2", "AddressOutsidePool").await?;
    here.has("new", &["198.18.21.1"]).await.map(drop)
}

pub(crate) async fn of_two_that_overlap_the_newer_stops(site: &Site<'_>) -> Result<()> {
    let pools = [("older", "addresses: [198.18.22.0/29], autoAssign: false")];
    let corner = Corner::of(site, "overlap", &pools).await?;
    let of = |pool: &str| format!("ballast.dev/address-pool: overlap-{pool}");
    corner.add("first", &of("older"), "").await?;
    corner.site.has("first", &["198.18.22.1"]).await?;
    let range = "addresses: [198.18.22.6-198.18.22.20]";
    corner.pool("zz-newer", range).await?;
    corner
        .pool("zz-third", "addresses: [198.18.23.0/29]")
        .await?;
    corner.add("waits", &of("zz-newer"), "").await?;
    let said = corner.site.waits("waits", "PoolConflict").await?;
    tells(&said, &["overlap-zz-newer", "overlap-older", "198.18.22.6"])?;
    let said = corner.pool_says("zz-newer", "Accepted", "Conflict").await?;
    tells(&said, &["overlap-older"])?;
    // All other Services are unaffected.
    for (name, pool, expected) in [
        ("second", "older", "198.18.22.2"),
        ("third", "zz-third", "198.18.23.1"),
    ] {
        corner.add(name, &of(pool), "").await?;
        corner.site.has(name, &[expected]).await?;
    }
    corner
        .pool(
            "older",
            "addresses: [198.18.22.0-198.18.22.5], autoAssign: false",
        )
        .await?;
    corner.site.has("waits", &["198.18.22.6"]).await?;
    corner.site.has("first", &["198.18.22.1"]).await?;
    corner.pool_says("zz-newer", "Accepted", "Accepted").await?;
    corner
        .pool_says("older", "Accepted", "Accepted")
        .await
        .map(drop)
}

pub(crate) async fn addresses_of_nodes_are_skipped(site: &Site<'_>) -> Result<()> {
    let pools = [("lan", "addresses: [198.18.24.1-198.18.24.2]")];
    let corner = Corner::of(site, "nodes", &pools).await?;
    site.paper_node("paper", "198.18.24.1").await?;
    let said = corner.pool_says("lan", "NodeAddresses", "Skipped").await?;
    tells(&said, &["198.18.24.1"])?;
    corner.add("one", "", "").await?;
    corner.site.has("one", &["198.18.24.2"]).await?;
    corner.add("none-left", "", "").await?;
    corner.site.waits("none-left", "NoAddressAvailable").await?;
    let wish = "ballast.dev/addresses: 198.18.24.1";
    corner.add("by-name", wish, "").await?;
    let said = corner.site.waits("by-name", "AddressInUse").await?;
    tells(&said, &["198.18.24.1 is the address of a node"])?;
    // The node is deleted, and with it the reason. The Service that accepts no other address is
    // first.
    site.lab.kubectl(&["delete", "node", "paper"]).await?;
    corner.site.has("by-name", &["198.18.24.1"]).await?;
    corner
        .site
        .waits("none-left", "NoAddressAvailable")
        .await
        .map(drop)
}
