//! The number of writes for one Service, counted in the audit log: when it is created, after a
//! restart, when a node is added, and when it is deleted. Renewals of Leases do not count, and
//! writes of a class's status are counted separately.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, ListParams};

use super::bed::Bed;
use super::contender::{Live, Task};
use super::inside::Mode;
use super::terms::{Contender, NAMESPACE, Values};
use crate::{AuditEvent, eventually};

/// The controller collects node changes for up to 3 s.
const STILL: Duration = Duration::from_secs(4);
const LIMIT: Duration = Duration::from_mins(2);
pub(super) const TASK: Task = Task {
    concurrency: 0,
    mode: Mode::Follow,
};

/// Counts the writes of one contender on a bed that no other contender uses.
pub(super) struct Counter<'a, 'b> {
    bed: &'b Bed<'a>,
    contender: Contender,
    services: f64,
    /// The number of log lines that are counted already.
    seen: usize,
    pub(super) values: Values,
}

/// The rows of one step: patches, events, and writes of a class's status.
pub(super) type Rows = [&'static str; 3];

const CREATE: Rows = [
    "create: patches",
    "create: events",
    "create: of the class, all",
];
const RESTART: Rows = [
    "restart: patches",
    "restart: events",
    "restart: of the class, all",
];
const NODE: Rows = [
    "node added: patches",
    "node added: events",
    "node added: of the class, all",
];
const DELETE: Rows = [
    "delete: patches",
    "delete: events",
    "delete: of the class, all",
];

/// The life of one Service, for many of them at once.
pub(crate) async fn writes(bed: &Bed<'_>, contender: Contender, services: u32) -> Result<Values> {
    let mut counter = Counter::open(bed, contender, services)?;
    let live = contender.start(bed, TASK).await?;
    live.idle(bed).await?;
    let number = services.to_string();
    bed.run::<serde_json::Value>("create", &["--services", &number])
        .await?;
    counter.step(CREATE).await?;

    live.stop(bed).await?;
    let live = contender.start(bed, TASK).await?;
    live.idle(bed).await?;
    counter.step(RESTART).await?;
    counter.calls(&live).await?;

    bed.add_node("bench-3").await?;
    counter.step(NODE).await?;
    counter.calls(&live).await?;

    let all: Api<Service> = Api::namespaced(bed.lab.kube(), NAMESPACE);
    all.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    eventually(LIMIT, || async {
        let left = all.list_metadata(&ListParams::default()).await?.items.len();
        ensure!(left == 0, "{left} Services are left");
        Ok(())
    })
    .await?;
    counter.step(DELETE).await?;
    live.stop(bed).await?;
    Ok(counter.values)
}

impl<'a, 'b> Counter<'a, 'b> {
    /// Starts to count the writes of one contender; figures are per Service.
    pub(super) fn open(bed: &'b Bed<'a>, contender: Contender, services: u32) -> Result<Self> {
        Ok(Self {
            bed,
            contender,
            services: f64::from(services),
            seen: bed.lab.audit()?.len(),
            values: Values::new(),
        })
    }

    /// Figures are per this many Services from now on.
    pub(super) fn per(&mut self, services: u32) {
        self.services = f64::from(services);
    }

    /// Waits until no more writes arrive, and counts the new ones.
    pub(super) async fn step(&mut self, [patches, events, class]: Rows) -> Result<Vec<AuditEvent>> {
        let (start, mut last) = (Instant::now(), (Instant::now(), 0));
        let written = loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let log = self.bed.lab.audit()?;
            let written = self.ours(&log);
            if written.len() != last.1 {
                last = (Instant::now(), written.len());
            }
            ensure!(start.elapsed() < LIMIT, "it does not stop writing");
            if last.0.elapsed() > STILL {
                self.seen = log.len();
                break written;
            }
        };
        let count = |resource: &str| {
            let number = written.iter().filter(|it| it.resource == resource).count();
            u32::try_from(number).map_or(f64::NAN, f64::from)
        };
        self.values
            .insert(patches, count("services") / self.services);
        self.values.insert(events, count("events") / self.services);
        if self.contender == Contender::Ballast {
            let all = count("loadbalancerclasses") + count("addresspools");
            self.values.insert(class, all);
        }
        Ok(written)
    }

    fn ours(&self, log: &[AuditEvent]) -> Vec<AuditEvent> {
        let mine = |it: &&AuditEvent| it.user == self.contender.user() && it.resource != "leases";
        let new = log.get(self.seen..).unwrap_or_default();
        new.iter().filter(mine).cloned().collect()
    }

    /// The calls to the reference controller's cloud since its last start.
    async fn calls(&mut self, live: &Live) -> Result<()> {
        if self.contender != Contender::Ballast {
            let counts = live.counts(self.bed).await?;
            let per_service = |calls| f64::from(calls) / self.services;
            self.values
                .insert("since restart: ensures", per_service(counts.ensures));
            self.values
                .insert("since restart: updates", per_service(counts.updates));
        }
        Ok(())
    }
}
