//! What a plan is made from: the manifests on the cluster as it is. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_crds::LoadBalancerClass;
use ballast_provider::{Target, TargetSet};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DeserializeGuard;

use super::cluster::Cluster;
use super::read::Manifests;
use crate::class::Contender;
use crate::cli::migrate::lbc::becomes::filled;
use crate::cluster::eligibility::eligible;
use crate::cluster::view::Name;

/// What a plan is made from.
#[derive(Debug)]
pub struct Inputs {
    pub(super) classes: Vec<DeserializeGuard<LoadBalancerClass>>,
    /// What exists, without what the manifests replace.
    pub(super) live: Vec<Service>,
    /// The Services of the manifests as they would be, and as they are.
    pub(super) wanted: Vec<(Service, Option<Service>)>,
    pub(super) targets: TargetSet,
    pub(super) broken: Vec<String>,
}

/// The Service as it is after its manifest was applied. The API server keeps node ports, the
/// status and the finalizers; annotations that the manifest does not name may be somebody else's.
fn applied(manifest: &Service, live: Option<&Service>, created: Timestamp) -> Service {
    let mut service = manifest.clone();
    let meta = &mut service.metadata;
    if let Some(live) = live {
        meta.uid.clone_from(&live.metadata.uid);
        meta.creation_timestamp
            .clone_from(&live.metadata.creation_timestamp);
        meta.finalizers.clone_from(&live.metadata.finalizers);
        let own = meta.annotations.take().unwrap_or_default();
        let mut all = live.metadata.annotations.clone().unwrap_or_default();
        all.extend(own);
        meta.annotations = Some(all);
        service.status.clone_from(&live.status);
    } else {
        let title = Name::of(meta).to_string();
        meta.uid = Some(format!("plan-{title}"));
        meta.creation_timestamp = Some(Time(created));
        meta.finalizers = None;
        meta.deletion_timestamp = None;
        service.status = None;
    }
    if let Some(spec) = &mut service.spec {
        if let Some(before) = live.and_then(|live| live.spec.as_ref()) {
            keep_defaults(spec, before);
        }
        *spec = filled(spec);
    }
    service
}

/// What the API server has added stays where the manifest says nothing.
fn keep_defaults(spec: &mut ServiceSpec, before: &ServiceSpec) {
    fn keep<T: Clone>(field: &mut Option<T>, before: Option<&T>) {
        if field.is_none() {
            *field = before.cloned();
        }
    }
    let protocol = |port: &ServicePort| port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    for port in spec.ports.iter_mut().flatten() {
        let mut ports = before.ports.iter().flatten();
        let same = ports.find(|it| it.port == port.port && protocol(it) == protocol(port));
        keep(
            &mut port.node_port,
            same.and_then(|same| same.node_port.as_ref()),
        );
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        keep(
            &mut spec.load_balancer_class,
            before.load_balancer_class.as_ref(),
        );
    }
    keep(&mut spec.ip_families, before.ip_families.as_ref());
    keep(&mut spec.ip_family_policy, before.ip_family_policy.as_ref());
    keep(&mut spec.session_affinity, before.session_affinity.as_ref());
    keep(
        &mut spec.external_traffic_policy,
        before.external_traffic_policy.as_ref(),
    );
    keep(
        &mut spec.allocate_load_balancer_node_ports,
        before.allocate_load_balancer_node_ports.as_ref(),
    );
    if spec.external_traffic_policy == before.external_traffic_policy {
        keep(
            &mut spec.health_check_node_port,
            before.health_check_node_port.as_ref(),
        );
    }
}

/// The class as it is after its manifest was applied.
fn class_applied(
    manifest: &DeserializeGuard<LoadBalancerClass>,
    live: Option<&DeserializeGuard<LoadBalancerClass>>,
) -> DeserializeGuard<LoadBalancerClass> {
    match (&manifest.0, live.map(|live| &live.0)) {
        (Ok(manifest), Some(Ok(live))) => {
            let mut class = live.clone();
            class.spec = manifest.spec.clone();
            DeserializeGuard(Ok(class))
        }
        _ => manifest.clone(),
    }
}

fn name_of(class: &DeserializeGuard<LoadBalancerClass>) -> Option<&str> {
    let meta = match &class.0 {
        Ok(class) => &class.metadata,
        Err(broken) => &broken.metadata,
    };
    meta.name.as_deref()
}

// === impl Inputs ===

impl Inputs {
    /// Manifests on a cluster.
    pub fn of(manifests: Manifests, cluster: Cluster, now: Timestamp) -> Self {
        let mut classes = cluster.classes;
        for manifest in &manifests.classes {
            let name = name_of(manifest);
            let at = classes.iter().position(|one| name_of(one) == name);
            let after = class_applied(manifest, at.map(|at| &classes[at]));
            match at {
                Some(at) => classes[at] = after,
                None => classes.push(after),
            }
        }
        let mut live: BTreeMap<String, Service> = BTreeMap::new();
        for service in cluster.services {
            live.insert(Name::of(&service.metadata).to_string(), service);
        }
        let mut wanted: Vec<(Service, Option<Service>)> = Vec::new();
        for (number, manifest) in (1_i64..).zip(&manifests.services) {
            let title = Name::of(&manifest.metadata).to_string();
            let before = live.remove(&title);
            let created = Timestamp::from_second(now.as_second() + number).unwrap_or(now);
            // The last one of a name counts.
            let twice = wanted
                .iter()
                .position(|(one, _)| Name::of(&one.metadata).to_string() == title);
            let before = match twice {
                Some(at) => wanted.remove(at).1,
                None => before,
            };
            wanted.push((applied(manifest, before.as_ref(), created), before));
        }
        wanted.sort_by_key(|(one, _)| one.metadata.creation_timestamp.as_ref().map(|it| it.0));
        let targets = match &cluster.nodes {
            Some(nodes) => {
                let nodes = eligible(nodes);
                let traits = ballast_aws::provider::AwsProvider::TRAITS;
                nodes.targets(traits).into_owned()
            }
            None => TargetSet {
                nodes: [Target {
                    name: "node".to_owned(),
                    addresses: Vec::new(),
                    provider_id: Some("aws:///zone/i-00000000".to_owned()),
                    labels: Arc::default(),
                }]
                .into(),
                ..TargetSet::default()
            },
        };
        Self {
            classes,
            live: live.into_values().collect(),
            wanted,
            targets,
            broken: manifests.broken,
        }
    }

    /// Another controller that serves Services without a class, as the classes report it.
    pub(super) fn contender(&self) -> Contender {
        let readable = self.classes.iter().filter_map(|one| one.0.as_ref().ok());
        let conditions = readable
            .filter_map(|class| class.status.as_ref())
            .flat_map(|status| &status.conditions);
        let mut contested =
            conditions.filter(|it| it.type_ == "Default" && it.reason == "Contested");
        contested.next().map_or(Contender::Nobody, |_| {
            Contender::Present("another service controller".to_owned())
        })
    }
}
