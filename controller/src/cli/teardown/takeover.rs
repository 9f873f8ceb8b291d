//! The work of a dead controller, done by this command with the rights and credentials of the
//! person who runs it: the same code ([`run::run`]), behind the same Lease.
//!
//! [`next`] decides when (pure). [`check`] first makes sure that the credentials reach the cloud
//! that has the load balancers: in another account they are not found, and to the controller a
//! load balancer that is not there is released.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ballast_aws::adopt::UNNAMED;
use ballast_aws::client::Clients;
use ballast_crds::{LoadBalancerClass, ProviderSettings};
use ballast_mock::Token;
use ballast_provider::Owned;
use ballast_provider::mark::CLUSTER;
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::core::DeserializeGuard;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::args::TeardownArgs;
use super::report::{Cluster, Left, Limits, Report, Selection, Verdict, verdict};
use crate::class::contender;
use crate::cli::cluster::uid;
use crate::cluster::conditions::PROGRAMMED;
use crate::pools::AddressBook;
use crate::process::access;
use crate::process::backoff::Backoff;
use crate::process::identity::host_name;
use crate::process::lease::{Config, Timing};
use crate::run::factory::Providers;
use crate::run::{self, Exit, Options};

/// As many Services at a time as the controller, by default.
const WORKERS: usize = 32;
/// How long the end may take: work in flight ends, events are sent, the Lease is released.
const STOP: Duration = Duration::from_secs(30);
/// How long the list of a cloud may take.
const LIST: Duration = Duration::from_mins(2);

/// Whether the command may do the work of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Help {
    /// No.
    No,
    /// If the person at the terminal agrees.
    Ask,
    /// Yes.
    Allowed,
    /// It does it already.
    Working,
}

/// What to do after a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read again.
    GoOn,
    /// Ask whether to take over.
    Ask,
    /// Take over.
    TakeOver,
    /// End.
    End(Verdict),
}

/// The work of the controller in this process.
pub struct Worker {
    /// Its name in the Lease.
    pub identity: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<Exit>>,
}

/// Decides what to do after `elapsed`. A flag is an order: it need not wait until the controller is
/// certainly dead, because the Lease keeps both apart.
pub fn next(report: &Report, elapsed: Duration, limits: Limits, help: Help) -> Next {
    let end = verdict(report, elapsed, limits);
    let over = elapsed >= limits.timeout;
    match (end, help) {
        (Verdict::Done | Verdict::Left, _) => Next::End(end),
        (_, Help::Working) if over => Next::End(Verdict::Dead),
        (_, Help::Working) => Next::GoOn,
        (_, Help::Allowed) if report.controller.is_away() && !over => Next::TakeOver,
        (Verdict::Dead, Help::Ask) if !over => Next::Ask,
        (Verdict::Dead, _) => Next::End(end),
        (Verdict::GoOn, _) => Next::GoOn,
    }
}

/// What the controller would run with.
pub fn options(args: &TeardownArgs, selection: &Selection) -> Result<Options> {
    let factory = factory(args);
    let identity = format!("teardown-{}", host_name());
    Ok(Options {
        scope: selection.scope(),
        cluster_name: UNNAMED.to_owned(),
        election: Config::new(&identity, Timing::default()).context("leader election")?,
        lease: (
            args.lease.lease_namespace.clone(),
            args.lease.lease_name.clone(),
        ),
        workers: WORKERS,
        backoff: Backoff::new(Duration::from_secs(1), Duration::from_mins(1)),
        // For nobody; any free port.
        admin: ([127, 0, 0, 1], 0).into(),
        addresses: factory.addresses.clone(),
        factory: Arc::new(factory),
        other_controllers: contender::leases(None),
        readiness_gates: false,
        clock: Arc::new(jiff::Timestamp::now),
    })
}

fn factory(args: &TeardownArgs) -> Providers {
    Providers {
        mock_token: args
            .mock_token_file
            .clone()
            .map(Token::file)
            .unwrap_or_default(),
        mock_token_namespace: None,
        addresses: AddressBook::default(),
        aws: Clients::default(),
        simulate: false,
    }
}

