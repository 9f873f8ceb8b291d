//! Who has which port, and what stays of whoever is refused.

use ballast_provider::{Listener, Placement};

use super::*;

fn sharer(service: &ServiceView, stage: Stage) -> Sharer<'_> {
    Sharer {
        service,
        stage,
        wanted: service.load_balancer.clone().and_then(Result::ok),
        published: None,
        ports: Vec::new(),
    }
}

fn member(_: &ServiceView, shape: &LoadBalancer) -> Member {
    Member {
        load_balancer: shape.clone(),
        published: Vec::new(),
        placement: Placement::default(),
        endpoints: None,
    }
}

/// Where the cloud has one listener on a port, another Service cannot have the other protocol.
#[test]
fn the_other_protocol_of_a_port_is_free_unless_the_cloud_has_one_listener() {
    let dns = |name: &str, created, protocol| {
        let mut service = ServiceView::test(name).created(created).shares("front", 53);
        let wanted = service.load_balancer.as_mut().unwrap().as_mut().unwrap();
        wanted.listeners = vec![Listener {
            protocol,
            ..wanted.listeners[0].clone()
        }];
        service
    };
    let (older, newer) = (
        dns("older", 1, Protocol::Tcp),
        dns("newer", 2, Protocol::Udp),
    );
    let key = Key::Shared("front".into());
    let of = |one_listener_per_port| {
        let rules = Rules {
            member: &member,
            validate: &|_| Ok(()),
            one_listener_per_port,
            deletes_nothing: false,
        };
        let sharers = vec![sharer(&older, Stage::Placed), sharer(&newer, Stage::Next)];
        group(&key, &newer, sharers, &rules)
    };
    assert_eq!(of(false).unwrap().balancer.members.len(), 2);
    let declined = of(true).unwrap_err();
    assert_eq!(declined.refusal.reason, Reason::PortInUse);
    assert!(
        declined.refusal.message.contains("port 53/UDP"),
        "{}",
        declined.refusal
    );
    assert!(
        declined.refusal.message.contains("older"),
        "{}",
        declined.refusal
    );
}

/// What a Service publishes, and what the provider thinks of it.
struct Row {
    what: &'static str,
    stage: Stage,
    /// The port that it asks for; the provider refuses 666.
    wants: Option<u16>,
    /// What is known of what it publishes, if anything is; and the ports of its status.
    published: Option<u16>,
    ports: &'static [u16],
    /// What is in each choice: whether it is a member, and whether it is kept.
    choices: &'static [(bool, bool)],
}

const REFUSED: u16 = 666;
const MEMBER: (bool, bool) = (true, false);
const KEPT: (bool, bool) = (false, true);
const ABSENT: (bool, bool) = (false, false);

const ROWS: &[Row] = &[
    Row {
        what: "all of it is accepted",
        stage: Stage::Placed,
        wants: Some(443),
        published: Some(443),
        ports: &[443],
        choices: &[MEMBER],
    },
    Row {
        what: "an edit is refused, and this process knows what was accepted",
        stage: Stage::Placed,
        wants: Some(REFUSED),
        published: Some(443),
        ports: &[443],
        choices: &[MEMBER],
    },
    Row {
        what: "all of it is refused: nobody knows what was accepted",
        stage: Stage::Placed,
        wants: Some(REFUSED),
        published: Some(REFUSED),
        ports: &[443],
        choices: &[KEPT],
    },
    Row {
        what: "the same where it may be on another balancer",
        stage: Stage::Unclear,
        wants: Some(REFUSED),
        published: Some(REFUSED),
        ports: &[443],
        choices: &[KEPT],
    },
    Row {
        what: "it asks for another balancer",
        stage: Stage::Placed,
        wants: None,
        published: Some(REFUSED),
        ports: &[443],
        choices: &[KEPT],
    },
    Row {
        what: "its edit is accepted, and what it publishes is not any more",
        stage: Stage::Placed,
        wants: Some(443),
        published: Some(REFUSED),
        ports: &[443],
        choices: &[MEMBER, KEPT],
    },
    Row {
        what: "it is refused and publishes nothing",
        stage: Stage::Stuck,
        wants: Some(REFUSED),
        published: None,
        ports: &[],
        choices: &[ABSENT],
    },
    Row {
        what: "it has no port any more that it publishes",
        stage: Stage::Placed,
        wants: Some(REFUSED),
        published: None,
        ports: &[443],
        choices: &[ABSENT],
    },
    Row {
        what: "it has had no turn",
        stage: Stage::Next,
        wants: Some(REFUSED),
        published: None,
        ports: &[],
        choices: &[ABSENT],
    },
];

fn of_port(service: &ServiceView, port: u16) -> LoadBalancer {
    let mut shape = service.load_balancer.clone().unwrap().unwrap();
    shape.listeners[0].port = port;
    shape
}

/// The balancer in the turn of a Service beside this one.
fn beside(row: &Row, own_port: u16) -> Result<Group, Declined> {
    let own = ServiceView::test("own")
        .created(1)
        .shares("front", own_port);
    let other = ServiceView::test("other").created(2).shares("front", 443);
    let sharers = vec![
        sharer(&own, Stage::Placed),
        Sharer {
            service: &other,
            stage: row.stage,
            wanted: row.wants.map(|port| of_port(&other, port)),
            published: row.published.map(|port| of_port(&other, port)),
            ports: row
                .ports
                .iter()
                .map(|port| (Protocol::Tcp, *port))
                .collect(),
        },
    ];
    let rules = Rules {
        member: &member,
        validate: &|balancer| {
            let members = balancer.members.iter();
            let mut ports = members.flat_map(|it| ports(&it.load_balancer));
            match ports.find(|(_, port)| *port == REFUSED) {
                Some(_) => Err(Refusal::new(Reason::Unsupported, "no")),
                None => Ok(()),
            }
        },
        one_listener_per_port: false,
        deletes_nothing: false,
    };
    group(&Key::Shared("front".into()), &own, sharers, &rules)
}

#[test]
fn whoever_publishes_ports_and_is_refused_keeps_what_it_has() {
    for row in ROWS {
        let group = beside(row, 80).unwrap();
        let all = std::iter::once(&group.balancer).chain(&group.fallbacks);
        let choices: Vec<(bool, bool)> = all
            .map(|balancer| {
                let mut members = balancer.members.iter();
                let is_member = members.any(|it| &*it.load_balancer.id.name == "other");
                let mut kept = balancer.kept.iter();
                (is_member, kept.any(|id| &*id.name == "other"))
            })
            .collect();
        assert_eq!(choices, row.choices, "{}", row.what);
        let kept = choices.contains(&KEPT);
        let taken = beside(row, 443).is_err_and(|it| it.refusal.reason == Reason::PortInUse);
        assert!(taken || !kept, "{}: its ports stay taken", row.what);
    }
}
