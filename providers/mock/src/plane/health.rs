//! Health of targets. Pure; `probe` runs the checks.
//!
//! All load balancers with the `Cluster` policy share one check per node; those with `Local`
//! have one per node and `healthCheckNodePort`. If nothing listens on the shared port (a
//! proxy other than kube-proxy), the node port itself is checked.
//!
//! The answers of one check change its verdict. `Nothing` is an answer of the shared check
//! only; for all other checks it counts as `Bad`.
//!
//! ```text
//!  verdict   │ Good    │ Bad, twice in a row │ Nothing
//! ───────────┼─────────┼─────────────────────┼────────────────────────
//!  Unknown   │ Healthy │ Unhealthy           │ Absent, at once
//!  Healthy   │ Healthy │ Unhealthy           │ Absent, twice in a row
//!  Unhealthy │ Healthy │ Unhealthy           │ Absent, twice in a row
//!  Absent    │ Healthy │ Unhealthy           │ Absent
//! ```
//!
//! Invariants: two failures in a row make a target unhealthy, and one success makes it
//! healthy; a target without an answer is `Unknown`; a check that is no longer needed is
//! removed.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::PlaneOptions;
use super::plan::Config;
use crate::api::{Listener, Protocol, Target, TargetHealth, TrafficPolicy};

/// The number of failures in a row that make a target unhealthy.
const FAILURES: u32 = 2;

/// The most checks that run at the same time.
const AT_ONCE: usize = 64;

/// The most checks. A target whose health is not checked gets no traffic while others are
/// healthy.
pub(super) const MAX_CHECKS: usize = 65_536;

/// What a check asks a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Question {
    /// kube-proxy's `/healthz`.
    Shared,
    /// `/healthz` of a Service with the `Local` policy.
    Local(u16),
    /// Whether the node port accepts a connection.
    Accepts(u16),
}

/// One check: which node is asked what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Check {
    pub(super) node: IpAddr,
    pub(super) question: Question,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The node accepts traffic.
    Good,
    /// The node accepts none, or did not answer in time.
    Bad,
    /// The node is up, but nothing listens on the port.
    Nothing,
}

/// The result of all answers so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Unknown,
    Healthy,
    Unhealthy,
    /// Only for [`Question::Shared`]: the node port is checked instead.
    Absent,
}

#[derive(Clone, Copy, Debug)]
struct State {
    verdict: Verdict,
    failures: u32,
    nothing: u32,
    next: Instant,
}

/// All checks.
#[derive(Debug)]
pub(super) struct HealthTable {
    interval: Duration,
    checks: HashMap<Check, State>,
    /// The checks that are not running, the next one first.
    due: BTreeSet<(Instant, Check)>,
    /// The number of checks that are running.
    running: usize,
}

// === impl HealthTable ===

