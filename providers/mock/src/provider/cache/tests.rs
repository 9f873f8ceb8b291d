use super::*;
use crate::api::{Desired, LifecycleState};

fn mark() -> Mark {
    Mark {
        cluster: "c".into(),
        cluster_name: "lab".into(),
        class: "local".into(),
        writer: "1".into(),
    }
}

fn id() -> ServiceId {
    ServiceId {
        namespace: "shop".into(),
        name: "web".into(),
        uid: "u".into(),
    }
}

fn view(seq: u64, state: LifecycleState, set: &str) -> LoadBalancerView {
    LoadBalancerView {
        name: "bl-1".into(),
        seq,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        state,
        problem: None,
        addresses: vec!["10.0.0.1".parse().unwrap()],
        desired: Desired {
            listeners: Vec::new(),
            families: Vec::new(),
            any_family: false,
            traffic_policy: crate::api::TrafficPolicy::Cluster,
            affinity: crate::api::Affinity::None,
            source_ranges: Vec::new(),
            target_set: set.into(),
            requested_addresses: Vec::new(),
            tags: mark().tags(&id()),
        },
    }
}

fn position(epoch: &str, seq: u64) -> Position {
    Position {
        epoch: epoch.into(),
        seq,
    }
}

fn event(seq: u64, kind: ChangeKind) -> ChangeView {
    ChangeView {
        seq,
        kind,
        name: "bl-1".into(),
        tags: mark().tags(&id()),
    }
}

fn causes(changes: Vec<Change>) -> Vec<Cause> {
    changes.into_iter().map(|change| change.cause).collect()
}

fn loaded() -> Cache {
    let mut cache = Cache::default();
    let views = vec![view(5, LifecycleState::Provisioning, "a")];
    cache.load(views, position("e", 5), &[]);
    cache
}

#[test]
fn nothing_is_known_before_the_first_list() {
    assert!(matches!(Cache::default().known("bl-1"), Known::Doubtful));
    assert!(matches!(loaded().known("bl-1"), Known::Fresh(_)));
    assert!(matches!(loaded().known("bl-2"), Known::Absent));
}

#[test]
fn only_events_newer_than_our_own_answer_say_something() {
    let mut cache = loaded();
    assert!(
        cache
            .hear(&mark(), &event(5, ChangeKind::Changed))
            .is_empty()
    );
    let heard = cache.hear(&mark(), &event(6, ChangeKind::Active));
    assert_eq!(causes(heard), [Cause::Active]);
    assert!(
        matches!(cache.known("bl-1"), Known::Doubtful),
        "it must be read again"
    );
    cache.store(view(6, LifecycleState::Active, "a"));
    assert!(matches!(cache.known("bl-1"), Known::Fresh(_)));
    let foreign = ChangeView {
        tags: BTreeMap::new(),
        ..event(9, ChangeKind::Changed)
    };
    assert!(cache.hear(&mark(), &foreign).is_empty());
}

#[test]
fn an_answer_older_than_an_event_is_not_trusted() {
    let mut cache = loaded();
    cache.hear(&mark(), &event(8, ChangeKind::Changed));
    cache.store(view(7, LifecycleState::Active, "a"));
    assert!(matches!(cache.known("bl-1"), Known::Doubtful));
}

#[test]
fn our_own_deletion_is_told_once_it_is_done() {
    let mut cache = loaded();
    cache.releasing("bl-1");
    assert!(
        cache
            .hear(&mark(), &event(6, ChangeKind::Deleting))
            .is_empty()
    );
    assert_eq!(
        causes(cache.hear(&mark(), &event(7, ChangeKind::Deleted))),
        [Cause::Gone]
    );
    assert!(matches!(cache.known("bl-1"), Known::Absent));
}

#[test]
fn a_new_list_is_compared_with_what_was_known() {
    use LifecycleState::{Active, Deleting, Provisioning};
    for (now, expected) in [
        (view(5, Provisioning, "a"), vec![]),
        (view(6, Active, "a"), vec![Cause::Active]),
        (view(6, Active, "b"), vec![Cause::Drifted]),
        (view(6, Deleting, "a"), vec![Cause::Drifted]),
    ] {
        let mut cache = loaded();
        let changes = cache.relist(vec![now.clone()], &position("e", 6));
        assert_eq!(causes(changes), expected, "{now:?}");
    }
    let mut cache = loaded();
    assert_eq!(
        causes(cache.relist(Vec::new(), &position("e", 9))),
        [Cause::Gone]
    );
    assert_eq!(
        cache.reserved("other"),
        ["10.0.0.1".parse::<IpAddr>().unwrap()]
    );
    assert!(
        cache.reserved("u").is_empty(),
        "its own address is not kept from it"
    );
}

