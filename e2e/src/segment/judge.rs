//! What observations prove. Pure.

mod failures;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use self::failures::Unanswered;
use super::connect::{Attempt, Outcome};
use super::frame::{Frame, Kind, Way};
use super::moment::Moment;

pub use self::failures::{Failure, failures};

/// What a client saw in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachability {
    /// The attempts that began in it.
    pub attempts: usize,
    /// Those without an answer in time, except for [`Self::alone`].
    pub failed: usize,
    /// Those without an answer between others that were answered at once: no outage.
    pub alone: usize,
    /// The longest time in which no answer arrived, the edges of the period included.
    pub outage: Duration,
    /// How often the one who answers changed.
    pub moves: usize,
    /// The longest time between two attempts: a client that did not run saw no outage.
    pub blind: Duration,
    /// The first of those without an answer in time.
    pub failures: Vec<Failure>,
}

/// Judges the attempts of one client that began between two moments.
pub fn reachability(attempts: &[Attempt], from: Moment, until: Moment) -> Reachability {
    let mut mine: Vec<&Attempt> = attempts
        .iter()
        .filter(|it| it.start >= from && it.start < until)
        .collect();
    mine.sort_by_key(|it| it.start);
    let starts = mine.iter().map(|it| it.start);
    let blind = longest_gap(from, starts, until);
    let mut answers: Vec<Moment> = mine
        .iter()
        .filter(|it| it.is_answered())
        .map(|it| it.end.min(until))
        .collect();
    answers.sort_unstable();
    let by: Vec<&str> = mine.iter().filter_map(|it| answered_by(it)).collect();
    let unanswered = Unanswered::of(attempts, from, until);
    Reachability {
        attempts: mine.len(),
        failed: unanswered.failed.len(),
        alone: unanswered.alone.len(),
        outage: longest_gap(from, answers.into_iter(), until),
        moves: by.windows(2).filter(|pair| pair[0] != pair[1]).count(),
        blind,
        failures: unanswered.named(from),
    }
}

/// Who answered an attempt in time.
pub fn answered_by(attempt: &Attempt) -> Option<&str> {
    match &attempt.outcome {
        Outcome::Ok(by) if attempt.is_answered() => Some(by),
        _ => None,
    }
}

fn longest_gap(from: Moment, points: impl Iterator<Item = Moment>, until: Moment) -> Duration {
    let mut last = from;
    let mut longest = Duration::ZERO;
    for point in points.chain([until]) {
        longest = longest.max(point.since(last));
        last = last.max(point);
    }
    longest
}

/// The period in which answers named one MAC address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The MAC address.
    pub mac: String,
    /// The first answer that named it.
    pub first: Moment,
    /// The last one.
    pub last: Moment,
    /// The number of answers.
    pub answers: usize,
}

/// The MAC addresses that answers to clients named for an address between two moments, in the
/// order of their first answer.
pub fn holders(frames: &[Frame], address: IpAddr, from: Moment, until: Moment) -> Vec<Holder> {
    let mut found: BTreeMap<&str, Holder> = BTreeMap::new();
    for frame in frames {
        let of_address = frame.said.address == address && frame.said.kind == Kind::Answer;
        let in_time = frame.at >= from && frame.at < until;
        let Some(mac) = frame.said.mac.as_deref() else {
            continue;
        };
        if !of_address || !in_time || frame.way != Way::Delivered {
            continue;
        }
        let holder = found.entry(mac).or_insert_with(|| Holder {
            mac: mac.to_owned(),
            first: frame.at,
            last: frame.at,
            answers: 0,
        });
        holder.first = holder.first.min(frame.at);
        holder.last = holder.last.max(frame.at);
        holder.answers += 1;
    }
    let mut all: Vec<Holder> = found.into_values().collect();
    all.sort_by_key(|it| it.first);
    all
}

