//! What happens to the Services, and what prevents a takeover. Pure.
//!
//! A Service keeps its address because its status is the record: Ballast's controller adopts a
//! published address, whichever controller wrote it, if it could assign that address itself.
//! If it could not, the Service gets another address, and a condition and an event say why. An
//! example is the address of a node, which this command does not know. So this command writes
//! nothing to a Service. Two controllers that both write that status would overwrite each other forever.
//! Therefore no Service is taken over while `MetalLB`'s controller runs. Its speakers write
//! nothing, and continue to answer for the addresses.

use std::net::IpAddr;

use ballast_crds::{AddressPool, LoadBalancerClass, class_key, class_of_key};
use ballast_l2::{Entry, Labels};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Pod, PodSpec, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use serde::Serialize;
use serde_json::Value;

use super::convert::Migration;
use super::render::Blocked;
use crate::cli::service::addresses;
use crate::cli::text::quote;
use crate::cluster::meta::created;
use crate::cluster::view::ServiceView;
use crate::pools;

/// What happens to one Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceLine {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// The addresses that it publishes now.
    pub addresses: Vec<String>,
    /// What happens to it.
    pub outcome: Outcome,
    /// Why; empty if there is nothing to explain.
    pub why: String,
    /// Commands for its owner, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

/// What happens to a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Outcome {
    /// Ballast serves it, with its present address if Ballast could assign that address.
    Keeps,
    /// Like `Keeps`, but a condition will say that no pool of its class contains the address.
    KeepsOutside,
    /// It has no address, and Ballast assigns one.
    Gets,
    /// It keeps its address, but Ballast refuses it; the controller will report the same.
    Refused,
    /// A class of Ballast serves it already.
    Served,
    /// Only its owner can move it.
    ByHand,
}

/// The parts of `MetalLB` that run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Controllers: they write the status of Services.
    pub controllers: Vec<String>,
    /// Speakers: they announce addresses.
    pub speakers: Vec<String>,
    /// `--lb-class` of the controller: it serves only the Services of that class.
    pub lb_class: Option<String>,
}

/// The workloads found in the cluster, for [`Running::of`].
#[derive(Clone, Debug, Default)]
pub struct Workloads {
    /// All Deployments.
    pub deployments: Vec<Deployment>,
    /// All `DaemonSet`s.
    pub daemon_sets: Vec<DaemonSet>,
    /// Pods with one of `MetalLB`'s labels.
    pub pods: Vec<Pod>,
}

/// The Services that `MetalLB` serves, and those that no controller serves.
pub fn services(
    services: &[Service],
    migration: &Migration,
    lb_class: Option<&str>,
) -> Vec<ServiceLine> {
    let mut lines: Vec<ServiceLine> = services
        .iter()
        .filter_map(|service| line(service, migration, lb_class))
        .collect();
    lines.sort();
    lines
}

fn line(service: &Service, migration: &Migration, lb_class: Option<&str>) -> Option<ServiceLine> {
    let class = service
        .spec
        .as_ref()
        .and_then(|spec| spec.load_balancer_class.as_deref());
    let addresses = addresses(service);
    let pools: Vec<Option<&AddressPool>> = addresses
        .iter()
        .map(|address| pool_of(address.parse().ok()?, &migration.pools))
        .collect();
    let meta = &service.metadata;
    let held = meta
        .finalizers
        .iter()
        .flatten()
        .find_map(|it| class_of_key(it));
    let ours = held.or(class.and_then(class_of_key));
    let from_metallb = pools.iter().any(Option::is_some) || class == lb_class;
    let main = migration.classes.first();
    let mut commands = Vec::new();
    let (outcome, why) = match (class, ours) {
        (_, Some(ours)) => {
            let made = |class: &LoadBalancerClass| class.metadata.name.as_deref() == Some(ours);
            if !migration.classes.iter().any(made) {
                return None;
            }
            (
                Outcome::Served,
                format!("LoadBalancerClass {ours} already serves it"),
            )
        }
        (Some(class), None) if from_metallb => {
            let pool = pools.iter().flatten().next().copied();
            commands = by_hand(meta, &addresses, pool, &migration.classes);
            (
                Outcome::ByHand,
                format!(
                    "spec.loadBalancerClass {class} cannot be changed in place; the commands below change it, and the Service has no address for a moment"
                ),
            )
        }
        (Some(_), None) => return None,
        // Then Services without a class were never MetalLB's.
        (None, None) if lb_class.is_some() => return None,
        (None, None) => classless(service, &addresses, &pools, &migration.pools, main?),
    };
    Some(ServiceLine {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        addresses,
        outcome,
        why,
        commands,
    })
}