impl HealthTable {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            checks: HashMap::new(),
            due: BTreeSet::new(),
            running: 0,
        }
    }

    /// The checks that these load balancers and target sets need, at most [`MAX_CHECKS`].
    pub(super) fn needed<'a>(
        &self,
        configs: impl Iterator<Item = &'a Config>,
        targets: impl Fn(&str) -> Vec<IpAddr>,
    ) -> BTreeSet<Check> {
        let mut questions: BTreeSet<(&str, Question)> = BTreeSet::new();
        for config in configs {
            let set = config.target_set.as_str();
            match config.policy {
                TrafficPolicy::Cluster => {
                    questions.insert((set, Question::Shared));
                    let tcp = config
                        .listeners
                        .iter()
                        .filter(|l| l.protocol == Protocol::Tcp);
                    questions.extend(tcp.map(|l| (set, Question::Accepts(l.node_port))));
                }
                TrafficPolicy::Local {
                    health_check_node_port,
                } => {
                    questions.insert((set, Question::Local(health_check_node_port)));
                }
            }
        }
        let mut nodes: HashMap<&str, Vec<IpAddr>> = HashMap::new();
        let mut needed = BTreeSet::new();
        for (set, question) in questions {
            for node in nodes.entry(set).or_insert_with(|| targets(set)) {
                let node = *node;
                let fallback = matches!(question, Question::Accepts(_));
                if !fallback || self.of(node, Question::Shared) == Verdict::Absent {
                    if needed.len() >= MAX_CHECKS {
                        return needed;
                    }
                    needed.insert(Check { node, question });
                }
            }
        }
        needed
    }

    /// Removes checks that are no longer needed. New ones are due at once.
    pub(super) fn keep(&mut self, needed: &BTreeSet<Check>, now: Instant) {
        self.checks.retain(|check, _| needed.contains(check));
        self.due.retain(|(_, check)| needed.contains(check));
        for check in needed {
            self.checks.entry(*check).or_insert_with(|| {
                self.due.insert((now, *check));
                State {
                    verdict: Verdict::Unknown,
                    failures: 0,
                    nothing: 0,
                    next: now,
                }
            });
        }
    }

    /// The checks to start now, if fewer than [`AT_ONCE`] are running. Each is due again after
    /// the interval.
    pub(super) fn start_due(&mut self, now: Instant) -> Vec<Check> {
        let mut started = Vec::new();
        while self.running < AT_ONCE
            && let Some((_, check)) = self.due.first().copied().filter(|(at, _)| *at <= now)
        {
            self.due.pop_first();
            if let Some(state) = self.checks.get_mut(&check) {
                state.next = now + self.interval;
                self.running += 1;
                started.push(check);
            }
        }
        started
    }

    /// When to call [`Self::start_due`] again; `None` if only an answer makes room for a check.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let next = self.due.first().map(|(at, _)| *at);
        next.filter(|_| self.running < AT_ONCE)
    }

    /// Records an answer. Returns whether the verdict changed.
    pub(super) fn answer(&mut self, check: Check, answer: Answer) -> bool {
        self.running = self.running.saturating_sub(1);
        let Some(state) = self.checks.get_mut(&check) else {
            return false;
        };
        self.due.insert((state.next, check));
        let before = state.verdict;
        match answer {
            Answer::Good => {
                (state.failures, state.nothing) = (0, 0);
                state.verdict = Verdict::Healthy;
            }
            Answer::Nothing if check.question == Question::Shared => {
                state.failures = 0;
                state.nothing += 1;
                // kube-proxy may be restarting. Only a node without a verdict is judged by
                // its node ports at once.
                if before == Verdict::Unknown || state.nothing >= FAILURES {
                    state.verdict = Verdict::Absent;
                }
            }
            Answer::Bad | Answer::Nothing => {
                state.nothing = 0;
                state.failures += 1;
                if state.failures >= FAILURES {
                    state.verdict = Verdict::Unhealthy;
                }
            }
        }
        state.verdict != before
    }

    /// The health of a target for one listener.
    pub(super) fn verdict(
        &self,
        config: &Config,
        listener: &Listener,
        target: &Target,
    ) -> TargetHealth {
        let Some(node) = node_of(target) else {
            return TargetHealth::Unhealthy;
        };
        let verdict = match self.decisive(node, config, listener) {
            Some(question) => self.of(node, question),
            None => Verdict::Unknown,
        };
        match verdict {
            Verdict::Unknown | Verdict::Absent => TargetHealth::Initial,
            Verdict::Healthy => TargetHealth::Healthy,
            Verdict::Unhealthy => TargetHealth::Unhealthy,
        }
    }

    /// Describes the check that decides, for people.
    pub(super) fn describe(
        &self,
        config: &Config,
        listener: &Listener,
        target: &Target,
        options: &PlaneOptions,
    ) -> String {
        let Some(node) = node_of(target) else {
            return "none: the target has no address".to_owned();
        };
        let at = |port| SocketAddr::new(node, port);
        match self.decisive(node, config, listener) {
            Some(Question::Shared) => format!("http {}/healthz", at(options.health_port)),
            Some(Question::Local(port)) => format!("http {}/healthz", at(port)),
            Some(Question::Accepts(port)) => format!("tcp {}", at(port)),
            None => format!(
                "none: nothing listens on {} and there is no TCP port to try",
                at(options.health_port)
            ),
        }
    }

    /// The check that decides for a listener. If nothing answers for the node as a whole,
    /// that is its own node port; for UDP, any TCP node port of the same load balancer.
    fn decisive(&self, node: IpAddr, config: &Config, listener: &Listener) -> Option<Question> {
        match config.policy {
            TrafficPolicy::Local {
                health_check_node_port,
            } => Some(Question::Local(health_check_node_port)),
            TrafficPolicy::Cluster if self.of(node, Question::Shared) != Verdict::Absent => {
                Some(Question::Shared)
            }
            TrafficPolicy::Cluster => {
                let tcp = |listener: &&Listener| listener.protocol == Protocol::Tcp;
                Some(listener)
                    .filter(tcp)
                    .or_else(|| config.listeners.iter().find(tcp))
                    .map(|listener| Question::Accepts(listener.node_port))
            }
        }
    }

    fn of(&self, node: IpAddr, question: Question) -> Verdict {
        let state = self.checks.get(&Check { node, question });
        state.map_or(Verdict::Unknown, |state| state.verdict)
    }
}

/// The address at which a node is checked: its first.
pub(super) fn node_of(target: &Target) -> Option<IpAddr> {
    target.addresses.first().copied()
}

#[cfg(test)]
mod tests;