/// How long answers named more than one MAC address: from the first answer of a later holder to
/// the last answer of an earlier one.
pub fn overlap(holders: &[Holder]) -> Duration {
    let mut longest = Duration::ZERO;
    for (number, later) in holders.iter().enumerate() {
        for earlier in &holders[..number] {
            longest = longest.max(earlier.last.min(later.last).since(later.first));
        }
    }
    longest
}

/// How long after a moment the last answer named another MAC address than the final one.
pub fn until_one(holders: &[Holder], from: Moment) -> Duration {
    let Some(last) = holders.iter().max_by_key(|it| it.last) else {
        return Duration::ZERO;
    };
    let others = holders.iter().filter(|it| it.mac != last.mac);
    let longest = others.map(|it| it.last.since(from)).max();
    longest.unwrap_or_default()
}

/// How often the MAC address changed that a host was told for an address between two moments, by answers to
/// it and by claims to all. `had` is what it knew before the first frame, if anything.
pub fn changes(
    frames: &[Frame],
    told: &str,
    address: IpAddr,
    had: Option<&str>,
    (from, until): (Moment, Moment),
) -> usize {
    let mut mine: Vec<&Frame> = frames
        .iter()
        .filter(|it| it.way == Way::Delivered && it.host == told)
        .filter(|it| it.said.address == address && it.at < until)
        .collect();
    mine.sort_by_key(|it| it.at);
    let (before, within): (Vec<&Frame>, Vec<&Frame>) =
        mine.into_iter().partition(|it| it.at < from);
    let named = |all: &[&'_ Frame]| -> Vec<String> {
        let macs = all.iter().filter_map(|it| it.said.mac.clone());
        macs.collect()
    };
    let last = named(&before).pop().or_else(|| had.map(str::to_owned));
    let mut macs: Vec<String> = last.into_iter().chain(named(&within)).collect();
    macs.dedup();
    macs.len().saturating_sub(1)
}

/// How long questions went without an answer after each takeover: from the announcement in which a MAC
/// address first claims the address, after another one had it, to the first answer that names it. The
/// longest; zero without a takeover. `had` had the address before.
pub fn announced_to_answered(
    frames: &[Frame],
    address: IpAddr,
    had: &str,
    from: Moment,
    until: Moment,
) -> Duration {
    let mut mine: Vec<&Frame> = frames
        .iter()
        .filter(|it| it.said.address == address && it.at >= from && it.at < until)
        .collect();
    mine.sort_by_key(|it| it.at);
    let (mut has, mut waits, mut longest) = (had, None::<Moment>, Duration::ZERO);
    for frame in mine {
        let Some(mac) = frame.said.mac.as_deref() else {
            continue;
        };
        match (frame.said.kind, frame.way) {
            (Kind::Claim, Way::Sent) if mac != has => {
                (has, waits) = (mac, Some(frame.at));
            }
            (Kind::Answer, Way::Delivered) if mac == has => {
                let waited = waits.take().map(|since| frame.at.since(since));
                longest = longest.max(waited.unwrap_or_default());
            }
            _ => {}
        }
    }
    longest.max(waits.map(|since| until.since(since)).unwrap_or_default())
}

/// How long a host took to answer each request for an address, from the arrival of the request
/// at its cable to the departure of the answer. Answers come in the order of the requests.
pub fn reply_times(frames: &[Frame], host: &str, address: IpAddr) -> Vec<Duration> {
    let mut waiting = VecDeque::new();
    let mut times = vec![];
    let mine = frames.iter();
    for frame in mine.filter(|it| it.host == host && it.said.address == address) {
        match (frame.way, frame.said.kind) {
            (Way::Delivered, Kind::Request) => waiting.push_back(frame.at),
            (Way::Sent, Kind::Answer) => {
                times.extend(waiting.pop_front().map(|asked| frame.at.since(asked)));
            }
            _ => {}
        }
    }
    times
}

