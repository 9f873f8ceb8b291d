use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::mark::{self, KEEP, LAST_SEEN, ORPHANED_AT, RETAINED};
use ballast_provider::{Billed, Key, Kind, Mark, Owned, ServiceId};
use jiff::{SignedDuration, Timestamp};

use super::*;

mod copies;

const ME: &str = "me";
const GRACE: SignedDuration = SignedDuration::from_hours(24);
const HALF: SignedDuration = SignedDuration::from_hours(12);

/// A cloud whose tags change as the steps say, and the cluster.
struct World {
    now: Timestamp,
    objects: BTreeMap<String, Owned>,
    services: BTreeSet<ServiceId>,
    going: BTreeSet<ServiceId>,
    newest: Option<Timestamp>,
    policy: Policy,
    memory: Memory,
}

fn start() -> Timestamp {
    "2026-11-25T10:00:00Z".parse().unwrap()
}

fn id(name: &str) -> ServiceId {
    ServiceId {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-{name}").into(),
    }
}

fn mark(writer: &str) -> Mark {
    Mark {
        cluster: "c-1".into(),
        cluster_name: "lab".into(),
        class: "edge".into(),
        writer: writer.into(),
    }
}

fn names(objects: &[Owned]) -> Vec<&str> {
    objects.iter().map(|it| it.name.as_str()).collect()
}

impl World {
    fn new(delete: bool) -> Self {
        Self {
            now: start(),
            objects: BTreeMap::new(),
            services: BTreeSet::new(),
            going: BTreeSet::new(),
            newest: Some(start()),
            policy: Policy {
                delete,
                grace: GRACE,
                draining: false,
            },
            memory: Memory::default(),
        }
    }

    /// A load balancer of a Service, a day old, whose Service exists.
    fn serve(&mut self, name: &str) {
        self.plant(name, ME);
        self.services.insert(id(name));
    }

    /// The same without the Service.
    fn plant(&mut self, name: &str, writer: &str) {
        let born = start() - SignedDuration::from_hours(6);
        let mut tags = mark(writer).tags(&id(name));
        tags.extend(mark(writer).birth(born));
        let owned = Owned {
            billed: Billed {
                load_balancers: 1,
                public_addresses: 0,
            },
            ..Owned::new(Kind::LoadBalancer, name, name, tags)
        };
        self.objects.insert(name.to_owned(), owned);
    }

    fn tag(&mut self, name: &str, key: &str, value: &str) {
        let object = self.objects.get_mut(name).unwrap();
        object.tags.insert(key.to_owned(), value.to_owned());
    }

    fn wait(&mut self, time: SignedDuration) {
        self.now = self.now.checked_add(time).unwrap();
    }

    /// Chooses, and writes the tags.
    fn look(&mut self) -> Steps {
        let objects: Vec<Owned> = self.objects.values().cloned().collect();
        let (services, going) = (self.services.clone(), self.going.clone());
        let look = Look {
            objects: &objects,
            exists: &|id| services.contains(id),
            going: &|id| going.contains(id),
            newest: self.newest,
            writer: ME,
            policy: self.policy,
            now: self.now,
        };
        let steps = decide(&look, &mut self.memory);
        let sign = mark(ME).sign(self.now).to_string();
        for one in &steps.sign {
            self.tag(&one.name, LAST_SEEN, &sign);
        }
        for one in &steps.tag {
            self.tag(&one.name, ORPHANED_AT, &sign);
        }
        for one in &steps.clear {
            let object = self.objects.get_mut(&one.name).unwrap();
            object.tags.remove(ORPHANED_AT);
        }
        steps
    }

    fn gone(&mut self) -> Vec<String> {
        let steps = self.look();
        let gone = steps.gone.iter().map(|(id, _)| id.name.to_string());
        gone.collect()
    }
}

#[test]
fn an_orphan_is_only_reported_unless_the_class_asks_for_more() {
    let mut world = World::new(false);
    world.serve("web");
    world.plant("left", ME);
    for _ in 0..5 {
        let steps = world.look();
        assert_eq!((steps.tag, steps.gone), (vec![], vec![]));
        let [one] = &steps.found.orphans[..] else {
            panic!("{:?}", steps.found);
        };
        assert_eq!((&*one.name, one.verdict), ("left", Verdict::Reported));
        assert_eq!(steps.found.billed().load_balancers, 1);
        world.wait(GRACE);
    }
    insta::assert_snapshot!(world.look().found.message("--region eu-central-1"), @"1 load balancer has no Service in this cluster and costs about $16.43 a month: left (Service shop/left). `ballast orphans --region eu-central-1 --compare --delete` deletes them; `spec.orphans: Delete` makes Ballast do it");
}

