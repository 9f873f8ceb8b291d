//! When to ask AWS how the targets of a Service are, and what its answers mean. Pure.
//!
//! ```text
//!          something changed            all healthy
//!  (rest) ──────────────────▶ (asks) ──────────────────▶ (rest)
//!                             every 10 s, then less and less often, up to 60 s
//! ```
//!
//! A load balancer that has become active carries nothing before the first target is healthy. While
//! AWS still examines the targets, the news that it is active waits for them, for at most a minute: then
//! both are one write to the Service, and whoever waits for `Programmed` finds that traffic flows.

use std::collections::BTreeMap;
use std::time::Duration;

use ballast_provider::{ExtraCondition, ExtraKind};
use tokio::time::Instant;

use crate::client::values::{Health, TargetHealth};

const FIRST: Duration = Duration::from_secs(10);
const LAST: Duration = Duration::from_mins(1);
/// Clients remember the name of a load balancer for 60 s (the TTL of its DNS records), and the
/// Service's status and DNS controllers take their time.
const REMEMBERED: Duration = Duration::from_mins(3);
/// How long the news that a load balancer is active waits for its targets.
const SETTLING: Duration = Duration::from_mins(1);

/// The health of one Service's targets.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    due: Option<Instant>,
    pause: Duration,
    summary: Option<Summary>,
    /// Since when a target has been healthy.
    serves_since: Option<Instant>,
    /// Until when the news that the load balancer is active waits.
    settling: Option<Instant>,
}

/// All targets of all target groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    healthy: usize,
    /// Those that AWS still examines.
    initial: usize,
    total: usize,
    /// Reasons of those that are not, with how many.
    reasons: BTreeMap<String, usize>,
}

// === impl Watch ===

impl Watch {
    /// Something changed: asks soon.
    pub(super) fn begin(&mut self, now: Instant) {
        self.pause = FIRST;
        self.due = Some(now + FIRST);
    }

    /// The load balancer has become active: asks at once.
    pub(super) fn activated(&mut self, now: Instant) {
        self.pause = FIRST / 2;
        self.due = Some(now);
        self.settling = Some(now + SETTLING);
    }

    /// Whether the news that the load balancer is active waits for its targets.
    pub(super) fn settles(&self, now: Instant) -> bool {
        let examined = self.summary.as_ref();
        self.settling.is_some_and(|until| now < until)
            && examined.is_none_or(|all| all.healthy == 0 && all.initial > 0)
    }

    /// AWS does not say how the targets are: asks again after this time, and nothing waits for it.
    pub(super) fn failed(&mut self, now: Instant, pause: Duration) {
        self.settling = None;
        self.pause = FIRST;
        self.due = Some(now + pause);
    }

    /// When to ask next; `None`: not before something changes.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The answers of all target groups. True if there is news to report.
    pub(super) fn heard(&mut self, groups: &[Vec<TargetHealth>], now: Instant) -> bool {
        let unreported = self.settling.is_some();
        let summary = Summary::of(groups);
        if summary.healthy == 0 {
            self.serves_since = None;
        } else {
            self.serves_since.get_or_insert(now);
        }
        self.due = if summary.is_well() {
            None
        } else {
            self.pause = (self.pause * 2).clamp(FIRST, LAST);
            Some(now + self.pause)
        };
        let news = self.summary.as_ref() != Some(&summary);
        self.summary = Some(summary);
        if self.settles(now) {
            if let Some(until) = self.settling {
                self.ask_at(until);
            }
            return false;
        }
        self.settling = None;
        news || unreported
    }

    /// Asks again at this time, although all is well.
    pub(super) fn ask_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Whether clients can have moved here.
    pub(super) fn serves(&self, now: Instant) -> bool {
        let since = self.serves_since;
        since.is_some_and(|since| now.duration_since(since) >= REMEMBERED)
    }

    /// When [`Watch::serves`] becomes true if nothing happens.
    pub(super) fn serves_at(&self) -> Option<Instant> {
        self.serves_since.map(|since| since + REMEMBERED)
    }

    /// The condition; `None` if nobody has asked.
    pub(super) fn condition(&self) -> Option<ExtraCondition> {
        let summary = self.summary.as_ref()?;
        let (reason, message) = summary.words();
        Some(ExtraCondition {
            kind: ExtraKind::TargetsHealthy,
            holds: Some(summary.is_well()),
            reason,
            message,
            places: Vec::new(),
        })
    }
}

// === impl Summary ===

impl Summary {
    fn of(groups: &[Vec<TargetHealth>]) -> Self {
        let mut summary = Self::default();
        for one in groups.iter().flatten() {
            match one.health {
                // It was deregistered.
                Health::Draining => continue,
                Health::Healthy => summary.healthy += 1,
                state => {
                    summary.initial += usize::from(state == Health::Initial);
                    let reason = match (&one.reason, &one.description) {
                        (_, Some(description)) if !description.is_empty() => description.clone(),
                        (Some(reason), _) => reason.clone(),
                        _ => state.as_str().to_owned(),
                    };
                    *summary.reasons.entry(reason).or_default() += 1;
                }
            }
            summary.total += 1;
        }
        summary
    }

