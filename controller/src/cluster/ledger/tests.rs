use super::*;

fn id(uid: &str) -> ServiceId {
    ServiceId {
        namespace: "shop".into(),
        name: "web".into(),
        uid: uid.into(),
    }
}

#[test]
fn the_last_place_is_taken_once() {
    let ledger = Ledger::default();
    assert!(ledger.reserve(&id("a"), "local", &Key::alone(&id("a")), Some(1)));
    assert!(
        ledger.reserve(&id("a"), "local", &Key::alone(&id("a")), Some(1)),
        "a holder keeps its place"
    );
    assert!(!ledger.reserve(&id("b"), "local", &Key::alone(&id("b")), Some(1)));
    assert!(
        ledger.reserve(&id("b"), "other", &Key::alone(&id("b")), Some(1)),
        "classes do not share places"
    );
    ledger.forget(&id("a"), "local");
    assert!(ledger.reserve(&id("b"), "local", &Key::alone(&id("b")), Some(1)));
}

#[test]
fn a_lowered_limit_evicts_nobody() {
    let ledger = Ledger::default();
    ledger.record(&id("a"), "local");
    ledger.record(&id("b"), "local");
    assert!(ledger.reserve(&id("a"), "local", &Key::alone(&id("a")), Some(0)));
    assert!(!ledger.reserve(&id("c"), "local", &Key::alone(&id("c")), Some(2)));
}

/// It would keep the place from others for ever.
#[test]
fn in_a_class_without_a_limit_a_refusal_tells_nobody() {
    let ledger = Ledger::default();
    assert!(ledger.reserve(&id("a"), "local", &Key::alone(&id("a")), None));
    ledger.refused(&id("a"), "local");
    assert!(ledger.is_refused(&id("a"), "local"));
    assert_eq!(ledger.releases(), 0, "no place became free for anybody");
}

#[test]
fn what_the_cloud_lists_during_a_refused_call_keeps_its_place() {
    let ledger = Ledger::default();
    let key = Key::alone(&id("a"));
    assert!(ledger.reserve(&id("a"), "local", &key, Some(1)));
    ledger.record_on(&id("a"), "local", &key);
    ledger.refused(&id("a"), "local");
    assert!(ledger.has_place(&id("a"), "local"));
}

#[test]
fn who_is_refused_before_it_has_anything_gives_its_place_back() {
    let ledger = Ledger::default();
    let reserve = |uid: &str| ledger.reserve(&id(uid), "local", &Key::alone(&id(uid)), Some(1));
    assert!(reserve("a"));
    let before = ledger.releases();
    ledger.refused(&id("a"), "local");
    assert!(ledger.is_refused(&id("a"), "local") && ledger.refuses_any("local"));
    assert_eq!((ledger.count("local"), ledger.places("local")), (1, 0));
    assert_eq!(ledger.releases(), before + 1, "the others are told");
    assert!(reserve("a"), "it may try again");
    ledger.refused(&id("a"), "local");
    assert_eq!(ledger.releases(), before + 1, "once");
    let name = Name::from(&id("a"));
    ledger.retain_unproven(&name, |_| false);
    assert!(ledger.has(&id("a"), "local"), "it may be on a balancer");
    assert!(reserve("b"));
    assert!(!reserve("a"), "its place is taken");

    // What has something, or may have, keeps its place.
    ledger.occupied(&id("b"), "local");
    ledger.refused(&id("b"), "local");
    assert!(ledger.has_place(&id("b"), "local") && !ledger.is_refused(&id("b"), "local"));
    ledger.record(&id("c"), "local");
    ledger.refused(&id("c"), "local");
    assert!(ledger.has_place(&id("c"), "local"));
    ledger.occupied(&id("a"), "local");
    assert!(
        ledger.has_place(&id("a"), "local"),
        "another member's call put it there"
    );
    assert!(!ledger.refuses_any("local"));
    for uid in ["a", "b", "c"] {
        ledger.forget(&id(uid), "local");
    }
    assert_eq!((ledger.count("local"), ledger.places("local")), (0, 0));
    ledger.occupied(&id("d"), "local");
    assert_eq!(ledger.count("local"), 0, "no entry, nothing to record");
}

