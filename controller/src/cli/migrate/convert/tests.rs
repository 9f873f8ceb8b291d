//! Tests with objects of the same shapes as `MetalLB`'s published samples.

use super::*;
use crate::cli::migrate::render::{self, Blocked};
use crate::cli::text::Look;
use crate::pools::PoolView;
use kube::core::DeserializeGuard;

const SIMPLE: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: example, namespace: metallb-system}
spec:
  addresses:
  - 192.168.10.0/24
  - 192.168.9.1-192.168.9.5
  - fc00:f853:0ccd:e799::/124
";

fn migration(yaml: &str) -> Migration {
    let mut source = Source::default();
    source.read(yaml).unwrap();
    let choice = Choice {
        class: "metallb",
        default: false,
    };
    convert(&source, choice)
}

/// The output that a user sees; the controller must accept all of it.
fn shown(yaml: &str) -> String {
    let migration = migration(yaml);
    for pool in &migration.pools {
        let value = manifest(pool).unwrap();
        let guard: DeserializeGuard<AddressPool> = serde_json::from_value(value).unwrap();
        assert!(PoolView::of(&guard).pool.is_ok(), "{pool:?}");
    }
    let manifests = render::manifests(&migration, Some(&Blocked::Unknown)).unwrap();
    let notes = render::notes(&migration.notes, Look::default());
    format!("{manifests}\n{notes}")
}

/// An object of `MetalLB`; `spec` is the content of `{}`.
fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: metallb.io/v1beta1, kind: {kind}, metadata: {{name: {name}, namespace: metallb-system}}, spec: {{{spec}}}}}\n"
    )
}

fn pool(name: &str, spec: &str) -> String {
    object("IPAddressPool", name, spec)
}

fn advertisement(name: &str, spec: &str) -> String {
    object("L2Advertisement", name, spec)
}

#[test]
fn a_pool_that_is_announced_by_all_nodes() {
    let everything = advertisement("empty", "");
    insta::assert_snapshot!(shown(&format!("{SIMPLE}{everything}")));
}

const CHOOSY: &str = "addresses: [192.168.20.0/24], avoidBuggyIPs: true, serviceAllocation: {
  priority: 50, namespaces: [namespace-a, namespace-b], namespaceSelectors: [{matchLabels: {foo: bar}}],
  serviceSelectors: [{matchExpressions: [{key: app, operator: In, values: [bar]}]}]}";

#[test]
fn a_pool_for_some_services() {
    let pool = pool("choosy", CHOOSY);
    insta::assert_snapshot!(shown(&format!("{pool}{}", advertisement("all", ""))));
    let namespaces = "
---
{apiVersion: v1, kind: Namespace, metadata: {name: namespace-a}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: namespace-c, labels: {foo: bar}}}
";
    let with_namespaces = migration(&format!("{pool}{namespaces}"));
    let selector = with_namespaces.pools[0].spec.namespace_selector.clone();
    let names =
        anyof::namespaces(&["namespace-a", "namespace-b", "namespace-c"].map(str::to_owned));
    assert_eq!(selector, Some(names));
}

#[test]
fn advertisements_of_pools_by_name_and_by_label() {
    let pools = "
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: first, namespace: m, labels: {zone: east, app.kubernetes.io/managed-by: Helm}}, spec: {addresses: [192.0.2.0/28]}}
---
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: second, namespace: m}, spec: {addresses: [192.0.2.16/28], autoAssign: false}}
---
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: silent, namespace: m}, spec: {addresses: [192.0.2.32/28]}}
";
    let chosen = advertisement(
        "chosen",
        "ipAddressPools: [second, missing], ipAddressPoolSelectors: [{matchLabels: {zone: east}}]",
    );
    insta::assert_snapshot!(shown(&format!("{pools}{chosen}")));
}