/// An error if a cloud cannot be listed, or has none of the load balancers that it should have.
pub async fn check(args: &TeardownArgs, cluster: &Cluster, report: &Report) -> Result<()> {
    let factory = factory(args);
    let own = uid(&args.cluster.client()?).await?;
    for Held {
        class,
        settings,
        serving,
        leaving,
    } in held(cluster, report)
    {
        if matches!(settings, ProviderSettings::L2(_)) {
            continue;
        }
        let listed = async { factory.inventory(&settings)?.all().await };
        let listed = tokio::time::timeout(LIST, listed).await;
        let listed =
            listed.with_context(|| format!("the cloud of class {class} does not answer"))?;
        let listed = listed.with_context(|| {
            format!("cannot list the load balancers of class {class} with your credentials")
        })?;
        let there = listed.iter().flat_map(|it| &it.services);
        let there: BTreeSet<&str> = there.map(|it| it.uid.as_ref()).collect();
        let is_there = |uid: &String| there.contains(uid.as_str());
        // What Services that are being deleted had may be gone. Then anything of this cluster shows that it is the right
        // cloud.
        let is_own = |it: &Owned| it.tags.get(CLUSTER) == Some(&own);
        let proven = if serving.is_empty() {
            leaving.iter().any(is_there) || listed.iter().any(is_own)
        } else {
            serving.iter().any(is_there)
        };
        if !proven {
            bail!(
                "the cloud has none of the {} load balancers of class {class}. Do your credentials belong to another account? If the load balancers were deleted without Ballast, remove what is left in the cluster: --release-finalizers",
                serving.len() + leaving.len()
            );
        }
    }
    Ok(())
}

/// A class with Services that publish addresses.
struct Held {
    class: String,
    settings: ProviderSettings,
    /// The UIDs of Services whose load balancers must be in the cloud.
    serving: Vec<String>,
    /// Those of Services whose release may have begun: their load balancers may be gone.
    leaving: Vec<String>,
}

/// The classes with Services that publish addresses.
fn held(cluster: &Cluster, report: &Report) -> Vec<Held> {
    let uids: BTreeMap<(Option<&str>, Option<&str>), &Service> = cluster
        .services
        .iter()
        .map(|it| {
            let meta = &it.metadata;
            ((meta.namespace.as_deref(), meta.name.as_deref()), it)
        })
        .collect();
    let service = |left: &Left| {
        let key = (left.namespace.as_deref(), Some(left.name.as_str()));
        uids.get(&key).copied()
    };
    let uid = |one: &Service| one.metadata.uid.clone();
    let classes = cluster.classes.iter().flatten();
    let classes = classes.filter_map(|DeserializeGuard(class)| class.as_ref().ok());
    let of = |class: &LoadBalancerClass| {
        let name = class.metadata.name.clone()?;
        let published = report.left.iter();
        let published = published.filter(|it| it.class == name && !it.addresses.is_empty());
        let services: Vec<&Service> = published.filter_map(service).collect();
        let (leaving, serving): (Vec<&Service>, Vec<&Service>) =
            services.into_iter().partition(|it| is_leaving(it));
        let held = Held {
            settings: class.spec.provider().ok()?,
            serving: serving.into_iter().filter_map(uid).collect(),
            leaving: leaving.into_iter().filter_map(uid).collect(),
            class: name,
        };
        (!held.serving.is_empty() || !held.leaving.is_empty()).then_some(held)
    };
    classes.filter_map(of).collect()
}

fn is_leaving(service: &Service) -> bool {
    let status = service.status.as_ref();
    let conditions = status.and_then(|it| it.conditions.as_deref());
    let mut conditions = conditions.unwrap_or_default().iter();
    service.metadata.deletion_timestamp.is_some()
        || conditions.any(|it| it.type_ == PROGRAMMED && it.reason == "Releasing")
}

// === impl Worker ===

impl Worker {
    /// Takes part in the election and releases what drains.
    pub fn start(args: &TeardownArgs, options: Options) -> Result<Self> {
        // Watches wait longer for an answer than a person's commands.
        let cluster = &args.cluster;
        let access = access::access(cluster.kubeconfig.as_deref(), cluster.context.as_deref())?;
        let (stop, stopped) = oneshot::channel::<()>();
        let asked = async move { drop(stopped.await) };
        let identity = options.election.identity().to_owned();
        let run = run::run(access.client()?, options, asked.boxed());
        Ok(Self {
            identity,
            stop: Some(stop),
            task: tokio::spawn(run),
        })
    }

