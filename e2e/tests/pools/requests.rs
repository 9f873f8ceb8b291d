//! Services that request addresses or pools.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Corner;
use super::corner::tells;
use crate::common::{ACCEPTED, Site};

/// A Service, and the expected result.
struct Case {
    name: &'static str,
    annotations: &'static str,
    spec: &'static str,
    outcome: Outcome,
}

enum Outcome {
    /// This address.
    Gets(&'static str),
    /// None, for this reason, with these words.
    Waits(&'static str, &'static [&'static str]),
    /// None: the request is invalid.
    Invalid(&'static [&'static str]),
}

use Outcome::{Gets, Invalid, Waits};

const fn case(
    name: &'static str,
    annotations: &'static str,
    spec: &'static str,
    outcome: Outcome,
) -> Case {
    Case {
        name,
        annotations,
        spec,
        outcome,
    }
}

const CASES: [Case; 16] = [
    case("plain", "", "", Gets("198.18.1.1")),
    case(
        "address",
        "ballast.dev/addresses: 198.18.1.9",
        "",
        Gets("198.18.1.9"),
    ),
    case(
        "field",
        "",
        "loadBalancerIP: 198.18.1.10",
        Gets("198.18.1.10"),
    ),
    case(
        "metallb",
        "metallb.io/loadBalancerIPs: 198.18.1.11",
        "",
        Gets("198.18.1.11"),
    ),
    case(
        "annotation-wins",
        "ballast.dev/addresses: 198.18.1.12",
        "loadBalancerIP: 198.18.1.13",
        Gets("198.18.1.12"),
    ),
    case(
        "network-address",
        "ballast.dev/addresses: 198.18.1.0",
        "",
        Gets("198.18.1.0"),
    ),
    case(
        "pool",
        "ballast.dev/address-pool: requests-side",
        "",
        Gets("198.18.2.1"),
    ),
    case(
        "metallb-pool",
        "metallb.io/address-pool: requests-side",
        "",
        Gets("198.18.2.2"),
    ),
    case(
        "no-second-choice",
        "ballast.dev/address-pool: requests-side",
        "",
        Waits("NoAddressAvailable", &["exhausted: requests-side"]),
    ),
    case(
        "taken",
        "ballast.dev/addresses: 198.18.1.9",
        "",
        Waits("AddressInUse", &["198.18.1.9", "Service requests/address"]),
    ),
    case(
        "outside",
        "ballast.dev/addresses: 192.0.2.77",
        "",
        Waits("AddressOutsidePool", &["192.0.2.77 is in no address pool"]),
    ),
    case(
        "other-pool",
        "ballast.dev/addresses: 198.18.1.14, ballast.dev/address-pool: requests-side",
        "",
        Waits(
            "AddressOutsidePool",
            &["198.18.1.14", "requests-front", "requests-side"],
        ),
    ),
    case(
        "other-class",
        "ballast.dev/addresses: 198.18.3.1",
        "",
        Waits("PoolNotPermitted", &["198.18.3.1", "foreign"]),
    ),
    case(
        "no-such-pool",
        "ballast.dev/address-pool: nowhere",
        "",
        Waits("PoolNotFound", &["\"nowhere\""]),
    ),
    case(
        "words",
        "ballast.dev/addresses: anything",
        "",
        Invalid(&[
            "ballast.dev/addresses has \"anything\"",
            "not an IP address",
        ]),
    ),
    case(
        "family",
        "ballast.dev/addresses: '2001:db8::1'",
        "",
        Invalid(&["2001:db8::1", "no IPv6 in spec.ipFamilies"]),
    ),
];

pub(crate) async fn what_is_asked_for_is_given_or_refused_by_name(site: &Site<'_>) -> Result<()> {
    let foreign = "apiVersion: ballast.dev/v1alpha1\nkind: AddressPool\nmetadata: {name: foreign}\nspec: {addresses: [198.18.3.0/28], reuseAfter: 0s}\n";
    site.apply(foreign).await?;
    let narrow = "addresses: [198.18.2.1-198.18.2.2], autoAssign: false";
    let pools = [("front", "addresses: [198.18.1.0/28]"), ("side", narrow)];
    let corner = Corner::of(site, "requests", &pools).await?;
    for case in &CASES {
        corner.add(case.name, case.annotations, case.spec).await?;
        let checked = match case.outcome {
            Gets(address) => corner.site.has(case.name, &[address]).await.map(drop),
            Waits(reason, words) => {
                let said = corner.site.waits(case.name, reason).await?;
                tells(&said, words)
            }
            Invalid(words) => {
                let said = corner
                    .site
                    .says(case.name, ACCEPTED, "False", "Invalid")
                    .await?;
                tells(&said, words)
            }
        };
        checked.context(case.name)?;
    }
    Ok(())
}

/// Continues after the cases above.
pub(crate) async fn another_wish_moves_and_frees(site: &Site<'_>) -> Result<()> {
    let here = site.within("requests");
    let wish = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    // `taken` waits for the address that `address` has.
    here.patch("address", wish("ballast.dev/addresses", "198.18.1.13"))
        .await?;
    here.has("address", &["198.18.1.13"]).await?;
    here.has("taken", &["198.18.1.9"]).await?;
    // A request that cannot be granted does not change what the Service has.
    here.patch("address", wish("ballast.dev/addresses", "198.18.1.9"))
        .await?;
    let said = here.keeps("address", "198.18.1.13", "AddressInUse").await?;
    tells(&said, &["Service requests/taken"])?;
    here.patch("address", json!({"metadata": {"annotations": null}}))
        .await?;
    here.has("address", &["198.18.1.13"]).await?;
    // A request for another pool moves it; the Service that waited for that pool gets the
    // remaining address.
    here.patch("pool", wish("ballast.dev/address-pool", "requests-front"))
        .await?;
    let moved = here.service("pool", |service| {
        let now = super::corner::texts(service);
        ensure!(now.iter().all(|it| it.starts_with("198.18.1.")), "{now:?}");
        Ok(())
    });
    moved.await?;
    here.has("no-second-choice", &["198.18.2.1"]).await?;
    // A typing error is reported.
    here.patch("plain", wish("ballast.dev/adresses", "198.18.1.5"))
        .await?;
    here.service("plain", |service| {
        let said = crate::common::condition(service, ACCEPTED).context("nothing")?;
        let words = [
            "ballast.dev/adresses",
            "did you mean ballast.dev/addresses?",
        ];
        tells(&said.message, &words)
    })
    .await?;
    here.has("plain", &["198.18.1.1"]).await.map(drop)
}
