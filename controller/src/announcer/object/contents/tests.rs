use std::collections::BTreeSet;
use std::time::Duration;

use ballast_announce::holding::Origin;
use ballast_announce::{Mac, NodeName};

use super::*;
use crate::announcer::seam::{Announced, ReportedInterface, Source};

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn interface(name: &str, index: u32, usable: bool) -> ReportedInterface {
    ReportedInterface {
        index,
        name: name.into(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        nets: vec!["192.0.2.11/24".parse().unwrap()],
        usable,
    }
}

fn claim(epoch: u64) -> Claim {
    Claim {
        epoch,
        holder: NodeName::new("a"),
        revision: 4,
        successors: ["b", "c"].map(NodeName::new).into(),
    }
}

fn source(epoch: u64) -> Source {
    Source {
        epoch,
        cause: Origin::HostDown,
        previous: Some(NodeName::new("b")),
        since: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_999)),
    }
}

fn report() -> Report {
    let address: IpAddr = "192.0.2.7".parse().unwrap();
    let announced = Announced {
        interface: "eth0".into(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
    };
    Report {
        claims: Some(
            vec![
                (address, claim(3)),
                ("2001:db8::7".parse().unwrap(), claim(1)),
            ]
            .into(),
        ),
        announced: std::sync::Arc::new([(address, announced)].into()),
        sources: std::sync::Arc::new([(address, source(3))].into()),
        replaced: false,
        interfaces: vec![interface("eth1", 3, false), interface("eth0", 2, true)],
        problems: BTreeSet::new(),
        requests: vec![(1_700_000_000, true), (1_700_000_009, false)],
    }
}

#[test]
fn the_status_says_what_the_agent_reports() {
    let status = status(
        &report(),
        &[],
        &[],
        &AnnouncerStatus::default(),
        None,
        "07",
        second(5),
    );
    insta::assert_yaml_snapshot!(status);
}

#[test]
fn holdings_stay_until_the_agent_has_recorded_some() {
    let before = status(
        &report(),
        &[],
        &[],
        &AnnouncerStatus::default(),
        None,
        "06",
        second(5),
    );
    let restarted = Report {
        claims: None,
        ..report()
    };
    let after = status(&restarted, &[], &[], &before, None, "07", second(9));
    assert_eq!(after.holdings, before.holdings);
    assert_eq!((after.counts.held, after.counts.addresses), (2, 1));
    let none = Report {
        claims: Some(Arc::default()),
        ..report()
    };
    assert!(
        status(&none, &[], &[], &before, None, "07", second(9))
            .holdings
            .is_empty()
    );
}

/// A restart of the announcer changes neither since when nor why the node announces an address.
#[test]
fn a_restart_keeps_why_an_address_is_announced() {
    let nothing = AnnouncerStatus::default();
    let before = status(&report(), &[], &[], &nothing, None, "06", second(5));
    let first = |status: &AnnouncerStatus| status.holdings[0].clone();
    assert_eq!(first(&before).cause.as_deref(), Some("HostDown"));
    assert_eq!(first(&before).previous.as_deref(), Some("b"));
    let restarted = Report {
        sources: Arc::default(),
        ..report()
    };
    // Its own last status, or what the object says meanwhile.
    for (before, theirs) in [(&before, None), (&nothing, Some(&before))] {
        let after = status(&restarted, &[], &[], before, theirs, "07", second(9));
        assert_eq!(after.holdings, before_or(before, theirs).holdings);
    }
    // Another claim has reasons of its own.
    let other = Report {
        claims: Some(vec![("192.0.2.7".parse().unwrap(), claim(4))].into()),
        ..restarted.clone()
    };
    let after = first(&status(&other, &[], &[], &before, None, "07", second(9)));
    assert_eq!(
        (after.since, after.cause, after.previous),
        (None, None, None)
    );
    // Two nodes announced it, and this one had claimed it before its restart.
    let healed = Source {
        cause: Origin::Healed,
        since: None,
        ..source(3)
    };
    let healed = Report {
        sources: Arc::new([("192.0.2.7".parse().unwrap(), healed)].into()),
        ..restarted
    };
    let after = first(&status(&healed, &[], &[], &before, None, "07", second(9)));
    assert_eq!(after.cause.as_deref(), Some("Healed"));
    assert_eq!(after.since, first(&before).since);
}

fn before_or<'a>(
    before: &'a AnnouncerStatus,
    theirs: Option<&'a AnnouncerStatus>,
) -> &'a AnnouncerStatus {
    theirs.unwrap_or(before)
}

