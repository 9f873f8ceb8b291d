//! Which edits of a Service or a Node mean anything to a load balancer: the rows of
//! upstream's `TestNeedsUpdate` and `Test_shouldSyncUpdatedNode`, with our answers.

mod hostile;

use ballast_crds::ProviderSettings;
use ballast_provider::{Exclusion, LoadBalancer, Mark, Provider, ProviderError, Refusal, Traits};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::*;
use crate::run::factory::Providers;

/// Merges one JSON object into another.
fn merged(base: &Value, patch: &Value) -> Value {
    let (Value::Object(base), Value::Object(patch)) = (base, patch) else {
        return patch.clone();
    };
    let mut all = base.clone();
    for (key, value) in patch {
        let merged = merged(all.get(key).unwrap_or(&Value::Null), value);
        all.insert(key.clone(), merged);
    }
    Value::Object(all)
}

/// What a Service with this spec asks for, and whether it wants a load balancer at all.
fn asks(uid: &str, spec: &Value) -> (bool, Option<LoadBalancer>) {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "uid": uid},
        "spec": spec,
    });
    let view = ServiceView::of(&serde_json::from_value(object).unwrap());
    (
        view.is_load_balancer,
        view.load_balancer.and_then(Result::ok),
    )
}

/// The factory of a build with a provider that has settings.
struct WithSettings;

impl Factory for WithSettings {
    fn supports(&self, _: &ProviderSettings) -> Result<Traits, Refusal> {
        Ok(Traits::CLOUD)
    }

    fn setting_prefixes(&self) -> &'static [&'static str] {
        &["cloud.example.com/lb-"]
    }

    fn build(&self, _: &ProviderSettings, _: Mark) -> Result<Arc<dyn Provider>, ProviderError> {
        Err(ProviderError::transient("there is no such cloud"))
    }
}

#[test]
fn a_service_is_read_with_the_settings_of_the_factorys_providers() {
    let object = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "1", "annotations": {
            "cloud.example.com/lb-scheme": "internal", "cloud.example.com/owner": "shop",
        }},
        "spec": service_spec(),
    });
    let service: Service = serde_json::from_value(object).unwrap();
    let name = Name::of(&service.metadata);
    let settings = |factory: &dyn Factory| {
        let view = ServiceView::read(&name, &service, dialect(factory));
        view.load_balancer.unwrap().unwrap().settings
    };
    let scheme = (
        "cloud.example.com/lb-scheme".to_owned(),
        "internal".to_owned(),
    );
    assert_eq!(settings(&WithSettings), [scheme].into());
    assert_eq!(settings(&Providers::default()), [].into());
}

fn service_spec() -> Value {
    json!({
        "type": "LoadBalancer",
        "loadBalancerClass": "ballast.dev/local",
        "ipFamilies": ["IPv4"],
        "externalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080, "targetPort": 20, "appProtocol": "http"}],
    })
}

fn port(patch: &Value) -> Value {
    let port = merged(&service_spec()["ports"][0], patch);
    json!({"ports": [port]})
}

#[test]
fn edits_of_a_service_that_mean_something() {
    let before = asks("1", &service_spec());
    assert!(before.0 && before.1.is_some());
    for (what, patch) in [
        ("type", json!({"type": "ClusterIP"})),
        ("port", port(&json!({"port": 81}))),
        ("node port", port(&json!({"nodePort": 30081}))),
        ("protocol", port(&json!({"protocol": "UDP"}))),
        ("name of a port", port(&json!({"name": "http"}))),
        (
            "traffic policy",
            json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}),
        ),
        ("single to dual", json!({"ipFamilies": ["IPv4", "IPv6"]})),
        ("the other family", json!({"ipFamilies": ["IPv6"]})),
        ("affinity", json!({"sessionAffinity": "ClientIP"})),
        (
            "ranges",
            json!({"loadBalancerSourceRanges": ["192.0.2.0/24"]}),
        ),
        ("address", json!({"loadBalancerIP": "192.0.2.1"})),
    ] {
        let after = asks("1", &merged(&service_spec(), &patch));
        assert_ne!(before, after, "{what}");
    }
    assert_ne!(before, asks("2", &service_spec()), "another object");
    let local = |health: u16| {
        let policy = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": health});
        asks("1", &merged(&service_spec(), &policy))
    };
    assert_ne!(local(31_000), local(31_001), "health check node port");
}

/// Endpoints and in-cluster ways are kube-proxy's; upstream ensures anew for some of them.
#[test]
fn edits_of_a_service_that_mean_nothing() {
    let before = asks("1", &service_spec());
    for (what, patch) in [
        ("external IPs", json!({"externalIPs": ["192.0.2.7"]})),
        ("target port", port(&json!({"targetPort": 21}))),
        ("target port by name", port(&json!({"targetPort": "http"}))),
        ("app protocol", port(&json!({"appProtocol": "https"}))),
        ("internal policy", json!({"internalTrafficPolicy": "Local"})),
        (
            "not-ready addresses",
            json!({"publishNotReadyAddresses": true}),
        ),
        (
            "distribution",
            json!({"trafficDistribution": "PreferClose"}),
        ),
        ("cluster IP", json!({"clusterIP": "10.96.0.7"})),
    ] {
        let after = asks("1", &merged(&service_spec(), &patch));
        assert_eq!(before, after, "{what}");
    }
}

fn targets_of(node: &Value) -> Eligible {
    let view = NodeView::of(&serde_json::from_value(node.clone()).unwrap());
    eligibility::eligible(&[view])
}

fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node-1", "labels": {}},
        "spec": {"providerID": "lab://1"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.11"}, {"type": "Hostname", "address": "node-1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

#[test]
fn edits_of_a_node_that_mean_something() {
    let before = targets_of(&node());
    assert_eq!(before.targets(Traits::CLOUD).len(), 1);
    let label = |value: &str| json!({"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": value}}});
    for (what, patch) in [
        ("provider id", json!({"spec": {"providerID": "lab://2"}})),
        ("excluded", label("")),
        ("excluded in so many words", label("true")),
        (
            "deletion",
            json!({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}),
        ),
        (
            "the autoscaler's taint",
            json!({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}),
        ),
        (
            "address",
            json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.12"}]}}),
        ),
        ("no address", json!({"status": {"addresses": []}})),
    ] {
        assert_ne!(before, targets_of(&merged(&node(), &patch)), "{what}");
    }
}

/// To a provider without node labels, which are their own concern: `cluster::eligibility` tests them.
#[test]
fn edits_of_a_node_that_mean_nothing() {
    let told = |node: &Value| {
        let all = targets_of(node);
        let backing = [Exclusion::Absolute, Exclusion::UnlessAll].map(|it| all.backing(it));
        let targets = all.targets(Traits::CLOUD).into_owned();
        (targets, all.addresses().clone(), backing)
    };
    let before = told(&node());
    for (what, patch) in [
        (
            "not ready",
            json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
        ),
        (
            "readiness unknown",
            json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
        ),
        ("no condition", json!({"status": {"conditions": []}})),
        ("cordoned", json!({"spec": {"unschedulable": true}})),
        (
            "another taint",
            json!({"spec": {"taints": [{"key": "example.com/x", "effect": "NoExecute"}]}}),
        ),
        (
            "the exclusion label says no",
            json!({"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": "false"}}}),
        ),
        (
            "a control plane",
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}),
        ),
        (
            "another label",
            json!({"metadata": {"labels": {"zone": "a"}}}),
        ),
    ] {
        assert_eq!(before, told(&merged(&node(), &patch)), "{what}");
    }
}

/// Targets are reached by internal addresses; no Service may have any address of a node.
#[test]
fn every_address_of_a_node_is_known() {
    let node = json!({
        "metadata": {"name": "node-1"},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "192.0.2.7"},
            {"type": "ExternalIP", "address": "203.0.113.7"},
            {"type": "InternalIP", "address": "2001:db8::7"},
            {"type": "Hostname", "address": "node-1"},
        ]},
    });
    let view = NodeView::of(&serde_json::from_value(node).unwrap());
    let texts = |addresses: &[IpAddr]| -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    };
    assert_eq!(texts(&view.target.addresses), ["192.0.2.7", "2001:db8::7"]);
    let all = ["192.0.2.7", "203.0.113.7", "2001:db8::7"];
    assert_eq!(texts(&view.addresses), all);
}

/// The turn of the other Service may come much later, and nobody may get its address until
/// then.
#[test]
fn an_address_that_another_service_publishes_is_held_before_its_turn() {
    use ballast_l2::{Claim, Entry, Pool};
    use jiff::Timestamp;
    use prometheus_client::registry::Registry;

    use crate::class::{Classes, Scope};
    use crate::fixtures::id;
    use crate::pools::Start;

    let pools = Pools::default();
    let view = PoolView {
        name: "front".to_owned(),
        version: 1,
        pool: Ok(Pool {
            entries: ["192.0.2.1-192.0.2.2".parse::<Entry>().unwrap()].into(),
            reuse_after: Duration::ZERO,
            ..Pool::new("front", Timestamp::UNIX_EPOCH)
        }),
        status: ballast_crds::AddressPoolStatus::default(),
    };
    let (key, version) = (view.name.clone(), view.version);
    let parsed = Parsed { key, version, view };
    pools.store.apply(Update::Applied(parsed));
    let addresses = AddressBook::default();
    let start = Start {
        services: &[],
        classes: &Classes::default(),
        namespaces: &Namespaces::default(),
        pools: &pools,
        nodes: &BTreeSet::new(),
        led_before: false,
    };
    addresses.open(&start, Timestamp::UNIX_EPOCH);
    let ledger = Arc::new(Ledger::default());
    let watch = ServiceWatch {
        store: Arc::default(),
        queue: Queue::new(Backoff::default()),
        ledger: Arc::clone(&ledger),
        addresses: addresses.clone(),
        board: Board::new(Scope::All, ledger),
        metrics: ServiceMetrics::register(&mut Registry::default()),
        dialect: Dialect::default(),
    };
    let other = ServiceView::test("other")
        .class(Some("example.com/vip"))
        .publishing("192.0.2.1");
    let name = Name::from(&other.id);
    let parsed = Parsed {
        key: name.clone(),
        version: 2,
        view: other,
    };
    let gets = |who: &str| {
        let claim = Claim::new(id(who), Timestamp::UNIX_EPOCH);
        let answer = addresses
            .allocator()
            .allocate("metal", claim, Timestamp::UNIX_EPOCH);
        let granted = answer.unwrap().ok();
        granted.map(|grant| grant.addresses[0].to_string())
    };
    watch.changed(&watch.store.apply(Update::Listed(parsed)));
    assert_eq!(gets("new").as_deref(), Some("192.0.2.2"));
    assert_eq!(gets("late"), None);
    watch.changed(&watch.store.apply(Update::Deleted(name)));
    assert_eq!(gets("late").as_deref(), Some("192.0.2.1"), "it is gone");
}
