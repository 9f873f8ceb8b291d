//! Actions of users, other controllers and the rest of Kubernetes: they are not our effects, so
//! they are not in the journal. The server's own reactions (node ports, fields that a change of
//! type clears) are here as well.

use serde_json::{Value, json};

use super::patch::{MOVED, set_finalizers};
use super::{Api, Kind, State, texts};

/// A Service as its user writes it.
#[derive(Clone, Debug)]
pub struct Svc {
    key: String,
    class: Option<String>,
    ports: Vec<Port>,
    spec: Value,
    annotations: Value,
}

/// A port of a Service: number and protocol.
#[derive(Clone, Copy, Debug)]
pub struct Port(pub u16, pub &'static str);

// === impl Svc ===

impl Svc {
    /// A Service of the class `local` with port 80.
    pub fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            class: Some("ballast.dev/local".to_owned()),
            ports: vec![Port(80, "TCP")],
            spec: json!({}),
            annotations: json!({}),
        }
    }

    /// Without a class.
    pub fn classless(self) -> Self {
        Self {
            class: None,
            ..self
        }
    }

    /// With another class, by its full name.
    pub fn class(self, class: &str) -> Self {
        Self {
            class: Some(class.to_owned()),
            ..self
        }
    }

    pub fn ports(self, ports: &[Port]) -> Self {
        Self {
            ports: ports.to_vec(),
            ..self
        }
    }

    /// With a field of `spec`.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.spec[field] = value;
        self
    }

    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations[key] = value.into();
        self
    }
}

// === impl Api: the user ===

impl Api {
    pub(super) fn create(&self, kind: Kind, key: &str, mut object: Value) -> String {
        let uid = {
            let mut state = self.lock();
            assert!(
                !state.objects.contains_key(&(kind, key.to_owned())),
                "{key} exists"
            );
            state.uids += 1;
            let uid = format!("uid-{}-{:04}", kind.name().to_lowercase(), state.uids);
            object["kind"] = kind.name().into();
            object["apiVersion"] = kind.version().into();
            object["metadata"]["uid"] = uid.clone().into();
            object["metadata"]["creationTimestamp"] = self.now().into();
            state.put(kind, key, object);
            uid
        };
        self.journal.changed();
        uid
    }

    /// Changes an object as another client; returns whether it existed.
    pub fn edit(&self, kind: Kind, key: &str, change: impl FnOnce(&mut Value)) -> bool {
        let found = {
            let mut state = self.lock();
            let Some(mut object) = state.objects.get(&(kind, key.to_owned())).cloned() else {
                return false;
            };
            change(&mut object);
            if kind == Kind::Service {
                state.react(&mut object);
            }
            state.put(kind, key, object);
            true
        };
        self.journal.changed();
        found
    }

    /// Moves a Service to another share key, or to none.
    pub fn share(&self, key: &str, share_key: Option<&str>) -> bool {
        self.edit(Kind::Service, key, |service| {
            let annotations = &mut service["metadata"]["annotations"];
            *annotations = json!({MOVED: "true"});
            if let Some(share_key) = share_key {
                annotations["ballast.dev/share-key"] = share_key.into();
            }
        })
    }

    /// The address of a Service may change from now on.
    pub fn may_move(&self, key: &str) -> bool {
        self.edit(Kind::Service, key, |service| {
            service["metadata"]["annotations"][MOVED] = "true".into();
        })
    }

    /// Requests the deletion; an object with finalizers stays until they are removed.
    pub fn delete(&self, kind: Kind, key: &str) -> bool {
        let now = self.now();
        self.edit(kind, key, |object| {
            if object["metadata"].get("deletionTimestamp").is_none() {
                object["metadata"]["deletionTimestamp"] = now.into();
            }
        })
    }

    /// Removes all finalizers as a user.
    pub fn strip(&self, key: &str) -> bool {
        let Some(service) = self.get(Kind::Service, key) else {
            return false;
        };
        let uid = service["metadata"]["uid"].as_str().unwrap().to_owned();
        self.lock().tampered.insert(uid);
        self.edit(Kind::Service, key, |object| {
            set_finalizers(object, Vec::new());
        })
    }

    /// Whether the finalizer of a class is on a Service with this UID, or a user removed it.
    pub fn guards(&self, uid: &str, class: &str) -> bool {
        let state = self.lock();
        let finalizer = format!("ballast.dev/{class}");
        let guarded = state.objects.iter().any(|((kind, _), object)| {
            *kind == Kind::Service
                && object["metadata"]["uid"] == uid
                && texts(&object["metadata"]["finalizers"]).contains(&finalizer)
        });
        guarded || state.tampered.contains(uid)
    }

