//! Services that share a load balancer: what each has of its own, what it costs, and who joins and leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ballast_aws::provider::AwsProvider;
use ballast_provider::mark::{RETAINED, SERVICE, SHARE_KEY};
use ballast_provider::{
    ExtraKind, Key, LoadBalancer, Observed, Provider, ProviderError, Reason, Refusal, Released,
    Removal, State, TrafficPolicy,
};
use tokio::time::Instant;

use crate::bed::{Bed, certificate, ports, service, with};
use crate::quiet::Changes;
use crate::support::{balancer, settle_all};

mod crashes;
mod histories;
mod kept;

/// A Service with one port that shares.
pub(crate) fn member(name: &str, port: u16) -> LoadBalancer {
    LoadBalancer {
        share_key: Some("front".into()),
        ..service(name, &[(port, 30_000 + port)])
    }
}

/// What each of them observes after its turns.
pub(crate) async fn turn(
    provider: &AwsProvider,
    members: &[LoadBalancer],
) -> Result<Vec<Observed>, ProviderError> {
    let all = settle_all(provider, members).await?;
    let (ids, all): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    assert!(ids.iter().eq(members.iter().map(|one| &one.id)));
    Ok(all)
}

/// Releases until nothing is left of it.
pub(crate) async fn leave(
    bed: &Bed,
    provider: &AwsProvider,
    service: &LoadBalancer,
) -> Result<(), ProviderError> {
    let key = provider.key(service);
    for _ in 0..20 {
        if provider.release(&service.id, &key, Removal::Delete).await? == Released::Gone {
            return Ok(());
        }
        bed.fake.advance(Duration::from_secs(20));
    }
    panic!("{} is never gone", service.id);
}

fn refused(provider: &AwsProvider, members: &[LoadBalancer]) -> Refusal {
    let refusal = provider.validate(&balancer(provider, members));
    refusal.expect_err("it is accepted")
}

fn count(calls: &[String], action: &str) -> usize {
    calls.iter().filter(|call| *call == action).count()
}

#[tokio::test]
async fn they_have_one_name_and_each_its_own_ports_and_targets() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let (web, api) = (member("web", 80), member("api", 443));
    turn(&provider, std::slice::from_ref(&web)).await.unwrap();
    let (both, calls) = bed.calls_of(turn(&provider, &[web, api])).await;
    let both = both.unwrap();
    assert_eq!(calls.len(), 5, "{calls:?}");
    let [one, other] = &both[..] else {
        panic!("{both:?}")
    };
    assert_eq!(one.ingress[0].address, other.ingress[0].address);
    let ports: Vec<u16> = (both.iter())
        .flat_map(|it| it.ingress[0].ports.iter().map(|port| port.port))
        .collect();
    assert_eq!(ports, [80, 443]);
    let all = bed.fake.snapshot();
    assert_eq!((all.load_balancers.len(), all.listeners.len()), (1, 2));
    let own = all.security_groups.values();
    let own: Vec<_> = own.filter(|one| one.tags.contains_key(SHARE_KEY)).collect();
    assert_eq!((own.len(), own[0].ingress.len()), (1, 2));
    let named: BTreeSet<&str> = (all.target_groups.values())
        .map(|one| one.tags[SERVICE].as_str())
        .collect();
    assert_eq!(named, BTreeSet::from(["shop/api", "shop/web"]));
    for one in all.load_balancers.values() {
        assert_eq!(one.tags[SHARE_KEY], "shop/front");
        assert_eq!(one.tags[SERVICE], "shop/web", "the oldest one");
    }
}

