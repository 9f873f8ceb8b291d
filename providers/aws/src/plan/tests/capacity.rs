//! Reserved capacity: when it is asked for, and what it holds up.

use super::*;
use crate::observed::Reservation;

const RESERVED: [(&str, &str); 1] = [("minimum-load-balancer-capacity", "CapacityUnits=5500")];

fn balancer(cloud: &mut Cloud) -> &mut ObservedLoadBalancer {
    cloud.now.load_balancers.values_mut().next().expect("one")
}

fn actions(plan: &Plan) -> Vec<&'static str> {
    plan.calls.iter().map(Call::action).collect()
}

#[test]
fn it_waits_until_the_load_balancer_is_active_and_nothing_counts_as_applied() {
    let (mut cloud, _) = applied(&[]);
    let wanted = desired(&service(&[WEB]), &RESERVED);
    balancer(&mut cloud).state = LoadBalancerState::Provisioning;
    let before = plan(&wanted, &with(2), &cloud.now);
    assert_eq!((actions(&before), before.reservation_waits), (vec![], true));
    assert!(!is_finished(&wanted, &cloud.now));
    balancer(&mut cloud).state = LoadBalancerState::ActiveImpaired;
    let then = plan(&wanted, &with(2), &cloud.now);
    assert_eq!(
        actions(&then),
        ["RemoveTags", "ModifyCapacityReservation", "AddTags"]
    );
    // AWS has just refused it: everything else goes on.
    let refused = Situation {
        reservation_waits: true,
        ..with(3)
    };
    let meanwhile = plan(&wanted, &refused, &cloud.now);
    assert_eq!(actions(&meanwhile), ["RegisterTargets"]);
    assert!(meanwhile.reservation_waits);
}

#[test]
fn it_is_asked_for_last_and_cancelled_before_a_listener_gets_tls() {
    let two = [WEB, (Protocol::Tcp, 443, 30_443)];
    let (mut cloud, _) = applied(&[]);
    let reserved = desired(&service(&two), &RESERVED);
    let calls = cloud.apply(&reserved, &with(2));
    assert_eq!(
        calls[calls.len() - 2..],
        ["ModifyCapacityReservation", "AddTags"]
    );
    let secure = desired(
        &service(&two),
        &[("ssl-cert", "arn:aws:acm:r:1:certificate/a")],
    );
    let calls = cloud.apply(&secure, &with(2));
    assert_eq!(
        calls,
        [
            "RemoveTags",
            "ModifyCapacityReservation",
            "ModifyListener",
            "ModifyListener",
            "AddTags"
        ]
    );
}

#[test]
fn what_aws_could_not_provide_is_asked_for_again_and_what_it_could_is_not() {
    let (mut cloud, wanted) = applied(&RESERVED);
    let none = plan(&wanted, &with(2), &cloud.now);
    assert_eq!(none, Plan::default());
    balancer(&mut cloud).reservation = Some(Reservation {
        units: 5_500,
        failed: Some("eu-central-1a: no capacity".into()),
    });
    let again = plan(&wanted, &with(2), &cloud.now);
    let asks = [Call::ModifyCapacityReservation {
        load_balancer: Ref::Known(balancer(&mut cloud).arn.clone()),
        units: Some(5_500),
    }];
    assert!(
        again.calls.iter().any(|call| asks.contains(call)),
        "{again:?}"
    );
}