    pub fn create_service(&self, service: &Svc) -> String {
        let (namespace, name) = service.key.split_once('/').unwrap();
        let named = service.ports.len() > 1;
        let ports: Vec<Value> = service
            .ports
            .iter()
            .map(|Port(number, protocol)| {
                let mut port = json!({"port": number, "protocol": protocol, "targetPort": number});
                if named {
                    port["name"] = format!("p-{number}-{}", protocol.to_lowercase()).into();
                }
                port
            })
            .collect();
        let mut spec = json!({
            "type": "LoadBalancer", "ports": ports, "ipFamilies": ["IPv4"],
            "sessionAffinity": "None", "externalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true,
        });
        if let Some(class) = &service.class {
            spec["loadBalancerClass"] = class.clone().into();
        }
        for (field, value) in service.spec.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let mut object = json!({
            "metadata": {"namespace": namespace, "name": name, "annotations": service.annotations},
            "spec": spec,
            "status": {"loadBalancer": {}},
        });
        self.lock().react(&mut object);
        self.create(Kind::Service, &service.key, object)
    }

    /// Changes ports.
    pub fn set_ports(&self, key: &str, ports: &[Port]) -> bool {
        self.edit(Kind::Service, key, |object| {
            let old = object["spec"]["ports"].as_array().cloned().unwrap_or_default();
            let ports: Vec<Value> = ports
                .iter()
                .map(|Port(number, protocol)| {
                    let same = old.iter().find(|it| it["port"] == *number && it["protocol"] == *protocol);
                    same.cloned().unwrap_or_else(|| {
                        let name = format!("p-{number}-{}", protocol.to_lowercase());
                        json!({"port": number, "protocol": protocol, "targetPort": number, "name": name})
                    })
                })
                .collect();
            object["spec"]["ports"] = ports.into();
        })
    }

    pub fn set_type(&self, key: &str, kind: &str, class: Option<&str>) -> bool {
        self.edit(Kind::Service, key, |object| {
            object["spec"]["type"] = kind.into();
            if kind == "LoadBalancer" {
                object["spec"]["allocateLoadBalancerNodePorts"] = true.into();
                if let Some(class) = class {
                    object["spec"]["loadBalancerClass"] = class.into();
                }
            }
        })
    }

    pub fn create_class(&self, name: &str, spec: &Value) -> String {
        let mut all = json!({
            "mock": {"endpoint": "http://127.0.0.1:8111"},
            "orphans": "Delete", "orphanGracePeriod": "20s",
        });
        for (field, value) in spec.as_object().unwrap() {
            if value.is_null() {
                all.as_object_mut().unwrap().remove(field);
            } else {
                all[field] = value.clone();
            }
        }
        self.create(
            Kind::Class,
            name,
            json!({"metadata": {"name": name}, "spec": all}),
        )
    }

    /// A class whose addresses come from pools.
    pub fn create_l2_class(&self, name: &str, spec: &Value) -> String {
        let mut all = json!({"mock": null, "l2": {}});
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        self.create_class(name, &all)
    }

    /// Sets or removes the drain switch of a class, like `ballast teardown`.
    pub fn drain(&self, class: &str, on: bool) -> bool {
        let now = self.now();
        self.lock().drained.insert(class.to_owned());
        self.edit(Kind::Class, class, |object| {
            if !on && object["status"].is_object() {
                object["status"].as_object_mut().unwrap().remove("draining");
            } else if on && object["status"]["draining"].is_null() {
                object["status"]["draining"] = json!({"since": now});
            }
        })
    }

    /// A pool, with the defaults of the CRD.
    pub fn create_pool(&self, name: &str, addresses: &[&str], spec: &Value) -> String {
        let mut all = json!({
            "addresses": addresses, "autoAssign": true, "priority": 0, "reuseAfter": "2m",
            "edges": "Skip", "shareAcrossNamespaces": false, "reallocate": false,
        });
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        let object = json!({"metadata": {"name": name}, "spec": all});
        self.create(Kind::Pool, name, object)
    }

    pub fn create_node(&self, name: &str, address: &str) {
        let object = json!({
            "metadata": {"name": name, "labels": {}},
            "spec": {},
            "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]},
        });
        self.create(Kind::Node, name, object);
    }