    /// Whether it ended by itself: it lost the Lease, or it failed.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends it in an orderly way: then the Lease is released.
    pub async fn stop(mut self) -> Result<Exit> {
        drop(self.stop.take());
        let Ok(ended) = tokio::time::timeout(STOP, &mut self.task).await else {
            self.task.abort();
            bail!(
                "the work did not end in {} s; the Lease ends by itself",
                STOP.as_secs()
            )
        };
        ended.context("the work failed")?
    }
}

#[cfg(test)]
mod tests {
    use super::super::pulse::{Controller, Liveness};
    use super::*;

    #[test]
    fn when_it_takes_over() {
        use Help::{Allowed, Ask, No, Working};
        use Liveness::{Absent, Alive, Dead, Silent, Unknown};
        let timeout = Duration::from_mins(10);
        let limits = Limits {
            wait: true,
            timeout,
        };
        let (early, late) = (Duration::ZERO, timeout);
        let end = Next::End;
        for (state, left, elapsed, help, expected) in [
            (Dead, false, early, Allowed, end(Verdict::Done)),
            (Alive, true, early, Allowed, Next::GoOn),
            // It is not known, so it may be alive.
            (Unknown, true, early, Allowed, Next::GoOn),
            (Absent, true, early, Allowed, Next::TakeOver),
            (Silent, true, early, Allowed, Next::TakeOver),
            (Dead, true, early, Allowed, Next::TakeOver),
            (Dead, true, late, Allowed, end(Verdict::Dead)),
            // A question is for what is certain.
            (Absent, true, early, Ask, Next::GoOn),
            (Dead, true, early, Ask, Next::Ask),
            (Dead, true, late, Ask, end(Verdict::Dead)),
            (Dead, true, early, No, end(Verdict::Dead)),
            // It waits for its own election.
            (Dead, true, early, Working, Next::GoOn),
            (Alive, true, early, Working, Next::GoOn),
            (Alive, false, early, Working, end(Verdict::Done)),
            (Alive, true, late, Working, end(Verdict::Left)),
            (Dead, true, late, Working, end(Verdict::Dead)),
        ] {
            let report = Report {
                controller: Controller {
                    state,
                    ..Controller::default()
                },
                left: if left { vec![Left::default()] } else { vec![] },
                ..Report::default()
            };
            let now = next(&report, elapsed, limits, help);
            assert_eq!(now, expected, "{state:?} {left} {elapsed:?} {help:?}");
        }
    }

    /// Only load balancers that must be there prove that the credentials are the right ones.
    #[test]
    fn what_must_be_in_the_cloud() {
        let service = |name: &str, reason: &str, deleted: bool| -> Service {
            serde_json::from_value(serde_json::json!({
                "metadata": {
                    "namespace": "shop", "name": name, "uid": format!("u-{name}"),
                    "finalizers": ["ballast.dev/local"],
                    "deletionTimestamp": deleted.then_some("2026-03-01T12:00:00Z"),
                },
                "status": {
                    "loadBalancer": {"ingress": if name == "bare" {
                        serde_json::json!([])
                    } else {
                        serde_json::json!([{"ip": "10.0.0.1"}])
                    }},
                    "conditions": [{
                        "type": PROGRAMMED, "status": "Unknown", "reason": reason, "message": "",
                        "lastTransitionTime": "2026-03-01T12:00:00Z",
                    }],
                },
            }))
            .unwrap()
        };
        let class = |name: &str| {
            let object = serde_json::json!({
                "metadata": {"name": name}, "spec": {"mock": {"endpoint": "http://127.0.0.1:1"}},
            });
            DeserializeGuard(Ok(serde_json::from_value(object).unwrap()))
        };
        let cluster = Cluster {
            classes: Some(vec![class("local"), class("unused")]),
            services: vec![
                service("serving", "CloudError", false),
                service("leaving", "Releasing", false),
                service("deleted", "CloudError", true),
                service("bare", "Provisioning", false),
            ],
        };
        let report = Report::of(&cluster, &Selection::All, Controller::default());
        let held = held(&cluster, &report);
        let [one] = &held[..] else {
            panic!("one class");
        };
        assert_eq!(one.class, "local");
        assert_eq!(one.serving, ["u-serving"]);
        assert_eq!(one.leaving, ["u-deleted", "u-leaving"]);
    }
}
