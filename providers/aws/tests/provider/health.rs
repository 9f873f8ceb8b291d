//! The health of targets: what the status says of it, and when a load balancer of another scheme goes.
//! Time is tokio's, and passes when nothing else happens.

use std::time::Duration;

use ballast_aws_fake::Fault;
use ballast_provider::mark::KEEP;
use ballast_provider::{
    Address, ExtraCondition, ExtraKind, LoadBalancer, Observed, Provider, State,
};

use crate::bed::{ensure, service, settle, with};
use crate::quiet::Quiet;

const MINUTE: Duration = Duration::from_mins(1);

fn web() -> LoadBalancer {
    service("web", &[(80, 30_080)])
}

fn public() -> LoadBalancer {
    with(web(), "scheme", "internet-facing")
}

fn targets(observed: &Observed) -> Option<&ExtraCondition> {
    let mut all = observed.conditions.iter();
    all.find(|one| one.kind == ExtraKind::TargetsHealthy)
}

/// A Service whose load balancer is active and has healthy targets.
async fn prepared() -> (Quiet, impl Provider) {
    let quiet = Quiet::of(vec![web()]).await;
    let provider = quiet.bed.start().await.unwrap();
    settle(&provider, &web()).await.unwrap();
    quiet.follow(&provider, 10 * MINUTE).await;
    let observed = settle(&provider, &web()).await.unwrap();
    assert_eq!(targets(&observed).unwrap().holds, Some(true));
    (quiet, provider)
}

/// The same, and it asks for another scheme.
async fn changed() -> (Quiet, impl Provider, Observed) {
    let (mut quiet, provider) = prepared().await;
    quiet.all = [(public().id, public())].into();
    let observed = settle(&provider, &public()).await.unwrap();
    (quiet, provider, observed)
}

// === impl Quiet ===

impl Quiet {
    fn load_balancers(&self) -> usize {
        self.bed.fake.snapshot().load_balancers.len()
    }

    /// Only the load balancer that the Service asks for is left, with what it needs.
    fn assert_alone(&self) {
        let all = self.bed.fake.snapshot();
        let schemes = all.load_balancers.values().map(|one| one.scheme.clone());
        assert_eq!(schemes.collect::<Vec<_>>(), ["internet-facing"]);
        assert_eq!((all.target_groups.len(), all.listeners.len()), (1, 1));
        let own = (all.security_groups.values()).filter(|one| one.name.starts_with("bl"));
        assert_eq!(own.count(), 2);
    }
}

/// AWS provisions the successor for two minutes, and its targets are healthy 80 seconds after that. The health
/// of the former one must not count for it.
#[tokio::test(start_paused = true)]
async fn a_former_load_balancer_stays_until_its_successor_has_served_for_three_minutes() {
    let (quiet, provider, observed) = changed().await;
    let says = observed.remarks.join(" ");
    assert!(says.contains("former load balancer bl-"), "{says}");
    // Nothing is said of the targets of a load balancer that does not serve.
    assert_eq!((observed.conditions, observed.unchanged), (vec![], vec![]));
    quiet.follow(&provider, 6 * MINUTE).await;
    assert_eq!(quiet.load_balancers(), 2);
    let observed = ensure(&provider, &public()).await.unwrap();
    let says = &targets(&observed).unwrap().message;
    assert_eq!(says, "3 of 3 targets are healthy");
    quiet.follow(&provider, 2 * MINUTE).await;
    assert_eq!(quiet.load_balancers(), 1);
    // What was in use goes, too.
    quiet.follow(&provider, 5 * MINUTE).await;
    quiet.assert_alone();
    let observed = ensure(&provider, &public()).await.unwrap();
    assert_eq!(observed.remarks, Vec::<String>::new());
}

/// Its scheme was changed in a copy of the cluster: the original still sends its clients to the former one.
#[tokio::test(start_paused = true)]
async fn a_former_load_balancer_stays_while_a_copy_of_the_cluster_uses_it() {
    let (mut quiet, provider, _) = changed().await;
    quiet.deletes_nothing = true;
    quiet.turn(&provider, &public()).await;
    quiet.follow(&provider, 30 * MINUTE).await;
    assert_eq!(quiet.load_balancers(), 2);
    let says = quiet.turn(&provider, &public()).await.remarks.join(" ");
    let why = "stays until it is certain that no copy of this cluster uses it";
    assert!(says.contains(why), "{says}");
    // It has ended.
    quiet.deletes_nothing = false;
    quiet.follow(&provider, 30 * MINUTE).await;
    quiet.assert_alone();
}

