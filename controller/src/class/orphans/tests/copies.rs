//! Two clusters with one UID, and two processes of one cluster.

use super::*;

#[test]
fn a_sign_of_somebody_else_stops_all_of_it() {
    for key in [LAST_SEEN, ORPHANED_AT] {
        let mut world = World::new(true);
        world.serve("web");
        world.plant("left", ME);
        world.look();
        world.wait(HALF);
        let theirs = mark("other").sign(world.now).to_string();
        world.tag("web", key, &theirs);
        world.wait(HALF);
        let steps = world.look();
        assert_eq!(steps.gone, vec![], "{key}");
        assert_eq!(steps.found.shared.as_deref(), Some("web"));
        assert!(steps.found.shared_message().is_some());
        assert_eq!(steps.found.orphans[0].verdict, Verdict::Reported);
        let message = steps.found.shared_message().unwrap();
        assert_eq!(Found::object_in(&message), "web");
        // It is answered. Three days after that the other one is no longer there.
        world.wait(SignedDuration::from_hours(12));
        world.look();
        assert!(world.objects["web"].tags[LAST_SEEN].ends_with("/me"));
        assert!(world.objects["web"].orphaned_at().is_none());
        world.wait(SignedDuration::from_hours(59));
        assert!(world.look().found.shared.is_some());
        world.wait(SignedDuration::from_hours(24));
        assert_eq!(world.look().found.shared, None);
    }
}

#[test]
fn the_former_leader_is_nobody_else() {
    let mut world = World::new(true);
    world.serve("web");
    world.plant("late", "former");
    world.look();
    // Its last write, which no list has shown so far.
    world.plant("last", "former");
    let sign = mark("former").sign(start() + SignedDuration::from_secs(30));
    world.tag("last", LAST_SEEN, &sign.to_string());
    world.wait(HALF);
    assert_eq!(world.look().found.shared, None);
}

/// The API server of a copy ends with the backup. What was written later is the original's.
#[test]
fn what_was_written_after_the_last_lease_is_somebody_elses() {
    let former = start() - SignedDuration::from_hours(6);
    for (later, shared) in [(1, false), (3, true)] {
        let mut world = World::new(true);
        world.memory = Memory::new(Some(former));
        world.serve("web");
        world.plant("left", "former");
        let at = former + SignedDuration::from_mins(later);
        let sign = mark("former").sign(at).to_string();
        world.tag("left", LAST_SEEN, &sign);
        let steps = world.look();
        assert_eq!(steps.found.shared.is_some(), shared, "{later}");
    }
}

/// The original and its copy: the copy lacks a Service that came later.
#[test]
fn a_copy_deletes_nothing_of_its_original() {
    let mut original = World::new(true);
    original.serve("web");
    let mut copy = World::new(true);
    copy.services = original.services.clone();
    original.serve("later");
    let mut shared = 0;
    let started = original.now;
    for hour in 0..200 {
        let now = started + SignedDuration::from_mins(30 * hour);
        (original.now, copy.now) = (now, now);
        // Each writes as itself.
        let objects = original.objects.clone();
        shared += usize::from(original.look().found.shared.is_some());
        copy.objects = original.objects.clone();
        let look = Look {
            objects: &copy.objects.values().cloned().collect::<Vec<_>>(),
            exists: &|id| copy.services.contains(id),
            going: &|_| false,
            newest: Some(now),
            writer: "copy",
            policy: copy.policy,
            now,
        };
        let steps = decide(&look, &mut copy.memory);
        assert_eq!(steps.gone, vec![], "after {hour} half hours");
        shared += usize::from(steps.found.shared.is_some());
        let sign = mark("copy").sign(now).to_string();
        for one in &steps.sign {
            original.tag(&one.name, LAST_SEEN, &sign);
        }
        for one in &steps.tag {
            original.tag(&one.name, ORPHANED_AT, &sign);
        }
        assert_eq!(objects.len(), 2);
    }
    assert!(shared > 100, "both of them say so: {shared}");
}

/// Both have the same Services: each must see the other, whoever surveys first.
#[test]
fn each_of_two_clusters_with_one_uid_sees_the_other() {
    let mut one = World::new(true);
    one.serve("web");
    let mut other = Memory::default();
    let (mut mine, mut theirs) = (0, 0);
    for half_hour in 0..400 {
        one.now = start() + SignedDuration::from_mins(30 * half_hour);
        mine += usize::from(one.look().found.shared.is_some());
        let objects: Vec<Owned> = one.objects.values().cloned().collect();
        let services = one.services.clone();
        let look = Look {
            objects: &objects,
            exists: &|id| services.contains(id),
            going: &|_| false,
            newest: one.newest,
            writer: "other",
            policy: one.policy,
            now: one.now,
        };
        let steps = decide(&look, &mut other);
        theirs += usize::from(steps.found.shared.is_some());
        for signed in &steps.sign {
            let sign = mark("other").sign(one.now).to_string();
            one.tag(&signed.name, LAST_SEEN, &sign);
        }
    }
    assert!(mine > 250 && theirs > 250, "{mine} {theirs}");
}

/// The other one's load balancers are not signed here, so its last sign stays on them. Services are released again once
/// it has been silent for three days; what it alone has is only reported.
#[test]
fn what_the_other_one_alone_has_is_never_deleted() {
    let former = start() - SignedDuration::from_hours(24);
    let mut world = World::new(true);
    world.memory = Memory::new(Some(former));
    world.serve("web");
    world.plant("theirs", "other");
    for day in 0..20 {
        let steps = world.look();
        assert_eq!((steps.gone, steps.tag), (vec![], vec![]));
        assert_eq!(steps.found.shared.is_some(), day < 3, "day {day}");
        assert_eq!(steps.found.orphans[0].verdict, Verdict::Reported);
        world.wait(SignedDuration::from_hours(24));
    }
}