/// As many as a load balancer has listeners.
#[tokio::test]
async fn fifty_services_take_one_load_balancer_and_the_next_one_is_refused() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let all: Vec<_> = (0..51)
        .map(|at| member(&format!("web-{at}"), 8000 + at))
        .collect();
    let joins = async {
        for last in 1..=50 {
            turn(&provider, &all[..last]).await.unwrap();
        }
    };
    let ((), calls) = bed.calls_of(joins).await;
    let makes = |action| count(&calls, action);
    assert_eq!(makes("CreateLoadBalancer"), 1);
    assert_eq!(
        (makes("CreateTargetGroup"), makes("CreateListener")),
        (50, 50)
    );
    // The first one is a creation of its own, with the look-ups of a process that has just started.
    assert!(calls.len() <= 15 + 49 * 5, "{}", calls.len());
    let refusal = refused(&provider, &all);
    assert_eq!(refusal.reason, Reason::QuotaExceeded);
    assert!(refusal.message.contains("51 ports"), "{refusal}");
    assert_eq!(ports(&bed).len(), 50);
    // A process that has just started lets one leave without a full look at the others.
    let provider = bed.start().await.unwrap();
    let (left, calls) = bed.calls_of(leave(&bed, &provider, &all[7])).await;
    left.unwrap();
    assert!(calls.len() <= 14, "{calls:?}");
    assert_eq!(ports(&bed).len(), 49);
}

/// Nobody changes the load balancer of the others by joining.
#[tokio::test]
async fn they_must_agree_on_what_a_load_balancer_has_once() {
    let mut bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = || member("web", 80);
    let api = || member("api", 443);
    for (name, value) in [
        ("scheme", "internet-facing"),
        ("subnets", "subnet-a"),
        ("security-groups", "sg-1"),
        ("manage-backend-security-group-rules", "false"),
        ("inbound-sg-rules-on-private-link-traffic", "off"),
        ("attributes", "load_balancing.cross_zone.enabled=true"),
        ("private-ipv4-addresses", "10.0.100.9"),
        ("ip-address-type", "dualstack"),
        ("minimum-load-balancer-capacity", "CapacityUnits=500"),
    ] {
        for members in [
            [web(), with(api(), name, value)],
            [with(web(), name, value), api()],
        ] {
            let refusal = refused(&provider, &members);
            assert_eq!(refusal.reason, Reason::Invalid, "{refusal}");
            for part in [name, "Services shop/web and shop/api"] {
                assert!(refusal.message.contains(part), "{part}: {refusal}");
            }
        }
        let agree = [with(web(), name, value), with(api(), name, value)];
        assert_eq!(provider.validate(&balancer(&provider, &agree)), Ok(()));
    }
    // What each has of its own need not be alike.
    let own = with(
        api(),
        "target-group-attributes",
        "preserve_client_ip.enabled=false",
    );
    let own = with(own, "additional-resource-tags", "team=api");
    assert_eq!(
        provider.validate(&balancer(&provider, &[web(), own])),
        Ok(())
    );
    let udp = |mut it: LoadBalancer| {
        it.listeners[0].protocol = ballast_provider::Protocol::Udp;
        it
    };
    let refusal = refused(&provider, &[web(), udp(member("dns", 80))]);
    assert_eq!(refusal.reason, Reason::PortInUse);
    // Another namespace does not share, unless the class says so; then it learns no names.
    let mut foreign = with(api(), "scheme", "internet-facing");
    foreign.id.namespace = "other".into();
    assert_ne!(provider.key(&foreign), provider.key(&web()));
    bed.class.share_everywhere = true;
    let provider = bed.start().await.unwrap();
    assert_eq!(provider.key(&foreign), provider.key(&web()));
    // Another setting of the class never means the load balancer of a namespace.
    let alike = LoadBalancer {
        share_key: Some("shop/front".into()),
        ..web()
    };
    assert_ne!(provider.key(&alike), Key::Shared("shop/front".into()));
    let refusal = refused(&provider, &[web(), foreign]);
    assert!(!refusal.message.contains("shop"), "{refusal}");
}