#[test]
fn two_surveys_and_the_grace_prove_that_a_service_is_gone() {
    let mut world = World::new(true);
    world.serve("web");
    world.plant("left", ME);
    let steps = world.look();
    assert_eq!(names(&steps.tag), ["left"]);
    assert_eq!(
        steps.found.orphans[0].verdict,
        Verdict::Due(start() + GRACE)
    );
    world.wait(HALF);
    assert_eq!(world.gone(), Vec::<String>::new(), "within the grace");
    world.wait(HALF);
    assert_eq!(world.gone(), ["left"]);
    world.wait(SignedDuration::from_secs(1));
    assert_eq!(world.gone(), ["left"], "until it is gone");
    assert!(world.objects["web"].orphaned_at().is_none());
}

/// A new process has the tag of the former one, and finds out for itself. It does not know how many the former one
/// has deleted within the hour.
#[test]
fn a_new_process_deletes_nothing_within_its_first_hour() {
    let mut world = World::new(true);
    world.serve("web");
    world.plant("left", ME);
    world.look();
    world.wait(GRACE * 3);
    world.memory = Memory::default();
    assert_eq!(world.gone(), Vec::<String>::new(), "the first one");
    let minutes = SignedDuration::from_mins;
    world.wait(minutes(59));
    let steps = world.look();
    assert_eq!(steps.gone, vec![], "the former one's hour is not over");
    let due = start() + GRACE * 3 + minutes(60);
    assert_eq!(steps.found.orphans[0].verdict, Verdict::Due(due));
    world.wait(minutes(1));
    assert_eq!(world.gone(), ["left"]);
}

#[test]
fn a_service_that_returns_keeps_its_load_balancer() {
    let mut world = World::new(true);
    world.serve("web");
    world.plant("back", ME);
    world.look();
    world.services.insert(id("back"));
    world.wait(GRACE);
    let steps = world.look();
    assert_eq!(names(&steps.clear), ["back"]);
    assert_eq!((steps.gone, steps.found), (vec![], Found::default()));
    world.services.remove(&id("back"));
    world.wait(HALF);
    assert_eq!(world.gone(), Vec::<String>::new(), "the grace begins anew");
}

#[test]
fn what_people_want_to_keep_is_none() {
    let mut world = World::new(true);
    world.serve("web");
    for (name, key) in [("kept", KEEP), ("retained", RETAINED)] {
        world.plant(name, ME);
        world.tag(name, key, "yes");
    }
    world.look();
    world.wait(GRACE * 2);
    let steps = world.look();
    assert_eq!((steps.gone, steps.tag), (vec![], vec![]));
    assert_eq!(steps.found.orphans, []);
    assert_eq!(steps.found.kept, ["kept"]);
    assert_eq!(steps.found.retained, ["retained"]);
}

#[test]
fn a_tag_to_keep_it_counts_until_the_last_moment() {
    let mut world = World::new(true);
    world.serve("web");
    world.plant("left", ME);
    world.look();
    world.wait(GRACE);
    world.tag("left", KEEP, "");
    let steps = world.look();
    assert_eq!((steps.gone, names(&steps.clear)), (vec![], vec!["left"]));
}

#[test]
fn more_than_is_plausible_stops_all_of_it() {
    for (orphans, live, expected) in [
        (3, 1, true),
        (4, 1, false),
        (4, 36, true),
        (4, 35, false),
        (5, 44, false),
        (5, 45, true),
    ] {
        let mut world = World::new(true);
        (0..live).for_each(|number| world.serve(&format!("web-{number}")));
        (0..orphans).for_each(|number| world.plant(&format!("left-{number}"), ME));
        world.look();
        world.wait(GRACE);
        let steps = world.look();
        let gone = steps.gone.len();
        assert_eq!(
            gone,
            if expected { orphans } else { 0 },
            "{orphans} of {live}"
        );
        let halted = matches!(steps.found.halt, Some(Halt::Breaker { .. }));
        assert_eq!(halted, !expected, "{:?}", steps.found.halt);
    }
}

/// Deletions of the same hour count together, however they are spread.
#[test]
fn the_breaker_counts_an_hour() {
    let mut world = World::new(true);
    world.serve("web");
    for number in 0..5 {
        world.plant(&format!("left-{number}"), ME);
        world.look();
        world.wait(SignedDuration::from_mins(5));
    }
    world.wait(GRACE - SignedDuration::from_mins(25));
    let mut all = Vec::new();
    for _ in 0..5 {
        let gone = world.gone();
        for name in &gone {
            world.objects.remove(name);
        }
        all.extend(gone);
        world.wait(SignedDuration::from_mins(5));
    }
    assert_eq!(all, ["left-0", "left-1", "left-2"]);
    world.wait(SignedDuration::from_hours(1));
    assert_eq!(world.gone(), ["left-3", "left-4"]);
}

#[test]
fn an_empty_list_of_services_deletes_nothing() {
    let mut world = World::new(true);
    world.newest = None;
    world.plant("left", ME);
    world.look();
    world.wait(GRACE * 2);
    let steps = world.look();
    assert_eq!(
        (steps.gone, steps.found.halt),
        (vec![], Some(Halt::NoServices))
    );
}