fn classless(
    service: &Service,
    addresses: &[String],
    pools: &[Option<&AddressPool>],
    made: &[AddressPool],
    main: &LoadBalancerClass,
) -> (Outcome, String) {
    let name = named(&main.metadata);
    for (address, pool) in addresses.iter().zip(pools) {
        match pool {
            None => {
                return (
                    Outcome::KeepsOutside,
                    format!("{address} is in no pool; the Service will report AddressOutsidePool"),
                );
            }
            Some(pool) if !uses(main, pool) => {
                return (
                    Outcome::KeepsOutside,
                    format!(
                        "{address} is in pool {}, which LoadBalancerClass {name} does not use; the Service will report AddressOutsidePool and use the settings of class {name}",
                        named(&pool.metadata)
                    ),
                );
            }
            Some(_) => {}
        }
    }
    let view = ServiceView::of(service);
    if let Some(Err(refusal)) = &view.load_balancer {
        return (Outcome::Refused, format!("{}: {refusal}", refusal.reason));
    }
    if let Some(asked) = &view.placement.pool {
        let mut usable = made.iter().filter(|pool| uses(main, pool));
        if !usable.any(|pool| named(&pool.metadata) == asked) {
            let why = format!(
                "its annotation requests pool {asked}, which LoadBalancerClass {name} does not use"
            );
            return (Outcome::Refused, why);
        }
    }
    if addresses.is_empty() {
        return (
            Outcome::Gets,
            format!("no address yet; LoadBalancerClass {name} will assign one"),
        );
    }
    (Outcome::Keeps, String::new())
}

/// The class of a Service is immutable, but a Service of another type has none. Its node ports
/// stay, and so does the address if the Service asks for it.
fn by_hand(
    meta: &ObjectMeta,
    addresses: &[String],
    pool: Option<&AddressPool>,
    classes: &[LoadBalancerClass],
) -> Vec<String> {
    let fits = classes
        .iter()
        .find(|class| pool.is_some_and(|pool| uses(class, pool)));
    let Some(class) = fits.or(classes.first()) else {
        return Vec::new();
    };
    let place = format!(
        "{} -n {}",
        quote(named(meta)),
        quote(meta.namespace.as_deref().unwrap_or("default"))
    );
    let patch = |spec: &str| {
        let patch = quote(&format!("{{\"spec\":{{{spec}}}}}"));
        format!("kubectl patch service {place} -p {patch}")
    };
    let mut commands = Vec::new();
    if !addresses.is_empty() {
        commands.push(format!(
            "kubectl annotate service {place} --overwrite ballast.dev/addresses={}",
            quote(&addresses.join(","))
        ));
    }
    commands.push(patch("\"type\":\"NodePort\""));
    commands.push(patch(&format!(
        "\"type\":\"LoadBalancer\",\"loadBalancerClass\":{}",
        Value::from(class_key(named(&class.metadata)))
    )));
    commands
}

fn pool_of(address: IpAddr, pools: &[AddressPool]) -> Option<&AddressPool> {
    pools.iter().find(|pool| {
        let mut entries = pool.spec.addresses.iter();
        entries.any(|entry| {
            let entry = entry.0.parse::<Entry>();
            entry.is_ok_and(|entry| entry.range().contains(address))
        })
    })
}

fn uses(class: &LoadBalancerClass, pool: &AddressPool) -> bool {
    let Some(l2) = &class.spec.l2 else {
        return false;
    };
    let labels = pool.metadata.labels.as_ref();
    let labels = labels.map(Labels::from).unwrap_or_default();
    match pools::filter(l2) {
        Ok(None) => true,
        Ok(Some(filter)) => filter.allows(named(&pool.metadata), &labels),
        Err(_) => false,
    }
}

fn named(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// What decides whether Services may be taken over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances<'a> {
    /// Whether `MetalLB`'s controller runs, if that is known.
    pub runs: Option<bool>,
    /// The class is the default already.
    pub default: bool,
    /// Another class that is the default.
    pub other_default: Option<&'a str>,
    /// The one class that `MetalLB` serves, if it does.
    pub lb_class: Option<&'a str>,
}

/// Why no Service is taken over, or should have been.
pub fn blocked(now: &Circumstances<'_>) -> Option<Blocked> {
    match (now.lb_class, now.runs, now.other_default) {
        (Some(class), ..) => Some(Blocked::ClassOfItsOwn(class.to_owned())),
        (_, Some(true), _) if now.default => Some(Blocked::TwoWriters),
        (_, Some(true), _) => Some(Blocked::ControllerRuns),
        (_, None, _) => Some(Blocked::Unknown),
        (_, _, Some(other)) => Some(Blocked::OtherDefault(other.to_owned())),
        _ => None,
    }
}

