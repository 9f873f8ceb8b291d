//! What the members of one balancer do to each other: nothing.

use super::*;
use crate::fixtures::{LISTENERS, PureProvider, condition, ingress, listener};

/// A member of the balancer `front` that publishes these ports and wants others.
struct Sharing {
    ledger: Ledger,
    all: Vec<ServiceView>,
}

fn front() -> Key {
    Key::Shared("front".into())
}

fn shape(service: &mut ServiceView) -> &mut LoadBalancer {
    service.load_balancer.as_mut().unwrap().as_mut().unwrap()
}

fn publishing(mut service: ServiceView, ports: &[u16]) -> ServiceView {
    let mut entry = ingress("192.0.2.1", 80);
    let ports = ports.iter();
    entry.ports = ports
        .flat_map(|port| ingress("192.0.2.1", *port).ports)
        .collect();
    service.ingress = vec![entry];
    service
}

fn wanting(name: &str, created: i64, ports: &[u16]) -> ServiceView {
    let mut service = ServiceView::test(name)
        .created(created)
        .shares("front", 80)
        .held_by(&["local"]);
    shape(&mut service).listeners = ports.iter().map(|port| listener(*port)).collect();
    service
}

impl Sharing {
    fn new() -> Self {
        Self {
            ledger: Ledger::default(),
            all: Vec::new(),
        }
    }

    /// It is on the balancer.
    fn placed(mut self, service: ServiceView) -> Self {
        self.ledger.record_on(&service.id, "local", &front());
        self.all.push(service);
        self
    }

    /// It has had no turn.
    fn next(mut self, service: ServiceView) -> Self {
        self.all.push(service);
        self
    }

    fn decide(&self, name: &str, classes: &Classes) -> Decision {
        let mut all = self.all.iter();
        let service = all.find(|service| *service.id.name == *name).unwrap();
        decision(service, classes, &self.ledger, &self.all)
    }

    /// The members of the balancer in the turn of a Service, with their ports.
    fn members(&self, name: &str) -> Vec<(String, Vec<u16>)> {
        match self.decide(name, &local()) {
            Decision::Ensure { balancer, .. } => listed(&balancer),
            Decision::Refuse {
                keep: Some(keep), ..
            } => listed(&keep.balancer),
            other => panic!("{:?}", step_of(other)),
        }
    }

    fn step(&self, name: &str) -> Step {
        step_of(self.decide(name, &local()))
    }
}

fn listed(balancer: &Balancer) -> Vec<(String, Vec<u16>)> {
    let members = balancer.members.iter();
    let ports = |wanted: &LoadBalancer| wanted.listeners.iter().map(|it| it.port).collect();
    members
        .map(|it| {
            (
                it.load_balancer.id.name.to_string(),
                ports(&it.load_balancer),
            )
        })
        .collect()
}

fn of(members: &[(&str, &[u16])]) -> Vec<(String, Vec<u16>)> {
    let members = members.iter();
    members
        .map(|(name, ports)| ((*name).to_owned(), ports.to_vec()))
        .collect()
}

#[test]
fn an_invalid_member_harms_only_itself() {
    let world = Sharing::new()
        .placed(publishing(wanting("own", 2, &[80]), &[80]))
        .placed(publishing(wanting("bad", 1, &[443, 666]), &[443]))
        .placed(wanting("new", 3, &[666]));
    let both = of(&[("bad", &[443]), ("own", &[80])]);
    assert_eq!(world.members("own"), both);
    assert_eq!(world.step("bad"), Step::Refuse(Reason::Unsupported));
    assert_eq!(world.members("bad"), both, "it keeps what it publishes");
    assert_eq!(world.step("new"), Step::Refuse(Reason::Unsupported));
}

/// What was accepted is known in full as soon as this process has published it once.
#[test]
fn an_invalid_setting_keeps_the_settings_that_were_accepted() {
    let accepted = wanting("bad", 1, &[443]);
    let mut bad = publishing(accepted.clone(), &[443]);
    let other = "192.0.2.9".parse().unwrap();
    shape(&mut bad).listeners.push(listener(666));
    shape(&mut bad).requested_addresses.push(other);
    shape(&mut bad).listeners[0].node_port = 31_000;
    let setting = ("example.com/size".to_owned(), "wrong".to_owned());
    shape(&mut bad).settings.extend([setting]);
    let world = Sharing::new().placed(bad);
    let shape = accepted.load_balancer.unwrap().unwrap();
    world.ledger.publishing(&front(), "local", &shape);
    world.ledger.published(&front(), "local", &shape);
    let Decision::Refuse {
        keep: Some(keep), ..
    } = world.decide("bad", &local())
    else {
        panic!("nothing is kept")
    };
    let kept = &keep.balancer.members[0].load_balancer;
    assert!(kept.requested_addresses.is_empty() && kept.settings.is_empty());
    assert_eq!(
        (kept.listeners.len(), kept.listeners[0].node_port),
        (1, 31_000)
    );
}