#[test]
fn what_is_younger_than_every_service_is_only_reported() {
    let mut world = World::new(true);
    world.serve("web");
    world.plant("later", ME);
    world.newest = Some(start() - SignedDuration::from_hours(7));
    world.look();
    world.wait(GRACE * 2);
    let steps = world.look();
    assert_eq!((steps.gone, steps.tag), (vec![], vec![]));
    assert_eq!(steps.found.orphans[0].verdict, Verdict::Younger);
    // So is what does not say when it was created.
    let object = world.objects.get_mut("later").unwrap();
    object.created = None;
    world.newest = Some(world.now);
    assert_eq!(world.look().found.orphans[0].verdict, Verdict::Younger);
}

#[test]
fn signs_of_life_come_in_daily_batches() {
    let mut world = World::new(false);
    world.serve("a");
    world.serve("b");
    world.plant("left", ME);
    assert_eq!(
        names(&world.look().sign),
        ["a"],
        "one of them is always fresh"
    );
    world.wait(SignedDuration::from_mins(24));
    assert_eq!(world.look().sign, vec![]);
    world.wait(SignedDuration::from_hours(7));
    world.tag("b", LAST_SEEN, &mark(ME).sign(world.now).to_string());
    world.wait(SignedDuration::from_hours(11));
    assert_eq!(names(&world.look().sign), ["a"], "b is not old enough");
    world.wait(SignedDuration::from_hours(14));
    assert_eq!(
        names(&world.look().sign),
        ["a", "b"],
        "together, and no orphan"
    );
    let without = world.objects.get_mut("a").unwrap();
    without.tags.remove(LAST_SEEN);
    world.wait(SignedDuration::from_mins(1));
    assert_eq!(names(&world.look().sign), ["a"], "of an older version");
}

#[test]
fn what_is_being_released_is_not_tagged() {
    let mut world = World::new(true);
    world.serve("web");
    world.plant("going", ME);
    world.going.insert(id("going"));
    let steps = world.look();
    assert_eq!((steps.tag, steps.gone), (vec![], vec![]));
    assert_eq!(steps.found.orphans, [], "it takes a moment");
    world.wait(HALF);
    let steps = world.look();
    assert_eq!((steps.tag, steps.gone), (vec![], vec![]));
    assert_eq!(steps.found.orphans[0].verdict, Verdict::Deleted);
}

#[test]
fn a_class_that_is_drained_waits_for_nothing() {
    let mut world = World::new(false);
    world.newest = None;
    (0..9).for_each(|number| world.plant(&format!("left-{number}"), ME));
    world.plant("kept", ME);
    world.tag("kept", KEEP, "");
    world.policy.draining = true;
    assert_eq!(world.gone().len(), 9);
}

/// On a load balancer of several Services, the one that is gone leaves only its target group.
#[test]
fn a_member_that_is_gone_is_an_orphan_beside_the_others() {
    let mut world = World::new(true);
    world.services.insert(id("web"));
    let key = Key::Shared("shop/front".into());
    let mut add = |name: &str, kind, of: &str| {
        let mut tags = mark(ME).tags_on(&key, &id(of));
        tags.extend(mark(ME).birth(start()));
        let owned = Owned::new(kind, name, name, tags);
        world.objects.insert(name.to_owned(), owned);
    };
    add("front", Kind::LoadBalancer, "left");
    add("group", Kind::SecurityGroup, "left");
    add("left-80", Kind::TargetGroup, "left");
    add("web-80", Kind::TargetGroup, "web");
    let steps = world.look();
    assert_eq!(names(&steps.tag), ["left-80"]);
    let [one] = &steps.found.orphans[..] else {
        panic!("{:?}", steps.found);
    };
    assert_eq!((&one.id, one.billed), (&id("left"), Billed::default()));
    world.newest = Some(start() + SignedDuration::from_secs(1));
    world.wait(GRACE);
    assert_eq!(world.look().gone, [(id("left"), key)]);
}

#[test]
fn objects_that_name_no_service_are_told_apart() {
    let mut world = World::new(true);
    world.serve("web");
    world.plant("who", ME);
    let tags = &mut world.objects.get_mut("who").unwrap().tags;
    tags.remove(mark::SERVICE);
    let tags = tags.clone();
    let who = Owned::new(Kind::LoadBalancer, "who", "who", tags.clone());
    world.objects.insert("who".to_owned(), who);
    let backend = Owned::new(Kind::SecurityGroup, "backend", "backend", tags);
    world.objects.insert("backend".to_owned(), backend);
    world.wait(GRACE);
    let steps = world.look();
    assert_eq!(steps.found.unnamed, ["who"]);
    assert_eq!(names(&steps.sign), ["backend", "web"]);
}