    const fn is_well(&self) -> bool {
        self.total > 0 && self.healthy == self.total
    }

    fn words(&self) -> (&'static str, String) {
        if self.total == 0 {
            return ("NoTargets", "No node is registered as a target".to_owned());
        }
        let counts = format!("{} of {} targets are healthy", self.healthy, self.total);
        if self.is_well() {
            return ("TargetsHealthy", counts);
        }
        let reasons = self.reasons.iter().take(3);
        let reasons: Vec<String> = reasons
            .map(|(reason, count)| format!("{count}: {reason}"))
            .collect();
        (
            "TargetsUnhealthy",
            format!("{counts}; {}", reasons.join("; ")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(health: Health, reason: Option<&str>) -> TargetHealth {
        TargetHealth {
            target: "i-1".into(),
            port: None,
            health,
            reason: reason.map(str::to_owned),
            description: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_less_and_less_often_until_all_are_healthy() {
        let mut watch = Watch::default();
        assert_eq!(watch.due(), None);
        let start = Instant::now();
        watch.begin(start);
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let due = watch.due().expect("it asks");
            pauses.push(due.duration_since(now).as_secs());
            now = due;
            watch.heard(&[vec![target(Health::Initial, None)]], now);
        }
        assert_eq!(pauses, [10, 20, 40, 60, 60]);
        assert!(!watch.serves(now));
        assert!(watch.heard(&[vec![target(Health::Healthy, None)]], now));
        assert!(!watch.heard(&[vec![target(Health::Healthy, None)]], now));
        assert_eq!(watch.due(), None);
        assert!(!watch.serves(now));
        assert!(watch.serves(now + REMEMBERED));
    }

    #[test]
    fn that_it_is_active_waits_for_the_first_healthy_target_and_not_long() {
        let start = Instant::now();
        let second = |number| start + Duration::from_secs(number);
        let initial = || vec![target(Health::Initial, None)];
        let healthy = || vec![target(Health::Healthy, None)];
        let unhealthy = || vec![target(Health::Unhealthy, None)];
        let active = || {
            let mut watch = Watch::default();
            watch.activated(start);
            assert!(watch.settles(start), "nobody has asked");
            watch
        };
        for (heard, waits) in [
            (vec![initial(), initial()], true),
            (vec![unhealthy(), initial()], true),
            (vec![initial(), healthy()], false),
            (vec![unhealthy()], false),
            (vec![Vec::new()], false),
        ] {
            let mut watch = active();
            assert_eq!(watch.heard(&heard, start), !waits, "{heard:?}");
            assert_eq!(watch.settles(start), waits, "{heard:?}");
        }
        // It asks soon, and once at the end of the wait.
        let mut watch = active();
        let mut asked = Vec::new();
        while watch.settles(watch.due().unwrap_or(start)) {
            let now = watch.due().expect("it asks");
            asked.push(now.duration_since(start).as_secs());
            assert!(!watch.heard(&[initial()], now), "{asked:?}");
        }
        assert_eq!(asked, [0, 10, 30]);
        assert_eq!(watch.due(), Some(second(60)));
        assert!(
            watch.heard(&[initial()], second(60)),
            "although it is no other answer"
        );
        assert!(!watch.heard(&[initial()], second(120)), "only once");
        let mut watch = active();
        watch.failed(start, Duration::from_secs(30));
        assert!(!watch.settles(start), "nothing waits if AWS does not say");
        assert_eq!(watch.due(), Some(second(30)));
    }

    #[test]
    fn the_condition_counts_and_gives_reasons() {
        let now = Instant::now();
        let of = |targets: Vec<TargetHealth>| {
            let mut watch = Watch::default();
            watch.heard(&[targets], now);
            let condition = watch.condition().expect("asked");
            (condition.holds, condition.reason, condition.message)
        };
        let unhealthy = || target(Health::Unhealthy, Some("Target.FailedHealthChecks"));
        assert_eq!(
            of(vec![
                target(Health::Healthy, None),
                unhealthy(),
                unhealthy()
            ]),
            (
                Some(false),
                "TargetsUnhealthy",
                "1 of 3 targets are healthy; 2: Target.FailedHealthChecks".to_owned()
            )
        );
        assert_eq!(
            of(vec![
                target(Health::Healthy, None),
                target(Health::Draining, None)
            ]),
            (
                Some(true),
                "TargetsHealthy",
                "1 of 1 targets are healthy".to_owned()
            )
        );
        assert_eq!(of(Vec::new()).1, "NoTargets");
        assert_eq!(Watch::default().condition(), None);
    }
}
