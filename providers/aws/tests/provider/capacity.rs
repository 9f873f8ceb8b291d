//! Reserved capacity: it waits for an active load balancer, and what AWS refuses holds up nothing. Time is tokio's, and
//! passes when nothing else happens.

use std::time::Duration;

use ballast_aws_fake::Fault;
use ballast_aws_fake::state::Cloud;
use ballast_aws_fake::state::load_balancers::LoadBalancer as There;
use ballast_provider::mark::APPLIED;
use ballast_provider::{LoadBalancer, Observed, Provider, Reason, State};

use crate::bed::{ensure, service, settle, with, writes};
use crate::quiet::Quiet;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const MODIFY: &str = "ModifyCapacityReservation";
const DESCRIBE: &str = "DescribeCapacityReservation";

fn web() -> LoadBalancer {
    service("web", &[(80, 30_080)])
}

fn reserved(units: u32) -> LoadBalancer {
    let units = format!("CapacityUnits={units}");
    with(web(), "minimum-load-balancer-capacity", &units)
}

/// A Service that asks for something new, and a process that has begun with it.
async fn begun(wanted: &LoadBalancer) -> (Quiet, impl Provider + use<>) {
    let quiet = Quiet::of(vec![wanted.clone()]).await;
    let provider = quiet.bed.start().await.unwrap();
    (quiet, provider)
}

// === impl Quiet ===

impl Quiet {
    fn there(&self) -> There {
        let all = self.bed.fake.snapshot().load_balancers;
        all.into_values().next().unwrap()
    }

    fn units(&self) -> Option<u32> {
        self.there().capacity.map(|it| it.units)
    }

    /// The load balancer counts as finished.
    fn is_applied(&self) -> bool {
        self.there().tags.contains_key(APPLIED)
    }

    /// The Service asks for this from now on.
    async fn change(&mut self, provider: &impl Provider, wanted: LoadBalancer) -> Observed {
        self.all = [(wanted.id.clone(), wanted.clone())].into();
        settle(provider, &wanted).await.unwrap()
    }