#[tokio::test]
async fn whoever_leaves_takes_its_own_and_the_last_one_everything() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let (web, api) = (member("web", 80), member("api", 443));
    turn(&provider, &[web.clone(), api.clone()]).await.unwrap();
    let before = bed.fake.snapshot();
    let (left, calls) = bed.calls_of(leave(&bed, &provider, &web)).await;
    left.unwrap();
    let expected = [
        "DescribeTags",
        "RemoveTags",
        "DeleteListener",
        "DeleteTargetGroup",
    ];
    assert_eq!(calls, expected);
    assert_eq!(ports(&bed), BTreeSet::from([443]));
    // The poller asks for the turn that completes the rest.
    let changes = provider.look().await;
    let asked: BTreeSet<&str> = changes.iter().map(|it| &*it.id.name).collect();
    assert_eq!(asked, BTreeSet::from(["api"]));
    turn(&provider, std::slice::from_ref(&api)).await.unwrap();
    let after = bed.fake.snapshot();
    let own = after.security_groups.values();
    let own: Vec<_> = own.filter(|one| one.tags.contains_key(SHARE_KEY)).collect();
    assert_eq!((own.len(), own[0].ingress.len()), (1, 1));
    for (arn, one) in &after.load_balancers {
        assert_eq!(one.tags[SERVICE], "shop/api");
        assert!(before.load_balancers.contains_key(arn));
    }
    // What stays was never touched.
    for (arn, listener) in &after.listeners {
        assert_eq!(Some(listener), before.listeners.get(arn));
    }
    let (nothing, calls) = bed
        .calls_of(turn(&provider, std::slice::from_ref(&api)))
        .await;
    nothing.unwrap();
    assert_eq!(calls, [""; 0]);
    leave(&bed, &provider, &api).await.unwrap();
    assert!(bed.is_empty());
}

/// Neither when it joins nor later, whoever is older.
#[tokio::test]
async fn a_member_that_aws_refuses_holds_up_no_other() {
    for bad_is_older in [true, false] {
        let bed = Bed::new().await;
        let provider = bed.start().await.unwrap();
        let bad = with(member("bad", 443), "ssl-cert", &certificate("later"));
        let both = |web: LoadBalancer| {
            let mut both = vec![web, bad.clone()];
            both.rotate_left(usize::from(bad_is_older));
            both
        };
        let of_bad = usize::from(!bad_is_older);
        let seen = turn(&provider, &both(member("web", 80))).await.unwrap();
        let State::Pending {
            reason, message, ..
        } = &seen[of_bad].state
        else {
            panic!("{seen:?}")
        };
        assert_eq!(*reason, Reason::Invalid);
        assert!(message.contains("CertificateNotFound"), "{message}");
        assert!(!format!("{:?}", seen[1 - of_bad]).contains("Certificate"));
        assert_eq!(ports(&bed), BTreeSet::from([80]));
        // The other one changes, also in another process.
        let provider = bed.start().await.unwrap();
        let web = LoadBalancer {
            share_key: Some("front".into()),
            ..service("web", &[(80, 30_080), (8080, 38_080)])
        };
        turn(&provider, &both(web.clone())).await.unwrap();
        assert_eq!(ports(&bed), BTreeSet::from([80, 8080]));
        bed.fake.edit(|cloud, _| cloud.issue_certificate("later"));
        let seen = turn(&provider, &both(web.clone())).await.unwrap();
        assert!(!format!("{seen:?}").contains("CertificateNotFound"));
        assert_eq!(ports(&bed), BTreeSet::from([80, 443, 8080]));
        let (done, calls) = bed.calls_of(turn(&provider, &both(web.clone()))).await;
        done.unwrap();
        assert_eq!(calls, [""; 0]);
        // Its next certificate is wrong, too: what it has stays.
        let wrong = with(bad.clone(), "ssl-cert", &certificate("never"));
        turn(&provider, &[web.clone(), wrong]).await.unwrap();
        assert_eq!(ports(&bed), BTreeSet::from([80, 443, 8080]));
        for one in [web, bad] {
            leave(&bed, &provider, &one).await.unwrap();
        }
        assert!(bed.is_empty());
    }
}

