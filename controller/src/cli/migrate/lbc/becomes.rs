//! What becomes of one Service that another controller gives a Network Load Balancer. Pure.
//!
//! What Ballast makes and what it refuses, [`ballast_aws::preview`] says: the code of the provider. What the other
//! controllers do differently is in [`super::differences`].

use std::collections::{BTreeMap, BTreeSet};

use ballast_aws::annotations::PREFIX;
use ballast_aws::preview::{Preview, Refused, preview};
use ballast_aws::settings::ClassSettings;
use ballast_provider::{Member, Refusal, ServiceId};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde::Serialize;
use serde_json::Value;

use super::balancer::Balancer;
use super::differences::{Old, differences};
use super::manifest;
use crate::cli::service::{addresses, is_load_balancer};
use crate::cluster::translate::{self, Dialect, SOURCE_RANGES};

/// Node ports for a manifest without them, as the API server would assign them.
const NODE_PORTS: i32 = 30_000;
/// The same for `spec.healthCheckNodePort`.
const HEALTH_CHECK_NODE_PORT: i32 = 32_767;
/// Chooses the controller of a Service without a class.
const TYPE: &str = "type";
/// What the targets are.
const TARGETS: &str = "nlb-target-type";

type Annotations = BTreeMap<String, String>;

/// Who serves a Service now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Origin {
    /// The AWS Load Balancer Controller.
    LoadBalancerController,
    /// The service controller of cloud-provider-aws, which was a part of Kubernetes once.
    InTree,
}

/// Where the Services shall go, and how to tell whose they are.
#[derive(Clone, Copy, Debug)]
pub struct Aim<'a> {
    /// The name of the class.
    pub class: &'a str,
    /// Its settings.
    pub settings: &'a ClassSettings,
    /// The class of the AWS Load Balancer Controller.
    pub lb_class: &'a str,
    /// The annotations that providers read.
    pub dialect: Dialect,
}

/// What becomes of one Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Becomes {
    /// `metadata.namespace`; empty if a manifest has none.
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// Who serves it now.
    pub from: Origin,
    /// The names that it publishes now.
    pub hostnames: Vec<String>,
    /// The worst of all settings.
    pub result: Verdict,
    /// Its load balancer, without the settings that have no equal; absent if there would be none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub becomes: Option<Balancer>,
    /// What changes, and what does not.
    pub settings: Vec<Setting>,
    /// The second Service, beside this one; absent while something has no equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second: Option<Value>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// The annotation, the field, or in words what is set.
    pub setting: String,
    /// What becomes of it.
    pub result: Verdict,
    /// Why, and what to do; empty if nothing changes.
    pub why: String,
}

/// What becomes of a setting, or of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    /// It means the same.
    Same,
    /// It means something else, or another default holds.
    Differs,
    /// Ballast refuses a Service with it.
    NoEqual,
}

/// Who serves the Service, if it is one of the two that this command is for.
pub fn origin(service: &Service, lb_class: &str) -> Option<Origin> {
    let spec = service.spec.as_ref()?;
    let gone = service.metadata.deletion_timestamp.is_some();
    if gone || spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let annotation = |name: &str| {
        let all = service.metadata.annotations.as_ref()?;
        all.get(&key(name)).map(|value| value.trim())
    };
    match (spec.load_balancer_class.as_deref(), annotation(TYPE)) {
        (Some(class), _) => (class == lb_class).then_some(Origin::LoadBalancerController),
        (None, Some("nlb-ip")) => Some(Origin::LoadBalancerController),
        (None, Some("external")) => matches!(annotation(TARGETS), Some("ip" | "instance"))
            .then_some(Origin::LoadBalancerController),
        (None, Some("nlb")) => is_load_balancer(service).then_some(Origin::InTree),
        _ => None,
    }
}

/// What becomes of a Service; `None` if neither of the two controllers serves it.
pub fn becomes(service: &Service, aim: &Aim<'_>) -> Option<Becomes> {
    let from = origin(service, aim.lb_class)?;
    let spec = filled(service.spec.as_ref()?);
    let annotations = read(service);
    let (asked, seen) = match asked(service, &spec, &annotations, aim.dialect) {
        Ok(member) => {
            let seen = preview(&member, aim.settings);
            (Some(member.load_balancer), seen)
        }
        Err(refusal) => (None, refused(refusal)),
    };
    let mut settings = no_equal(service, &seen);
    if let (Some(asked), Some(objects)) = (&asked, &seen.objects) {
        let old = Old {
            from,
            spec: &spec,
            annotations: &annotations,
            asked,
        };
        let all = differences(&old, objects, &seen.remarks);
        let refused = |one: &Setting| settings.iter().any(|it| it.setting == one.setting);
        let all: Vec<Setting> = all.into_iter().filter(|one| !refused(one)).collect();
        settings.extend(all);
    }
    settings.extend(same(&annotations, &settings, aim.dialect));
    let result = settings.iter().map(|one| one.result);
    let result = result.max().unwrap_or(Verdict::Same);
    let meta = &service.metadata;
    Some(Becomes {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        from,
        hostnames: addresses(service),
        result,
        becomes: (asked.as_ref().zip(seen.objects.as_ref()))
            .map(|(asked, objects)| Balancer::of(asked, objects)),
        settings,
        second: (result < Verdict::NoEqual).then(|| manifest::second(service, aim.class)),
    })
}

