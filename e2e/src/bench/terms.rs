//! Who and what is measured: contenders, scenarios, samples, and the names of the figures by
//! which contenders are compared. Uses no other module of the benchmark.

use std::collections::BTreeMap;

use serde::Serialize;

/// The namespace of the Services.
pub(crate) const NAMESPACE: &str = "bench";
/// The class that serves Services without a class.
pub(crate) const CLASS: &str = "local";

/// The figure of [`Scenario::Start`] by which contenders are compared.
pub(crate) const TO_READY: &str = "start to ready, ms";
/// The figure of [`Scenario::PoolLife`] that matters most.
pub(crate) const TO_OTHERS: &str = "anew: patches of others, all";

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// The real binary with its in-process provider, flags as shipped.
    Ballast,
    /// The reference service controller with 10 workers and no limit of its client.
    Reference,
    /// The same with its shipped defaults: 1 worker, 20 requests a second.
    ReferenceDefaults,
    /// Two patches per Service and nothing else.
    Raw,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// From the start of the process to the moment when it is ready, without Services.
    Start,
    /// How often the API server is written to.
    Writes,
    /// 1,000 Services created at full speed: from the create reply to the address.
    Load,
    /// 1,000 Services first, the controller after.
    #[value(name = "backlog-1000")]
    #[serde(rename = "backlog-1000")]
    Backlog1000,
    /// The same with 5,000.
    #[value(name = "backlog-5000")]
    #[serde(rename = "backlog-5000")]
    Backlog5000,
    /// 5,000 Services first that want an address of one /16 pool, the controller after.
    #[value(name = "pool-5000")]
    #[serde(rename = "pool-5000")]
    Pool5000,
    /// The same with a pool that this fills, then a restart, then 1,000 of the Services
    /// anew: who is written to.
    PoolLife,
}

/// One measurement of one contender.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// What was measured.
    pub scenario: Scenario,
    /// Who.
    pub contender: Contender,
    /// In which round; contenders of one round are compared with one another.
    pub round: u32,
    /// How many Services.
    pub services: u32,
    /// The figures by name; the unit is the end of the name.
    pub values: Values,
}

/// Figures by name.
pub type Values = BTreeMap<&'static str, f64>;

// === impl Contender ===

impl Contender {
    /// All, in the order of the columns.
    pub const ALL: [Self; 4] = [
        Self::Ballast,
        Self::Reference,
        Self::ReferenceDefaults,
        Self::Raw,
    ];

    /// As people call it.
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
    /// All, in the order they are run.
    pub const ALL: [Self; 7] = [
        Self::Start,
        Self::Writes,
        Self::Load,
        Self::Backlog1000,
        Self::Backlog5000,
        Self::Pool5000,
        Self::PoolLife,
    ];

    /// How many Services.
    pub const fn services(self) -> u32 {
        match self {
            Self::Start => 0,
            Self::Writes => 200,
            Self::Load | Self::Backlog1000 => 1_000,
            Self::Backlog5000 | Self::Pool5000 | Self::PoolLife => 5_000,
        }
    }

    /// The figure by which contenders are compared.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Start => TO_READY,
            Self::Writes => "create: patches",
            Self::Load => "reply to address p95, ms",
            Self::Backlog1000 | Self::Backlog5000 | Self::Pool5000 => "start to last address, s",
            Self::PoolLife => TO_OTHERS,
        }
    }

    /// As people call it.
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

    /// Whether it can be measured of this contender in reasonable time, and means anything.
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

    /// Whether it is read off the audit log. Writing one takes time, so times are measured
    /// without where they are compared.
    pub(crate) const fn is_counted(self) -> bool {
        matches!(self, Self::Writes | Self::PoolLife)
    }

    /// How often at most: writes do not depend on chance.
    pub(crate) const fn rounds(self, wanted: u32) -> u32 {
        match self {
            Self::Writes => 1,
            _ => wanted,
        }
    }
}