#[tokio::test]
async fn each_has_the_health_of_its_own_targets() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    // Only the first node.
    let edge = with(member("edge", 80), "target-node-labels", "pool=edge");
    let all = member("all", 443);
    let members = [edge, all];
    bed.set_healthy([2, 3], false);
    turn(&provider, &members).await.unwrap();
    for _ in 0..4 {
        bed.fake.advance(Duration::from_mins(2));
        provider.look().await;
    }
    let seen = turn(&provider, &members).await.unwrap();
    let health: Vec<_> = seen
        .iter()
        .flat_map(|one| &one.conditions)
        .map(|it| (it.kind, it.holds, it.message.split(';').next().unwrap()))
        .collect();
    let kind = ExtraKind::TargetsHealthy;
    assert_eq!(
        health,
        [
            (kind, Some(true), "1 of 1 targets are healthy"),
            (kind, Some(false), "1 of 3 targets are healthy"),
        ]
    );
    assert!(seen.iter().all(|one| one.state == State::Programmed));
}

/// Costs and rights may depend on tags.
#[tokio::test]
async fn the_load_balancer_has_the_tags_on_which_all_agree() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let tagged = |it, tags: &str| with(it, "additional-resource-tags", tags);
    let web = tagged(member("web", 80), "team=web,env=prod");
    turn(&provider, std::slice::from_ref(&web)).await.unwrap();
    let tags = || {
        let all = bed.fake.snapshot().load_balancers.into_values();
        let mut all = all.map(|one| (one.tags.get("team").cloned(), one.tags.get("env").cloned()));
        all.next().unwrap()
    };
    assert_eq!(tags(), (Some("web".into()), Some("prod".into())));
    let older = tagged(member("older", 443), "team=older,env=prod");
    turn(&provider, &[older, web]).await.unwrap();
    assert_eq!(tags(), (None, Some("prod".into())));
    let all = bed.fake.snapshot().target_groups.into_values();
    let teams: BTreeSet<String> = all.map(|one| one.tags["team"].clone()).collect();
    assert_eq!(teams, BTreeSet::from(["older".into(), "web".into()]));
}

/// Whoever is refused has no part in the load balancer, and keeps it for nobody.
#[tokio::test]
async fn the_last_one_that_is_accepted_deletes_it() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = member("web", 80);
    turn(&provider, std::slice::from_ref(&web)).await.unwrap();
    let bad = with(
        member("bad", 443),
        "listener-attributes.TCP-9999",
        "tcp.idle_timeout.seconds=60",
    );
    let both = balancer(&provider, &[web.clone(), bad]);
    let refused = provider.ensure(&both).await;
    assert!(
        matches!(refused, Err(ProviderError::Refused(_))),
        "{refused:?}"
    );
    leave(&bed, &provider, &web).await.unwrap();
    assert!(bed.is_empty());
}

/// A port that another Service takes over never stops listening.
#[tokio::test]
async fn a_port_moves_to_another_service_without_a_gap() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let (web, api) = (member("web", 80), member("api", 443));
    turn(&provider, &[web.clone(), api.clone()]).await.unwrap();
    let moved = [member("web", 8080), {
        let mut both = api;
        both.listeners.push(web.listeners[0].clone());
        both
    }];
    let (done, calls) = bed.calls_of(turn(&provider, &moved)).await;
    done.unwrap();
    assert_eq!(count(&calls, "DeleteListener"), 0);
    assert_eq!(count(&calls, "ModifyListener"), 1);
    assert_eq!(ports(&bed), BTreeSet::from([80, 443, 8080]));
    for one in bed.fake.snapshot().listeners.values() {
        let owner = if one.port == 8080 {
            "shop/web"
        } else {
            "shop/api"
        };
        assert_eq!(one.tags[SERVICE], owner, "{}", one.port);
    }
}