/// The 99th percentile.
pub fn p99(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted
        .get((sorted.len() * 99).div_ceil(100).checked_sub(1)?)
        .copied()
}

#[cfg(test)]
mod tests {
    use super::super::frame::Said;
    use super::*;

    const MS: u64 = 1_000_000;

    fn attempt(start: u64, took: u64, by: Option<&str>) -> Attempt {
        Attempt {
            start: Moment(start * MS),
            end: Moment((start + took) * MS),
            outcome: by.map_or(Outcome::Timeout, |by| Outcome::Ok(by.to_owned())),
        }
    }

    fn judge(attempts: &[Attempt], from: u64, until: u64) -> Reachability {
        reachability(attempts, Moment(from * MS), Moment(until * MS))
    }

    #[test]
    fn an_outage_lasts_from_answer_to_answer() {
        let mut attempts: Vec<Attempt> = (0..10).map(|n| attempt(n * 10, 1, Some("a"))).collect();
        attempts.extend((10..50).map(|n| attempt(n * 10, 1_000, None)));
        attempts.extend((50..60).map(|n| attempt(n * 10, 1, Some("b"))));
        let seen = judge(&attempts, 0, 600);
        assert_eq!((seen.attempts, seen.failed, seen.moves), (60, 40, 1));
        assert_eq!(seen.outage, Duration::from_millis(410));
        assert_eq!(seen.blind, Duration::from_millis(10));
    }

    #[test]
    fn attempts_that_wait_for_the_end_of_an_outage_do_not_hide_it() {
        // Their packets are kept until the MAC address is known.
        let mut attempts: Vec<Attempt> = (0..50)
            .map(|n| attempt(n * 10, 600 - n * 10, Some("b")))
            .collect();
        attempts.push(attempt(600, 1, Some("b")));
        assert_eq!(judge(&attempts, 0, 610).outage, Duration::from_millis(600));
    }

    #[test]
    fn an_outage_that_does_not_end_lasts_to_the_end_of_the_period() {
        let attempts = [attempt(0, 1, Some("a")), attempt(10, 1_000, None)];
        assert_eq!(judge(&attempts, 0, 500).outage, Duration::from_millis(499));
        assert_eq!(judge(&[], 0, 500).outage, Duration::from_millis(500));
        assert_eq!(judge(&[], 0, 500).blind, Duration::from_millis(500));
    }

    fn answer(at: u64, mac: &str, way: Way, kind: Kind) -> Frame {
        Frame {
            at: Moment(at * MS),
            host: "client".into(),
            way,
            said: Said {
                kind,
                address: IpAddr::from([10, 89, 0, 200]),
                mac: Some(mac.into()),
                asker: IpAddr::from([10, 89, 0, 200]),
                from: mac.into(),
                to: String::new(),
            },
        }
    }

    #[test]
    fn two_answer_from_the_first_of_the_new_to_the_last_of_the_old() {
        let delivered = |at, mac| answer(at, mac, Way::Delivered, Kind::Answer);
        let frames = [
            delivered(0, "a"),
            delivered(100, "b"),
            // A frame that a fault dropped, and one that answers nobody, do not count.
            answer(300, "a", Way::Sent, Kind::Answer),
            answer(300, "a", Way::Delivered, Kind::Claim),
            delivered(150, "a"),
            delivered(400, "b"),
        ];
        let address = IpAddr::from([10, 89, 0, 200]);
        let all = holders(&frames, address, Moment(0), Moment(u64::MAX));
        let macs: Vec<&str> = all.iter().map(|it| it.mac.as_str()).collect();
        assert_eq!(macs, ["a", "b"]);
        assert_eq!(overlap(&all), Duration::from_millis(50));
        let later = holders(&frames, address, Moment(160 * MS), Moment(u64::MAX));
        assert_eq!(later.len(), 1);
        assert_eq!(overlap(&later), Duration::ZERO);
        assert_eq!(until_one(&all, Moment(0)), Duration::from_millis(150));
        assert_eq!(until_one(&later, Moment(0)), Duration::ZERO);
        let other = IpAddr::from([10, 89, 0, 201]);
        assert!(holders(&frames, other, Moment(0), Moment(u64::MAX)).is_empty());
    }

