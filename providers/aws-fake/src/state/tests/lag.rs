use super::super::load_balancers::Which;
use super::*;

#[test]
fn lists_lag_behind_and_lookups_do_not() {
    let mut cloud = with(Settings {
        lag: seconds(10),
        ..Settings::default()
    });
    let arn = make_balancer(&mut cloud, "web");
    let listed = |cloud: &mut Cloud, second: u64| {
        let now = START + seconds(second);
        cloud.tick(now);
        cloud
            .describe_load_balancers(now, &Which::All)
            .unwrap()
            .len()
    };
    for (second, expected) in [(0, 0), (9, 0), (10, 1), (20, 1)] {
        assert_eq!(
            listed(&mut cloud, second),
            expected,
            "{second} s after the creation"
        );
    }
    let named = Which::Names(vec!["web".into()]);
    assert!(cloud.describe_load_balancers(START, &named).is_ok());
    cloud
        .delete_load_balancer(START + seconds(20), &arn)
        .unwrap();
    for (second, expected) in [(20, 1), (29, 1), (30, 0)] {
        assert_eq!(listed(&mut cloud, second), expected, "{second} s");
        let result = cloud.describe_load_balancers(START + seconds(second), &named);
        assert_eq!(code(result), "LoadBalancerNotFound");
    }
}

#[test]
fn what_no_list_has_shown_is_not_shown_when_it_is_gone() {
    let mut cloud = with(Settings {
        lag: seconds(10),
        ..Settings::default()
    });
    let arn = make_balancer(&mut cloud, "web");
    cloud
        .delete_load_balancer(START + seconds(5), &arn)
        .unwrap();
    for second in [5, 10, 14, 15] {
        let all = cloud.describe_load_balancers(START + seconds(second), &Which::All);
        assert!(all.unwrap().is_empty(), "{second}");
    }
}
