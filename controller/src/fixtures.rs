//! Builders for unit tests: a Service, a class, a provider and an API server. Each is valid; a
//! test changes only what it checks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use ballast_crds::{Draining, LoadBalancerClassStatus, ProviderSettings};
use ballast_provider::{
    Address, Affinity, Balancer, CallCount, Change, Family, Ingress, IpMode, Key, Listener,
    LoadBalancer, Observed, Owned, PortStatus, Protocol, Provider, ProviderError, Published,
    Reason, Refusal, Released, Removal, ServiceId, State, TargetSet, TrafficPolicy, Traits,
};
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::class::instance::Factory;
use crate::class::{ClassView, Classes, Contender, IN_USE_FINALIZER, Instance};
use crate::cluster::endpoints::Endpoints;
use crate::cluster::pods::{GATE, GatedPod};
use crate::cluster::slices::Slice;
use crate::cluster::store::{Key as _, Parsed, Update};
use crate::cluster::view::{ConditionView, Name, ServiceView};
use crate::run::factory::{Providers, samples};

/// A provider of which only the pure half may be used: it shares by share key and
/// refuses a balancer with a listener on port 666, or with more than [`LISTENERS`].
pub(crate) struct PureProvider(pub &'static [&'static str]);

/// The most listeners of a balancer of [`PureProvider`], all members together.
pub(crate) const LISTENERS: usize = 8;

/// A client of an API server that answers each request, with its JSON body, by this function.
pub(crate) fn client<A, F>(answer: A) -> kube::Client
where
    A: Fn(http::request::Parts, Value) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send,
{
    let router: Router = Router::new().fallback(move |request: Request| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            answer(parts, body).await
        }
    });
    kube::Client::new(router, "default")
}

/// An answer of the API server.
pub(crate) fn reply(code: u16, body: &Value) -> Response {
    let body = Body::from(body.to_string());
    Response::builder().status(code).body(body).unwrap()
}

/// An error of the API server.
pub(crate) fn failure(code: u16) -> Response {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "AlreadyExists",
        _ => "InternalError",
    };
    let message = format!("no: {code}");
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "code": code, "message": message, "reason": reason,
    });
    reply(code, &status)
}

pub(crate) fn id(name: &str) -> ServiceId {
    ServiceId {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-{name}").into(),
    }
}

pub(crate) fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn listener(port: u16) -> Listener {
    Listener {
        name: None,
        protocol: Protocol::Tcp,
        port,
        node_port: 30_000 + port,
    }
}

pub(crate) fn ingress(ip: &str, port: u16) -> Ingress {
    Ingress {
        address: Address::Ip(ip.parse().unwrap(), IpMode::Proxy),
        ports: vec![PortStatus {
            port,
            protocol: Protocol::Tcp,
            error: None,
        }],
    }
}

pub(crate) fn programmed(ip: &str) -> Observed {
    Observed::new(vec![ingress(ip, 80)], State::Programmed)
}

pub(crate) fn condition(kind: &str, status: &str, reason: Reason, message: &str) -> ConditionView {
    ConditionView {
        kind: kind.to_owned().into(),
        status: status.to_owned().into(),
        reason: reason.as_str().into(),
        message: message.into(),
        since: second(1),
        is_exact: true,
    }
}

/// The setting of Services whose targets are pods.
pub(crate) const PODS: &str = "test.example/pods";

/// A slice of a Service of `shop`, whose pods with these addresses are ready on port 8080.
pub(crate) fn pod_slice(service: &str, name: &str, addresses: &[&str]) -> Value {
    let addresses = addresses.iter();
    let pods: Vec<Value> = addresses
        .map(|address| json!({"addresses": [address]}))
        .collect();
    json!({
        "metadata": {
            "name": name, "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "protocol": "TCP", "port": 8080}],
        "endpoints": pods,
    })
}

/// A slice of a Service of `shop` whose pods, with these names and addresses, are not ready.
pub(crate) fn unready_slice(service: &str, name: &str, pods: &[(&str, &str)]) -> Value {
    let addresses: Vec<&str> = pods.iter().map(|(_, address)| *address).collect();
    let mut slice = pod_slice(service, name, &addresses);
    for (number, (pod, _)) in pods.iter().enumerate() {
        let endpoint = &mut slice["endpoints"][number];
        endpoint["targetRef"] = json!({"kind": "Pod", "name": pod});
        endpoint["conditions"] = json!({"ready": false});
    }
    slice
}

/// A pod of `shop` whose gate is closed; `ready` is the status of its containers.
pub(crate) fn gated_pod(name: &str, ready: &str) -> Parsed<Name, Option<GatedPod>> {
    let object = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {"readinessGates": [{"conditionType": GATE}]},
        "status": {"conditions": [{"type": "ContainersReady", "status": ready}]},
    });
    Parsed {
        key: Name::named(Some("shop"), Some(name)),
        version: 1,
        view: GatedPod::of(&serde_json::from_value(object).unwrap()),
    }
}

