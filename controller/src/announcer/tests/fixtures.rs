//! Kubernetes objects, keys and reports for tests.

use super::*;

pub(super) fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": {}, "status": {}})
}

pub(super) fn class() -> Value {
    json!({"metadata": {"name": "metal"}, "spec": {"l2": {"interfaces": ["^eth"]}}})
}

pub(super) fn service(name: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "finalizers": ["ballast.dev/metal"]},
        "spec": {"type": "LoadBalancer"},
        "status": {
            "loadBalancer": {"ingress": [{"ip": address}]},
            "conditions": [{"type": "ballast.dev/Accepted", "status": "True"}],
        },
    })
}

pub(super) fn slice(service: &str, headless: bool) -> Value {
    let mut labels = json!({"kubernetes.io/service-name": service});
    if headless {
        labels["service.kubernetes.io/headless"] = json!("");
    }
    json!({
        "metadata": {"name": format!("{service}-1"), "namespace": "shop", "labels": labels},
        "endpoints": [{"nodeName": "b", "conditions": {"ready": true}}],
    })
}

/// The key of all announcers.
pub(super) fn keyring() -> Arc<Keyring> {
    keys(&[1])
}

/// A file with these keys, the bytes of each of which are equal.
pub(super) fn keys(keys: &[u8]) -> Arc<Keyring> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    write_keys(&path, keys);
    Arc::new(Keyring::open_file(path).unwrap())
}

pub(super) fn write_keys(path: &std::path::Path, keys: &[u8]) {
    let keys = keys.iter().map(|byte| format!("{byte:02x}").repeat(32));
    std::fs::write(path, keys.collect::<Vec<_>>().join("\n")).unwrap();
}

/// The object with this serial, sealed with these keys.
pub(super) fn sealed(mut object: Value, serial: i64, keyring: &Keyring) -> Value {
    object["status"]["serial"] = json!(serial);
    let status = serde_json::from_value(object["status"].clone()).unwrap();
    let text = |field: &str| object["metadata"][field].as_str().unwrap();
    let content = super::sealed::content(text("name"), text("uid"), &status);
    let seals = super::sealed::written(&keyring.seal_object(&content));
    object["status"]["seals"] = json!(seals);
    object
}

pub(super) fn announcer(name: &str, incarnation: &str, address: &str) -> Value {
    let object = unsealed(name, incarnation, address, 1);
    sealed(object, 1, &keyring())
}

pub(super) fn unsealed(name: &str, incarnation: &str, address: &str, epoch: i64) -> Value {
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}")},
        "status": {
            "incarnation": incarnation,
            "interfaces": [{
                "name": "eth0", "mac": "02:00:00:00:00:0b", "usable": true,
                "addresses": ["192.0.2.12/24"],
            }],
            "holdings": [{"address": address, "epoch": epoch, "revision": 0, "successors": ["c"]}],
        },
    })
}

pub(super) fn lease(node: &str, renewed: u8) -> Value {
    json!({
        "metadata": {
            "name": format!("announcer-{node}"), "namespace": "ballast-system",
            "labels": {"ballast.dev/lease": "announcer"},
        },
        "spec": {"renewTime": format!("2026-01-02T03:04:{renewed:02}.000000Z")},
    })
}

/// Nodes a, b and c, a class, one Service, and what b has written.
pub(super) fn cluster() -> Server {
    let server = Server::default();
    for name in ["a", "b", "c"] {
        server.put(NODES, node(name));
    }
    server.put(CLASSES, class());
    server.put(SERVICES, service("web", "192.0.2.7"));
    server.put(SLICES, slice("web", false));
    server.put(ANNOUNCERS, announcer("b", "0b", "192.0.2.7"));
    server.put(LEASES, lease("b", 1));
    server
}

pub(super) fn interface(usable: bool) -> ReportedInterface {
    ReportedInterface {
        index: 2,
        name: "eth0".into(),
        mac: Mac([2, 0, 0, 0, 0, 0xa]),
        nets: vec!["192.0.2.11/24".parse().unwrap()],
        usable,
    }
}

pub(super) fn report() -> Report {
    Report {
        interfaces: vec![interface(true)],
        ..Report::default()
    }
}

pub(super) fn claim(epoch: u64) -> (std::net::IpAddr, Claim) {
    let claim = Claim {
        epoch,
        holder: NodeName::new("a"),
        revision: 0,
        successors: vec![NodeName::new("b")],
    };
    ("192.0.2.9".parse().unwrap(), claim)
}

pub(super) fn recorded(epoch: u64) -> Report {
    Report {
        claims: Some(vec![claim(epoch)].into()),
        ..report()
    }
}
