//! What the controller would do with the Services of manifests. Pure: it asks
//! [`crate::service::decide`] for one Service after the other, and takes each step as done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ballast_provider::{Balancer, Key, Mark, Member, Money, Prices, Refusal, TargetSet};
use k8s_openapi::api::core::v1::Service;
use serde::Serialize;

use super::calls::{self, Cloud};
use super::inputs::Inputs;
use crate::class::instance::Factory as _;
use crate::class::{ClassView, Classes, IN_USE_FINALIZER, Instance};
use crate::cluster::endpoints::Endpoints;
use crate::cluster::ledger::Ledger;
use crate::cluster::namespaces::Namespaces;
use crate::cluster::store::{Parsed, Update};
use crate::cluster::translate::Dialect;
use crate::cluster::view::{Name, ServiceView};
use crate::run::factory::Providers;
use crate::service::decide::{ARRIVAL_GRACE, Decision, World, decide};

/// What `-o json|yaml` prints. Fields may be added, never renamed or removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// In the order in which the controller prefers them: what exists first, then as in the files.
    pub services: Vec<Planned>,
    /// `NAMESPACE/NAME` of the Services of type `LoadBalancer` that no class of Ballast serves.
    pub not_served: Vec<String>,
    /// Changing calls to clouds.
    pub calls: usize,
    /// What would be billed more, in US dollars a month; a mock cloud counts as nothing.
    pub monthly_cost: f64,
    /// What cannot be read.
    pub broken: Vec<String>,
    #[serde(skip)]
    pub(super) cost: Money,
}

/// What becomes of one Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// The class that serves it.
    pub class: String,
    /// `aws`, `l2` or `mock`, if it is known.
    pub provider: Option<String>,
    /// What happens.
    pub result: Verdict,
    /// Why it is refused or waits: for machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The same for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// `NAMESPACE/NAME` of the other Services on its load balancer.
    pub shared_with: Vec<String>,
    /// The ports for clients: `80/TCP`.
    pub listeners: Vec<String>,
    /// The load balancer in words; empty if it is refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub load_balancer: String,
    /// Changing calls to the cloud, by action.
    pub calls: BTreeMap<String, usize>,
    /// What is billed more because of it, in US dollars a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly_cost: Option<f64>,
    /// Nobody bills it: the cost is that of the same on AWS.
    pub cost_is_as_on_aws: bool,
    /// What its owner should know.
    pub warnings: Vec<String>,
    #[serde(skip)]
    pub(super) cost: Option<Money>,
}

/// What happens to a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// It gets a load balancer.
    Create,
    /// It joins a load balancer that other Services have.
    Join,
    /// Its load balancer changes.
    Change,
    /// Nothing changes.
    Unchanged,
    /// It is refused.
    Refused,
    /// It waits for something.
    Waits,
}

/// What is taken as done so far.
struct Simulation<'a> {
    classes: Classes,
    clouds: BTreeMap<String, Cloud>,
    namespaces: Namespaces,
    endpoints: Endpoints,
    services: Vec<Arc<ServiceView>>,
    balancers: BTreeMap<(String, Key), Vec<Member>>,
    targets: &'a TargetSet,
    prices: &'a Prices,
}

/// The plan.
pub fn plan(inputs: &Inputs, prices: &Prices) -> Report {
    let mut simulation = Simulation::of(inputs, prices);
    let mut report = Report {
        broken: inputs.broken.clone(),
        ..Report::default()
    };
    for (service, _) in &inputs.wanted {
        let name = Name::of(&service.metadata);
        let Some(view) = simulation.view(&name) else {
            continue;
        };
        match simulation.planned(&view) {
            Some(planned) => report.services.push(planned),
            None if view.is_load_balancer => report.not_served.push(name.to_string()),
            None => {}
        }
    }
    let all = &report.services;
    report.calls = all.iter().flat_map(|one| one.calls.values()).sum();
    let billed = all.iter().filter(|one| !one.cost_is_as_on_aws);
    report.cost = billed.filter_map(|one| one.cost).sum();
    report.monthly_cost = report.cost.dollars();
    report
}

fn dialect() -> Dialect {
    Dialect {
        setting_prefixes: Providers::default().setting_prefixes(),
    }
}

fn view_of(service: &Service) -> ServiceView {
    ServiceView::read(&Name::of(&service.metadata), service, dialect())
}

// === impl Simulation ===