    fn edit(&self, change: impl FnOnce(&mut Cloud)) {
        self.bed.fake.edit(|cloud, _| change(cloud));
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_reserved_once_the_load_balancer_is_active() {
    let (quiet, provider) = begun(&reserved(8_250)).await;
    let (observed, calls) = quiet
        .bed
        .calls_of(settle(&provider, &reserved(8_250)))
        .await;
    let observed = observed.unwrap();
    assert!(
        !observed.ingress.is_empty(),
        "its hostname waits for nothing"
    );
    assert_eq!(observed.objection, None);
    assert_eq!(quiet.bed.fake.snapshot().listeners.len(), 1);
    assert!(!calls.contains(&MODIFY.to_owned()), "{calls:?}");
    assert!(!quiet.is_applied());
    let (turns, calls) = quiet.follow(&provider, 10 * MINUTE).await;
    println!("{turns} turns: {calls:?}");
    assert_eq!((calls[MODIFY], calls["AddTags"]), (1, 1), "{calls:?}");
    assert_eq!(quiet.units(), Some(8_250));
    assert!(quiet.is_applied());
    let observed = ensure(&provider, &reserved(8_250)).await.unwrap();
    assert_eq!(
        (observed.state, observed.objection),
        (State::Programmed, None)
    );
}

/// AWS's own quota is nothing until a customer asks for more.
#[tokio::test(start_paused = true)]
async fn a_quota_is_said_and_holds_up_nothing_and_is_tried_again() {
    let (mut quiet, provider) = begun(&reserved(8_250)).await;
    quiet.edit(|cloud| cloud.settings.quotas.capacity = 0);
    settle(&provider, &reserved(8_250)).await.unwrap();
    quiet.follow(&provider, 10 * MINUTE).await;
    let observed = ensure(&provider, &reserved(8_250)).await.unwrap();
    assert_eq!(observed.state, State::Programmed);
    let objection = observed.objection.unwrap();
    assert_eq!(objection.reason, Reason::QuotaExceeded);
    for part in [
        "8250 capacity units are not reserved",
        "CapacityUnitsLimitExceeded",
    ] {
        assert!(objection.message.contains(part), "{objection}");
    }
    // Everything else goes on.
    let cross = |service| {
        let attribute = "load_balancing.cross_zone.enabled=true";
        with(service, "attributes", attribute)
    };
    let observed = quiet.change(&provider, cross(reserved(8_250))).await;
    assert_eq!(
        quiet.there().attributes["load_balancing.cross_zone.enabled"],
        "true"
    );
    assert!(observed.objection.is_some() && !quiet.is_applied());
    let (turns, calls) = quiet.follow(&provider, 6 * HOUR).await;
    println!("{turns} turns in six hours: {calls:?}");
    assert!((5..=12).contains(&calls[MODIFY]), "{calls:?}");
    // The next process says it, too.
    drop(provider);
    let provider = quiet.bed.start().await.unwrap();
    let observed = settle(&provider, &cross(reserved(8_250))).await.unwrap();
    assert_eq!(observed.objection, Some(objection));
    quiet.edit(|cloud| cloud.settings.quotas.capacity = 500_000);
    quiet.follow(&provider, HOUR).await;
    assert_eq!(quiet.units(), Some(8_250));
    assert!(quiet.is_applied());
    let observed = ensure(&provider, &cross(reserved(8_250))).await.unwrap();
    assert_eq!(observed.objection, None);
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_the_reservation_before_it() {
    let (mut quiet, provider) = begun(&reserved(8_250)).await;
    settle(&provider, &reserved(8_250)).await.unwrap();
    quiet.follow(&provider, 10 * MINUTE).await;
    let observed = quiet.change(&provider, reserved(9_000)).await;
    assert_eq!(
        (observed.state, observed.objection),
        (State::Programmed, None)
    );
    let says = observed.remarks.join(" ");
    assert!(
        says.contains("9000 units are asked for after that"),
        "{says}"
    );
    quiet.follow(&provider, 2 * HOUR).await;
    assert_eq!(quiet.units(), Some(9_000));
    let observed = ensure(&provider, &reserved(9_000)).await.unwrap();
    assert!(!observed.remarks.join(" ").contains("capacity"));
}

#[tokio::test(start_paused = true)]
async fn what_aws_cannot_provide_is_said_and_asked_for_again_each_hour() {
    let (quiet, provider) = begun(&reserved(8_250)).await;
    settle(&provider, &reserved(8_250)).await.unwrap();
    quiet.follow(&provider, 10 * MINUTE).await;
    let fail = |cloud: &mut Cloud| {
        for one in cloud.load_balancers.values_mut() {
            let capacity = one.capacity.as_mut().unwrap();
            capacity.trouble = Some("Not enough capacity".into());
        }
    };
    quiet.edit(fail);
    let (_, calls) = quiet.follow(&provider, 10 * MINUTE).await;
    assert!(!calls.contains_key(MODIFY), "{calls:?}");
    let observed = ensure(&provider, &reserved(8_250)).await.unwrap();
    assert_eq!(observed.state, State::Programmed);
    let objection = observed.objection.unwrap();
    assert_eq!(objection.reason, Reason::CloudError);
    assert!(
        objection
            .message
            .contains("eu-central-1a: Not enough capacity"),
        "{objection}"
    );
    let (_, calls) = quiet.follow(&provider, HOUR).await;
    assert_eq!(calls[MODIFY], 1, "{calls:?}");
    let observed = ensure(&provider, &reserved(8_250)).await.unwrap();
    assert_eq!(observed.objection, None);
    assert!(quiet.is_applied());
}

/// Nobody was there when the annotation went.
#[tokio::test(start_paused = true)]
async fn a_process_that_starts_cancels_what_is_not_asked_for_any_more() {
    let (quiet, provider) = begun(&reserved(8_250)).await;
    settle(&provider, &reserved(8_250)).await.unwrap();
    quiet.follow(&provider, 2 * HOUR).await;
    drop(provider);
    let provider = quiet.bed.start().await.unwrap();
    let (observed, calls) = quiet.bed.calls_of(settle(&provider, &web())).await;
    observed.unwrap();
    assert_eq!(quiet.units(), None);
    assert_eq!(writes(&calls), ["RemoveTags", MODIFY, "AddTags"]);
}

/// Somebody else has changed it.
#[tokio::test(start_paused = true)]
async fn a_look_restores_it() {
    let (quiet, provider) = begun(&reserved(8_250)).await;
    settle(&provider, &reserved(8_250)).await.unwrap();
    quiet.follow(&provider, 2 * HOUR).await;
    quiet.edit(|cloud| {
        for one in cloud.load_balancers.values_mut() {
            one.capacity = None;
        }
    });
    quiet.follow(&provider, 10 * MINUTE).await;
    assert_eq!(quiet.units(), Some(8_250));
}

/// A policy from before this setting knows neither right.
#[tokio::test(start_paused = true)]
async fn without_the_rights_everything_else_goes_on() {
    let (quiet, provider) = begun(&web()).await;
    let denied = |action: &str| {
        let says = format!("You are not authorized to perform: {action}");
        Fault::on(action)
            .always()
            .error_with_status(403, "AccessDenied", &says)
    };
    settle(&provider, &web()).await.unwrap();
    quiet.follow(&provider, 10 * MINUTE).await;
    quiet.bed.fake.fault(denied(DESCRIBE));
    quiet.bed.fake.fault(denied(MODIFY));
    drop(provider);
    let provider = quiet.bed.start().await.unwrap();
    let cross = with(web(), "cross-zone-load-balancing-enabled", "true");
    let observed = settle(&provider, &cross).await.unwrap();
    assert_eq!(observed.objection, None);
    assert!(quiet.is_applied());
    let observed = settle(&provider, &reserved(8_250)).await.unwrap();
    assert_eq!(observed.objection.unwrap().reason, Reason::AccessDenied);
}

/// One read more for each look at a load balancer that has some.
#[tokio::test(start_paused = true)]
async fn an_hour_in_which_nothing_changes_takes_no_more_calls() {
    let all = (0..10).map(|number| {
        let service = service(&format!("web-{number}"), &[(80, 30_100 + number)]);
        with(
            service,
            "minimum-load-balancer-capacity",
            "CapacityUnits=8250",
        )
    });
    let quiet = Quiet::of(all.collect()).await;
    let provider = quiet.bed.start().await.unwrap();
    for one in quiet.all.values() {
        settle(&provider, one).await.unwrap();
    }
    quiet.follow(&provider, 2 * HOUR).await;
    let (turns, calls) = quiet.follow(&provider, HOUR).await;
    let total: u64 = calls.values().sum();
    println!("{total} calls in an hour: {calls:?}");
    assert_eq!(turns, 0);
    assert!(total <= 300, "{total}: {calls:?}");
    assert_eq!(calls[DESCRIBE], calls["DescribeListeners"], "{calls:?}");
}
