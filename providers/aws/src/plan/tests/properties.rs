//! Properties of plans: crashes, and changes that are taken back.

use ballast_provider::Family;
use proptest::prelude::*;

use super::*;

/// The second list has the certificates of the first one in another order, but for one.
const ALL_CERTIFICATES: &str =
    "arn:aws:acm:r:1:certificate/a,arn:aws:acm:r:1:certificate/b,arn:aws:acm:r:1:certificate/c";
const TWO_CERTIFICATES: &str = "arn:aws:acm:r:1:certificate/b,arn:aws:acm:r:1:certificate/a";

/// TCP, UDP and node port by port.
type Ports = BTreeMap<u16, (bool, bool, u16)>;
/// Settings, whether the security groups are the user's, and whether there is one subnet only.
type Options = (Vec<(&'static str, &'static str)>, bool, bool);

fn ports() -> impl Strategy<Value = Ports> {
    let port = prop_oneof![Just(53_u16), Just(80), Just(443)];
    prop::collection::btree_map(
        port,
        (any::<bool>(), any::<bool>(), 30_000_u16..30_003),
        1..4,
    )
}

fn options() -> impl Strategy<Value = Options> {
    let settings = prop::sample::subsequence(
        vec![
            ("scheme", "internet-facing"),
            (
                "attributes",
                "load_balancing.cross_zone.enabled=true,deletion_protection.enabled=false",
            ),
            ("additional-resource-tags", "team=shop"),
            ("healthcheck-interval", "30"),
            ("target-group-attributes", "stickiness.enabled=true"),
            ("security-group-prefix-lists", "pl-1"),
            ("manage-backend-security-group-rules", "false"),
            ("ssl-cert", ALL_CERTIFICATES),
            ("ssl-cert", TWO_CERTIFICATES),
            ("alpn-policy", "HTTP2Only"),
            ("backend-protocol", "ssl"),
            ("listener-attributes.TCP-80", "tcp.idle_timeout.seconds=60"),
            ("minimum-load-balancer-capacity", "CapacityUnits=8250"),
            ("ip-address-type", "dualstack"),
        ],
        0..14,
    );
    (settings, any::<bool>(), any::<bool>())
}

fn set_up(ports: &Ports, (settings, given, one_subnet): &Options) -> Desired {
    let mut all = Vec::new();
    for (&port, &(tcp, udp, node_port)) in ports {
        if tcp || !udp {
            all.push((Protocol::Tcp, port, node_port));
        }
        if udp {
            all.push((Protocol::Udp, port, node_port));
        }
    }
    // AWS has no TLS listener on a port that is UDP, too, and without a certificate no TLS.
    let both = ports.values().any(|(tcp, udp, _)| *tcp && *udp);
    let certified = settings.iter().any(|(name, _)| *name == "ssl-cert");
    let of_tls = |name: &str| matches!(name, "ssl-cert" | "alpn-policy" | "backend-protocol");
    let mut settings = settings.clone();
    settings.retain(|(name, _)| !of_tls(name) || (certified && !both));
    // AWS has attributes for TCP listeners without TLS only.
    let certified = settings.iter().any(|(name, _)| *name == "ssl-cert");
    let plain = !certified && ports.get(&80).is_some_and(|(_, udp, _)| !udp);
    settings.retain(|(name, _)| !name.starts_with("listener-attributes") || plain);
    // AWS reserves no capacity for TLS.
    settings.retain(|(name, _)| *name != "minimum-load-balancer-capacity" || !certified);
    let dual = settings.iter().any(|(name, _)| *name == "ip-address-type");
    let mut service = service(&all);
    if dual {
        service.families = vec![Family::V4, Family::V6];
    }
    let mut desired = desired(&service, &settings);
    if *given {
        desired.groups = Groups::Given(vec!["sg-user".into()]);
    }
    desired.subnets.truncate(if *one_subnet { 1 } else { 2 });
    desired
}

/// Any of the ways in which a Service may be set up.
fn anything() -> impl Strategy<Value = Desired> {
    (ports(), options()).prop_map(|(ports, options)| set_up(&ports, &options))
}

/// Two ways with the same ports, so that most objects have the same names.
fn change() -> impl Strategy<Value = (Desired, Desired)> {
    let all = (ports(), options(), options());
    all.prop_map(|(ports, one, two)| (set_up(&ports, &one), set_up(&ports, &two)))
}

/// Targets have a record of their own.
fn is_of_targets(call: &Call) -> bool {
    matches!(
        call,
        Call::RegisterTargets { .. } | Call::DeregisterTargets { .. }
    )
}

/// Whatever is left to do is seen from the names and tags alone.
fn check_that_work_is_seen(wanted: &Desired, cloud: &Cloud) -> Result<(), TestCaseError> {
    let Plan { calls, cleanup, .. } = plan(wanted, &with(2), &cloud.now);
    let rest: Vec<_> = (calls.iter().chain(&cleanup))
        .filter(|call| !is_of_targets(call))
        .collect();
    prop_assert_eq!(
        is_finished(wanted, &cloud.now),
        rest.is_empty(),
        "{:?}",
        rest
    );
    Ok(())
}

proptest! {
    /// A change is interrupted, and the Service asks again for what it had before.
    #[test]
    fn an_interrupted_change_that_is_taken_back_does_not_look_finished(
        (before, after) in change(),
        calls in 0_usize..16,
    ) {
        let mut cloud = Cloud::default();
        cloud.apply(&before, &with(2));
        for call in plan(&after, &with(2), &cloud.now).calls.iter().take(calls) {
            cloud.call(call);
        }
        check_that_work_is_seen(&before, &cloud)?;
        cloud.apply(&before, &with(2));
        prop_assert!(is_finished(&before, &cloud.now));
    }

    /// Whatever is changed into whatever, with a crash after any call: a restarted process sees
    /// that there is work, and one plan does it.
    #[test]
    fn a_crash_after_any_call_is_made_up_for(
        steps in prop::collection::vec((anything(), 0_usize..16, 1_usize..5, any::<bool>()), 1..6),
        last in anything(),
    ) {
        let mut cloud = Cloud::default();
        for (desired, made, targets, successor_serves) in steps {
            let situation = Situation {
                successor_serves,
                ..with(targets)
            };
            let Plan { calls, cleanup, .. } = plan(&desired, &situation, &cloud.now);
            for call in calls.iter().chain(&cleanup).take(made) {
                cloud.call(call);
            }
        }
        check_that_work_is_seen(&last, &cloud)?;
        cloud.apply(&last, &with(2));
        prop_assert!(is_finished(&last, &cloud.now));
        prop_assert_eq!(plan(&last, &with(2), &cloud.now), Plan::default());
        for call in release(&cloud.now) {
            cloud.call(&call);
        }
        prop_assert_eq!(cloud.now, Observed::default());
    }
}
