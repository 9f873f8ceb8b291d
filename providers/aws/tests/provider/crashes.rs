//! A crash after each call, and before each call: whatever the process was doing, the next one ends
//! where an undisturbed one does, and deletes everything.

use std::time::Duration;

use ballast_aws::provider::AwsProvider;
use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_aws_fake::{Config, Fault};
use ballast_provider::{
    Affinity, Family, Key, Listener, LoadBalancer, Protocol, Provider, ProviderError, Released,
    Removal,
};

use crate::bed::{Bed, certificate, delete, essence, service, settle, with, with_pods};

/// What happens to a Service.
pub(crate) struct Change {
    pub(crate) what: &'static str,
    /// What it has, with the class's own cloud; then `meanwhile` happens while no process runs.
    before: Option<LoadBalancer>,
    meanwhile: Meanwhile,
    pub(crate) wanted: LoadBalancer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// It becomes active, and everything that waited for that is done.
    Serves,
    /// AWS could not make the load balancer.
    Fails,
    /// The Service was deleted, and its load balancer was kept.
    Kept,
}

// === impl Change ===

impl Change {
    async fn bed(&self) -> Bed {
        self.bed_with(Config::default()).await
    }

    /// What it had is old enough for every list.
    pub(crate) async fn bed_with(&self, config: Config) -> Bed {
        let lag = config.settings.lag;
        let bed = self.before_in(config).await;
        bed.fake.advance(lag);
        bed
    }

    async fn before_in(&self, config: Config) -> Bed {
        let bed = Bed::with(config).await;
        bed.fake.remember_foreign();
        let Some(before) = &self.before else {
            return bed;
        };
        let provider = bed.start().await.unwrap();
        settle(&provider, before).await.unwrap();
        match self.meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Serves => {
                bed.fake.advance(Duration::from_mins(5));
                provider.look().await;
                settle(&provider, before).await.unwrap();
                // AWS needs so long for reserved capacity.
                bed.fake.advance(Duration::from_hours(1));
            }
            Meanwhile::Fails => bed.fake.edit(|cloud, _| {
                for one in cloud.load_balancers.values_mut() {
                    one.trouble = Some(("failed".into(), "Not enough capacity".into()));
                }
            }),
            Meanwhile::Kept => {
                let key = Key::alone(&before.id);
                let kept = provider.release(&before.id, &key, Removal::Retain).await;
                assert_eq!(kept, Ok(Released::Gone));
            }
        }
        bed
    }
}

