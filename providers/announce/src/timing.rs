//! Every duration and count of the announcer in one place, with its reason.
//!
//! A dead host is found after 0.55 to 0.75 s in `Fast` mode: up to [`PROBE_INTERVAL`] until the
//! first probe that is lost, a second one, then a burst of five, each with its time-out, and not
//! before the next message of its agent was due ([`BEAT_DUE`]).

use std::time::Duration;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The driver calls [`Node::tick`](crate::Node::tick) this often while anything is under way.
pub const TICK: Duration = ms(50);
/// The same while all is quiet: as often as hosts are probed.
pub const QUIET_TICK: Duration = PROBE_INTERVAL;
/// A tick that is this late voids the probes under way: their answers may lie unread in the
/// socket.
pub const LATE: Duration = ms(70);
/// After a longer gap between two ticks another node may have taken over, so this node answers
/// nothing before a claim check. Shorter than the fastest takeover: a host that is judged dead
/// missed every probe for at least 550 ms. Longer than a quiet tick that is 300 ms late.
pub const STALL: Duration = ms(500);

/// How often a prober probes a host.
pub const PROBE_INTERVAL: Duration = ms(150);
/// How long an answer to a probe may take.
pub const PROBE_TIMEOUT: Duration = ms(100);
/// Unanswered probes in a row before the burst.
pub const MISSES: u32 = 2;
/// Probes of the burst. With 5 % loss in each direction, all are lost once in 100,000 bursts.
pub const BURST: u32 = 5;
/// Time between two probes of the burst.
pub const BURST_SPACING: Duration = ms(50);
/// A witness must have answered this recently before a node judges another one, or claims.
pub const WITNESS_FRESH: Duration = ms(1000);
/// How often a node probes witnesses while nothing else answers.
pub const WITNESS_INTERVAL: Duration = ms(400);
/// A node to which nothing at all has come for this long asks witnesses at once. Successors probe a
/// holder every [`PROBE_INTERVAL`], and their messages come every [`BEAT`].
pub const SILENCE: Duration = ms(400);
/// If they do not answer for this long either, in every tick, the node is cut off. With 5 % loss in each
/// direction, one witness is not heard once in a million times.
pub const SILENCE_ASKED: Duration = ms(300);
/// Witnesses that are probed at once.
pub const WITNESSES_AT_ONCE: usize = 3;
/// Probers per host, whatever the number of its addresses.
pub const PROBERS: usize = 3;
/// How often a prober tells the other successors that a host is still dead.
pub const DOUBT_REPEAT: Duration = ms(1000);
/// How long a check lasts that another node asked for.
pub const REQUESTED_CHECK: Duration = ms(3000);
/// `Tolerant`: the time without an answer after which a host counts as dead.
pub const TOLERANT: Duration = ms(5000);
/// Answers that prove an interception if there are receipts for less than half of them.
pub const INTERCEPTED_ANSWERS: u64 = 10;
/// Answers that prove it if there are receipts for less than three quarters of them. Of fewer, a report that
/// is a second late would leave out as many.
pub const DOUBLED_ANSWERS: u64 = 24;

/// How often a node sends a beat to its neighbours.
pub const BEAT: Duration = ms(500);
/// The next message of a neighbour that lives arrives within this time: its beat waits for a quiet
/// tick, which may be late. Hardly longer than the probes of a verdict take.
pub const BEAT_DUE: Duration = ms(720);
/// A neighbour without a beat for this long is silent.
pub const SILENT: Duration = ms(2000);
/// Messages that arrive this soon after a cable was closed may be older.
pub const CABLE_MAIL: Duration = ms(100);
/// How long a successor answers for an agent that is silent, before it takes over.
pub const STAND_IN: Duration = ms(10_000);
/// The duration of a node's Lease, counted from the last change that this node observed.
pub const LEASE: Duration = ms(15_000);

/// After its own carrier came up, a node claims nothing for this long. All ports of a switch
/// that reboots come up within this time, each holder's too.
pub const HOLD_DOWN: Duration = ms(10_000);
/// After the first list of the API, a node claims nothing for this long: gossip may know more.
pub const SETTLE: Duration = ms(1000);
/// The length of a claim check.
pub const CHECK: Duration = ms(100);
/// How long a claim check waits for contact with the network.
pub const CHECK_LIMIT: Duration = ms(2000);
/// How often a claim check asks again while it waits.
pub const CHECK_REPEAT: Duration = ms(500);