#[test]
fn after_the_cloud_lost_its_state_old_numbers_do_not_count() {
    let mut cache = loaded();
    let changes = cache.relist(
        vec![view(1, LifecycleState::Active, "b")],
        &position("f", 1),
    );
    assert_eq!(causes(changes), [Cause::Drifted]);
    assert!(matches!(cache.known("bl-1"), Known::Fresh(_)));
    assert_eq!(
        causes(cache.hear(&mark(), &event(2, ChangeKind::Changed))),
        [Cause::Drifted]
    );
}

#[test]
fn what_is_in_flight_is_left_to_its_own_answer() {
    let mut cache = loaded();
    cache.begin("bl-1");
    assert!(cache.relist(Vec::new(), &position("e", 9)).is_empty());
    cache.end("bl-1");
    assert_eq!(
        causes(cache.relist(Vec::new(), &position("e", 9))),
        [Cause::Gone]
    );
}

#[test]
fn a_position_that_goes_back_is_another_life() {
    let mut cache = loaded();
    cache.store(view(7, LifecycleState::Active, "b"));
    cache.advance(&position("e", 5), position("e", 7));
    // Older than our last answer: the edit is lost, and so is everything in the events.
    let changes = cache.relist(
        vec![view(5, LifecycleState::Provisioning, "a")],
        &position("e", 6),
    );
    assert_eq!(causes(changes), [Cause::Drifted]);
    let heard = cache.hear(&mark(), &event(7, ChangeKind::Active));
    assert_eq!(causes(heard), [Cause::Active]);
    // Created after the list's position, and lost: it is gone, however new it was.
    cache.store(view(9, LifecycleState::Active, "a"));
    assert_eq!(
        causes(cache.relist(Vec::new(), &position("e", 8))),
        [Cause::Gone]
    );
    assert!(matches!(cache.known("bl-1"), Known::Absent));
    assert_eq!(cache.reserved("other").len(), 1);
}

#[test]
fn what_appears_is_told_unless_it_was_kept_on_purpose() {
    let mut cache = Cache::default();
    cache.load(Vec::new(), position("e", 5), &[]);
    let mut there = view(3, LifecycleState::Active, "a");
    let changes = cache.relist(vec![there.clone()], &position("e", 4));
    assert_eq!(causes(changes), [Cause::Appeared]);
    let mut cache = Cache::default();
    cache.load(Vec::new(), position("e", 5), &[]);
    there
        .desired
        .tags
        .insert(mark::RETAINED.into(), "now".into());
    assert!(cache.relist(vec![there], &position("e", 4)).is_empty());
}

#[test]
fn what_changed_while_a_list_was_made_is_not_judged_by_it() {
    let mut cache = loaded();
    cache.begin_list();
    cache.begin("bl-1");
    cache.store(view(9, LifecycleState::Active, "a"));
    cache.end("bl-1");
    assert!(cache.relist(Vec::new(), &position("e", 6)).is_empty());
    assert!(matches!(cache.known("bl-1"), Known::Fresh(_)));
    // Released meanwhile: a list that still has it does not restore it.
    cache.begin_list();
    cache.begin("bl-1");
    cache.forget("bl-1");
    cache.end("bl-1");
    let listed = vec![view(9, LifecycleState::Active, "a")];
    assert!(cache.relist(listed, &position("e", 9)).is_empty());
    assert!(matches!(cache.known("bl-1"), Known::Absent));
}

/// The call may have been answered before the cloud lost its effect.
#[test]
fn what_is_in_flight_is_doubtful_in_another_life_and_its_address_is_kept() {
    let mut cache = loaded();
    cache.begin("bl-1");
    let changes = cache.relist(Vec::new(), &position("f", 1));
    assert_eq!(causes(changes), [Cause::Drifted]);
    assert_eq!(cache.reserved("other").len(), 1);
    cache.end("bl-1");
    assert!(matches!(cache.known("bl-1"), Known::Doubtful));
    cache.store(view(2, LifecycleState::Active, "a"));
    assert!(matches!(cache.known("bl-1"), Known::Fresh(_)));
}

#[test]
fn the_latest_identities_of_the_cloud_are_remembered() {
    let mut cache = Cache::default();
    for cloud in ["", "a", "b", "a"] {
        cache.meet(cloud.to_owned());
    }
    assert_eq!(cache.clouds(), ["b", "a"]);
    for number in 0..100 {
        cache.meet(number.to_string());
    }
    assert_eq!(cache.clouds().len(), CLOUDS);
    assert_eq!(cache.clouds().last().unwrap(), "99");
}
