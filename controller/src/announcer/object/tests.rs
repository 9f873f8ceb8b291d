use std::collections::BTreeSet;

use ballast_announce::Mac;

use super::*;
use crate::announcer::seam::ReportedInterface;

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
        interfaces: vec![interface("eth1", 3, false), interface("eth0", 2, true)],
        problems: BTreeSet::new(),
    }
}

#[test]
fn the_status_says_what_the_agent_reports() {
    let status = status(&report(), &AnnouncerStatus::default(), "07", second(5));
    insta::assert_yaml_snapshot!(status);
}

#[test]
fn holdings_stay_until_the_agent_has_recorded_some() {
    let before = status(&report(), &AnnouncerStatus::default(), "06", second(5));
    let restarted = Report {
        claims: None,
        ..report()
    };
    let after = status(&restarted, &before, "07", second(9));
    assert_eq!(after.holdings, before.holdings);
    assert_eq!(after.counts.addresses, 2);
    let none = Report {
        claims: Some(Arc::default()),
        ..report()
    };
    assert!(status(&none, &before, "07", second(9)).holdings.is_empty());
}

#[test]
fn conditions_name_the_problem_and_keep_their_times() {
    let address = |n: u8| IpAddr::from([192, 0, 2, n]);
    let conflict = |n| Problem::AddressConflict {
        address: address(n),
        mac: Mac([2, 0, 0, 0, 0, n]),
    };
    let with = |problems: BTreeSet<Problem>| Report {
        problems,
        ..report()
    };
    let fine = status(
        &with([].into()),
        &AnnouncerStatus::default(),
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
    let bad = status(&bad, &fine, "07", second(9));
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
    let worse = status(&worse, &bad, "07", second(20));
    insta::assert_yaml_snapshot!(text(&worse));
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
    let status = status(&report, &AnnouncerStatus::default(), "07", second(5));
    assert_eq!(
        (
            status.interfaces.len(),
            status.interfaces[0].addresses.len()
        ),
        (64, 64)
    );
    assert_eq!(
        (status.holdings.len(), status.holdings[0].successors.len()),
        (16_384, 8)
    );
    assert_eq!(status.holdings[0].epoch, i64::MAX);
    assert!(status.conditions.iter().all(|it| it.message.len() <= 400));
}
