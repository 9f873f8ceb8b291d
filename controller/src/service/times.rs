//! Since when each condition of a Service has had its status, as this process wrote it or first
//! saw it. Somebody else who rewrites `lastTransitionTime` is corrected like one who rewrites
//! any other field of a condition ([`crate::cluster::conditions`] says what is Ballast's).
//!
//! The memory is about 100 bytes per Service. It is lost with the process: the next leader
//! takes the times that it finds, if they are plausible.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::cluster::conditions::{is_plausible, kinds};
use crate::cluster::view::{ConditionView, Name, ServiceView};
use crate::process::room::give_back;

/// The times of the conditions of all Services.
#[derive(Debug, Default)]
pub struct Times(Mutex<HashMap<Name, Seen>>);

/// The conditions of one Service.
#[derive(Debug)]
struct Seen {
    uid: Arc<str>,
    conditions: Box<[Said]>,
}

/// One condition: the position of its type in [`kinds`], the first letter of its status, and its
/// time in seconds; 0 if that is before 1970 or after 2106, which is never plausible.
#[derive(Clone, Copy, Debug)]
struct Said {
    kind: u8,
    status: u8,
    since: u32,
}

// === impl Times ===

impl Times {
    /// The Service with the times that are Ballast's. A condition whose time is another is not
    /// exact, so it differs from what it should be and is written again.
    pub fn own(&self, service: Arc<ServiceView>, now: Timestamp) -> Arc<ServiceView> {
        let name = Name::from(&service.id);
        let mut all = self.lock();
        let seen = all.get(&name).filter(|seen| seen.uid == service.id.uid);
        let is_known = seen.is_some();
        let wrong: Vec<(usize, Timestamp)> = service
            .conditions
            .iter()
            .enumerate()
            .filter_map(|(at, condition)| Some((at, corrected(condition, seen, now)?)))
            .collect();
        if wrong.is_empty() {
            if !is_known {
                remember(&mut all, name, &service);
            }
            return service;
        }
        drop(all);
        let mut service = (*service).clone();
        for (at, since) in wrong {
            service.conditions[at].since = since;
            service.conditions[at].is_exact = false;
        }
        Arc::new(service)
    }

    /// Records what a write left; `None`: that is not known.
    pub fn wrote(&self, name: &Name, left: Option<&ServiceView>) {
        let mut all = self.lock();
        if let Some(left) = left {
            remember(&mut all, name.clone(), left);
        } else {
            all.remove(name);
            give_back(&mut all);
        }
    }

    /// Forgets a Service that is gone, or that this process does not serve.
    pub fn forget(&self, name: &Name) {
        let mut all = self.lock();
        all.remove(name);
        give_back(&mut all);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember(all: &mut HashMap<Name, Seen>, name: Name, service: &ServiceView) {
    let conditions: Box<[Said]> = service.conditions.iter().filter_map(Said::of).collect();
    if conditions.is_empty() {
        all.remove(&name);
        return;
    }
    let uid = Arc::clone(&service.id.uid);
    all.insert(name, Seen { uid, conditions });
}

/// The time that a condition should have, if it has another one.
fn corrected(condition: &ConditionView, seen: Option<&Seen>, now: Timestamp) -> Option<Timestamp> {
    let said = Said::of(condition)?;
    let Some(seen) = seen else {
        return (!is_plausible(condition.since, now)).then_some(now);
    };
    let mut known = seen.conditions.iter();
    match known.find(|it| (it.kind, it.status) == (said.kind, said.status)) {
        Some(known) if known.since == said.since => None,
        Some(known) => Some(Timestamp::from_second(known.since.into()).unwrap_or(now)),
        // Ballast did not give it this status.
        None => Some(now),
    }
}

// === impl Said ===

impl Said {
    /// `None` for a type that Ballast does not write.
    fn of(condition: &ConditionView) -> Option<Self> {
        let kind = kinds().position(|kind| kind == condition.kind)?;
        Some(Self {
            kind: u8::try_from(kind).ok()?,
            status: condition.status.bytes().next().unwrap_or_default(),
            since: u32::try_from(condition.since.as_second()).unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use ballast_provider::Reason;

    use super::*;
    use crate::cluster::conditions::{ACCEPTED, PROGRAMMED};
    use crate::fixtures::condition;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A Service whose conditions have this time.
    fn web(second: i64) -> Arc<ServiceView> {
        let mut web = ServiceView::test("web").saying(&[
            condition(ACCEPTED, "True", Reason::Accepted, "yes"),
            condition(PROGRAMMED, "True", Reason::Programmed, "yes"),
        ]);
        for condition in &mut web.conditions {
            condition.since = at(second);
        }
        Arc::new(web)
    }

    fn times_of(service: &ServiceView) -> Vec<(i64, bool)> {
        let conditions = service.conditions.iter();
        conditions
            .map(|it| (it.since.as_second(), it.is_exact))
            .collect()
    }

    #[test]
    fn while_a_process_leads_every_other_time_is_wrong() {
        let (times, now) = (Times::default(), at(10_000));
        let name = Name::from(&web(0).id);
        times.wrote(&name, Some(&web(5_000)));
        for second in [0, 1, 4_999, 5_001, 9_999, 2_000_000] {
            let seen = times_of(&times.own(web(second), now));
            assert_eq!(seen, [(5_000, false), (5_000, false)], "{second}");
        }
        let exact = [(5_000, true), (5_000, true)];
        assert_eq!(times_of(&times.own(web(5_000), now)), exact);
        let mut other = (*web(7_000)).clone();
        other.conditions[1].status = "False".into();
        let seen = times_of(&times.own(Arc::new(other), now));
        assert_eq!(seen[1], (10_000, false), "another status, by somebody else");
        times.forget(&name);
        let taken = [(7_000, true), (7_000, true)];
        assert_eq!(times_of(&times.own(web(7_000), now)), taken);
        let seen = times_of(&times.own(web(7_001), now));
        assert_eq!(seen, [(7_000, false), (7_000, false)], "it was taken over");
    }

    #[test]
    fn after_a_restart_a_time_must_be_plausible() {
        let now = at(10_000);
        for (second, plausible) in [
            (0, false),
            (-5, false),
            (1, true),
            (10_000, true),
            (10_060, true),
            (10_061, false),
            (200_000, false),
        ] {
            let seen = times_of(&Times::default().own(web(second), now));
            let expected = if plausible {
                (second, true)
            } else {
                (10_000, false)
            };
            assert_eq!(seen[0], expected, "{second}");
        }
    }

    #[test]
    fn a_later_service_of_the_name_is_another() {
        let (times, now) = (Times::default(), at(10_000));
        times.wrote(&Name::from(&web(0).id), Some(&web(5_000)));
        let mut later = (*web(6_000)).clone();
        later.id.uid = "uid-later".into();
        let seen = times_of(&times.own(Arc::new(later), now));
        assert_eq!(seen, [(6_000, true), (6_000, true)]);
    }

    #[test]
    fn nothing_is_kept_of_services_without_conditions() {
        let times = Times::default();
        let name = Name::from(&web(0).id);
        times.wrote(&name, Some(&web(5_000)));
        times.wrote(&name, Some(&ServiceView::test("web")));
        assert!(times.lock().is_empty());
        times.wrote(&name, Some(&web(5_000)));
        times.wrote(&name, None);
        assert!(times.lock().is_empty());
    }
}
