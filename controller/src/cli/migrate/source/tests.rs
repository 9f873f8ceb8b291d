use super::*;

fn read(yaml: &str) -> Source {
    let mut source = Source::default();
    source.read(yaml).unwrap();
    source
}

fn notes(source: &Source) -> Vec<String> {
    let text = |note: &Note| format!("{} {}: {}", note.object, note.field, note.message);
    source.notes.iter().map(text).collect()
}

#[test]
fn documents_lists_and_what_is_neither() {
    let source = read("
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: a, namespace: m}, spec: {addresses: [192.0.2.0/24]}}
---
---
{apiVersion: v1, kind: List, items: [
  {apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: everything, namespace: m}},
  {apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: nothing, namespace: m}, spec: },
  {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer}},
  {apiVersion: v1, kind: Service, metadata: {name: inner}, spec: {type: ClusterIP}},
  {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}},
  {apiVersion: apps/v1, kind: Deployment, metadata: {name: web}},
]}
---
just a text
---
{apiVersion: metallb.io/v1beta1, kind: ServiceL2Status, metadata: {name: l2-x}, status: {node: one}}
");
    assert_eq!((source.pools.len(), source.advertisements.len()), (1, 2));
    assert_eq!(source.advertisements[1].spec, AdvertisementSpec::default());
    assert_eq!((source.services.len(), source.namespaces.len()), (1, 1));
    assert_eq!(source.found, 4);
    assert!(source.notes.is_empty(), "{:?}", notes(&source));
    assert!(source.pools[0].spec.auto_assign && !source.pools[0].spec.avoid_buggy_ips);
}

#[test]
fn an_object_that_cannot_be_read_harms_no_other() {
    let source = read("
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: torn, namespace: m}, spec: {addresses: 192.0.2.0/24}}
---
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: odd, namespace: m}, spec: {addresses: [], autoAssign: perhaps}}
---
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: nulls, namespace: m}, spec: {addresses: [192.0.2.0/24], serviceAllocation: {namespaces: , priority: }}}
");
    assert_eq!(source.pools.len(), 1);
    let notes = notes(&source);
    assert_eq!(notes.len(), 2);
    assert!(notes[0].starts_with("IPAddressPool m/torn spec: the object is invalid: "));
    assert!(notes[1].starts_with("IPAddressPool m/odd spec: the object is invalid: "));
}

#[test]
fn what_has_no_equal_as_a_whole_is_named() {
    let source = read("
{apiVersion: metallb.io/v1beta2, kind: BGPPeer, metadata: {name: router, namespace: m}, spec: {myASN: 64500, peerASN: 64501, peerAddress: 192.0.2.1}}
---
{apiVersion: metallb.io/v1beta1, kind: BFDProfile, metadata: {name: quick, namespace: m}}
---
{apiVersion: metallb.io/v1beta1, kind: Community, metadata: {name: ours, namespace: m}}
---
{apiVersion: metallb.io/v1beta1, kind: BGPAdvertisement, metadata: {name: all, namespace: m}, spec: {aggregationLength: 32}}
---
{apiVersion: metallb.io/v1beta1, kind: AddressPool, metadata: {name: old, namespace: m}, spec: {protocol: layer2}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: config, namespace: m}, data: {config: 'address-pools: []'}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: m}, data: {config: 'pools: []'}}
");
    assert_eq!((source.found, source.bgp.len()), (6, 1));
    let titles: Vec<&str> = source
        .notes
        .iter()
        .map(|note| note.object.as_str())
        .collect();
    assert_eq!(
        titles,
        [
            "BGPPeer m/router",
            "BFDProfile m/quick",
            "Community m/ours",
            "BGPAdvertisement m/all",
            "AddressPool m/old",
            "ConfigMap m/config"
        ]
    );
    assert!(
        source
            .notes
            .iter()
            .all(|note| note.kind == NoteKind::NoEqual)
    );
}

#[test]
fn text_that_is_no_yaml_is_named_by_its_place() {
    let error = Source::default().read("a: b\n---\n{").unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("not valid YAML: ") && error.contains("line 3, column"),
        "{error}"
    );
    let twice = Source::default()
        .read("a: b\n---\nkey: 1\nkey: 2")
        .unwrap_err();
    assert!(
        twice.to_string().contains("duplicate mapping key: key"),
        "{twice}"
    );
}

#[test]
fn words_that_an_older_yaml_takes_for_booleans_are_texts() {
    let mut source = Source::default();
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {tier: on}}}";
    source.read(namespace).unwrap();
    let labels = source.namespaces[0].metadata.labels.as_ref().unwrap();
    assert_eq!(labels["tier"], "on");
}

proptest::proptest! {
    /// No input panics (invariant 8).
    #[test]
    fn reading_is_total(text in ".*", kind in "(IPAddressPool|L2Advertisement|.*)") {
        let mut source = Source::default();
        let _ = source.read(&text);
        source.add(serde_json::json!({"apiVersion": "metallb.io/v1beta1", "kind": kind, "metadata": {"name": text.clone()}, "spec": text}));
    }
}

/// As editors, shells and other programs write them; kubectl reads each of these.
#[test]
fn forms_of_manifests() {
    let pool = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: one}\nspec: {addresses: [192.0.2.0/24]}\n";
    let json = r#"{"apiVersion":"metallb.io/v1beta1","kind":"IPAddressPool","metadata":{"name":"one"},"spec":{"addresses":["192.0.2.0/24"]}}"#;
    let item = r#"{"metadata":{"name":"one"},"spec":{"addresses":["192.0.2.0/24"]}}"#;
    for text in [
        pool.to_owned(),
        format!("\u{feff}{pool}"),
        pool.replace('\n', "\r\n"),
        format!("---\n{pool}---\n"),
        format!("# a comment\n---\n# another\n\n---\n{pool}...\n---\n# nothing\n"),
        format!("--- # first\r\n{}", pool.replace('\n', "\r\n")),
        format!("%YAML 1.1\n---\n{pool}"),
        json.to_owned(),
        format!("{json}\n{{\"kind\":\"Other\"}}\n"),
        format!("{{apiVersion: v1, kind: List, items: [{json}]}}"),
        format!(
            r#"{{"apiVersion":"metallb.io/v1beta1","kind":"IPAddressPoolList","items":[{item}]}}"#
        ),
        format!("apiVersion: v1\nkind: List\nitems:\n---\n{pool}"),
    ] {
        let text = crate::process::text::decode(text.into_bytes()).unwrap();
        let mut source = Source::default();
        source.read(&text).unwrap();
        let names: Vec<&str> = source.pools.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["one"], "{text}");
    }
    for empty in ["", "\n", "---\n", "# nothing\n", "---\n---\n"] {
        let mut source = Source::default();
        source.read(empty).unwrap();
        assert_eq!(source.found, 0, "{empty:?}");
    }
}