#[test]
fn conditions_name_the_problem_and_keep_their_times() {
    let address = |n: u8| IpAddr::from([192, 0, 2, n]);
    let conflict = |n| Problem::AddressConflict {
        address: address(n),
        mac: Mac([2, 0, 0, 0, 0, n]),
        node: (n == 6).then(|| NodeName::new("f")),
    };
    let with = |problems: BTreeSet<Problem>| Report {
        problems,
        ..report()
    };
    let fine = status(
        &with([].into()),
        &[],
        &[],
        &AnnouncerStatus::default(),
        None,
        "07",
        second(5),
    );
    let bad = with(
        [
            conflict(1),
            Problem::ProbesIntercepted {
                host: NodeName::new("b"),
            },
            Problem::ProbesIntercepted {
                host: NodeName::new("c"),
            },
            Problem::CutOff { interface: 3 },
            Problem::CutOff { interface: 9 },
            Problem::NoEndpoints {
                address: address(1),
            },
        ]
        .into(),
    );
    let bad = status(&bad, &[], &[], &fine, None, "07", second(9));
    let text = |status: &AnnouncerStatus| -> Vec<String> {
        let conditions = status.conditions.iter();
        conditions
            .map(|it| {
                let since = it.last_transition_time.0.as_second();
                format!(
                    "{since} {} {} {}: {}",
                    it.type_, it.status, it.reason, it.message
                )
            })
            .collect()
    };
    insta::assert_yaml_snapshot!(text(&bad));
    // One more conflict is no transition.
    let worse = with(
        [
            conflict(1),
            conflict(2),
            conflict(3),
            conflict(4),
            conflict(5),
            conflict(6),
        ]
        .into(),
    );
    let worse = status(&worse, &[], &[], &bad, None, "07", second(20));
    insta::assert_yaml_snapshot!(text(&worse));
    let speaker = status(
        &with([conflict(6)].into()),
        &[],
        &[],
        &bad,
        None,
        "07",
        second(20),
    );
    insta::assert_yaml_snapshot!(text(&speaker)[0]);
    assert!(
        text(&fine)
            .iter()
            .all(|it| it.starts_with("5 ") && it.contains(" False "))
    );
}

#[test]
fn the_status_keeps_the_bounds_of_the_crd() {
    let address = |n: u32| IpAddr::from(n.to_be_bytes());
    let many = Claim {
        successors: (0..100).map(|n| NodeName::new(&format!("n{n}"))).collect(),
        ..claim(u64::MAX)
    };
    let interfaces = (0..1_000).map(|n| ReportedInterface {
        nets: vec!["192.0.2.11/24".parse().unwrap(); 1_000],
        ..interface(&format!("eth{n}"), n, true)
    });
    let report = Report {
        claims: Some(
            (0..20_000)
                .map(|n| (address(n), many.clone()))
                .collect::<Vec<_>>()
                .into(),
        ),
        interfaces: interfaces.collect(),
        problems: (0..1_000)
            .map(|n| Problem::CutOff { interface: n })
            .collect(),
        ..report()
    };
    let status = status(
        &report,
        &[],
        &[],
        &AnnouncerStatus::default(),
        None,
        "07",
        second(5),
    );
    assert_eq!(
        (
            status.interfaces.len(),
            status.interfaces[0].addresses.len()
        ),
        (64, 64)
    );
    // Their bytes are the narrower bound.
    assert!(status.holdings.len() <= MOST_HOLDINGS);
    assert_eq!(status.holdings[0].successors.len(), 8);
    assert_eq!(status.holdings[0].epoch, i64::MAX);
    assert!(status.conditions.iter().all(|it| it.message.len() <= 400));
}

/// As many addresses as one node can have, each with the longest texts.
#[test]
fn the_object_stays_small_enough_to_be_written() {
    let long = |letter: &str| NodeName::new(&letter.repeat(63));
    let claim = Claim {
        holder: long("a"),
        successors: ["b", "c", "d"].map(long).into(),
        ..claim(1)
    };
    let addresses = (0..40_000_u32).map(|number| {
        let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 0).to_bits();
        IpAddr::V6(std::net::Ipv6Addr::from_bits(
            address + (u128::from(number) << 16),
        ))
    });
    let all: Vec<(IpAddr, Claim)> = addresses.map(|it| (it, claim.clone())).collect();
    let report = Report {
        claims: Some(all.into()),
        ..report()
    };
    let status = status(
        &report,
        &[],
        &[],
        &AnnouncerStatus::default(),
        None,
        "07",
        second(5),
    );
    let bytes = serde_json::to_vec(&status).unwrap().len();
    assert!(bytes < 1_400_000, "{bytes} bytes");
    assert!(status.holdings.len() > 2_500, "{}", status.holdings.len());
    assert_eq!(status.counts.held, 40_000);
    assert_eq!(left_out(&status), 40_000 - count(status.holdings.len()));
}