/// A whole key.
pub(super) fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The annotations without the one that chose the controller: `spec.loadBalancerClass` does that now. A value of
/// it that asks for more stays.
fn read(service: &Service) -> Annotations {
    let mut all = service.metadata.annotations.clone().unwrap_or_default();
    if all.get(&key(TYPE)).is_none_or(|it| it.trim() != "nlb-ip") {
        all.remove(&key(TYPE));
    }
    all
}

/// What the API server adds to a manifest.
pub(in crate::cli) fn filled(spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    if spec.allocate_load_balancer_node_ports != Some(false) {
        let ports = spec.ports.iter_mut().flatten();
        let mut ports: Vec<_> = ports.collect();
        let has = |port: Option<i32>| port.filter(|port| *port > 0);
        let known = ports
            .iter()
            .filter_map(|one| Some((one.port, has(one.node_port)?)));
        // TCP and UDP on one port get the same node port.
        let mut known: BTreeMap<i32, i32> = known.collect();
        for (node_port, one) in (NODE_PORTS..).zip(&mut ports) {
            let given = has(one.node_port);
            let node_port = given.unwrap_or(*known.entry(one.port).or_insert(node_port));
            one.node_port = Some(node_port);
        }
    }
    if spec.external_traffic_policy.as_deref() == Some("Local") {
        spec.health_check_node_port
            .get_or_insert(HEALTH_CHECK_NODE_PORT);
    }
    spec
}

/// The Service as one of the class.
pub(super) fn as_member(service: &Service, aim: &Aim<'_>) -> Result<Member, Refusal> {
    let spec = filled(&service.spec.clone().unwrap_or_default());
    asked(service, &spec, &read(service), aim.dialect)
}

fn asked(
    service: &Service,
    spec: &ServiceSpec,
    annotations: &Annotations,
    dialect: Dialect,
) -> Result<Member, Refusal> {
    let meta = &service.metadata;
    translate::labels(meta)?;
    let id = ServiceId {
        namespace: meta.namespace.as_deref().unwrap_or_default().into(),
        name: meta.name.as_deref().unwrap_or_default().into(),
        // A manifest has none.
        uid: meta.uid.as_deref().unwrap_or_default().into(),
    };
    Ok(Member {
        load_balancer: translate::load_balancer(&id, spec, annotations, dialect)?,
        published: Vec::new(),
        placement: translate::placement(meta, spec),
        endpoints: None,
    })
}

fn refused(refusal: Refusal) -> Preview {
    Preview {
        refused: vec![Refused { key: None, refusal }],
        objects: None,
        remarks: Vec::new(),
    }
}

fn no_equal(service: &Service, seen: &Preview) -> Vec<Setting> {
    let mut all = Vec::new();
    let spec = service.spec.as_ref();
    let kind = spec.and_then(|spec| spec.type_.as_deref());
    if !is_load_balancer(service) {
        let kind = kind.unwrap_or("ClusterIP");
        all.push(Setting {
            setting: "spec.type".to_owned(),
            result: Verdict::NoEqual,
            why: format!(
                "it is {kind}: Ballast serves only Services of type LoadBalancer, and sends to their node ports"
            ),
        });
    }
    all.extend(seen.refused.iter().map(|one| {
        let why = one.refusal.message.clone();
        Setting {
            setting: one.key.clone().unwrap_or_else(|| subject(&why)),
            result: Verdict::NoEqual,
            why,
        }
    }));
    all
}

/// The annotations that mean the same.
fn same(annotations: &Annotations, others: &[Setting], dialect: Dialect) -> Vec<Setting> {
    let named: BTreeSet<&str> = others.iter().map(|one| one.setting.as_str()).collect();
    let ours = |key: &str| {
        let mut prefixes = dialect.setting_prefixes.iter();
        key == SOURCE_RANGES || prefixes.any(|prefix| key.starts_with(prefix))
    };
    let keys = annotations.keys();
    keys.filter(|key| ours(key) && !named.contains(key.as_str()))
        .map(|key| Setting {
            setting: key.clone(),
            result: Verdict::Same,
            why: String::new(),
        })
        .collect()
}

/// The annotation or the field that a message begins with.
pub(super) fn subject(message: &str) -> String {
    let message = message.strip_prefix("annotation ").unwrap_or(message);
    let end = message.find([' ', ':']).unwrap_or(message.len());
    let first = &message[..end];
    let known = first.starts_with("spec.") || first.contains('/');
    if known { first } else { "" }.to_owned()
}

// === impl Becomes ===

impl Becomes {
    /// Whether a setting means something else.
    pub fn differs(&self) -> bool {
        let mut all = self.settings.iter();
        all.any(|one| one.result == Verdict::Differs)
    }
}

// === impl Origin ===

impl Origin {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancerController => "LBC",
            Self::InTree => "in-tree",
        }
    }

    /// For sentences.
    pub const fn called(self) -> &'static str {
        match self {
            Self::LoadBalancerController => "the AWS Load Balancer Controller",
            Self::InTree => "the in-tree provider",
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs => "differs",
            Self::NoEqual => "no equal",
        }
    }
}