/// Anybody who may edit a Service can add a finalizer.
#[test]
fn a_finalizer_takes_no_place() {
    let ledger = Ledger::default();
    ledger.record_finalizer(&id("a"), "local");
    assert_eq!((ledger.count("local"), ledger.places("local")), (1, 0));
    assert!(ledger.has(&id("a"), "local") && !ledger.has_place(&id("a"), "local"));
    assert!(ledger.places_of(&id("a")).is_empty());
    assert!(!ledger.close("local"), "there may be something to release");
    assert!(!ledger.reserve(&id("a"), "local", &Key::alone(&id("a")), Some(0)));

    assert!(ledger.reserve(&id("b"), "local", &Key::alone(&id("b")), Some(1)));
    assert!(!ledger.reserve(&id("a"), "local", &Key::alone(&id("a")), Some(1)));
    ledger.forget(&id("b"), "local");
    assert!(ledger.reserve(&id("a"), "local", &Key::alone(&id("a")), Some(1)));
    assert_eq!((ledger.count("local"), ledger.places("local")), (1, 1));
    assert_eq!(ledger.places_of(&id("a")), ["local".into()]);

    // What a cloud has counts, whatever the limit; once.
    ledger.record_finalizer(&id("c"), "local");
    ledger.record(&id("c"), "local");
    ledger.record_on(&id("c"), "local", &Key::alone(&id("c")));
    assert_eq!((ledger.count("local"), ledger.places("local")), (2, 2));
    ledger.forget(&id("c"), "local");
    ledger.forget(&id("a"), "local");
    assert_eq!((ledger.count("local"), ledger.places("local")), (0, 0));
}

#[test]
fn a_class_closes_only_when_nobody_has_a_place() {
    let ledger = Ledger::default();
    assert!(ledger.reserve(&id("a"), "local", &Key::alone(&id("a")), None));
    assert!(!ledger.close("local"));
    ledger.forget(&id("a"), "local");
    assert!(ledger.close("local"));
    assert!(!ledger.reserve(&id("b"), "local", &Key::alone(&id("b")), None));
    ledger.open("local");
    assert!(ledger.reserve(&id("b"), "local", &Key::alone(&id("b")), None));
}

#[test]
fn a_service_that_moves_is_on_two_balancers_until_it_has_left_one() {
    let ledger = Ledger::default();
    let (one, two) = (Key::Shared("one".into()), Key::Shared("two".into()));
    assert!(ledger.reserve(&id("a"), "local", &one, Some(1)));
    assert!(
        ledger.reserve(&id("a"), "local", &two, Some(1)),
        "one place"
    );
    assert_eq!(ledger.keys(&id("a"), "local"), [one.clone(), two.clone()]);
    ledger.left(&id("a"), "local", &one);
    assert!(!ledger.is_on(&id("a"), "local", &one));
    assert!(ledger.is_on(&id("a"), "local", &two));
    assert_eq!(ledger.count("local"), 1);
    ledger.forget(&id("a"), "local");
    assert_eq!(ledger.keys(&id("a"), "local"), []);
    assert_eq!(ledger.count("local"), 0);
}

#[test]
fn what_a_successor_of_the_same_name_leaves_behind() {
    let ledger = Ledger::default();
    let name = Name::from(&id("old"));
    ledger.record(&id("old"), "local");
    ledger.record(&id("new"), "local");
    let left = ledger.left_behind(&name, Some("new"));
    assert_eq!(
        left,
        [Entry {
            id: id("old"),
            class: "local".into(),
            keys: Vec::new(),
            proven: true,
        }]
    );
    assert_eq!(ledger.left_behind(&name, None).len(), 2);
    ledger.forget(&id("old"), "local");
    assert!(ledger.left_behind(&name, Some("new")).is_empty());
}

#[test]
fn a_view_older_than_our_write_is_stale_until_the_echo() {
    let ledger = Ledger::default();
    let name = Name::from(&id("a"));
    ledger.record(&id("a"), "local");
    ledger.wrote(&name, 7);
    assert!(ledger.is_stale(&name, 6));
    assert!(!ledger.is_stale(&name, 7));
    ledger.wrote(&name, 9);
    ledger.relisted();
    assert!(
        ledger.is_stale(&name, 3),
        "written while the list was on its way"
    );
    ledger.relisting();
    ledger.relisted();
    assert!(
        !ledger.is_stale(&name, 3),
        "a restored API server begins with lower versions"
    );
}

#[test]
fn slowness_is_announced_once_per_piece_of_work() {
    let ledger = Ledger::default();
    let start = Instant::now();
    ledger.record(&id("a"), "local");
    assert_eq!(ledger.began(&id("a"), "local", start), start);
    assert_eq!(ledger.began(&id("a"), "local", Instant::now()), start);
    assert!(ledger.announce_slow(&id("a"), "local"));
    assert!(!ledger.announce_slow(&id("a"), "local"));
    ledger.finished(&id("a"), "local");
    assert!(ledger.announce_slow(&id("a"), "local"));
}
