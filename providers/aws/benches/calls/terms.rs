//! What is measured, what was said about it before, and when it is good enough. Pure.

use clap::ValueEnum;

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scene {
    CreateWarm,
    CreateCold,
    StartTen,
    StartFifty,
    NodesChanged,
    NoOp,
    PortAdded,
    NodeAdded,
    NodeAddedPaced,
    Delete,
    DeleteLingering,
    Fifty,
    FiftyPaced,
    FiftyAws,
    ShareFifty,
    PodsReplaced,
}

/// The measurements of one event.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) scene: Scene,
    pub(crate) checks: Vec<Check>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Check {
    /// What the number counts, as words that follow it.
    pub(crate) what: &'static str,
    pub(crate) measured: f64,
    /// The goal; without one it is only said.
    pub(crate) most: Option<f64>,
}

// === impl Scene ===

impl Scene {
    /// All of them, in the order of the report.
    pub(crate) const ALL: [Self; 16] = [
        Self::CreateWarm,
        Self::CreateCold,
        Self::StartTen,
        Self::StartFifty,
        Self::NodesChanged,
        Self::NoOp,
        Self::PortAdded,
        Self::NodeAdded,
        Self::NodeAddedPaced,
        Self::Delete,
        Self::DeleteLingering,
        Self::Fifty,
        Self::FiftyPaced,
        Self::FiftyAws,
        Self::ShareFifty,
        Self::PodsReplaced,
    ];

    /// The event, what LBC needs for it, and the goal.
    const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::CreateWarm => ("create, one TCP port, warm", "25", "≤ 7 until the hostname"),
            Self::CreateCold => (
                "create, cold process, first Service",
                "30",
                "≤ 12 until the hostname",
            ),
            Self::StartTen => ("start with 10 unchanged Services", "152", "≤ 10"),
            Self::StartFifty => (
                "start with 50 unchanged Services, 100 ms a call",
                "816, 44 s",
                "≤ 15, ≤ 2 s",
            ),
            Self::NodesChanged => (
                "nodes changed while no process ran, 50 Services",
                "–",
                "all right, none more than needed",
            ),
            Self::NoOp => ("unrelated annotation changed", "12", "0"),
            Self::PortAdded => ("a port added", "28", "≤ 5"),
            Self::NodeAdded => ("node added, 50 target groups", "101, 7.7 s", "≤ 52"),
            Self::NodeAddedPaced => (
                "the same, within AWS's limits, time scaled (fake)",
                "–",
                "0 throttled, ≤ 1.1 × the bound",
            ),
            Self::Delete => ("delete, one port", "10 to 14", "≤ 5"),
            Self::DeleteLingering => ("the same, interfaces linger for 60 s (fake)", "–", "≤ 8"),
            Self::Fifty => (
                "50 Services at once, 100 ms a call, no limits",
                "1,155, 43 s",
                "≤ 355, ≤ 12 s",
            ),
            Self::FiftyPaced => (
                "the same, 10 calls per second (burst 20)",
                "26 s, 90 throttled",
                "0 throttled, ≤ 1.1 × the bound",
            ),
            Self::FiftyAws => (
                "50 Services at once, within AWS's limits, time scaled (fake)",
                "–",
                "0 throttled, ≤ 1.1 × the bound",
            ),
            Self::ShareFifty => (
                "50 Services share a load balancer, 100 ms a call",
                "–",
                "1 load balancer, ≤ 252 calls",
            ),
            Self::PodsReplaced => (
                "200 pods as targets are replaced, 10 at a time",
                "40 to 60",
                "≤ 40, none wrong",
            ),
        }
    }

    pub(crate) const fn event(self) -> &'static str {
        self.words().0
    }

    /// What LBC 3.5 needs.
    pub(crate) const fn other(self) -> &'static str {
        self.words().1
    }

    pub(crate) const fn goal(self) -> &'static str {
        self.words().2
    }

    /// Whether tokio's clock jumps over waiting times. It cannot where another process answers.
    pub(crate) const fn is_scaled(self) -> bool {
        matches!(self, Self::NodeAddedPaced | Self::FiftyAws)
    }
}

// === impl Row ===

impl Row {
    pub(crate) fn reached(&self) -> bool {
        self.checks.iter().all(Check::reached)
    }
}

// === impl Check ===

impl Check {
    /// A measurement with a goal.
    pub(crate) const fn most(what: &'static str, measured: f64, most: f64) -> Self {
        Self {
            what,
            measured,
            most: Some(most),
        }
    }

    /// A measurement that is only said.
    pub(crate) const fn said(what: &'static str, measured: f64) -> Self {
        Self {
            what,
            measured,
            most: None,
        }
    }

    pub(crate) fn reached(&self) -> bool {
        self.most.is_none_or(|most| self.measured <= most)
    }
}