#[tokio::test(start_paused = true)]
async fn a_former_load_balancer_stays_if_people_want_to_keep_it() {
    let (quiet, provider, _) = changed().await;
    let of = |it: &str| it == "internal";
    let balancers = quiet.bed.fake.snapshot().load_balancers;
    let (arn, _) = (balancers.iter().find(|(_, it)| of(&it.scheme))).unwrap();
    let arn = [arn.clone()];
    quiet
        .bed
        .fake
        .edit(|cloud, _| cloud.add_tags(&arn, &[(KEEP.to_owned(), "audit".to_owned())].into()))
        .unwrap();
    quiet.follow(&provider, 30 * MINUTE).await;
    assert_eq!(quiet.load_balancers(), 2);
    let says = quiet.turn(&provider, &public()).await.remarks.join(" ");
    let why = format!(
        "{} is not used any more and stays as long as it has the tag {KEEP}",
        arn[0]
    );
    assert!(says.contains(&why), "{says}");
    let (_, calls) = quiet.follow(&provider, 60 * MINUTE).await;
    assert!(calls.values().sum::<u64>() < 300, "{calls:?}");
    // What it uses stays with it.
    assert!(
        calls.keys().all(|it| it.starts_with("Describe")),
        "{calls:?}"
    );
    quiet
        .bed
        .fake
        .edit(|cloud, _| cloud.remove_tags(&arn, &[KEEP.to_owned()]))
        .unwrap();
    quiet.follow(&provider, 30 * MINUTE).await;
    quiet.assert_alone();
}

/// Clients find what serves: the new name comes with the first healthy target, and stays.
#[tokio::test(start_paused = true)]
async fn the_former_name_is_published_until_the_new_load_balancer_serves() {
    fn name(observed: &Observed) -> Address {
        let [one] = &observed.ingress[..] else {
            panic!("{observed:?}");
        };
        one.address.clone()
    }
    let (mut quiet, provider) = prepared().await;
    let before = name(&ensure(&provider, &web()).await.unwrap());
    quiet.all = [(public().id, public())].into();
    quiet.bed.set_healthy(1..=3, false);
    let observed = settle(&provider, &public()).await.unwrap();
    assert_eq!(name(&observed), before);
    quiet.follow(&provider, 6 * MINUTE).await;
    let observed = ensure(&provider, &public()).await.unwrap();
    assert_eq!(observed.state, State::Programmed);
    assert_eq!(name(&observed), before);
    quiet.bed.set_healthy(1..=3, true);
    let mut after = before.clone();
    for _ in 0..10 {
        quiet.follow(&provider, MINUTE).await;
        after = name(&ensure(&provider, &public()).await.unwrap());
        if after != before {
            break;
        }
    }
    assert_ne!(after, before);
    assert_eq!(quiet.load_balancers(), 2);
    quiet.bed.set_healthy(1..=3, false);
    quiet.follow(&provider, 2 * MINUTE).await;
    let observed = ensure(&provider, &public()).await.unwrap();
    assert_eq!(name(&observed), after);
    // The next process knows what was published.
    drop(provider);
    let provider = quiet.bed.start_after(&public(), &observed).await.unwrap();
    let observed = settle(&provider, &public()).await.unwrap();
    assert_eq!(name(&observed), after);
}

/// Whoever changes the mind again gets three minutes more, too.
#[tokio::test(start_paused = true)]
async fn the_first_scheme_again_does_not_cut_off_clients_of_the_second() {
    let (mut quiet, provider, _) = changed().await;
    quiet.follow(&provider, 6 * MINUTE).await;
    quiet.all = [(web().id, web())].into();
    settle(&provider, &web()).await.unwrap();
    quiet.follow(&provider, 2 * MINUTE).await;
    assert_eq!(quiet.load_balancers(), 2);
    quiet.follow(&provider, 2 * MINUTE).await;
    assert_eq!(quiet.load_balancers(), 1);
}

