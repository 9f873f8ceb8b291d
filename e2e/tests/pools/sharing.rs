//! Several Services on one address.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Corner;
use super::corner::tells;
use crate::common::Site;

const ONE: &str = "198.18.30.1";
const KEY: &str = "ballast.dev/share-key: k";
const LOCAL: &str = "externalTrafficPolicy: Local";
const SELECTOR: &str = "selector: {app: web}";

pub(crate) async fn ports_keys_and_policies(site: &Site<'_>) -> Result<()> {
    let pools = [("lan", "addresses: [198.18.30.0/28]")];
    let corner = Corner::of(site, "sharing", &pools).await?;
    let asks = |key: &str| format!("{key}, ballast.dev/addresses: {ONE}");
    let port = |number: u16| format!("ports: [{{port: {number}}}]");
    // Without a request it joins a Service that it can share with; MetalLB's key has the same
    // meaning.
    for (name, annotations, spec) in [
        ("http", KEY.to_owned(), port(80)),
        ("https", KEY.to_owned(), port(443)),
        (
            "http3",
            KEY.to_owned(),
            "ports: [{port: 80, protocol: UDP}]".to_owned(),
        ),
        (
            "metallb",
            "metallb.io/allow-shared-ip: k".to_owned(),
            port(81),
        ),
        ("by-name", asks(KEY), port(82)),
    ] {
        corner.add(name, &annotations, &spec).await?;
        corner.site.has(name, &[ONE]).await.context(name)?;
    }
    corner.add("alone", KEY, &port(80)).await?;
    corner.site.has("alone", &["198.18.30.2"]).await?;
    for (name, annotations, spec, reason, words) in [
        (
            "same-port",
            asks(KEY),
            port(80),
            "PortInUse",
            &["TCP/80", ONE, "Service sharing/http"][..],
        ),
        (
            "other-key",
            asks("ballast.dev/share-key: other"),
            port(90),
            "AddressInUse",
            &[ONE, "Service sharing/", "share key"],
        ),
        (
            "no-key",
            format!("ballast.dev/addresses: {ONE}"),
            port(91),
            "AddressInUse",
            &["share key"],
        ),
        (
            "local",
            asks(KEY),
            format!("{}, {LOCAL}, {SELECTOR}", port(92)),
            "AddressInUse",
            &["Service sharing/", "all use Local with the same selector"],
        ),
    ] {
        corner.add(name, &annotations, &spec).await?;
        let said = corner.site.waits(name, reason).await.context(name)?;
        tells(&said, words).context(name)?;
    }
    // Local shares with Local, if both have the same endpoints.
    let key = "ballast.dev/share-key: local";
    for (name, number, selector, expected) in [
        ("local-a", 80, SELECTOR, "198.18.30.3"),
        ("local-b", 81, SELECTOR, "198.18.30.3"),
        ("local-c", 82, "selector: {app: db}", "198.18.30.4"),
    ] {
        let spec = format!("{}, {LOCAL}, {selector}", port(number));
        corner.add(name, key, &spec).await?;
        corner.site.has(name, &[expected]).await.context(name)?;
    }
    // The Service in the way is deleted.
    corner.site.delete("http").await?;
    corner.site.has("same-port", &[ONE]).await.map(drop)
}

pub(crate) async fn namespaces(site: &Site<'_>) -> Result<()> {
    let range = "addresses: [198.18.31.0/28]";
    let corner = Corner::of(site, "sharing-across", &[("lan", range)]).await?;
    let other = corner.elsewhere("sharing-other", "").await?;
    corner.add("here", KEY, "").await?;
    corner.site.has("here", &["198.18.31.1"]).await?;
    let wish = format!("{KEY}, ballast.dev/addresses: 198.18.31.1");
    other.add("there", "", &wish, "ports: [{port: 81}]").await?;
    let said = other.site.waits("there", "AddressInUse").await?;
    tells(&said, &["another namespace", "sharing-across-lan"])?;
    // A namespace does not learn the names of another's Services.
    ensure!(!said.contains("sharing-across/here"), "{said}");
    corner
        .pool("lan", &format!("{range}, shareAcrossNamespaces: true"))
        .await?;
    other.site.has("there", &["198.18.31.1"]).await?;
    // Services that share already continue to when the pool's setting changes.
    corner.pool("lan", range).await?;
    other.add("later", "", &wish, "ports: [{port: 82}]").await?;
    other.site.waits("later", "AddressInUse").await?;
    other.site.has("there", &["198.18.31.1"]).await.map(drop)
}

pub(crate) async fn an_edit_that_its_companion_forbids(site: &Site<'_>) -> Result<()> {
    let pools = [("lan", "addresses: [198.18.32.0/28]")];
    let corner = Corner::of(site, "sharing-edits", &pools).await?;
    let here = &corner.site;
    for (name, spec) in [("a", "ports: [{port: 80}]"), ("b", "ports: [{port: 81}]")] {
        corner.add(name, KEY, spec).await?;
        here.has(name, &["198.18.32.1"]).await?;
    }
    let port = |number: u16| json!({"spec": {"ports": [{"port": number}]}});
    here.patch("b", port(80)).await?;
    let said = here.keeps("b", "198.18.32.1", "PortInUse").await?;
    tells(&said, &["TCP/80", "Service sharing-edits/a"])?;
    here.patch("a", port(90)).await?;
    here.has("b", &["198.18.32.1"]).await?;
    let policy = json!({"spec": {"externalTrafficPolicy": "Local", "selector": {"app": "web"}}});
    here.patch("b", policy).await?;
    here.keeps("b", "198.18.32.1", "AddressInUse").await?;
    // As the only Service on the address, it may.
    here.delete("a").await?;
    here.has("b", &["198.18.32.1"]).await?;
    // Another key moves it only if others stay on the address.
    corner
        .add(
            "c",
            KEY,
            &format!("ports: [{{port: 99}}], {LOCAL}, {SELECTOR}"),
        )
        .await?;
    here.has("c", &["198.18.32.1"]).await?;
    let key = json!({"metadata": {"annotations": {"ballast.dev/share-key": "other"}}});
    here.patch("c", key).await?;
    here.has("c", &["198.18.32.2"]).await?;
    here.has("b", &["198.18.32.1"]).await.map(drop)
}
