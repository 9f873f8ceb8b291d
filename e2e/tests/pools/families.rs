//! Single-stack and dual-stack Services.

use anyhow::{Result, ensure};
use serde_json::json;

use super::Corner;
use super::corner::tells;
use crate::common::Site;

const SINGLE: &str = "ipFamilyPolicy: SingleStack";
const PREFER: &str = "ipFamilyPolicy: PreferDualStack";
const REQUIRE: &str = "ipFamilyPolicy: RequireDualStack";

pub(crate) async fn policies_and_order(site: &Site<'_>) -> Result<()> {
    let pools = [
        ("first", "addresses: [198.18.4.0/28], priority: 1"),
        (
            "both",
            "addresses: [198.18.5.0/28, '2001:db8:5::/64'], priority: 2",
        ),
    ];
    let corner = Corner::of(site, "families", &pools).await?;
    let v4_v6 = ["198.18.5.1", "2001:db8:5::1"];
    for (name, spec, expected) in [
        ("v4", SINGLE.to_owned(), &["198.18.4.1"][..]),
        // Both from one pool, although another is tried first for IPv4.
        ("dual", REQUIRE.to_owned(), &v4_v6),
        (
            "v6",
            format!("{SINGLE}, ipFamilies: [IPv6]"),
            &["2001:db8:5::2"],
        ),
        (
            "v6-first",
            format!("{PREFER}, ipFamilies: [IPv6, IPv4]"),
            &["2001:db8:5::3", "198.18.5.2"],
        ),
        (
            "v4-first",
            format!("{PREFER}, ipFamilies: [IPv4, IPv6]"),
            &["198.18.5.3", "2001:db8:5::4"],
        ),
    ] {
        corner.add(name, "", &spec).await?;
        corner.site.has(name, expected).await?;
    }
    let annotation = "ballast.dev/addresses: '2001:db8:5::9,198.18.4.9'";
    corner.add("by-name", annotation, REQUIRE).await?;
    corner
        .site
        .has("by-name", &["198.18.4.9", "2001:db8:5::9"])
        .await?;
    // To dual-stack and back: the first address stays.
    let policy = |policy: &str| json!({"spec": {"ipFamilyPolicy": policy}});
    corner.site.patch("v4", policy("RequireDualStack")).await?;
    let both = corner.site.given("v4", 2).await?;
    ensure!(both[0] == "198.18.4.1", "{both:?}");
    corner.site.patch("v4", policy("SingleStack")).await?;
    corner.site.has("v4", &["198.18.4.1"]).await.map(drop)
}

pub(crate) async fn a_family_comes_and_goes(site: &Site<'_>) -> Result<()> {
    let pools = [("only", "addresses: [198.18.6.0/28]")];
    let corner = Corner::of(site, "one-family", &pools).await?;
    corner.add("prefers", "", PREFER).await?;
    let said = corner.site.has("prefers", &["198.18.6.1"]).await?;
    tells(&said, &["PreferDualStack", "IPv6"])?;
    corner.add("requires", "", REQUIRE).await?;
    let said = corner.site.waits("requires", "NoAddressAvailable").await?;
    tells(&said, &["IPv6"])?;
    corner
        .pool("only", "addresses: [198.18.6.0/28, '2001:db8:6::/64']")
        .await?;
    let prefers = corner.site.given("prefers", 2).await?;
    let requires = corner.site.given("requires", 2).await?;
    ensure!(prefers[0] == "198.18.6.1", "{prefers:?}");
    ensure!(requires[0] == "198.18.6.2", "{requires:?}");
    // An address in use is not withdrawn.
    corner.pool("only", "addresses: [198.18.6.0/28]").await?;
    for (name, had) in [("prefers", prefers), ("requires", requires)] {
        let kind = crate::common::ACCEPTED;
        let said = corner
            .site
            .says(name, kind, "False", "AddressOutsidePool")
            .await?;
        tells(&said, &[&had[1]])?;
        let now = super::corner::texts(&corner.site.get(name).await?);
        ensure!(now == had, "{now:?}, not {had:?}");
    }
    Ok(())
}