/// A process that has just started does not know them. The Service has its ports and settings until it is accepted.
#[test]
fn what_nobody_knows_of_a_refused_member_stays() {
    let mut bad = publishing(wanting("bad", 1, &[443]), &[443]);
    let setting = ("example.com/size".to_owned(), "666".to_owned());
    shape(&mut bad).settings.extend([setting]);
    let world = Sharing::new()
        .placed(bad)
        .placed(publishing(wanting("own", 2, &[80]), &[80]))
        .next(wanting("newer", 3, &[443]));
    let Decision::Ensure { balancer, .. } = world.decide("own", &local()) else {
        panic!("it is not ensured");
    };
    assert_eq!(listed(&balancer), of(&[("own", &[80])]));
    assert_eq!(balancer.kept, BTreeSet::from([id("bad")]));
    assert_eq!(world.step("newer"), Step::Refuse(Reason::PortInUse));
    let Decision::Refuse { keep: None, .. } = world.decide("bad", &local()) else {
        panic!("nobody knows what to ensure");
    };
}

/// Each member is valid, and all together are not.
#[test]
fn a_member_that_grows_too_much_harms_only_itself() {
    let many: Vec<u16> = (1..=8).collect();
    assert_eq!(many.len(), LISTENERS);
    let world = Sharing::new()
        .placed(publishing(wanting("own", 2, &[80]), &[80]))
        .placed(publishing(wanting("big", 1, &many), &[1]));
    let both = of(&[("big", &[1]), ("own", &[80])]);
    assert_eq!(world.members("own"), both);
    assert_eq!(world.step("big"), Step::Refuse(Reason::QuotaExceeded));
    assert_eq!(world.members("big"), both);
}

/// The cloud may refuse what is valid.
#[test]
fn each_fallback_has_less_of_the_other_members() {
    let world = Sharing::new()
        .placed(publishing(wanting("own", 2, &[80, 81]), &[80]))
        .placed(publishing(wanting("grows", 1, &[443, 444]), &[443]))
        .placed(wanting("new", 3, &[53]));
    let Decision::Ensure {
        balancer,
        fallbacks,
        ..
    } = world.decide("own", &local())
    else {
        panic!("not ensured")
    };
    let own: &[u16] = &[80, 81];
    assert_eq!(
        listed(&balancer),
        of(&[("grows", &[443, 444]), ("own", own), ("new", &[53])])
    );
    assert_eq!(
        fallbacks.iter().map(listed).collect::<Vec<_>>(),
        [
            of(&[("grows", &[443]), ("own", own), ("new", &[53])]),
            of(&[("grows", &[443]), ("own", own)])
        ]
    );
}

#[test]
fn a_service_that_can_have_no_place_blocks_no_port() {
    // It has a place, because it moves here from another balancer.
    let world = || {
        let world = Sharing::new()
            .next(wanting("own", 9, &[80]))
            .placed(publishing(wanting("has", 8, &[443]), &[443]));
        world
            .ledger
            .record_on(&id("own"), "local", &Key::Shared("back".into()));
        world
    };
    let older = |name| wanting(name, 1, &[80]);
    let step = |classes: &Classes, world: Sharing| step_of(world.decide("own", classes));
    let (ensure, refused) = (Step::Ensure("local"), Step::Refuse(Reason::PortInUse));
    let places = |max| {
        Classes::test([ClassView {
            max: Some(max),
            ..ClassView::test("local")
        }])
    };
    let next = |service| world().next(service);
    assert_eq!(step(&places(2), next(older("outside"))), ensure, "quota");
    assert_eq!(step(&places(3), next(older("first"))), refused, "a place");
    assert_eq!(step(&local(), next(older("first"))), refused, "no limit");
    let unsupported = wanting("unsupported", 1, &[80, 666]);
    assert_eq!(step(&local(), next(unsupported)), ensure);
    let clashes = wanting("clashes", 1, &[80, 443]);
    assert_eq!(step(&local(), next(clashes)), ensure);
    let elsewhere = older("elsewhere").held_by(&["other"]);
    assert_eq!(step(&local(), next(elsewhere)), ensure, "is released first");
    let beside = |service| world().placed(service);
    let says = |name, reason| {
        let condition = condition(PROGRAMMED, "False", reason, "");
        older(name).saying(&[condition])
    };
    let stuck = says("stuck", Reason::AddressInUse);
    assert_eq!(
        step(&local(), beside(stuck)),
        ensure,
        "the cloud refuses it"
    );
    let slow = says("slow", Reason::Provisioning);
    assert_eq!(step(&local(), beside(slow)), refused, "it is being created");
}