/// What is known after the list of these slices.
pub(crate) fn listed_pods(slices: &[Value]) -> Endpoints {
    let endpoints = Endpoints::default();
    let followed = endpoints.begin(false);
    let apply = |update| followed.changed(&followed.slices.apply(update));
    apply(Update::ListBegins);
    for slice in slices {
        apply(Update::Listed(parsed_slice(slice)));
    }
    apply(Update::ListEnds);
    endpoints
}

/// A slice as a watch parses it.
pub(crate) fn parsed_slice(slice: &Value) -> Parsed<Name, Option<Slice>> {
    let meta = &slice["metadata"];
    let key = Name::named(meta["namespace"].as_str(), meta["name"].as_str());
    Parsed {
        version: 1,
        view: serde_json::from_value(slice.clone())
            .ok()
            .and_then(|slice| Slice::of(&key, &slice)),
        key,
    }
}

// === impl ServiceView ===

impl ServiceView {
    /// A fresh Service of class `local` with port 80.
    pub(crate) fn test(name: &str) -> Self {
        Self {
            id: id(name),
            version: 1,
            created: second(100),
            deleting: false,
            is_load_balancer: true,
            class: Some("ballast.dev/local".into()),
            held_by: vec![],
            standard_finalizer: false,
            other_finalizers: None,
            load_balancer: Some(Ok(LoadBalancer {
                id: id(name),
                listeners: vec![listener(80)],
                families: vec![Family::V4],
                traffic_policy: TrafficPolicy::Cluster,
                affinity: Affinity::None,
                source_ranges: vec![],
                requested_addresses: vec![],
                share_key: None,
                settings: ballast_provider::Settings::new(),
            })),
            placement: ballast_provider::Placement::default(),
            accepted_before: None,
            unknown_annotations: vec![],
            ingress: vec![],
            ingress_is_exact: true,
            conditions: vec![],
            rival: None,
        }
    }

    pub(crate) fn class(mut self, class: Option<&str>) -> Self {
        self.class = class.map(Into::into);
        self
    }

    pub(crate) fn held_by(mut self, classes: &[&str]) -> Self {
        self.held_by = classes.iter().map(|&class| class.into()).collect();
        self
    }

    pub(crate) fn standard(mut self) -> Self {
        self.standard_finalizer = true;
        self
    }

    pub(crate) fn deleting(mut self) -> Self {
        self.deleting = true;
        self
    }

    /// As the API server leaves it after a change to `ClusterIP`.
    pub(crate) fn cluster_ip(mut self) -> Self {
        self.is_load_balancer = false;
        self.class = None;
        self.load_balancer = None;
        self.ingress.clear();
        self
    }

    pub(crate) fn refused(mut self, reason: Reason) -> Self {
        self.load_balancer = Some(Err(Refusal::new(reason, "no")));
        self
    }

    pub(crate) fn created(mut self, at: i64) -> Self {
        self.created = second(at);
        self
    }

    pub(crate) fn shares(mut self, key: &str, port: u16) -> Self {
        if let Some(Ok(wanted)) = &mut self.load_balancer {
            wanted.share_key = Some(key.to_owned());
            wanted.listeners = vec![listener(port)];
        }
        self
    }

    pub(crate) fn publishing(mut self, ip: &str) -> Self {
        self.ingress = vec![ingress(ip, 80)];
        self
    }

    pub(crate) fn saying(mut self, conditions: &[ConditionView]) -> Self {
        self.conditions.extend_from_slice(conditions);
        self
    }
}

// === impl ClassView ===

