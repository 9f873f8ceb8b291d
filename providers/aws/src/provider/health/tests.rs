use super::*;

fn target(health: Health, reason: Option<&str>) -> TargetHealth {
    TargetHealth {
        target: TargetId::Instance("i-1".into()),
        port: Some(30_080),
        health,
        reason: reason.map(str::to_owned),
        description: None,
    }
}

fn unhealthy() -> TargetHealth {
    target(Health::Unhealthy, Some("Target.FailedHealthChecks"))
}

fn healthy() -> TargetHealth {
    target(Health::Healthy, None)
}

fn of(targets: &[TargetHealth], needs: Needs) -> Heard {
    let mut summary = Summary::default();
    for one in targets {
        summary.add(one);
    }
    [("uid-1".into(), (needs, summary))].into()
}

fn hear(watch: &mut Watch, targets: &[TargetHealth], now: Instant) -> bool {
    watch.heard("nlb", of(targets, Needs::All), now)
}

/// The pauses until it rests.
fn pauses(watch: &mut Watch, mut now: Instant, targets: &[TargetHealth]) -> Vec<u64> {
    let mut pauses = Vec::new();
    while let Some(due) = watch.due() {
        pauses.push(due.duration_since(now).as_secs());
        now = due;
        hear(watch, targets, now);
        assert!(pauses.len() < 100, "it asks for ever");
    }
    pauses
}

#[tokio::test(start_paused = true)]
async fn it_asks_less_and_less_often_until_enough_are_healthy_or_nothing_changes() {
    let mut watch = Watch::default();
    assert_eq!(watch.due(), None);
    let now = Instant::now();
    watch.begin(now);
    let asked = pauses(&mut watch, now, &[healthy(), unhealthy()]);
    assert_eq!(asked, [10, 20, 40, 60, 60, 60, 60, 60, 60, 60, 60]);
    // What is read for other reasons is news, and nobody asks.
    assert!(!hear(&mut watch, &[healthy(), unhealthy()], now));
    assert!(hear(&mut watch, &[unhealthy(), unhealthy()], now));
    assert_eq!(watch.due(), None);
    // Something changed.
    watch.begin(now);
    let asked = pauses(&mut watch, now, &[healthy(), healthy()]);
    assert_eq!(asked, [10]);
}

#[tokio::test(start_paused = true)]
async fn a_former_load_balancer_goes_when_its_successor_has_served_or_after_a_day() {
    let now = Instant::now();
    let mut watch = Watch::default();
    watch.heard("old", of(&[healthy()], Needs::All), now);
    let later = now + REMEMBERED;
    assert!(watch.replaces("old", later));
    assert!(!watch.replaces("nlb", later));
    hear(&mut watch, &[unhealthy()], later);
    assert!(!watch.replaces("nlb", later + REMEMBERED));
    assert!(watch.replaces("nlb", later + PATIENT));
    hear(&mut watch, &[healthy(), unhealthy()], later);
    assert!(!watch.replaces("nlb", later));
    assert!(watch.replaces("nlb", later + REMEMBERED));
    assert!(!watch.replaces("old", later + REMEMBERED));
}

#[test]
fn that_it_is_active_waits_for_the_first_healthy_target_and_not_long() {
    let start = Instant::now();
    let second = |number| start + Duration::from_secs(number);
    let initial = || target(Health::Initial, None);
    let active = || {
        let mut watch = Watch::default();
        watch.activated("nlb", start);
        assert!(watch.settles(start), "nobody has asked");
        watch
    };
    for (heard, waits) in [
        (vec![initial(), initial()], true),
        (vec![unhealthy(), initial()], true),
        (vec![initial(), healthy()], false),
        (vec![unhealthy()], false),
        (Vec::new(), false),
    ] {
        let mut watch = active();
        assert_eq!(hear(&mut watch, &heard, start), !waits, "{heard:?}");
        assert_eq!(watch.settles(start), waits, "{heard:?}");
    }
    // It asks soon, and once at the end of the wait.
    let mut watch = active();
    let mut asked = Vec::new();
    while watch.settles(watch.due().unwrap_or(start)) {
        let now = watch.due().expect("it asks");
        asked.push(now.duration_since(start).as_secs());
        assert!(!hear(&mut watch, &[initial()], now), "{asked:?}");
    }
    assert_eq!(asked, [0, 10, 30]);
    assert_eq!(watch.due(), Some(second(60)));
    assert!(
        hear(&mut watch, &[initial()], second(60)),
        "although it is no other answer"
    );
    assert!(!hear(&mut watch, &[initial()], second(120)), "only once");
    let mut watch = active();
    watch.failed(start, Duration::from_secs(30));
    assert!(!watch.settles(start), "nothing waits if AWS does not say");
    assert_eq!(watch.due(), Some(second(30)));
}

#[test]
fn the_condition_counts_and_gives_reasons() {
    let now = Instant::now();
    let of = |targets: Vec<TargetHealth>, needs| {
        let mut watch = Watch::default();
        watch.begin(now);
        watch.heard("nlb", of(&targets, needs), now);
        let condition = watch.condition("nlb", "uid-1").expect("asked");
        assert_eq!(watch.condition("other", "uid-1"), None);
        let asks = watch.due().is_some();
        (condition.holds, condition.reason, condition.message, asks)
    };
    let all = |targets| of(targets, Needs::All);
    let one = |targets| of(targets, Needs::One);
    let failed = "2: Target.FailedHealthChecks";
    assert_eq!(
        all(vec![healthy(), unhealthy(), unhealthy()]),
        (
            Some(false),
            "TargetsUnhealthy",
            format!("1 of 3 targets are healthy; {failed}"),
            true
        )
    );
    let local =
        "with externalTrafficPolicy: Local only nodes with a pod of the Service are healthy";
    assert_eq!(
        one(vec![healthy(), unhealthy(), unhealthy()]),
        (
            Some(true),
            "TargetsHealthy",
            format!("1 of 3 targets are healthy; {failed}; {local}"),
            false
        )
    );
    assert_eq!(
        one(vec![unhealthy(), unhealthy()]),
        (
            Some(false),
            "TargetsUnhealthy",
            format!("0 of 2 targets are healthy; {failed}; {local}"),
            true
        )
    );
    // More may become healthy.
    let checking = target(Health::Initial, None);
    assert!(one(vec![healthy(), checking]).3);
    let draining = target(Health::Draining, None);
    assert_eq!(
        all(vec![healthy(), draining]),
        (
            Some(true),
            "TargetsHealthy",
            "1 of 1 targets are healthy".to_owned(),
            false
        )
    );
    assert_eq!(all(Vec::new()).1, "NoTargets");
    assert_eq!(Watch::default().condition("", "uid-1"), None);
}