/// Time between the first and the second successor's takeover of a dead host.
pub const STAGGER_DEAD: Duration = ms(400);
/// The same for planned moves.
pub const STAGGER_PLANNED: Duration = ms(300);
/// The same for the first claim of an address. Longer, because nodes learn of a new Service at
/// different times.
pub const STAGGER_FIRST: Duration = ms(1500);
/// How long a holder must be published as not usable before a planned move.
pub const UNUSABLE: Duration = ms(1000);
/// The same while this node reaches the holder on that very interface: what the holder published
/// is probably old. After an outage of the API server it may take this long to replace it.
pub const UNUSABLE_REACHED: Duration = ms(15_000);
/// Moves of one address in [`MOVES_WINDOW`] that cost no extra time.
pub const FREE_MOVES: u64 = 4;
/// The window in which moves are counted.
pub const MOVES_WINDOW: Duration = ms(60_000);
/// The extra time of each further move.
pub const DAMPING: Duration = ms(10_000);
/// How long successors must be wrong before the holder records others.
pub const SUCCESSORS_SETTLE: Duration = ms(2000);
/// Successors that are recorded.
pub const SUCCESSORS: usize = 3;

/// Time between two moves of a rebalance that somebody asked for.
pub const REBALANCE_ASKED: Duration = ms(1000);
/// The same with `rebalance: Gradual`.
pub const REBALANCE_GRADUAL: Duration = ms(10_000);
/// How long all nodes must have been stable before addresses move with `rebalance: Gradual`.
pub const REBALANCE_STABLE: Duration = ms(600_000);
/// The same after a request: a change of the nodes must have reached every node.
pub const REBALANCE_SETTLED: Duration = ms(3000);
/// A node that does not take its address within this time cannot; the next move follows. Longer
/// than [`HOLD_DOWN`].
pub const REBALANCE_SKIP: Duration = ms(15_000);
/// A request ends when nothing has been left to move for this long.
pub const REBALANCE_DONE: Duration = ms(10_000);
/// A request ends after this time in any case.
pub const REBALANCE_REQUEST: Duration = ms(3_600_000);

/// Probes of RFC 5227 before the first announcement of an allocation.
pub const ADDRESS_PROBES: u8 = 3;
/// Time between them. RFC 5227 §1.1 has 1 to 2 s; hosts on one segment answer within
/// milliseconds.
pub const ADDRESS_PROBE_INTERVAL: Duration = ms(100);
/// How often a node asks whether a foreign host still uses an address that it holds. So it takes
/// over soon after another announcer, such as the speaker of `MetalLB`, has ended.
pub const CONFLICT_POLL: Duration = ms(100);
/// The same after [`CONFLICT_FAST`]: the host may be a printer.
pub const CONFLICT_SLOW_POLL: Duration = ms(1000);
/// How long it asks often.
pub const CONFLICT_FAST: Duration = ms(600_000);
/// Each further address in conflict makes the time between two questions this much longer: a node
/// broadcasts at most 100 of them in a second.
pub const CONFLICT_SHARE: Duration = ms(10);
/// Questions without an answer, one tick apart, that show that the host is gone. With 5 % loss in
/// each direction, all are lost once in a million times.
pub const CONFLICT_QUESTIONS: u8 = 6;
/// A host that claimed an address within this time uses it.
pub const CONFLICT_MEMORY: Duration = ms(60_000);
/// The same if the host is a node with an agent: another program on that node announces the
/// address.
pub const CONFLICT_MEMORY_NODE: Duration = ms(10_000);
/// How long such a node must claim an address without a claim of its agent, because two agents may
/// disagree for a moment.
pub const CONFLICT_PROOF_NODE: Duration = ms(3000);

/// Announcements after a takeover. One alone may be lost.
pub const REPEATS: u8 = 5;
/// Time between them. Linux ignores a change of a neighbour within 1 s of the last one
/// (`locktime`).
pub const REPEAT_INTERVAL: Duration = ms(1100);
/// Addresses that are announced for the first time in one tick.
pub const TAKEOVERS_PER_TICK: usize = 100;
/// Addresses that are announced again in one tick.
pub const REPEATS_PER_TICK: usize = 10;
/// The default of the class's `refreshInterval`. Switches forget a MAC after 300 s.
pub const REFRESH: Duration = ms(60_000);

/// Addresses that one message names.
pub const CLAIMS_PER_MESSAGE: usize = 64;
/// Addresses that a regular beat names. What changes is told at once; this repairs what was lost.
pub const CLAIMS_PER_BEAT: usize = 16;
/// Claims that a node keeps.
pub const CLAIMS: usize = 16_384;
/// Peers that a node keeps.
pub const PEERS: usize = 1024;
/// A claim on an address that no Service has any more is forgotten after this time. Shorter
/// than `reuseAfter` of a pool (2 min).
pub const FORGET: Duration = ms(60_000);
/// How often a node looks for such claims.
pub const FORGET_INTERVAL: Duration = ms(5000);