/// Another default class that takes precedence: of several, the oldest does.
pub fn other_default(
    classes: &[DeserializeGuard<LoadBalancerClass>],
    ours: &str,
) -> Option<String> {
    let defaults: Vec<&ObjectMeta> = defaults(classes).collect();
    let own = defaults.iter().find(|meta| named(meta) == ours);
    let own = own.map(|meta| (created(meta), ours));
    let mut others = defaults.iter().filter(|meta| named(meta) != ours);
    let other = others.find(|meta| own.is_none_or(|own| (created(meta), named(meta)) < own));
    other?.name.clone()
}

/// Whether the class is the default already.
pub fn is_default(classes: &[DeserializeGuard<LoadBalancerClass>], ours: &str) -> bool {
    defaults(classes).any(|meta| named(meta) == ours)
}

fn defaults(classes: &[DeserializeGuard<LoadBalancerClass>]) -> impl Iterator<Item = &ObjectMeta> {
    let read = classes.iter().filter_map(|guard| guard.0.as_ref().ok());
    read.filter(|class| class.spec.default && class.metadata.deletion_timestamp.is_none())
        .map(|class| &class.metadata)
}

// === impl Outcome ===

impl Outcome {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keeps => "keeps its address",
            Self::KeepsOutside => "keeps its address, outside the pools of its class",
            Self::Gets => "will get an address",
            Self::Refused => "will be refused",
            Self::Served => "already served",
            Self::ByHand => "needs manual steps",
        }
    }
}

// === impl Running ===

impl Running {
    /// Workloads that run or are meant to. One that is scaled to zero does not count; its pods
    /// are gone as soon as they stop.
    pub fn of(workloads: &Workloads) -> Self {
        let mut running = Self::default();
        for one in &workloads.deployments {
            let Some(spec) = &one.spec else { continue };
            let pod = spec.template.spec.as_ref();
            if spec.replicas != Some(0) {
                running.add("Deployment", &one.metadata, pod);
            }
        }
        for one in &workloads.daemon_sets {
            let pod = one
                .spec
                .as_ref()
                .and_then(|spec| spec.template.spec.as_ref());
            running.add("DaemonSet", &one.metadata, pod);
        }
        for one in &workloads.pods {
            let phase = one
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            if !matches!(phase, Some("Succeeded" | "Failed")) {
                running.add("Pod", &one.metadata, one.spec.as_ref());
            }
        }
        running
    }

    fn add(&mut self, kind: &str, meta: &ObjectMeta, pod: Option<&PodSpec>) {
        let Some(role) = role(meta, pod) else { return };
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        let text = format!("{kind} {namespace}/{name}");
        match role {
            Role::Controller => self.controllers.push(text),
            Role::Speaker => self.speakers.push(text),
        }
        let containers = pod.iter().flat_map(|pod| &pod.containers);
        let arguments = containers.flat_map(|it| it.args.iter().chain(&it.command).flatten());
        let words: Vec<&str> = arguments.flat_map(|it| it.splitn(2, '=')).collect();
        let class = words.windows(2).find(|pair| pair[0] == "--lb-class");
        if let Some([_, class]) = class.filter(|pair| !pair[1].is_empty()) {
            self.lb_class = Some((*class).to_owned());
        }
    }
}

enum Role {
    Controller,
    Speaker,
}

/// By the labels of `MetalLB`'s manifests or chart, or by the end of the image name, which a
/// mirror keeps.
fn role(meta: &ObjectMeta, pod: Option<&PodSpec>) -> Option<Role> {
    let label = |key: &str| meta.labels.as_ref()?.get(key).map(String::as_str);
    let labelled =
        label("app") == Some("metallb") || label("app.kubernetes.io/name") == Some("metallb");
    let component = label("component").or(label("app.kubernetes.io/component"));
    let by_label = labelled.then_some(component).flatten();
    let images = pod.iter().flat_map(|pod| &pod.containers);
    let mut images = images.filter_map(|container| {
        let image = container.image.as_deref()?;
        let image = image.split('@').next()?;
        let (_, rest) = image
            .split_once("metallb/")
            .or(image.split_once("metallb-"))?;
        rest.split(':').next()
    });
    match by_label.or_else(|| images.find(|it| ["controller", "speaker"].contains(it)))? {
        "controller" => Some(Role::Controller),
        "speaker" => Some(Role::Speaker),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