/// A process that starts knows that everything is there, and who has it.
#[tokio::test]
async fn a_restart_changes_nothing_and_knows_the_members() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let members = [member("web", 80), member("api", 443)];
    turn(&provider, &members).await.unwrap();
    let (provider, start) = bed.calls_of(bed.start()).await;
    let provider = provider.unwrap();
    let (done, calls) = bed.calls_of(turn(&provider, &members)).await;
    done.unwrap();
    assert_eq!(calls, [""; 0], "{start:?}");
    let owned = provider.inventory().await.unwrap();
    let key = Key::Shared("shop/front".into());
    for one in &owned {
        assert_eq!(one.key.as_ref(), Some(&key));
    }
    let both = owned.iter().filter(|one| one.services.len() == 2);
    assert_eq!(
        both.count(),
        2,
        "load balancer and security group: {owned:?}"
    );
    // One that left while no process ran.
    let (left, calls) = bed.calls_of(turn(&provider, &members[..1])).await;
    left.unwrap();
    assert_eq!(count(&calls, "DeleteListener"), 1);
    assert_eq!(ports(&bed), BTreeSet::from([80]));
}

#[tokio::test]
async fn another_scheme_makes_one_new_load_balancer_for_all() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let members = [member("web", 80), member("api", 443)];
    turn(&provider, &members).await.unwrap();
    let public = members
        .clone()
        .map(|it| with(it, "scheme", "internet-facing"));
    turn(&provider, &public).await.unwrap();
    assert_eq!(bed.fake.snapshot().load_balancers.len(), 2);
    // One leaves while both load balancers serve.
    leave(&bed, &provider, &public[0]).await.unwrap();
    let listen = bed.fake.snapshot().listeners.into_values();
    let listen: Vec<u16> = listen.map(|one| one.port).collect();
    assert_eq!(listen, [443, 443]);
    for _ in 0..8 {
        let step = Duration::from_mins(2);
        bed.fake.advance(step);
        tokio::time::pause();
        tokio::time::advance(step).await;
        tokio::time::resume();
        provider.look().await;
        turn(&provider, &public[1..]).await.unwrap();
    }
    let all = bed.fake.snapshot();
    assert_eq!(all.load_balancers.len(), 1);
    assert!(
        all.load_balancers
            .values()
            .all(|one| one.scheme == "internet-facing")
    );
    leave(&bed, &provider, &public[1]).await.unwrap();
    assert!(bed.is_empty());
}

/// Only the last one leaves something behind; another Service of the key takes it back.
#[tokio::test]
async fn what_is_kept_is_taken_back_by_the_next_service_of_the_key() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let (web, api) = (member("web", 80), member("api", 443));
    turn(&provider, &[web.clone(), api.clone()]).await.unwrap();
    let key = provider.key(&web);
    for one in [&web, &api] {
        let kept = provider.release(&one.id, &key, Removal::Retain).await;
        assert_eq!(kept, Ok(Released::Gone));
    }
    let all = bed.fake.snapshot();
    assert_eq!((all.load_balancers.len(), all.target_groups.len()), (1, 1));
    let retained = all.load_balancers.values().next().unwrap();
    assert!(retained.tags.contains_key(RETAINED));
    let next = member("next", 8080);
    turn(&provider, std::slice::from_ref(&next)).await.unwrap();
    let all = bed.fake.snapshot();
    let taken = all.load_balancers.values().next().unwrap();
    assert_eq!(
        (taken.tags[SERVICE].as_str(), &taken.arn),
        ("shop/next", &retained.arn)
    );
    assert!(!taken.tags.contains_key(RETAINED));
    assert_eq!(ports(&bed), BTreeSet::from([8080]));
    leave(&bed, &provider, &next).await.unwrap();
    assert!(bed.is_empty());
}