impl<'a> Simulation<'a> {
    fn of(inputs: &'a Inputs, prices: &'a Prices) -> Self {
        let factory = Providers::default();
        let ledger = Arc::new(Ledger::default());
        let mut classes = Classes {
            contender: inputs.contender(),
            ledger: Arc::clone(&ledger),
            ..Classes::default()
        };
        let mut clouds = BTreeMap::new();
        for guard in &inputs.classes {
            let mut view = ClassView::of(guard, &factory);
            view.finalizers = vec![IN_USE_FINALIZER.to_owned()];
            if let Ok(settings) = &view.provider {
                let mark = Mark {
                    cluster: "plan".to_owned(),
                    cluster_name: String::new(),
                    class: view.name.clone(),
                    writer: String::new(),
                };
                let instance = match factory.build(settings, mark) {
                    Ok(provider) => Instance::Ready(provider),
                    Err(error) => Instance::Failing(error.reason(), error.to_string()),
                };
                classes.instances.insert(view.name.clone(), instance);
                clouds.insert(view.name.clone(), Cloud::of(settings));
            }
            classes.views.insert(view.name.clone(), Arc::new(view));
        }
        let namespaces = Namespaces::default();
        let endpoints = Endpoints::default();
        let followed = endpoints.begin(false);
        followed.slices.apply(Update::ListBegins);
        followed.slices.apply(Update::ListEnds);
        let mut simulation = Self {
            classes,
            clouds,
            namespaces,
            endpoints,
            services: Vec::new(),
            balancers: BTreeMap::new(),
            targets: &inputs.targets,
            prices,
        };
        for service in &inputs.live {
            simulation.exists(&view_of(service));
            simulation.services.push(Arc::new(view_of(service)));
        }
        for (service, before) in &inputs.wanted {
            if let Some(before) = before {
                simulation.exists(&view_of(before));
            }
            simulation.services.push(Arc::new(view_of(service)));
        }
        for service in &simulation.services {
            simulation.namespaces.apply(Update::Applied(Parsed {
                key: Arc::clone(&service.id.namespace),
                version: 1,
                view: ballast_provider::Labels::default(),
            }));
        }
        simulation
    }

    /// Records what a Service of the cluster has.
    fn exists(&mut self, service: &ServiceView) {
        for class in service.holders() {
            let Some(provider) = self.classes.provider(class) else {
                self.classes.ledger.record(&service.id, class);
                continue;
            };
            let Some(shape) = service.shapes().next() else {
                self.classes.ledger.record(&service.id, class);
                continue;
            };
            let key = provider.key(shape);
            self.classes.ledger.record_on(&service.id, class, &key);
            let member = Member {
                load_balancer: shape.clone(),
                published: service.addresses(),
                placement: service.placement.clone(),
                endpoints: None,
            };
            let all = self.balancers.entry((class.to_owned(), key)).or_default();
            all.push(member);
        }
    }

    fn view(&self, name: &Name) -> Option<Arc<ServiceView>> {
        let mut all = self.services.iter();
        all.find(|one| Name::from(&one.id) == *name).cloned()
    }

    /// What becomes of a Service; `None` if no class serves it.
    fn planned(&mut self, service: &ServiceView) -> Option<Planned> {
        let class = self.classes.claim(service)?.to_owned();
        let ledger = Arc::clone(&self.classes.ledger);
        let decision = decide(
            service,
            &World {
                classes: &self.classes,
                ledger: &ledger,
                namespaces: &self.namespaces,
                endpoints: &self.endpoints,
                services: &|| self.services.clone(),
                class_missing_for: ARRIVAL_GRACE.max(Duration::from_mins(1)),
            },
        );
        let mut planned = self.blank(service, &class);
        match decision {
            Decision::Ensure {
                balancer,
                objection,
                max,
                ..
            } => {
                ledger.reserve(&service.id, &class, &balancer.key, max);
                planned.warnings.extend(objection.map(|it| it.message));
                if let Err(refusal) = self.served(service, &balancer, &mut planned) {
                    ledger.refused(&service.id, &class);
                    planned.refuse(Verdict::Refused, &refusal);
                }
            }
            Decision::Refuse { refusal, .. } => planned.refuse(Verdict::Refused, &refusal),
            Decision::Wait { why: Some(why), .. } => planned.refuse(Verdict::Waits, &why),
            Decision::Release { drained, .. } => {
                let why = drained.unwrap_or_else(|| {
                    Refusal::new(
                        ballast_provider::Reason::Releasing,
                        "another class has released its load balancer first",
                    )
                });
                planned.refuse(Verdict::Waits, &why);
            }
            Decision::Wait { why: None, .. } | Decision::Later(_) => {
                let why = Refusal::new(ballast_provider::Reason::ClassNotReady, "the class starts");
                planned.refuse(Verdict::Waits, &why);
            }
            Decision::Ignore | Decision::Clean => return None,
        }
        Some(planned)
    }