/// Another Service is preferred, and nothing wakes this one if that Service fails.
#[test]
fn a_refusal_for_a_port_that_nobody_publishes_is_looked_at_again() {
    let provisional = |world: Sharing| match world.decide("own", &local()) {
        Decision::Refuse { provisional, .. } => provisional,
        other => panic!("{:?}", step_of(other)),
    };
    let own = || wanting("own", 9, &[80]);
    let other = || wanting("other", 1, &[80]);
    assert!(provisional(Sharing::new().next(own()).next(other())));
    assert!(provisional(Sharing::new().next(own()).placed(other())));
    let has = publishing(other(), &[80]);
    assert!(!provisional(Sharing::new().next(own()).placed(has)));
}

/// It would keep younger Services out as long as it exists.
#[test]
fn a_service_that_waits_for_a_port_takes_no_place_of_the_class() {
    let classes = Classes::test([ClassView {
        max: Some(2),
        ..ClassView::test("local")
    }]);
    let waits = |reason| {
        let says = condition(ACCEPTED, "False", reason, "no");
        Sharing::new()
            .placed(publishing(wanting("has", 2, &[80]), &[80]))
            .next(wanting("waits", 1, &[80]).saying(&[says]))
            .next(ServiceView::test("young").created(3))
    };
    let step = |reason| step_of(waits(reason).decide("young", &classes));
    assert_eq!(step(Reason::PortInUse), Step::Ensure("local"));
    assert_eq!(
        step(Reason::QuotaExceeded),
        Step::Refuse(Reason::QuotaExceeded),
        "it is the next"
    );
}

/// The store can be older than our own write.
#[test]
fn a_published_port_is_kept_although_the_store_does_not_show_it() {
    let young = wanting("young", 5, &[443]);
    let world = Sharing::new()
        .placed(wanting("old", 1, &[443]))
        .placed(young.clone());
    assert_eq!(world.step("old"), Step::Ensure("local"), "nobody has it");
    let shape = young.load_balancer.unwrap().unwrap();
    world.ledger.publishing(&front(), "local", &shape);
    assert_eq!(world.step("old"), Step::Refuse(Reason::PortInUse));
    assert_eq!(world.members("young"), of(&[("young", &[443])]));
}

/// The same if the store shows what it asked for and published before.
#[test]
fn a_member_has_what_it_published_last_although_the_store_is_older() {
    let young = publishing(wanting("young", 5, &[444]), &[444]);
    let world = Sharing::new()
        .placed(wanting("old", 1, &[444]))
        .placed(young.clone());
    let shape = wanting("young", 5, &[443]).load_balancer.unwrap().unwrap();
    world.ledger.publishing(&front(), "local", &shape);
    world.ledger.published(&front(), "local", &shape);
    let name = crate::cluster::view::Name::from(&young.id);
    world.ledger.wrote(&name, young.version + 1);
    assert_eq!(
        world.members("old"),
        of(&[("old", &[444]), ("young", &[443])])
    );
}

