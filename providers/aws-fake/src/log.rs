//! The calls that came in: the last ones in full, and how many there were of each action.

use std::collections::{BTreeMap, VecDeque};

use crate::state::Moment;
use crate::wire::Service;

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number, from 1.
    pub number: u64,
    /// When it came.
    pub at: Moment,
    /// The service.
    pub service: Service,
    /// The action, or an empty text if the request had none.
    pub action: String,
    /// The other parameters.
    pub parameters: BTreeMap<String, String>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is not answered yet, or the client has gone away.
    Open,
    /// It succeeded.
    Done,
    /// It was refused with this code.
    Refused(String),
    /// It was not made, and the connection was closed.
    DroppedBefore,
    /// It was made, and the connection was closed.
    DroppedAfter,
}

/// How many calls there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls by action, throttled ones included.
    pub actions: BTreeMap<String, u64>,
    /// Calls that were throttled.
    pub throttled: u64,
    /// Calls that only ask whether something has happened.
    pub polls: u64,
}

#[derive(Debug)]
pub(crate) struct Log {
    most: usize,
    calls: VecDeque<Call>,
    last: u64,
    counts: Counts,
}

/// A poll names what it asks for by ARN. Whoever looks for objects asks by name, or for all.
fn polls(action: &str, parameters: &BTreeMap<String, String>) -> bool {
    match action {
        "DescribeTargetHealth" => true,
        "DescribeLoadBalancers" => parameters.contains_key("LoadBalancerArns.member.1"),
        _ => false,
    }
}

// === impl Call ===

impl Call {
    /// Whether it changes nothing.
    pub fn reads(&self) -> bool {
        self.action.starts_with("Describe")
    }

    /// Whether it only asks if something has happened: a load balancer has become active, or
    /// targets have become healthy.
    pub fn polls(&self) -> bool {
        polls(&self.action, &self.parameters)
    }
}

// === impl Counts ===

impl Counts {
    /// All calls.
    pub fn total(&self) -> u64 {
        self.actions.values().sum()
    }

    /// Calls that describe something.
    pub fn reads(&self) -> u64 {
        let all = self.actions.iter();
        let reads = all.filter(|(action, _)| action.starts_with("Describe"));
        reads.map(|(_, number)| number).sum()
    }

    /// Calls that change something.
    pub fn writes(&self) -> u64 {
        self.total() - self.reads()
    }

    /// The calls of one action.
    pub fn of(&self, action: &str) -> u64 {
        self.actions.get(action).copied().unwrap_or(0)
    }
}

// === impl Log ===

impl Log {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            calls: VecDeque::new(),
            last: 0,
            counts: Counts::default(),
        }
    }

    /// Enters a call and returns its number.
    pub(crate) fn enter(
        &mut self,
        at: Moment,
        service: Service,
        action: String,
        parameters: BTreeMap<String, String>,
    ) -> u64 {
        self.last += 1;
        *self.counts.actions.entry(action.clone()).or_default() += 1;
        self.counts.polls += u64::from(polls(&action, &parameters));
        if self.calls.len() >= self.most {
            self.calls.pop_front();
        }
        self.calls.push_back(Call {
            number: self.last,
            at,
            service,
            action,
            parameters,
            outcome: Outcome::Open,
        });
        self.last
    }

    pub(crate) fn close(&mut self, number: u64, outcome: Outcome) {
        let mut latest = self.calls.iter_mut().rev();
        if let Some(call) = latest.find(|call| call.number == number) {
            call.outcome = outcome;
        }
    }

    pub(crate) fn throttled(&mut self) {
        self.counts.throttled += 1;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.iter().cloned().collect()
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn reset(&mut self) {
        self.calls.clear();
        self.counts = Counts::default();
    }
}
