//! Which pool serves which Service.

use anyhow::{Context, Result};
use serde_json::json;

use super::Corner;
use super::corner::tells;
use crate::common::Site;

const TEAM: &str = "namespaceSelector: {matchLabels: {team: red}}";
const WEB: &str = "serviceSelector: {matchLabels: {tier: web}}";
const DB: &str = "serviceSelector: {matchLabels: {tier: db}}";

pub(crate) async fn namespaces_labels_and_priorities(site: &Site<'_>) -> Result<()> {
    let ranges = |number: u8| format!("addresses: [198.18.{number}.0/28]");
    let specs = [
        ("last", ranges(10)),
        ("both", format!("{}, priority: 1, {TEAM}, {DB}", ranges(11))),
        ("team", format!("{}, priority: 2, {TEAM}", ranges(12))),
        ("web", format!("{}, priority: 3, {WEB}", ranges(13))),
        (
            "by-name",
            format!("{}, autoAssign: false, priority: 1", ranges(14)),
        ),
    ];
    let pools: Vec<(&str, &str)> = specs.iter().map(|(n, s)| (*n, s.as_str())).collect();
    let corner = Corner::of(site, "selection", &pools).await?;
    let red = corner.elsewhere("red", "team: red").await?;
    let blue = corner.elsewhere("blue", "team: blue").await?;
    let of = |pool: &str| format!("ballast.dev/address-pool: selection-{pool}");
    for (place, name, labels, annotations, expected) in [
        (&red, "plain", "", String::new(), "198.18.12.1"),
        (&red, "web", "tier: web", String::new(), "198.18.12.2"),
        (&red, "db", "tier: db", String::new(), "198.18.11.1"),
        (&blue, "plain", "", String::new(), "198.18.10.1"),
        (&blue, "web", "tier: web", String::new(), "198.18.13.1"),
        (&blue, "db", "tier: db", String::new(), "198.18.10.2"),
        (&blue, "by-name", "", of("by-name"), "198.18.14.1"),
        (&blue, "web-of-pool", "tier: web", of("web"), "198.18.13.2"),
    ] {
        place.add(name, labels, &annotations, "").await?;
        let has = place.site.has(name, &[expected]).await;
        has.with_context(|| format!("{}/{name}", place.site.namespace))?;
    }
    let address = "ballast.dev/addresses: 198.18.12.9".to_owned();
    for (name, annotations) in [("pool-of-red", of("team")), ("address-of-red", address)] {
        blue.add(name, "", &annotations, "").await?;
        let said = blue.site.waits(name, "PoolNotPermitted").await?;
        tells(&said, &["selection-team", "selectors"])?;
    }
    Ok(())
}

/// Continues after the case above.
pub(crate) async fn labels_change(site: &Site<'_>) -> Result<()> {
    let (red, blue) = (site.within("red"), site.within("blue"));
    let label = |namespace: &'static str, team: &'static str| async move {
        let team = format!("team={team}");
        let argv = ["label", "--overwrite", "namespace", namespace, &team];
        site.lab.kubectl(&argv).await.map(drop)
    };
    // A waiting Service is now selected; one with an address keeps it.
    label("blue", "red").await?;
    blue.has("address-of-red", &["198.18.12.9"]).await?;
    blue.given("pool-of-red", 1).await?;
    blue.has("plain", &["198.18.10.1"]).await?;
    label("blue", "blue").await?;
    let said = blue
        .keeps("address-of-red", "198.18.12.9", "AddressOutsidePool")
        .await?;
    tells(&said, &["selection-team", "selectors"])?;
    // The same with a label of the Service.
    let tier = |tier: &str| json!({"metadata": {"labels": {"tier": tier}}});
    red.patch("db", tier("cache")).await?;
    red.keeps("db", "198.18.11.1", "AddressOutsidePool").await?;
    red.patch("db", tier("db")).await?;
    red.has("db", &["198.18.11.1"]).await.map(drop)
}