    fn blank(&self, service: &ServiceView, class: &str) -> Planned {
        let ports = service.shapes().flat_map(|shape| &shape.listeners);
        let mut warnings = Vec::new();
        if !service.unknown_annotations.is_empty() {
            let all = service.unknown_annotations.join(", ");
            warnings.push(format!("unknown annotations: {all}"));
        }
        let view = self.classes.get(class);
        let conditions = view.map(|view| view.status.conditions.as_slice());
        let mut conditions = conditions.unwrap_or_default().iter();
        if let Some(not) = conditions.find(|it| it.type_ == "Ready" && it.status == "False") {
            warnings.push(format!("the class is not ready now: {}", not.message));
        }
        let provider = view.and_then(|view| view.provider.as_ref().ok());
        Planned {
            namespace: service.id.namespace.to_string(),
            name: service.id.name.to_string(),
            class: class.to_owned(),
            provider: provider.map(|it| it.kind().as_str().to_owned()),
            result: Verdict::Create,
            reason: None,
            why: String::new(),
            shared_with: Vec::new(),
            listeners: ports
                .map(|it| format!("{}/{}", it.port, it.protocol.as_str()))
                .collect(),
            load_balancer: String::new(),
            calls: BTreeMap::new(),
            monthly_cost: None,
            cost_is_as_on_aws: false,
            warnings,
            cost: None,
        }
    }

    /// The step is taken: what the cloud is asked, and what it bills more.
    fn served(
        &mut self,
        service: &ServiceView,
        balancer: &Balancer,
        planned: &mut Planned,
    ) -> Result<(), Refusal> {
        let Some(cloud) = self.clouds.get(&planned.class) else {
            return Ok(());
        };
        let at = (planned.class.clone(), balancer.key.clone());
        let before = self.balancers.get(&at).cloned().unwrap_or_default();
        let mut others = self.balancers.iter();
        let first = !others.any(|((class, _), all)| *class == planned.class && !all.is_empty());
        let own = |all: &[Member]| {
            let mut all = all.iter();
            all.any(|one| one.load_balancer.id == service.id)
        };
        let asked = calls::of(
            cloud,
            &balancer.key,
            &before,
            &balancer.members,
            self.targets,
        )?;
        planned.load_balancer = asked.text;
        planned.warnings.extend(asked.warnings);
        planned.calls = asked.calls;
        if first {
            let of_class = asked.of_class.iter();
            for action in of_class {
                *planned.calls.entry((*action).to_owned()).or_default() += 1;
            }
        }
        planned.result = match (before.is_empty(), own(&before), planned.calls.is_empty()) {
            (true, _, _) => Verdict::Create,
            (false, false, _) => Verdict::Join,
            (false, true, true) => Verdict::Unchanged,
            (false, true, false) => Verdict::Change,
        };
        planned.cost_is_as_on_aws = cloud.is_mock();
        planned.cost = asked.billed.map(|(was, is)| {
            let (was, is) = (self.prices.per_month(was), self.prices.per_month(is));
            Money::micros(is.micros.saturating_sub(was.micros))
        });
        planned.monthly_cost = planned.cost.map(Money::dollars);
        let others = balancer.members.iter().map(|one| &one.load_balancer.id);
        planned.shared_with = others
            .filter(|id| **id != service.id)
            .map(ToString::to_string)
            .collect();
        self.balancers.insert(at, balancer.members.clone());
        Ok(())
    }
}

// === impl Planned ===

impl Planned {
    fn refuse(&mut self, result: Verdict, refusal: &Refusal) {
        self.result = result;
        self.reason = Some(refusal.reason.as_str());
        self.why.clone_from(&refusal.message);
    }
}

// === impl Report ===

impl Report {
    /// Whether a Service is refused, or waits.
    pub fn refuses(&self) -> bool {
        let mut all = self.services.iter();
        all.any(|one| matches!(one.result, Verdict::Refused | Verdict::Waits))
    }
}

// === impl Verdict ===

impl Verdict {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "gets a new load balancer",
            Self::Join => "joins a load balancer",
            Self::Change => "changes its load balancer",
            Self::Unchanged => "changes nothing",
            Self::Refused => "is refused",
            Self::Waits => "waits",
        }
    }
}