#[expect(clippy::too_many_lines, reason = "one row for each change")]
fn updates() -> Vec<(&'static str, Option<LoadBalancer>, LoadBalancer)> {
    let web = || service("web", &[(80, 30_080)]);
    let two = || service("web", &[(80, 30_080), (443, 30_443)]);
    let reserved = || {
        with(
            web(),
            "minimum-load-balancer-capacity",
            "CapacityUnits=8250",
        )
    };
    let internet = || with(web(), "scheme", "internet-facing");
    let given = || with(web(), "security-groups", NODE_GROUP);
    let subnets = |letters: &[&str]| {
        let names: Vec<String> = letters.iter().map(|it| format!("subnet-{it}")).collect();
        with(web(), "subnets", &names.join(","))
    };
    let ranges = |mut service: LoadBalancer| {
        service.source_ranges = vec!["10.9.0.0/16".parse().unwrap()];
        service
    };
    let both = || {
        let mut both = web();
        let udp = Listener {
            protocol: Protocol::Udp,
            name: Some("udp".into()),
            ..both.listeners[0].clone()
        };
        both.listeners.push(udp);
        both
    };
    let cross = || {
        with(
            web(),
            "attributes",
            "load_balancing.cross_zone.enabled=true",
        )
    };
    let quick = with(
        cross(),
        "target-group-attributes",
        "deregistration_delay.timeout_seconds=30",
    );
    let logs = || {
        with(
            web(),
            "attributes",
            "access_logs.s3.enabled=true,access_logs.s3.bucket=logs",
        )
    };
    let tls = |ids: &[&str]| {
        let all: Vec<String> = ids.iter().map(|id| certificate(id)).collect();
        with(web(), "ssl-cert", &all.join(","))
    };
    // An attribute of the listener, and a rule of the security group.
    let idle = |service: LoadBalancer| {
        let idle = "tcp.idle_timeout.seconds=600";
        let service = with(service, "listener-attributes.TCP-80", idle);
        with(service, "enable-icmp-for-path-mtu-discovery", "on")
    };
    let sticky = |mut service: LoadBalancer| {
        service.affinity = Affinity::ClientIp {
            timeout_seconds: 10_800,
        };
        service
    };
    let to_targets = with(tls(&["one"]), "backend-protocol", "ssl");
    let edge = || with(web(), "target-node-labels", "pool=edge");
    let dual = |mut service: LoadBalancer| {
        service.families = vec![Family::V4, Family::V6];
        service
    };
    let tagged = with(web(), "additional-resource-tags", "team=shop");
    let checked = with(web(), "healthcheck-interval", "30");
    let moved = service("web", &[(80, 30_081)]);
    let pods = |all: &[&str]| with_pods(web(), all);
    let (one, two_pods) = (&["10.0.100.1"][..], &["10.0.100.1", "10.0.100.2"][..]);
    vec![
        ("a new Service", None, two()),
        ("a new Service with reserved capacity", None, reserved()),
        ("a port more", Some(web()), two()),
        ("a port less", Some(two()), web()),
        ("another node port", Some(web()), moved),
        ("UDP on the same port", Some(web()), both()),
        ("TCP alone again", Some(both()), web()),
        ("another scheme", Some(web()), internet()),
        ("other clients", Some(web()), ranges(web())),
        ("given groups", Some(web()), given()),
        ("its own group again", Some(given()), web()),
        ("attributes", Some(web()), quick),
        ("attributes gone", Some(cross()), web()),
        ("access logs", Some(web()), logs()),
        ("no access logs", Some(logs()), web()),
        (
            "TLS instead of attributes",
            Some(idle(web())),
            tls(&["one"]),
        ),
        (
            "attributes instead of TLS",
            Some(tls(&["one"])),
            idle(web()),
        ),
        ("a new Service with TLS", None, tls(&["one", "two"])),
        ("TLS", Some(web()), tls(&["one", "two"])),
        ("TCP again", Some(tls(&["one", "two"])), web()),
        (
            "TLS instead of affinity",
            Some(sticky(web())),
            sticky(tls(&["one"])),
        ),
        (
            "affinity instead of TLS",
            Some(sticky(tls(&["one"]))),
            sticky(web()),
        ),
        (
            "other certificates",
            Some(tls(&["one", "two"])),
            tls(&["three", "one"]),
        ),
        ("TLS to the targets", Some(tls(&["one"])), to_targets),
        ("tags", Some(web()), tagged),
        ("fewer nodes", Some(web()), edge()),
        ("all nodes again", Some(edge()), web()),
        ("a new Service with pods", None, with_pods(two(), two_pods)),
        ("pods instead of nodes", Some(web()), pods(two_pods)),
        ("nodes instead of pods", Some(pods(two_pods)), web()),
        ("other pods", Some(pods(one)), pods(&["10.0.100.3"])),
        ("no pod any more", Some(pods(two_pods)), pods(&[])),
        (
            "pods on both protocols",
            Some(pods(one)),
            with_pods(both(), one),
        ),
        ("a check", Some(web()), checked),
        (
            "fewer subnets",
            Some(web()),
            subnets(&["private-a", "private-b"]),
        ),
        (
            "more subnets",
            Some(subnets(&["private-a", "private-b"])),
            subnets(&["private-a", "private-b", "private-c"]),
        ),
        ("a new Service with both families", None, dual(two())),
        ("both families", Some(web()), dual(web())),
        ("both families, and UDP", Some(web()), dual(both())),
        ("IPv4 alone again", Some(dual(both())), web()),
        ("UDP with both families", Some(dual(web())), dual(both())),
        (
            "both families, of pods",
            Some(pods(one)),
            dual(pods(&["10.0.100.1", "2001:db8:0:64::1"])),
        ),
        (
            "another subnet of a zone",
            Some(subnets(&["private-a", "private-b"])),
            subnets(&["public-a", "private-b"]),
        ),
    ]
}

/// Changes of what AWS takes only for an active load balancer.
fn reservations() -> Vec<(&'static str, LoadBalancer, LoadBalancer)> {
    let web = || service("web", &[(80, 30_080)]);
    let reserved = |units: u32| {
        let units = format!("CapacityUnits={units}");
        with(web(), "minimum-load-balancer-capacity", &units)
    };
    let tls = || with(web(), "ssl-cert", &certificate("one"));
    vec![
        ("reserved capacity", web(), reserved(8_250)),
        ("more of it", reserved(8_250), reserved(9_000)),
        ("less of it", reserved(9_000), reserved(8_250)),
        ("none any more", reserved(8_250), web()),
        ("TLS instead of reserved capacity", reserved(8_250), tls()),
        ("reserved capacity instead of TLS", tls(), reserved(8_250)),
    ]
}