/// A prefix list that one of them names and that does not exist, or is too long, is looked up before anything is
/// planned. The others go on, and whoever was served keeps the clients that it has.
#[tokio::test]
async fn a_prefix_list_of_one_member_holds_up_no_other() {
    for list in ["pl-gone", "pl-offices"] {
        let bed = Bed::new().await;
        let provider = bed.start().await.unwrap();
        let entries = |number| bed.set_max_entries("pl-offices", number);
        entries(61);
        let bad = with(member("bad", 443), "security-group-prefix-lists", list);
        let web = member("web", 80);
        turn(&provider, std::slice::from_ref(&web)).await.unwrap();
        let more = LoadBalancer {
            share_key: Some("front".into()),
            ..service("web", &[(80, 30_080), (8080, 38_080)])
        };
        let seen = turn(&provider, &[more.clone(), bad.clone()]).await.unwrap();
        assert_eq!(ports(&bed), [80, 8080].into(), "{list}");
        let State::Pending { message, .. } = &seen[1].state else {
            panic!("{seen:?}")
        };
        assert!(message.contains("prefix list"), "{message}");
        // Somebody makes the list shorter.
        if list == "pl-offices" {
            entries(10);
            turn(&provider, &[more.clone(), bad.clone()]).await.unwrap();
            assert_eq!(ports(&bed), [80, 443, 8080].into());
            let rules = || {
                let all = bed.fake.snapshot().security_groups;
                let own = all.values().filter(|it| it.name.starts_with("bl-"));
                own.map(|it| it.ingress.len()).sum::<usize>()
            };
            let before = rules();
            // Then it is too long again, for whoever looks: the rules that are there stay.
            entries(61);
            drop(provider);
            let provider = bed.start().await.unwrap();
            let less = LoadBalancer {
                share_key: Some("front".into()),
                ..service("web", &[(80, 30_080)])
            };
            turn(&provider, &[less, bad]).await.unwrap();
            assert_eq!(ports(&bed), [80, 443].into());
            assert_eq!(rules(), before - 1);
        }
    }
}

/// One that never becomes healthy is asked about again and again, and nobody else.
#[tokio::test(start_paused = true)]
async fn only_whoever_is_not_healthy_is_asked_about() {
    let edge = with(member("edge", 80), "target-node-labels", "pool=edge");
    let others = (0..8).map(|at| member(&format!("web-{at}"), 8000 + at));
    // Services that share have a turn together, so that `follow` is not of use here.
    let mut config = ballast_aws_fake::Config {
        time: ballast_aws_fake::Time::Scaled(1.0),
        ..ballast_aws_fake::Config::default()
    };
    config.settings.provisioning = Duration::from_mins(1);
    let mut bed = Bed::with(config).await;
    // The only node with this label is the one whose checks fail.
    bed.labels = [(3, Arc::new([("pool", "edge")].into()))].into();
    let provider = bed.start().await.unwrap();
    let all: Vec<LoadBalancer> = std::iter::once(edge).chain(others).collect();
    turn(&provider, &all).await.unwrap();
    // Nodes without a pod of a Service with policy Local fail on purpose: one healthy node is enough.
    let all: Vec<LoadBalancer> = all
        .into_iter()
        .map(|one| LoadBalancer {
            traffic_policy: TrafficPolicy::Local {
                health_check_node_port: 32_000,
            },
            ..one
        })
        .collect();
    turn(&provider, &all).await.unwrap();
    bed.set_healthy([3], false);
    let mut changes = Changes::of(&provider);
    let mut follow = async |long: Duration| {
        bed.fake.reset_calls();
        let end = Instant::now() + long;
        while changes.before(end).await.is_some() {
            turn(&provider, &all).await.unwrap();
        }
        let counts = bed.fake.counts().actions;
        counts.get("DescribeTargetHealth").copied().unwrap_or(0)
    };
    let four = Duration::from_mins(4);
    follow(four).await;
    let asked = follow(four).await;
    // One Service once in a minute, and not nine.
    assert!((1..=12).contains(&asked), "{asked}");
    let seen = turn(&provider, &all).await.unwrap();
    let healthy = seen
        .iter()
        .filter(|one| one.conditions[0].holds == Some(true));
    assert_eq!(healthy.count(), 8, "{seen:#?}");
}