#[test]
fn nodes_and_interfaces() {
    let hosts = advertisement(
        "hosts",
        "nodeSelectors: [{matchLabels: {kubernetes.io/hostname: node-b}}, {matchLabels: {kubernetes.io/hostname: node-a}}], interfaces: [eth0, br.7]",
    );
    let made = migration(&format!("{SIMPLE}{hosts}"));
    let class = manifest(&made.classes[0]).unwrap();
    assert_eq!(
        class["spec"]["l2"],
        serde_json::json!({
            "nodeSelector": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-a", "node-b"]}]},
            "interfaces": ["^br\\.7$", "^eth0$"],
        })
    );
    assert_eq!(made.notes, []);
    // The union of two advertisements: one is for all nodes.
    let both = format!(
        "{SIMPLE}{hosts}{}",
        advertisement("all", "interfaces: [eth1]")
    );
    let l2 = migration(&both).classes[0].spec.l2.clone().unwrap();
    assert_eq!(l2.node_selector, None);
    assert_eq!(l2.interfaces, [r"^br\.7$", "^eth0$", "^eth1$"]);
}

#[test]
fn pools_that_are_announced_differently_become_classes() {
    let pools = [
        ("front", "192.0.2.0/28"),
        ("back", "192.0.2.16/28"),
        ("cold", "192.0.2.32/28"),
    ];
    let pools: String = pools
        .iter()
        .map(|(name, range)| pool(name, &format!("addresses: [{range}]")))
        .collect();
    let zone = "nodeSelectors: [{matchLabels: {zone: a}}, {matchExpressions: [{key: rack, operator: Exists}]}]";
    let ads = [
        advertisement("edge", &format!("ipAddressPools: [front], {zone}")),
        advertisement("rest", "ipAddressPools: [back, cold]"),
    ]
    .concat();
    insta::assert_snapshot!(shown(&format!("{pools}{ads}")));
    // The default class follows the Services.
    let service = "
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer}, status: {loadBalancer: {ingress: [{ip: 192.0.2.3}]}}}
";
    let made = migration(&format!("{pools}{ads}{service}"));
    let main = made.classes[0].spec.l2.clone().unwrap();
    assert_eq!(main.address_pools, ["front"]);
}

#[test]
fn what_has_no_equal() {
    let yaml = [
        pool("bgp-only", "addresses: [198.51.100.0/24]"),
        pool("local", "addresses: [192.0.2.0/24], someday: yes"),
        object("BGPAdvertisement", "routes", "ipAddressPools: [bgp-only], communities: [vpn]"),
        object("BGPPeer", "router", "myASN: 64500"),
        advertisement("preferred", "ipAddressPools: [local], preferredNodeSelectors: [{weight: 5, preference: {matchLabels: {disk: fast}}}, {weight: 1, preference: {matchLabels: {rack: a}}}, {preference: 7}], serviceSelectors: [{matchLabels: {a: b}}]"),
    ]
    .concat();
    insta::assert_snapshot!(shown(&yaml));
    // Nothing is announced here, so there is no class.
    let silent = migration(SIMPLE);
    assert!(silent.classes.is_empty());
    assert!(
        silent.notes[0]
            .message
            .contains("no L2Advertisement selects this pool")
    );
}

#[test]
fn one_bad_entry_harms_only_itself() {
    let yaml = [
        pool("mixed", "addresses: [192.0.2.9-192.0.2.1, 192.0.2.7/28, nonsense, 127.0.0.0/8, ' 192.0.2.32 - 192.0.2.40 ']"),
        pool("nothing", "addresses: [nowhere]"),
        pool("empty", ""),
        pool("near", "addresses: [198.51.100.0/24], serviceAllocation: {serviceSelectors: [{matchExpressions: [{key: a, operator: Near}]}]}"),
        advertisement("all", "nodeSelectors: [{matchExpressions: [{key: a, operator: Near}]}]"),
        advertisement("good", "ipAddressPools: [mixed]"),
    ]
    .concat();
    insta::assert_snapshot!(shown(&yaml));
}