pub(crate) fn changes() -> Vec<Change> {
    let web = || service("web", &[(80, 30_080)]);
    let all = updates().into_iter().map(|(what, before, wanted)| Change {
        what,
        before,
        meanwhile: Meanwhile::Nothing,
        wanted,
    });
    let again = |what, meanwhile| Change {
        what,
        before: Some(web()),
        meanwhile,
        wanted: web(),
    };
    let serves = reservations()
        .into_iter()
        .map(|(what, before, wanted)| Change {
            what,
            before: Some(before),
            meanwhile: Meanwhile::Serves,
            wanted,
        });
    let fails = again("a load balancer that AWS could not make", Meanwhile::Fails);
    let kept = again("a load balancer that was kept", Meanwhile::Kept);
    all.chain(serves).chain([fails, kept]).collect()
}

/// All turns until nothing is left to do, with the cloud's clock moving on.
pub(crate) async fn finish(bed: &Bed, wanted: &LoadBalancer) -> Vec<String> {
    let provider = bed.start().await.unwrap();
    finished_by(&provider, bed, wanted).await
}

async fn finished_by(provider: &AwsProvider, bed: &Bed, wanted: &LoadBalancer) -> Vec<String> {
    served(provider, bed, wanted).await;
    // What was in use is deleted, and what drifted is repaired.
    bed.fake.advance(Duration::from_mins(10));
    provider.look().await;
    served(provider, bed, wanted).await;
    essence(&bed.fake.snapshot())
}

/// Turns until one succeeds: some changes wait for AWS.
pub(crate) async fn served(provider: &AwsProvider, bed: &Bed, wanted: &LoadBalancer) {
    for _ in 0..10 {
        match settle(provider, wanted).await {
            Ok(_) => return,
            Err(ProviderError::Transient { .. } | ProviderError::Throttled { .. }) => {
                bed.fake.advance(Duration::from_mins(1));
            }
            Err(why) => panic!("{why}"),
        }
    }
    panic!("it never succeeds");
}

async fn prepare(before: Option<&LoadBalancer>) -> Bed {
    let nothing = Change {
        what: "",
        before: before.cloned(),
        meanwhile: Meanwhile::Nothing,
        wanted: service("web", &[]),
    };
    nothing.bed().await
}

#[tokio::test]
async fn a_crash_at_any_call_of_any_change_is_made_up_for() {
    for change in changes() {
        let Change { what, wanted, .. } = &change;
        let bed = change.bed().await;
        let provider = bed.start().await.unwrap();
        bed.fake.reset_calls();
        served(&provider, &bed, wanted).await;
        let calls = bed.fake.counts().total();
        drop(provider);
        let expected = finish(&bed, wanted).await;
        for (nth, after) in (1..=calls).flat_map(|nth| [(nth, true), (nth, false)]) {
            let bed = change.bed().await;
            let provider = bed.start().await.unwrap();
            bed.fake.fault(Fault::any().nth(nth).dropped(after));
            bed.fake.reset_calls();
            // Some changes wait for AWS before they go on.
            while settle(&provider, wanted).await.is_err() && bed.fake.counts().total() < nth {
                bed.fake.advance(Duration::from_mins(1));
            }
            drop(provider);
            bed.fake.clear_faults();
            let found = finish(&bed, wanted).await;
            assert_eq!(
                found, expected,
                "{what}: call {nth} of {calls}, after: {after}"
            );
            let provider = bed.start().await.unwrap();
            delete(&bed, &provider, wanted).await;
            assert!(bed.is_empty(), "{what}: call {nth}, after: {after}");
        }
    }
}

/// The same process goes on: it makes up for an answer that it did not get.
#[tokio::test]
async fn a_lost_answer_at_any_call_is_made_up_for_by_the_same_process() {
    for change in changes() {
        let Change { what, wanted, .. } = &change;
        let bed = change.bed().await;
        let expected = finish(&bed, wanted).await;
        let bed = change.bed().await;
        let provider = bed.start().await.unwrap();
        bed.fake.reset_calls();
        served(&provider, &bed, wanted).await;
        let calls = bed.fake.counts().total();
        for nth in 1..=calls {
            let bed = change.bed().await;
            let provider = bed.start().await.unwrap();
            bed.fake.fault(Fault::any().nth(nth).drop_after());
            let found = finished_by(&provider, &bed, wanted).await;
            assert_eq!(found, expected, "{what}: call {nth}");
        }
    }
}