impl ClassView {
    /// A class in use, with load balancers in a cloud.
    pub(crate) fn test(name: &str) -> Self {
        Self {
            name: name.into(),
            uid: format!("uid-{name}"),
            version: 1,
            created: second(10),
            deleting: false,
            finalizers: vec![IN_USE_FINALIZER.into()],
            default: false,
            force_default: false,
            max: None,
            removal: Removal::Delete,
            orphan_grace: None,
            provider: Ok(samples::in_a_cloud()),
            traits: Ok(Traits::CLOUD),
            status: LoadBalancerClassStatus::default(),
        }
    }

    /// With this provider, as the factory supports it.
    pub(crate) fn of_provider(mut self, provider: Result<ProviderSettings, String>) -> Self {
        let settings = provider.as_ref().map_err(Clone::clone);
        self.traits = settings.and_then(|settings| {
            let supported = Providers::default().supports(settings);
            supported.map_err(|refusal| refusal.message)
        });
        self.provider = provider;
        self
    }

    /// With the drain switch on.
    pub(crate) fn drains(mut self, reason: Option<&str>) -> Self {
        self.status.draining = Some(Draining {
            since: Time(second(50)),
            reason: reason.map(str::to_owned),
        });
        self
    }
}

// === impl Classes ===

impl Classes {
    /// These classes, each with a ready provider and a survey that has found nothing.
    pub(crate) fn test(views: impl IntoIterator<Item = ClassView>) -> Self {
        let mut classes = Self {
            contender: Contender::Nobody,
            ..Self::default()
        };
        for view in views {
            let ready = Instance::Ready(Arc::new(PureProvider(&[])));
            classes.instances.insert(view.name.clone(), ready);
            classes.found.insert(view.name.clone(), Arc::default());
            classes.views.insert(view.name.clone(), Arc::new(view));
        }
        classes
    }
}

// === impl PureProvider ===

#[async_trait]
impl Provider for PureProvider {
    fn traits(&self) -> Traits {
        Traits {
            endpoints: true,
            ..Traits::CLOUD
        }
    }

    fn uses_endpoints(&self, load_balancer: &LoadBalancer) -> bool {
        load_balancer.settings.contains_key(PODS)
    }

    fn clouds(&self) -> Vec<String> {
        self.0.iter().map(|it| (*it).to_owned()).collect()
    }

    fn calls(&self) -> Vec<CallCount> {
        vec![CallCount {
            action: "Look",
            result: "ok",
            calls: 2,
            took: Duration::from_millis(250),
        }]
    }

    /// One for each cloud.
    fn remarks(&self) -> Vec<String> {
        let clouds = self.0.iter();
        clouds.map(|cloud| format!("It uses {cloud}")).collect()
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        let shared = load_balancer.share_key.as_deref();
        let shared = shared.map(|key| Key::Shared(key.into()));
        shared.unwrap_or_else(|| Key::alone(&load_balancer.id))
    }

    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal> {
        let members = balancer.members.iter();
        let mut listeners = members.flat_map(|member| &member.load_balancer.listeners);
        if listeners.clone().count() > LISTENERS {
            return Err(Refusal::new(Reason::QuotaExceeded, "too many listeners"));
        }
        let mut settings = balancer
            .members
            .iter()
            .flat_map(|it| &it.load_balancer.settings);
        if settings.any(|(_, value)| value == "666") {
            let message = "a setting of 666 is beyond this provider";
            return Err(Refusal::new(Reason::Unsupported, message));
        }
        match listeners.find(|listener| listener.port == 666) {
            Some(_) => Err(Refusal::new(
                Reason::Unsupported,
                "port 666 is beyond this provider",
            )),
            None => Ok(()),
        }
    }

    async fn restore(&self, _: Vec<Published>) -> Result<(), ProviderError> {
        unreachable!("choosing has no effects")
    }

    async fn ensure(&self, _: &Balancer) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        unreachable!("choosing has no effects")
    }

    async fn retarget(&self, _: &TargetSet, _: &[Key]) -> Result<(), ProviderError> {
        unreachable!("choosing has no effects")
    }

    async fn release(&self, _: &ServiceId, _: &Key, _: Removal) -> Result<Released, ProviderError> {
        unreachable!("choosing has no effects")
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        unreachable!("choosing has no effects")
    }

    async fn tag(
        &self,
        _: &[Owned],
        _: &std::collections::BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        Ok(())
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        unreachable!("choosing has no effects")
    }
}
