//! The terms of the benchmark: contenders, scenarios, samples, and the names of the figures
//! that are compared. Uses no other module of the benchmark.

use std::collections::BTreeMap;

use serde::Serialize;

/// The namespace of the Services.
pub(crate) const NAMESPACE: &str = "bench";
/// The class that serves Services without a class.
pub(crate) const CLASS: &str = "local";

/// The figure of [`Scenario::Start`] that is compared.
pub(crate) const TO_READY: &str = "start to ready, ms";
/// The most important figure of [`Scenario::PoolLife`].
pub(crate) const TO_OTHERS: &str = "anew: patches of others, all";

/// The contenders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// The real binary with its in-process provider and default flags.
    Ballast,
    /// The reference service controller with 10 workers and no client-side rate limit.
    Reference,
    /// The reference service controller with its defaults: 1 worker, 20 requests a second.
    ReferenceDefaults,
    /// Two patches per Service and nothing else.
    Raw,
}

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// From the start of the process until it is ready, without Services.
    Start,
    /// The number of writes to the API server.
    Writes,
    /// 1,000 Services created at full speed: from the create reply to the address.
    Load,
    /// 1,000 Services exist before the controller starts.
    #[value(name = "backlog-1000")]
    #[serde(rename = "backlog-1000")]
    Backlog1000,
    /// 5,000 Services exist before the controller starts.
    #[value(name = "backlog-5000")]
    #[serde(rename = "backlog-5000")]
    Backlog5000,
    /// 5,000 Services that need an address from a /16 pool exist before the controller starts.
    #[value(name = "pool-5000")]
    #[serde(rename = "pool-5000")]
    Pool5000,
    /// As above with a pool that is then full; then a restart; then 1,000 of the Services
    /// created again. Counts the writes.
    PoolLife,
}

/// One measurement of one contender.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The scenario.
    pub scenario: Scenario,
    /// The contender.
    pub contender: Contender,
    /// The round; contenders of one round are compared with one another.
    pub round: u32,
    /// The number of Services.
    pub services: u32,
    /// The figures by name; each name ends in its unit.
    pub values: Values,
}

/// Figures by name.
pub type Values = BTreeMap<&'static str, f64>;

// === impl Contender ===

impl Contender {
    /// All contenders, in the order of the columns.
    pub const ALL: [Self; 4] = [
        Self::Ballast,
        Self::Reference,
        Self::ReferenceDefaults,
        Self::Raw,
    ];

    /// Its name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Ballast => "Ballast",
            Self::Reference => "reference",
            Self::ReferenceDefaults => "ref. defaults",
            Self::Raw => "raw loop",
        }
    }
}

// === impl Scenario ===

impl Scenario {
    /// All scenarios, in the order in which they run.
    pub const ALL: [Self; 7] = [
        Self::Start,
        Self::Writes,
        Self::Load,
        Self::Backlog1000,
        Self::Backlog5000,
        Self::Pool5000,
        Self::PoolLife,
    ];

    /// The number of Services.
    pub const fn services(self) -> u32 {
        match self {
            Self::Start => 0,
            Self::Writes => 200,
            Self::Load | Self::Backlog1000 => 1_000,
            Self::Backlog5000 | Self::Pool5000 | Self::PoolLife => 5_000,
        }
    }

    /// The figure that is compared.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Start => TO_READY,
            Self::Writes => "create: patches",
            Self::Load => "reply to address p95, ms",
            Self::Backlog1000 | Self::Backlog5000 | Self::Pool5000 => "start to last address, s",
            Self::PoolLife => TO_OTHERS,
        }
    }

    /// Its name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Start => "Start",
            Self::Writes => "Writes per Service",
            Self::Load => "Created at full speed",
            Self::Backlog1000 => "Backlog of 1,000",
            Self::Backlog5000 => "Backlog of 5,000",
            Self::Pool5000 => "Addresses of a /16",
            Self::PoolLife => "A full pool",
        }
    }

    /// Whether it can be measured for this contender in reasonable time, and is meaningful.
    pub const fn fits(self, contender: Contender) -> bool {
        !matches!(
            (self, contender),
            (Self::Writes, Contender::Raw | Contender::ReferenceDefaults)
                | (
                    Self::Backlog1000 | Self::Backlog5000,
                    Contender::ReferenceDefaults
                )
                | (
                    Self::Start | Self::Pool5000,
                    Contender::Reference | Contender::ReferenceDefaults
                )
                | (
                    Self::PoolLife,
                    Contender::Reference | Contender::ReferenceDefaults | Contender::Raw
                )
        )
    }

    /// Whether its figures come from the audit log. Writing the log takes time, so scenarios
    /// that compare times run without it.
    pub(crate) const fn is_counted(self) -> bool {
        matches!(self, Self::Writes | Self::PoolLife)
    }

    /// The maximum number of rounds: the number of writes does not vary.
    pub(crate) const fn rounds(self, wanted: u32) -> u32 {
        match self {
            Self::Writes => 1,
            _ => wanted,
        }
    }
}