    #[test]
    fn a_host_is_told_of_changes() {
        let told = |at, mac, kind| answer(at, mac, Way::Delivered, kind);
        let mut frames = vec![
            told(0, "a", Kind::Answer),
            told(10, "b", Kind::Claim),
            told(20, "b", Kind::Answer),
            told(30, "a", Kind::Answer),
            // Another host's, and one that nobody got.
            answer(40, "b", Way::Sent, Kind::Claim),
        ];
        frames.push(Frame {
            host: "other".into(),
            ..told(50, "b", Kind::Claim)
        });
        let address = IpAddr::from([10, 89, 0, 200]);
        let seen = |host, had, from| {
            let window = (Moment(from * MS), Moment(100 * MS));
            changes(&frames, host, address, had, window)
        };
        assert_eq!(seen("client", None, 0), 2);
        assert_eq!(
            seen("client", None, 5),
            2,
            "it had been told of the first one"
        );
        assert_eq!(seen("client", None, 15), 1);
        assert_eq!(seen("client", Some("b"), 0), 3, "it knew another one");
        assert_eq!(seen("other", None, 0), 0, "it was told of one only");
        assert_eq!(seen("other", Some("a"), 0), 1);
        assert_eq!(seen("nobody", Some("a"), 0), 0);
    }

    #[test]
    fn after_a_takeover_questions_wait_for_the_new_holder() {
        let claims = |at, mac| answer(at, mac, Way::Sent, Kind::Claim);
        let answers = |at, mac| answer(at, mac, Way::Delivered, Kind::Answer);
        let address = IpAddr::from([10, 89, 0, 200]);
        let waited = |frames: &[Frame], until| {
            announced_to_answered(frames, address, "a", Moment(0), Moment(until * MS))
        };
        let ms = Duration::from_millis;
        let mut frames = vec![
            // It had the address before.
            claims(1, "a"),
            answers(2, "a"),
            claims(10, "b"),
            // Neither the former one nor an answer that nobody got ends the wait.
            answers(20, "a"),
            answer(30, "b", Way::Sent, Kind::Answer),
            answers(45, "b"),
            // Repeated.
            claims(60, "b"),
            answers(70, "b"),
        ];
        assert_eq!(waited(&frames[..2], 100), Duration::ZERO);
        assert_eq!(waited(&frames, 100), ms(35));
        frames.push(claims(80, "c"));
        assert_eq!(waited(&frames, 100), ms(35));
        assert_eq!(waited(&frames, 200), ms(120), "nobody answers");
    }

    #[test]
    fn a_reply_belongs_to_the_oldest_request() {
        let at = |at, way, kind| answer(at, "a", way, kind);
        let frames = [
            at(0, Way::Delivered, Kind::Request),
            at(10, Way::Delivered, Kind::Request),
            at(11, Way::Sent, Kind::Answer),
            at(12, Way::Sent, Kind::Answer),
            // Not asked for.
            at(13, Way::Sent, Kind::Answer),
            at(20, Way::Delivered, Kind::Request),
        ];
        let address = IpAddr::from([10, 89, 0, 200]);
        let ms = Duration::from_millis;
        assert_eq!(reply_times(&frames, "client", address), [ms(11), ms(2)]);
        assert!(reply_times(&frames, "node1", address).is_empty());
    }

    #[test]
    fn the_99th_percentile() {
        let ms = Duration::from_millis;
        assert_eq!(p99(&[]), None);
        assert_eq!(p99(&[ms(3)]), Some(ms(3)));
        let hundred: Vec<Duration> = (1..=200).rev().map(ms).collect();
        assert_eq!(p99(&hundred), Some(ms(198)));
    }
}