/// It publishes the address of the balancer that it leaves.
#[test]
fn a_refusal_during_a_move_keeps_the_balancer_of_the_published_address() {
    let back = Key::Shared("back".into());
    let moving = |world: &mut Sharing| {
        let before = publishing(wanting("own", 1, &[80]), &[80]);
        let mut after = before.clone().shares("back", 80);
        after.accepted_before = Some(Box::new(shape(&mut after).clone()));
        world.all = vec![after.refused(Reason::Invalid)];
        before.id
    };
    let kept = |world: &Sharing| match world.decide("own", &local()) {
        Decision::Refuse { keep, .. } => keep.map(|keep| keep.balancer.key),
        other => panic!("{:?}", step_of(other)),
    };
    let mut world = Sharing::new();
    let id = moving(&mut world);
    world.ledger.reserve(&id, "local", &front(), None);
    world.ledger.reserve(&id, "local", &back, None);
    assert_eq!(kept(&world), Some(front()));
    let arrived = wanting("own", 1, &[80]).load_balancer.unwrap().unwrap();
    world.ledger.publishing(&back, "local", &arrived);
    world.ledger.published(&back, "local", &arrived);
    assert_eq!(kept(&world), Some(back.clone()), "it has arrived");

    let mut world = Sharing::new();
    let id = moving(&mut world);
    world.ledger.record_on(&id, "local", &back);
    world.ledger.record_on(&id, "local", &front());
    assert_eq!(kept(&world), None, "a restarted process does not know");
}

/// It publishes its ports on the balancer that it leaves, not on this one.
#[test]
fn a_member_that_has_not_arrived_has_no_port_here() {
    let back = Key::Shared("back".into());
    let arriving = publishing(wanting("arriving", 1, &[80]), &[80]);
    let world = Sharing::new()
        .next(arriving.clone())
        .placed(publishing(wanting("own", 2, &[80]), &[80]));
    world.ledger.reserve(&arriving.id, "local", &back, None);
    world.ledger.reserve(&arriving.id, "local", &front(), None);
    assert_eq!(world.members("own"), of(&[("own", &[80])]));
    assert_eq!(world.step("arriving"), Step::Refuse(Reason::PortInUse));
}

/// Two classes of one cloud: the provider of each knows only its own addresses.
#[test]
fn an_address_that_another_class_published_cannot_be_requested() {
    let classes = |settings| {
        let other = ClassView::test("other").of_provider(Ok(settings));
        Classes::test([ClassView::test("local"), other])
    };
    let same = classes(crate::run::factory::samples::in_a_cloud());
    let asks = |ip: &str| {
        let mut service = web();
        shape(&mut service).requested_addresses = vec![ip.parse().unwrap()];
        service
    };
    let victim = ServiceView::test("victim")
        .class(Some("ballast.dev/other"))
        .publishing("192.0.2.7");
    let step = |service: &ServiceView, classes: &Classes, victim: &ServiceView| {
        let all = [service.clone(), victim.clone()];
        step_of(decision(service, classes, &Ledger::default(), &all))
    };
    let refused = Step::Refuse(Reason::AddressInUse);
    let ensure = Step::Ensure("local");
    assert_eq!(step(&asks("192.0.2.7"), &same, &victim), refused);
    assert_eq!(step(&asks("192.0.2.8"), &same, &victim), ensure);
    let leaving = victim.clone().held_by(&["other"]).deleting();
    assert_eq!(step(&asks("192.0.2.7"), &same, &leaving), refused);
    let pools = classes(crate::run::factory::samples::from_pools());
    assert_eq!(
        step(&asks("192.0.2.7"), &pools, &victim),
        ensure,
        "no cloud"
    );
    // The same cloud has two URLs, and one class has not heard yet that the cloud lost its state.
    for (one, other, expected) in [
        (&["a", "b"][..], &["a"][..], refused.clone()),
        (&["a"], &["b"], ensure.clone()),
        (&["a"], &[], ensure.clone()),
    ] {
        let mut by_url = classes(crate::run::factory::samples::in_another_cloud());
        for (name, clouds) in [("local", one), ("other", other)] {
            let ready = Instance::Ready(Arc::new(PureProvider(clouds)));
            by_url.instances.insert(name.to_owned(), ready);
        }
        let decided = step(&asks("192.0.2.7"), &by_url, &victim);
        assert_eq!(decided, expected, "{one:?} {other:?}");
    }
    let has = asks("192.0.2.7").publishing("192.0.2.7");
    assert_eq!(step(&has, &same, &victim), ensure, "it has it already");

    let serves = asks("192.0.2.7").publishing("192.0.2.1");
    let all = [serves.clone(), victim];
    let Decision::Ensure {
        balancer,
        objection,
        ..
    } = decision(&serves, &same, &Ledger::default(), &all)
    else {
        panic!("the rest of the update is blocked")
    };
    assert_eq!(objection.unwrap().reason, Reason::AddressInUse);
    let member = &balancer.members[0].load_balancer;
    assert!(member.requested_addresses.is_empty());
}