    /// The announcer of a node writes that it has claimed these addresses, each with its epoch.
    /// The others that it has stay.
    pub fn claim(&self, node: &str, claims: &[(&str, u64)], cause: &str) {
        let holdings = claims.iter().map(|(address, epoch)| {
            json!({
                "address": address, "epoch": epoch, "revision": 0, "interface": "eth0",
                "mac": "02:00:00:00:00:01", "successors": [], "cause": cause,
                "since": "2026-03-01T12:00:00Z",
            })
        });
        let new: Vec<Value> = holdings.collect();
        let taken = |it: &Value| claims.iter().any(|(address, _)| it["address"] == *address);
        self.announcer(node, |status| {
            let mut all = status["holdings"].as_array().cloned().unwrap_or_default();
            all.retain(|it| !taken(it));
            all.extend(new);
            status["holdings"] = all.into();
        });
    }

    /// The announcer of a node writes that it does not have these addresses any more.
    pub fn withdraw(&self, node: &str, addresses: &[&str]) {
        self.announcer(node, |status| {
            let mut all = status["holdings"].as_array().cloned().unwrap_or_default();
            all.retain(|it| !addresses.iter().any(|address| it["address"] == *address));
            status["holdings"] = all.into();
        });
    }

    /// Changes the status of the object of a node's announcer.
    pub fn announcer(&self, node: &str, change: impl FnOnce(&mut Value)) {
        if self.get(Kind::Announcer, node).is_none() {
            let object = json!({"metadata": {"name": node}, "status": {}});
            self.create(Kind::Announcer, node, object);
        }
        self.edit(Kind::Announcer, node, |object| {
            change(&mut object["status"]);
        });
    }

    /// The node controller: the kubelet of a node reports, or has not reported for a while.
    pub fn set_reporting(&self, node: &str, reports: bool) {
        self.edit(Kind::Node, node, |object| {
            let ready = if reports { "True" } else { "Unknown" };
            object["status"]["conditions"] = json!([{"type": "Ready", "status": ready}]);
        });
    }

    pub fn create_namespace(&self, name: &str, labels: &Value) {
        let object = json!({"metadata": {"name": name, "labels": labels}});
        self.create(Kind::Namespace, name, object);
    }

    /// The namespace controller: no new objects, and everything in the namespace is deleted.
    pub fn delete_namespace(&self, namespace: &str) {
        self.lock().terminating.insert(namespace.to_owned());
        let prefix = format!("{namespace}/");
        for key in self
            .all(Kind::Service)
            .into_keys()
            .filter(|key| key.starts_with(&prefix))
        {
            self.delete(Kind::Service, &key);
        }
        self.journal.changed();
    }

    /// Renews a Lease, like another controller.
    pub fn renew_foreign_lease(&self, key: &str, holder: &str, beat: u64) {
        let (namespace, name) = key.split_once('/').unwrap();
        if self.get(Kind::Lease, key).is_none() {
            let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": {}});
            self.create(Kind::Lease, key, object);
        }
        self.edit(Kind::Lease, key, |lease| {
            lease["spec"] = json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": beat});
        });
    }
}

// === impl State ===

impl State {
    /// What the server does to a written Service: defaults, node ports, and the fields that a
    /// change of type clears.
    fn react(&mut self, object: &mut Value) {
        let balanced = object["spec"]["type"] == "LoadBalancer";
        let spec = object["spec"].as_object_mut().unwrap();
        if !balanced {
            spec.remove("loadBalancerClass");
            spec.remove("allocateLoadBalancerNodePorts");
            spec.remove("healthCheckNodePort");
        } else if spec
            .get("externalTrafficPolicy")
            .is_some_and(|policy| policy == "Local")
        {
            let port = self.node_ports + 2000;
            spec.entry("healthCheckNodePort")
                .or_insert_with(|| port.into());
        } else {
            spec.remove("healthCheckNodePort");
        }
        let allocate = balanced && spec["allocateLoadBalancerNodePorts"] == true;
        for port in spec["ports"].as_array_mut().unwrap() {
            let port = port.as_object_mut().unwrap();
            if !balanced {
                port.remove("nodePort");
            } else if allocate && !port.contains_key("nodePort") {
                self.node_ports = if self.node_ports > 32_000 {
                    30_000
                } else {
                    self.node_ports + 1
                };
                port.insert("nodePort".to_owned(), self.node_ports.into());
            }
        }
        if !balanced {
            object["status"]["loadBalancer"] = json!({});
        }
    }
}