/// A process that starts in the middle goes on.
#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_of_a_change_does_not_keep_both() {
    for minutes in [1, 3, 5] {
        let (quiet, provider, _) = changed().await;
        quiet.follow(&provider, minutes * MINUTE).await;
        drop(provider);
        let provider = quiet.bed.start().await.unwrap();
        let observed = settle(&provider, &public()).await.unwrap();
        let says = observed.remarks.join(" ");
        assert!(says.contains("former load balancer bl-"), "{says}");
        quiet.follow(&provider, 15 * MINUTE).await;
        quiet.assert_alone();
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_the_deletion_of_a_former_load_balancer_leaves_nothing() {
    for (nth, after) in (1..=3).flat_map(|nth| [(nth, true), (nth, false)]) {
        let (quiet, provider, _) = changed().await;
        quiet.follow(&provider, 3 * MINUTE).await;
        quiet
            .bed
            .fake
            .fault(Fault::writes().nth(nth).fatal().dropped(after));
        let end = tokio::time::Instant::now() + 15 * MINUTE;
        let mut changes = provider.changes();
        while let Ok(Some(_)) =
            tokio::time::timeout_at(end, futures::StreamExt::next(&mut changes)).await
        {
            let _ = settle(&provider, &public()).await;
            if quiet.bed.fake.is_down() {
                break;
            }
        }
        assert!(quiet.bed.fake.is_down(), "call {nth} was never made");
        drop((changes, provider));
        quiet.bed.fake.clear_faults();
        let provider = quiet.bed.start().await.unwrap();
        settle(&provider, &public()).await.unwrap();
        quiet.follow(&provider, 15 * MINUTE).await;
        quiet.assert_alone();
    }
}

/// It costs money, and nobody finds its name any more.
#[tokio::test(start_paused = true)]
async fn a_successor_without_a_healthy_target_is_waited_for_a_day() {
    let (quiet, provider, _) = changed().await;
    quiet.bed.set_healthy(1..=3, false);
    quiet.follow(&provider, Duration::from_hours(23)).await;
    assert_eq!(quiet.load_balancers(), 2);
    let calls = quiet.bed.fake.counts().of("DescribeTargetHealth");
    // One in ten minutes, and one of each target group in the slow look.
    assert!(calls < 23 * 6 + 23 * 3600 / 18 / 10 * 2, "{calls}");
    let observed = ensure(&provider, &public()).await.unwrap();
    assert_eq!(targets(&observed).unwrap().holds, Some(false));
    let says = observed.remarks.join(" ");
    assert!(says.contains("for a day at most"), "{says}");
    quiet.follow(&provider, Duration::from_hours(2)).await;
    quiet.assert_alone();
}

/// Whoever protects a load balancer keeps it, and hears how to give it up.
#[tokio::test(start_paused = true)]
async fn a_protected_former_load_balancer_is_said_until_its_protection_is_switched_off() {
    const PROTECTION: &str = "deletion_protection.enabled";
    let (mut quiet, provider) = prepared().await;
    let set = |service, value| with(service, "attributes", &format!("{PROTECTION}={value}"));
    settle(&provider, &set(web(), true)).await.unwrap();
    quiet.all = [(public().id, public())].into();
    settle(&provider, &public()).await.unwrap();
    quiet.follow(&provider, Duration::from_hours(1)).await;
    assert_eq!(quiet.load_balancers(), 2);
    let tries = quiet.bed.fake.counts().of("DeleteLoadBalancer");
    assert!((5..=12).contains(&tries), "{tries}");
    let observed = ensure(&provider, &public()).await.unwrap();
    assert_eq!(observed.state, State::Programmed);
    let says = observed.remarks.join(" ");
    assert!(says.contains("the former load balancer arn:"), "{says}");
    assert!(says.contains(&format!("{PROTECTION}=false")), "{says}");
    let given_up = set(public(), false);
    quiet.all = [(given_up.id.clone(), given_up.clone())].into();
    settle(&provider, &given_up).await.unwrap();
    quiet.follow(&provider, 20 * MINUTE).await;
    quiet.assert_alone();
}

/// The status of a process that ended says what is no longer true.
#[tokio::test(start_paused = true)]
async fn a_new_process_says_how_targets_are() {
    let (quiet, provider) = prepared().await;
    quiet.bed.set_healthy(1..=3, false);
    drop(provider);
    let provider = quiet.bed.start().await.unwrap();
    let observed = settle(&provider, &web()).await.unwrap();
    assert_eq!(observed.unchanged, [ExtraKind::TargetsHealthy]);
    let (turns, _) = quiet.follow(&provider, 5 * MINUTE).await;
    assert!(turns > 0);
    let observed = ensure(&provider, &web()).await.unwrap();
    let says = targets(&observed).unwrap();
    assert_eq!((says.holds, says.reason), (Some(false), "TargetsUnhealthy"));
}

/// The same where many Services wait for it: their health comes before all that a full look reads.
#[tokio::test(start_paused = true)]
async fn a_new_process_hears_of_all_targets_soon() {
    let all = (0..20).map(|number| service(&format!("web-{number}"), &[(80, 30_100 + number)]));
    let quiet = Quiet::of(all.collect()).await;
    let provider = quiet.bed.start().await.unwrap();
    for one in quiet.all.values() {
        settle(&provider, one).await.unwrap();
    }
    quiet.follow(&provider, 10 * MINUTE).await;
    quiet.bed.set_healthy(1..=3, false);
    drop(provider);
    tokio::time::sleep(5 * MINUTE).await;
    let provider = quiet.bed.start().await.unwrap();
    for one in quiet.all.values() {
        settle(&provider, one).await.unwrap();
    }
    quiet.follow(&provider, 8 * MINUTE).await;
    for one in quiet.all.values() {
        let observed = ensure(&provider, one).await.unwrap();
        let says = targets(&observed).map(|it| it.holds);
        assert_eq!(says, Some(Some(false)), "{observed:?}");
    }
}

/// Nothing changes but the answers of health checks.
#[tokio::test(start_paused = true)]
async fn targets_that_fail_later_are_said_and_those_that_come_back() {
    let (quiet, provider) = prepared().await;
    for (healthy, holds) in [(false, Some(false)), (true, Some(true))] {
        quiet.bed.set_healthy(1..=3, healthy);
        let (turns, calls) = quiet.follow(&provider, 30 * MINUTE).await;
        assert!(turns > 0);
        // The slow look sees it, and nobody else asks.
        let asked = calls["DescribeTargetHealth"];
        assert!(asked <= 30 * 60 / 18 / 5, "{asked}");
        let observed = ensure(&provider, &web()).await.unwrap();
        assert_eq!(targets(&observed).unwrap().holds, holds, "{observed:?}");
    }
}
