//! What `ballast status` knows of the classes. Pure.

use std::collections::BTreeMap;

use ballast_aws::settings::ClassSettings;
use ballast_crds::{LoadBalancerClass, class_of_key};
use ballast_provider::Billed;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::DeserializeGuard;

use super::report::{holder, is_deleting, spec_class};
use crate::cli::cost;
use crate::cli::service::{addresses, is_load_balancer};
use crate::run::factory::Providers;

/// What this command needs of the classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// The provider of each class by name; `None` if the user may not read classes.
    pub(super) known: Option<BTreeMap<String, Option<String>>>,
    /// The default class.
    default: Option<String>,
    /// Classes with the drain switch on.
    drained: Vec<String>,
    /// `spec.maxLoadBalancers`
    max: BTreeMap<String, u32>,
    /// The settings of classes for AWS.
    aws: BTreeMap<String, ClassSettings>,
}

// === impl Classes ===

impl Classes {
    /// Reads the classes.
    pub fn of(classes: &[DeserializeGuard<LoadBalancerClass>]) -> Self {
        let mut known = BTreeMap::new();
        let (mut default, mut drained) = (None, Vec::new());
        let (mut max, mut aws) = (BTreeMap::new(), BTreeMap::new());
        for guard in classes {
            let (name, status) = match &guard.0 {
                Ok(class) => (class.metadata.name.clone(), class.status.as_ref()),
                Err(broken) => (broken.metadata.name.clone(), None),
            };
            let name = name.unwrap_or_default();
            let conditions = status.map(|status| status.conditions.as_slice());
            let takes = |one: &Condition| one.type_ == "Default" && one.status == "True";
            if conditions.unwrap_or_default().iter().any(takes) {
                default = Some(name.clone());
            }
            if status.is_some_and(|status| status.draining.is_some()) {
                drained.push(name.clone());
            }
            if let Ok(class) = &guard.0 {
                let limit = class.spec.max_load_balancers;
                let limit = limit.map(|limit| u32::try_from(limit).unwrap_or_default());
                max.extend(limit.map(|limit| (name.clone(), limit)));
                let settings = class.spec.aws.as_ref();
                let settings = settings.and_then(|aws| Providers::aws_settings(aws).ok());
                aws.extend(settings.map(|settings| (name.clone(), settings)));
            }
            known.insert(name, status.and_then(|status| status.provider.clone()));
        }
        Self {
            known: Some(known),
            default,
            drained,
            max,
            aws,
        }
    }

    /// The classes that create no load balancers because they are draining.
    pub fn drained(&self) -> &[String] {
        &self.drained
    }

    /// For a user who may not read classes.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// All that are known.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().flatten().map(|(name, _)| name.as_str())
    }

    /// `spec.maxLoadBalancers` of a class.
    pub(super) fn max(&self, class: &str) -> Option<u32> {
        self.max.get(class).copied()
    }

    /// The class that has a load balancer for the Service, or an address of its pools.
    pub(super) fn user_of(service: &Service) -> Option<&str> {
        let named = spec_class(service).filter(|_| !addresses(service).is_empty());
        holder(service).or_else(|| named.and_then(class_of_key))
    }

    /// What the load balancer of a Service is billed as.
    pub(super) fn billed(&self, class: &str, service: &Service) -> Billed {
        let none = BTreeMap::new();
        let annotations = service.metadata.annotations.as_ref().unwrap_or(&none);
        if let Some(settings) = self.aws.get(class) {
            return cost::of_annotations(annotations, settings);
        }
        if self.provider(class).as_deref() != Some("mock") {
            return Billed {
                load_balancers: 1,
                ..Billed::default()
            };
        }
        let all = addresses(service);
        let all = all.iter().filter_map(|it| it.parse().ok());
        ballast_mock::billed(&all.collect::<Vec<_>>())
    }

    pub(super) fn is_missing(&self, class: &str) -> bool {
        let known = self.known.as_ref();
        known.is_some_and(|known| !known.contains_key(class))
    }

    pub(super) fn provider(&self, class: &str) -> Option<String> {
        self.known.as_ref()?.get(class)?.clone()
    }

    /// The Ballast class that serves the Service, or would.
    pub(super) fn serving(&self, service: &Service) -> Option<String> {
        let named = spec_class(service).filter(|_| is_load_balancer(service));
        if let Some(class) = named.and_then(class_of_key).or_else(|| holder(service)) {
            return Some(class.to_owned());
        }
        let open = is_load_balancer(service) && !is_deleting(service) && named.is_none();
        self.default.clone().filter(|_| open)
    }
}
