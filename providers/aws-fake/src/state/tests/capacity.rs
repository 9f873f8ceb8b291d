//! Reserved capacity.

use super::*;
use crate::state::Quotas;

const ACTIVE: Moment = Duration::from_hours(2);
const HOUR: Duration = Duration::from_hours(1);

/// A load balancer in two zones that is active, in an account with little capacity.
fn active() -> (Cloud, String) {
    let mut cloud = with(Settings {
        quotas: Quotas {
            capacity_per_zone: 4_000,
            capacity: 12_000,
            ..Quotas::default()
        },
        ..Settings::default()
    });
    let arn = make_balancer(&mut cloud, "web");
    (cloud, arn)
}

#[test]
fn only_an_active_load_balancer_gets_enough_for_each_zone_and_not_too_much() {
    let (mut cloud, arn) = active();
    let early = cloud.modify_capacity_reservation(START, &arn, Some(5_500));
    assert_eq!(code(early), "PriorRequestNotComplete");
    let unknown = cloud.modify_capacity_reservation(ACTIVE, &format!("{arn}0"), Some(5_500));
    assert_eq!(code(unknown), "LoadBalancerNotFound");
    for (units, expected) in [
        (5_499, "InvalidConfigurationRequest"),
        (8_001, "CapacityUnitsLimitExceeded"),
        (8_000, ""),
    ] {
        let result = cloud.modify_capacity_reservation(ACTIVE, &arn, Some(units));
        assert_eq!(code(result), expected, "{units}");
    }
    let other = make_balancer(&mut cloud, "other");
    let result = cloud.modify_capacity_reservation(ACTIVE, &other, Some(5_500));
    assert_eq!(code(result), "CapacityUnitsLimitExceeded", "of the region");
}

#[test]
fn a_change_waits_for_the_one_before_and_there_are_two_decreases_a_day() {
    let (mut cloud, arn) = active();
    let mut now = ACTIVE;
    for (units, expected) in [
        (Some(8_000), ""),
        (Some(7_000), ""),
        (None, ""),
        (Some(8_000), ""),
        (None, "CapacityDecreaseRequestLimitExceeded"),
    ] {
        let result = cloud.modify_capacity_reservation(now, &arn, units);
        assert_eq!(code(result), expected, "{units:?}");
        if units.is_some() {
            let early = cloud.modify_capacity_reservation(now, &arn, None);
            assert_eq!(code(early), "CapacityReservationPending");
            now += HOUR;
        }
    }
    now += 24 * HOUR;
    assert_eq!(code(cloud.modify_capacity_reservation(now, &arn, None)), "");
    assert_eq!(
        code(cloud.modify_capacity_reservation(now, &arn, None)),
        "",
        "there is none"
    );
}

#[test]
fn there_is_none_with_tls() {
    let (mut cloud, arn) = active();
    let group = make_target_group(&mut cloud, "a");
    let secure = |cloud: &mut Cloud| ListenerChange {
        protocol: Some("TLS".into()),
        certificate: Some(cloud.issue_certificate("one")),
        ..listener(443, &group)
    };
    cloud
        .modify_capacity_reservation(ACTIVE, &arn, Some(5_500))
        .unwrap();
    let tls = secure(&mut cloud);
    let result = cloud.create_listener(ACTIVE, &arn, tls.clone(), Tags::new());
    assert_eq!(code(result), "InvalidConfigurationRequest");
    cloud
        .modify_capacity_reservation(ACTIVE + HOUR, &arn, None)
        .unwrap();
    cloud
        .create_listener(ACTIVE + HOUR, &arn, tls, Tags::new())
        .unwrap();
    let result = cloud.modify_capacity_reservation(ACTIVE + HOUR, &arn, Some(5_500));
    assert_eq!(code(result), "InvalidConfigurationRequest");
}