#[test]
fn limits_and_doubles() {
    let many: Vec<String> = (0..65).map(|n| format!("10.0.{n}.0/24")).collect();
    let long = "n".repeat(64);
    let double = "---\n{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: twice, namespace: other}, spec: {addresses: [192.0.2.0/24]}}\n";
    let yaml = [
        pool("many", &format!("addresses: [{}]", many.join(", "))),
        pool(&long, "addresses: [192.0.2.0/24]"),
        pool("twice", "addresses: [198.51.100.0/24]"),
        double.to_owned(),
    ]
    .concat();
    let made = migration(&yaml);
    let names: Vec<_> = made
        .pools
        .iter()
        .map(|pool| pool.metadata.name.clone())
        .collect();
    assert_eq!(names, [Some("twice".to_owned())]);
    let fields: Vec<&str> = made
        .notes
        .iter()
        .filter(|note| note.kind == NoteKind::LeftOut)
        .map(|note| note.field.as_str())
        .collect();
    assert_eq!(fields, ["spec.addresses", "metadata.name", "metadata.name"]);
}

#[test]
fn several_alternatives_that_cannot_be_one_serve_fewer_and_say_so() {
    let spec = "addresses: [192.0.2.0/24], serviceAllocation: {serviceSelectors: [{matchLabels: {a: b}}, {matchLabels: {c: d}}], namespaceSelectors: [{matchLabels: {e: f}}, {matchLabels: {g: h}}]}";
    let made = migration(&pool("choosy", spec));
    let spec = &made.pools[0].spec;
    let text = |selector: &Option<LabelSelector>| selector.as_ref().map(anyof::text);
    assert_eq!(text(&spec.service_selector).as_deref(), Some("a=b"));
    assert_eq!(text(&spec.namespace_selector).as_deref(), Some("e=f"));
    let differs = made
        .notes
        .iter()
        .filter(|note| note.kind == NoteKind::Differs);
    assert_eq!(differs.count(), 2, "{:?}", made.notes);
}

#[test]
fn edges_are_those_that_were_avoided() {
    for (spec, edges, notes) in [
        ("addresses: [192.0.2.0/24]", Edges::Use, 0),
        (
            "addresses: [192.0.2.0/24], avoidBuggyIPs: true",
            Edges::SkipOctets,
            0,
        ),
        (
            "addresses: [192.0.2.16/28], avoidBuggyIPs: true",
            Edges::SkipOctets,
            1,
        ),
        (
            "addresses: [192.0.2.1-192.0.2.9], avoidBuggyIPs: true",
            Edges::SkipOctets,
            0,
        ),
        (
            "addresses: ['2001:db8::/120'], avoidBuggyIPs: true",
            Edges::SkipOctets,
            1,
        ),
    ] {
        let made = migration(&pool("edges", spec));
        assert_eq!(made.pools[0].spec.edges, edges, "{spec}");
        let differs = made
            .notes
            .iter()
            .filter(|note| note.kind == NoteKind::Differs);
        assert_eq!(differs.count(), notes, "{spec}");
    }
}

proptest::proptest! {
    /// No input of `MetalLB` causes a panic, and Ballast can read every object that is created.
    #[test]
    fn conversion_is_total(
        addresses in proptest::collection::vec("([0-9]{1,3}[.]){3}[0-9]{1,3}(/[0-9]{1,2}|-([0-9]{1,3}[.]){3}[0-9]{1,3})?|.*", 0..5),
        interfaces in proptest::collection::vec(".*", 0..20),
        name in ".*",
    ) {
        let mut source = Source::default();
        source.add(serde_json::json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": name.clone()}, "spec": {"addresses": addresses}}));
        source.add(serde_json::json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": {"name": name}, "spec": {"interfaces": interfaces}}));
        let made = convert(&source, Choice { class: "metallb", default: true });
        for pool in &made.pools {
            let guard: DeserializeGuard<AddressPool> = serde_json::from_value(manifest(pool).unwrap()).unwrap();
            assert!(PoolView::of(&guard).pool.is_ok());
        }
    }
}
