//! Full pools, released addresses, and the status of pools.

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use ballast_e2e::installation::USER;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::Corner;
use super::corner::{tells, texts};
use crate::common::command::Ballast;
use crate::common::{SOON, Site, addresses};

/// Services whose age is in the order of their names.
async fn in_turn(corner: &Corner<'_>, names: &[&str]) -> Result<()> {
    for name in names {
        corner.add(name, "", "").await?;
        let made = corner.site.get(name).await?.metadata.creation_timestamp;
        let made = made.context("never created")?.0.as_second();
        // Creation times are whole seconds.
        eventually(SOON, || async {
            ensure!(Timestamp::now().as_second() > made, "the same second");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

pub(crate) async fn what_becomes_free_goes_to_the_oldest(site: &Site<'_>) -> Result<()> {
    let pools = [("two", "addresses: [198.18.40.1-198.18.40.2]")];
    let corner = Corner::of(site, "waiting", &pools).await?;
    let here = &corner.site;
    for (name, address) in [("has-1", "198.18.40.1"), ("has-2", "198.18.40.2")] {
        corner.add(name, "", "").await?;
        here.has(name, &[address]).await?;
    }
    in_turn(&corner, &["z-oldest", "m-next", "a-youngest"]).await?;
    for name in ["z-oldest", "m-next", "a-youngest"] {
        let said = here.waits(name, "NoAddressAvailable").await?;
        tells(&said, &["exhausted: waiting-two"])?;
    }
    let since = here.audited()?;
    here.delete("has-1").await?;
    here.has("z-oldest", &["198.18.40.1"]).await?;
    here.patch("has-2", json!({"spec": {"type": "ClusterIP"}}))
        .await?;
    here.has("m-next", &["198.18.40.2"]).await?;
    here.waits("a-youngest", "NoAddressAvailable").await?;
    // No other Service was written, including those that continue to wait.
    let mut written: Vec<String> = here
        .writes_since(since, USER)?
        .into_iter()
        .filter(|it| it.resource == "services")
        .map(|it| it.name)
        .collect();
    written.sort();
    written.dedup();
    ensure!(written == ["has-2", "m-next", "z-oldest"], "{written:?}");
    Ok(())
}

pub(crate) async fn a_type_changes_and_comes_back(site: &Site<'_>) -> Result<()> {
    let pools = [("lan", "addresses: [198.18.41.1-198.18.41.2]")];
    let corner = Corner::of(site, "types", &pools).await?;
    let here = &corner.site;
    corner.add("web", "", "").await?;
    here.has("web", &["198.18.41.1"]).await?;
    here.patch("web", json!({"spec": {"type": "ClusterIP"}}))
        .await?;
    here.service("web", |service| {
        let status = service.status.as_ref().context("no status")?;
        let left = status.conditions.as_deref().unwrap_or_default();
        ensure!(left.is_empty(), "conditions are left");
        ensure!(addresses(service).is_empty(), "an address is left");
        Ok(())
    })
    .await?;
    let back = json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": "ballast.dev/types"}});
    here.patch("web", back).await?;
    here.given("web", 1).await?;
    // A Service of another controller is not touched, whatever it asks for.
    let since = here.audited()?;
    let foreign = "apiVersion: v1\nkind: Service\nmetadata: {name: foreign, namespace: types, annotations: {ballast.dev/addresses: 198.18.41.1}}\nspec: {type: LoadBalancer, loadBalancerClass: example.com/vip, ports: [{port: 80}]}\n";
    site.apply(foreign).await?;
    corner.add("later", "", "").await?;
    here.given("later", 1).await?;
    let written = here.writes_since(since, USER)?;
    let touched = written.iter().any(|it| it.name == "foreign");
    ensure!(!touched, "{written:?}");
    Ok(())
}

pub(crate) async fn an_address_rests(site: &Site<'_>) -> Result<()> {
    let pools = [(
        "lan",
        "addresses: [198.18.42.1-198.18.42.2], reuseAfter: 15s",
    )];
    let corner = Corner::of(site, "resting", &pools).await?;
    let here = &corner.site;
    corner.add("one", "", "").await?;
    here.has("one", &["198.18.42.1"]).await?;
    here.delete("one").await?;
    corner.add("two", "", "").await?;
    here.has("two", &["198.18.42.2"]).await?;
    corner.add("three", "", "").await?;
    let said = here.waits("three", "NoAddressAvailable").await?;
    tells(&said, &["reuseAfter"])?;
    corner
        .pool_is("lan", |status| {
            let resting = &status["resting"][0]["address"];
            ensure!(resting == "198.18.42.1", "{resting} rests");
            Ok(())
        })
        .await?;
    people_are_told(site).await?;
    // Nothing happens except that time passes.
    here.has("three", &["198.18.42.1"]).await.map(drop)
}

/// `ballast status` with the status that the controller wrote: which Service has which address,
/// which addresses rest, and why a Service waits.
async fn people_are_told(site: &Site<'_>) -> Result<()> {
    let admin = Ballast::of(&site.lab.kubeconfig());
    let json = |text: String| serde_json::from_str::<Value>(&text).context(text);
    let argv = ["status", "--pools", "resting-lan", "-o", "json"];
    let pools = json(admin.out(&argv).await?)?;
    let pool = &pools["pools"][0];
    ensure!(pool["state"] == "Ready" && pool["used"] == "1", "{pool}");
    ensure!(pool["resting"][0]["address"] == "198.18.42.1", "{pool}");
    let has = &pool["assigned"][0];
    ensure!(has["address"] == "198.18.42.2", "{pool}");
    ensure!(has["services"][0]["name"] == "two", "{pool}");
    let argv = ["status", "-n", "resting", "-o", "json"];
    let services = json(admin.out(&argv).await?)?;
    let of = |name: &str| {
        let all = services["services"].as_array();
        let mut all = all.into_iter().flatten();
        all.find(|one| one["name"] == name)
            .cloned()
            .with_context(|| format!("no {name} in {services}"))
    };
    let (two, three) = (of("two")?, of("three")?);
    ensure!(
        two["provider"] == "l2" && two["state"] == "NotAnnounced",
        "{two}"
    );
    ensure!(two["addresses"] == json!(["198.18.42.2"]), "{two}");
    ensure!(three["state"] == "NoAddressAvailable", "{three}");
    let why = three["why"].as_str().unwrap_or_default();
    ensure!(why.contains("reuseAfter"), "{three}");
    Ok(())
}

pub(crate) async fn counters_of_both_families(site: &Site<'_>) -> Result<()> {
    let pools = [
        (
            "wide",
            "addresses: [198.18.43.0/29, '2001:db8:43::/64'], priority: 1",
        ),
        (
            "small",
            "addresses: ['2001:db8:44::/120'], autoAssign: false",
        ),
    ];
    let corner = Corner::of(site, "counters", &pools).await?;
    for name in ["a", "b"] {
        corner
            .add(name, "", "ipFamilyPolicy: RequireDualStack")
            .await?;
    }
    corner.add("c", "", "").await?;
    let v6 = "ipFamilies: [IPv6]";
    corner
        .add("d", "ballast.dev/address-pool: counters-small", v6)
        .await?;
    corner.site.has("d", &["2001:db8:44::1"]).await?;
    let counts = |total: i64, assigned: i64, available: i64| json!({"total": total, "assigned": assigned, "available": available});
    corner
        .pool_is("wide", |status| {
            ensure!(status["ipv4"] == counts(6, 3, 3), "IPv4");
            ensure!(status["ipv6"] == counts(i64::MAX, 2, i64::MAX), "IPv6");
            ensure!(status["used"] == "5", "used");
            Ok(())
        })
        .await?;
    corner
        .pool_is("small", |status| {
            ensure!(status["ipv4"].is_null(), "IPv4");
            ensure!(status["ipv6"] == counts(255, 1, 254), "IPv6");
            Ok(())
        })
        .await?;
    let get = ["get", "addresspool", "counters-wide", "counters-small"];
    let table = site.lab.kubectl(&get).await?;
    let mut rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let head = rows.next().unwrap_or_default();
    ensure!(
        head == ["NAME", "TOTAL", "USED", "FREE", "AUTO", "ACCEPTED", "AGE"],
        "{table}"
    );
    let words = ["6 + <2^64", "3 + <2^64", "true", "Accepted"];
    tells(&table, &words)?;
    tells(&table, &["255", "254", "false"])?;
    corner.site.delete("a").await?;
    ensure!(
        texts(&corner.site.get("c").await?).len() == 1,
        "c has no address"
    );
    corner
        .pool_is("wide", |status| {
            ensure!(status["ipv4"] == counts(6, 2, 4), "IPv4");
            ensure!(status["used"] == "3", "used");
            Ok(())
        })
        .await
}
