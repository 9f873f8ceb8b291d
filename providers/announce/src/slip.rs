//! Known defects that a test can switch on, to prove that the simulator finds each of them.
//!
//! Without the feature `slips`, which only tests enable, every [`slip!`] is `false` and the
//! compiler removes its branch.

/// A plausible mistake in one of the cores.
#[cfg(feature = "slips")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    /// A node that is cut off judges the others dead.
    NoWitness,
    /// A node answers at once after a stall.
    SpeakAfterStall,
    /// Probes that were under way during one's own stall count as lost.
    KeepSuspicions,
    /// A node claims as soon as its carrier is up.
    NoHoldDown,
    /// The first node of the order takes the address back.
    Preempt,
    /// Of two equal claims each node prefers its own.
    OwnClaimWins,
    /// A takeover does not increase the epoch.
    SameEpoch,
    /// A stand-in answers with its own MAC.
    StandInOwnMac,
    /// A closed cable counts as a dead host.
    ProcessIsHost,
    /// A Lease's stamp is compared with the own clock.
    LeaseStampIsTime,
    /// Leases expire while the API server is away.
    LeaseExpiresInOutage,
    /// A holder stops when it is no longer a candidate.
    BreakBeforeMake,
    /// Probes that a switch answers are trusted.
    TrustAnswers,
    /// A node that is cut off withdraws its addresses.
    WithdrawWhenCutOff,
    /// No second opinion is asked before a takeover.
    NoSecondOpinion,
    /// One lost probe is enough for a verdict.
    OneMiss,
    /// A restarted agent forgets that it holds addresses.
    ForgetOnRestart,
    /// A newer claim in a message is not merged.
    DeafToClaims,
    /// Addresses move to spread evenly although nobody asked.
    RebalanceUnasked,
    /// A host is dead before the next message of its agent was due.
    HastyVerdict,
    /// A holder that cannot be reached waits for an eligible node, although there is none.
    OnlyEligible,
    /// A message of a host that says that it is cut off proves that it lives.
    CutOffIsAlive,
    /// A node that is cut off repeats its announcements.
    AnnounceWhenCutOff,
    /// A node claims an address with policy Local before its health port answers 200.
    ClaimUnhealthy,
    /// A node without an endpoint keeps an address with policy Local.
    IgnoreEndpoints,
}

/// The defects of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slips {
    #[cfg(feature = "slips")]
    only: Option<Slip>,
}

// === impl Slip ===

#[cfg(feature = "slips")]
impl Slip {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::NoWitness,
        Self::SpeakAfterStall,
        Self::KeepSuspicions,
        Self::NoHoldDown,
        Self::Preempt,
        Self::OwnClaimWins,
        Self::SameEpoch,
        Self::StandInOwnMac,
        Self::ProcessIsHost,
        Self::LeaseStampIsTime,
        Self::LeaseExpiresInOutage,
        Self::BreakBeforeMake,
        Self::TrustAnswers,
        Self::WithdrawWhenCutOff,
        Self::NoSecondOpinion,
        Self::OneMiss,
        Self::ForgetOnRestart,
        Self::DeafToClaims,
        Self::RebalanceUnasked,
        Self::HastyVerdict,
        Self::OnlyEligible,
        Self::CutOffIsAlive,
        Self::AnnounceWhenCutOff,
        Self::ClaimUnhealthy,
        Self::IgnoreEndpoints,
    ];
}

// === impl Slips ===

#[cfg(feature = "slips")]
impl Slips {
    /// A node with one defect.
    pub const fn one(slip: Slip) -> Self {
        Self { only: Some(slip) }
    }

    /// Whether the node has this defect.
    pub fn has(self, slip: Slip) -> bool {
        self.only == Some(slip)
    }
}

/// Whether these [`Slips`] contain a defect.
macro_rules! slip {
    ($slips:expr, $slip:ident) => {{
        #[cfg(feature = "slips")]
        let has = $slips.has($crate::slip::Slip::$slip);
        #[cfg(not(feature = "slips"))]
        let has = {
            let _ = $slips;
            false
        };
        has
    }};
}
pub(crate) use slip;