/// Nobody knows what the call has made, and the Service is deleted before anybody asks again.
#[tokio::test]
async fn what_had_no_answer_is_deleted_by_the_same_process() {
    let web = service("web", &[(80, 30_080), (443, 30_443)]);
    for nth in 1_u64.. {
        let bed = prepare(None).await;
        let provider = bed.start().await.unwrap();
        bed.fake.fault(Fault::writes().nth(nth).drop_after());
        let ended = settle(&provider, &web).await;
        if bed.fake.counts().writes() < nth {
            ended.unwrap();
            assert!(nth > 8, "{nth}");
            break;
        }
        delete(&bed, &provider, &web).await;
        assert!(bed.is_empty(), "call {nth}: {:?}", bed.fake.snapshot());
    }
}

/// The controller gives up a turn that takes too long, while a call is under way, and goes on. A turn with given
/// security groups has no group of its own that would be found by its tags.
#[tokio::test]
async fn a_turn_that_is_given_up_at_any_call_is_made_up_for_by_the_same_process() {
    let web = || service("web", &[(80, 30_080)]);
    let given = with(web(), "security-groups", NODE_GROUP);
    let more = with(
        service("web", &[(80, 30_080), (443, 30_443)]),
        "attributes",
        "load_balancing.cross_zone.enabled=true",
    );
    for (before, wanted) in [(None, web()), (None, given), (Some(web()), more)] {
        let bed = prepare(before.as_ref()).await;
        let expected = finish(&bed, &wanted).await;
        for (nth, made) in (1_u64..).flat_map(|nth| [(nth, true), (nth, false)]) {
            let mut ended = false;
            for deleted in [true, false] {
                let bed = prepare(before.as_ref()).await;
                let provider = bed.start().await.unwrap();
                let fault = Fault::writes().nth(nth);
                bed.fake.fault(if made {
                    fault.hold_after()
                } else {
                    fault.hold_before()
                });
                tokio::select! {
                    settled = settle(&provider, &wanted) => {
                        settled.unwrap();
                        ended = true;
                    }
                    () = bed.fake.held() => {}
                }
                bed.fake.idle().await;
                bed.fake.clear_faults();
                if !deleted {
                    settle(&provider, &wanted).await.unwrap();
                    bed.fake.advance(Duration::from_mins(10));
                    provider.look().await;
                    settle(&provider, &wanted).await.unwrap();
                    let found = essence(&bed.fake.snapshot());
                    assert_eq!(found, expected, "call {nth}, made: {made}");
                }
                delete(&bed, &provider, &wanted).await;
                let left = bed.fake.snapshot();
                assert!(bed.is_empty(), "call {nth}, made: {made}: {left:?}");
            }
            if ended {
                assert!(nth > 3, "{nth}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_call_of_a_deletion_leaves_nothing() {
    let web = service("web", &[(80, 30_080), (443, 30_443)]);
    for (nth, after) in (1..12).flat_map(|nth| [(nth, true), (nth, false)]) {
        let bed = prepare(Some(&web)).await;
        let provider = bed.start().await.unwrap();
        bed.fake.fault(Fault::any().nth(nth).dropped(after));
        let key = Key::alone(&web.id);
        let first = provider.release(&web.id, &key, Removal::Delete).await;
        drop(provider);
        bed.fake.clear_faults();
        let provider = bed.start().await.unwrap();
        if first != Ok(Released::Gone) {
            delete(&bed, &provider, &web).await;
        }
        assert!(
            bed.is_empty(),
            "call {nth}, after: {after}: {:?}",
            bed.fake.snapshot()
        );
    }
}

#[tokio::test]
async fn a_crash_at_any_call_of_a_wave_leaves_no_group_behind() {
    let all: Vec<_> = (0..3)
        .map(|number| service(&format!("web-{number}"), &[(80, 30_100 + number)]))
        .collect();
    for (nth, after) in (1..8).flat_map(|nth| [(nth, true), (nth, false)]) {
        let mut bed = Bed::new().await;
        let provider = bed.start().await.unwrap();
        for one in &all {
            settle(&provider, one).await.unwrap();
        }
        bed.add_node();
        bed.fake.fault(Fault::any().nth(nth).dropped(after));
        let _ = bed.retarget(&provider).await;
        drop(provider);
        bed.fake.clear_faults();
        // The new node goes again while nobody looks.
        bed.nodes -= 1;
        let provider = bed.start().await.unwrap();
        for one in &all {
            settle(&provider, one).await.unwrap();
        }
        for group in bed.fake.snapshot().target_groups.keys() {
            let health = bed
                .fake
                .edit(|cloud, now| cloud.describe_target_health(now, group, &[]));
            let health = health.unwrap();
            let used = health.iter().filter(|one| one.state != "draining").count();
            assert_eq!(used, 3, "call {nth}, after: {after}: {health:?}");
        }
    }
}
