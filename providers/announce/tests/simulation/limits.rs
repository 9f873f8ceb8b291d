//! The limits: what may follow from each failure, as constants that the faults use.
//!
//! The longest time without an answer, with two answers, and the moves of an address that the victim held;
//! addresses of other nodes do not move. Fast / Tolerant / Lease where they differ. In brackets what was
//! measured in 4,000 histories with Fast; for one-way paths in 55,000.
//!
//! | failure | no answer | two answers | moves |
//! |---|---|---|---|
//! | link cut, node killed, frozen or suspended, uplink dead | [`FAILOVER`] (0.8 s) | [`TAKEOVER_TWO`] (0) | 1 |
//! | port that sends and hears nothing | [`DEAF`] (1.2) | [`TAKEOVER_TWO`] (0) | 1 |
//! | port that hears and sends nothing | [`FAILOVER`] (0.8) | [`TAKEOVER_TWO`] (0) | 1 |
//! | … it works in both directions again | [`BACK`] (0); alone: [`BACK_ALONE`] | [`BACK_TWO`] (0.2) | none |
//! | … its link or uplink is back, the node is back | [`BACK`] (0.1); alone: [`BACK_ALONE`], [`BOOTED_ALONE`] | [`BACK_TWO`] (0) | none |
//! | … resumed with a clock that stood still | [`BACK`] (0); alone: [`BACK_ALONE`] | [`BACK_TWO`] (0.2) | none after the first |
//! | … thawed | [`BACK`] (0.1); alone: [`BACK_ALONE`] | [`THAWED_TWO`] (0) | none after the first |
//! | frozen for 0.3 s | while it is frozen | 0 | none |
//! | killed, with another successor for each address (policy Local) | [`FAILOVER`] + [`SECOND_HAND`] | [`TAKEOVER_TWO`] (0) | 1 |
//! | all links down, back 0 to 5 s apart | [`LINKS_BACK`] after the holder's own port is up, and the first other one | 0 | none |
//! | agent killed, back within 8.5 s | [`STAND_IN`] for newcomers (0.2); Lease: until it is back, and [`AGENT_STARTS`] | [`STAND_IN_TWO`] (0) | none |
//! | agent killed for good | [`STAND_IN`] for newcomers (0.2); Lease: [`LEASE`] | [`TAKEOVER_TWO`] (0) | 1, after 10 s |
//! | agent stopped (SIGSTOP) | [`STOPPED`] for newcomers (2.2); Lease: [`LEASE`] | [`TAKEOVER_TWO`] (0) | 1, after 12 s |
//! | all agents restart, within 6 s | until the holder's agent is back, and [`AGENT_STARTS`] | [`STAND_IN_TWO`] (0) | none |
//! | API server away | 0 | 0 | none |
//! | … and the holder's link is cut | as above; Lease: nobody can decide | [`TAKEOVER_TWO`] (0) | 1 |
//! | segment split | [`FAILOVER`] + [`SECOND_HAND`] on a side that has a recorded successor and a witness (1.6) | [`TAKEOVER_TWO`] (0) | 1 per side |
//! | segment healed | [`HEALED`] (0) | [`HEALED_TWO`] (0.2) | at most 1 |
//! | one-way path between two nodes | [`ONE_WAY`] (0) | [`ONE_WAY_TWO`] (0.05) | at most 1 |
//! | two nodes do not reach each other, others reach both | 0 | 0 | none |
//! | 5 % loss, copies, 20 ms delay; ticks 250 ms late | 0 | 0 | none |
//! | cordon, exclusion, out-of-service taint | 0 | [`PLANNED_TWO`] (0) | 1 |
//! | endpoint moves (policy Local) | [`ENDPOINT_MOVED`] after the health port says 200 (0.2) | [`PLANNED_TWO`] (0) | 1 |
//! | no endpoints anywhere | 0 | 0 | none |
//! | a switch answers ARP for others, and the holder is killed | as a killed node | [`TAKEOVER_TWO`] (0) | 1 |
//! | a rebalance that is asked for | 0 | [`PLANNED_TWO`] (0) | 1, of the addresses above an even spread |
//! | a new Service | [`NEW`] after it is seen (0.4) | 0 | 1 (epoch 1) |
//! | chaos: 12 failures at once, then all is repaired | [`REPAIRED_GAP`] (1.0) | [`REPAIRED_TWO`] (0.2) | at most 4 |

use ballast_announce::view::Detection;

use crate::judge::Allowed;
use crate::world::{Micros, ms};

/// A dead or unreachable holder is replaced.
pub const FAILOVER: [Micros; 3] = [ms(1000), ms(5500), LEASE];
/// The same if it sends and hears nothing: it must find out itself.
pub const DEAF: [Micros; 3] = [ms(1500), ms(6500), LEASE];
/// The same where only the Lease counts: 15 s after its last renewal was read.
pub const LEASE: Micros = ms(18_000);
/// Whoever learns of a death from others, or is the third successor, takes longer by this much.
pub const SECOND_HAND: Micros = ms(800);
/// The former holder and its successor.
pub const TAKEOVER_TWO: Micros = ms(300);

/// A former holder that is back, and its successor. Without messages it is told later.
pub const BACK: Micros = ms(300);
pub const BACK_TWO: Micros = ms(500);
pub const BACK_TWO_WITHOUT_MESSAGES: Micros = ms(1000);
/// A single node asks first whether somebody else answers.
pub const BACK_ALONE: Micros = ms(4000);
/// Its agent starts 3 s after the host.
pub const BOOTED_ALONE: Micros = ms(6000);
pub const THAWED_TWO: Micros = ms(50);
/// Without messages and without Leases.
pub const BACK_WITHOUT_ANYTHING: Micros = ms(4000);

/// A holder records a returned node as a successor only after a message of it, and in a large
/// cluster the regular ones go to a few nodes in turn.
pub const RECORDED: Micros = ms(15_000);

pub const LINKS_BACK: Micros = ms(3000);

/// A successor answers in place of an agent that ended.
pub const STAND_IN: Micros = ms(500);
pub const STAND_IN_TWO: Micros = ms(100);
/// The same for an agent that only falls silent.
pub const STOPPED: Micros = ms(2500);
/// From the start of an agent to its answers.
pub const AGENT_STARTS: Micros = ms(1500);

pub const HEALED: Micros = ms(600);
pub const HEALED_TWO: Micros = ms(1000);
pub const ONE_WAY: Micros = ms(200);
pub const ONE_WAY_TWO: Micros = ms(300);

/// From the first 200 of the health port of the node with the endpoint, to its answers.
pub const ENDPOINT_MOVED: Micros = ms(1000);
pub const PLANNED_TWO: Micros = ms(500);
pub const NEW: Micros = ms(1000);
/// After chaos, until nothing moves: agents that restart read the API server, hold-downs end, Leases of
/// dead agents expire.
pub const REPAIRED: Micros = ms(30_000);
/// A node that was away starts within 0.5 s, and asks first whether somebody else answers.
pub const REPAIRED_GAP: Micros = ms(2500);
pub const REPAIRED_TWO: Micros = ms(500);

/// Nothing may move, and nobody may notice.
pub const QUIET: Allowed = Allowed {
    gap: 0,
    dual: 0,
    moves: 0,
    other_moves: 0,
};

/// The one of [`FAILOVER`].
pub fn failover(detection: Detection) -> Micros {
    FAILOVER[detection as usize]
}
