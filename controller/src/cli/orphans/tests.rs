use ballast_provider::mark::{CLUSTER, KEEP, RETAINED, SERVICE};
use ballast_provider::{Billed, Kind, Mark, Owned, ServiceId};
use jiff::SignedDuration;

use super::choose::{ChoiceError, choose};
use super::report::{Live, Signs, State};
use super::sweep::Swept;
use super::*;

const DAY: Duration = Duration::from_hours(24);

fn now() -> Timestamp {
    "2026-11-25T10:00:00Z".parse().unwrap()
}

fn mark(cluster: &str) -> Mark {
    Mark {
        cluster: format!("uid-{cluster}"),
        cluster_name: cluster.to_owned(),
        class: "edge".to_owned(),
        writer: "1".to_owned(),
    }
}

fn id(name: &str) -> ServiceId {
    ServiceId {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-{name}").into(),
    }
}

/// A load balancer with a target group, last seen so many days ago.
fn balancer(cluster: &str, name: &str, days: i64) -> Vec<Owned> {
    let seen = now() - SignedDuration::from_hours(24 * days);
    let mut tags = mark(cluster).tags(&id(name));
    tags.extend(mark(cluster).birth(seen));
    let billed = Billed {
        load_balancers: 1,
        public_addresses: 2,
    };
    let first = Owned::new(
        Kind::LoadBalancer,
        format!("arn:{name}"),
        format!("bl-{name}"),
        tags,
    );
    let group = Owned {
        kind: Kind::TargetGroup,
        id: format!("arn:{name}-80"),
        name: format!("tg-{name}"),
        ..first.clone()
    };
    vec![group, Owned { billed, ..first }]
}

fn with(mut objects: Vec<Owned>, key: &str, value: Option<&str>) -> Vec<Owned> {
    for object in &mut objects {
        match value {
            Some(value) => object.tags.insert(key.to_owned(), value.to_owned()),
            None => object.tags.remove(key),
        };
        let Owned { kind, id, name, .. } = object.clone();
        let new = Owned::new(kind, id, name, object.tags.clone());
        *object = Owned {
            billed: object.billed,
            ..new
        };
    }
    objects
}

fn report(objects: &[Owned], live: Option<&Live>) -> Report {
    let account = "AWS account 123456789012, region eu-central-1".to_owned();
    Report::of(account, objects, live, &Signs::of(objects), 3 * DAY, now())
}

/// A cluster that is gone, with what people keep, and one that exists.
fn example() -> Vec<Owned> {
    [
        balancer("old", "web", 9),
        balancer("old", "api", 5),
        with(balancer("old", "kept", 9), KEEP, Some("")),
        with(balancer("old", "retained", 9), RETAINED, Some("")),
        with(balancer("old", "lost", 9), SERVICE, None),
        balancer("new", "shop", 1),
        with(balancer("old", "mine", 9), CLUSTER, None),
    ]
    .concat()
}

#[test]
fn the_list_groups_by_cluster() {
    let text = render::text(&[report(&example(), None)], &Prices::AWS, look(false));
    insta::assert_snapshot!(text);
}

#[test]
fn programs_and_spreadsheets_get_the_same() {
    let report = report(&balancer("old", "web", 9), None);
    insta::assert_snapshot!(
        "json",
        render::json(std::slice::from_ref(&report), &Prices::AWS).unwrap()
    );
    insta::assert_snapshot!("csv", render::csv(&[report], &Prices::AWS));
}

/// Whoever may write tags must not run anything on the machine of whoever reads them.
#[test]
fn text_of_tags_is_text() {
    let mut evil = balancer("old", "web", 9);
    for object in &mut evil {
        object.name = "=cmd|' /C calc'!A0,\"x\"\u{1b}[2J".to_owned();
    }
    let report = report(&evil, None);
    let csv = render::csv(std::slice::from_ref(&report), &Prices::AWS);
    assert!(csv.contains("\"'=cmd|' /C calc'!A0,\"\"x\"\""), "{csv}");
    let text = render::text(&[report], &Prices::AWS, look(false));
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_cluster_is_gone_after_its_silence() {
    for (days, state) in [(2, State::Alive), (3, State::Gone)] {
        let report = report(&balancer("old", "web", days), None);
        assert_eq!(report.clusters[0].items[0].state, state, "{days}");
        assert_eq!(report.is_anything_left(), state == State::Gone);
    }
    // One sign of life is enough for all of it.
    let both = [balancer("old", "web", 9), balancer("old", "api", 0)].concat();
    assert!(!report(&both, None).is_anything_left());
    let unmarked = with(balancer("old", "web", 0), "ballast.dev/last-seen", None);
    assert!(report(&unmarked, None).is_anything_left(), "never seen");
}

#[test]
fn the_current_cluster_says_which_services_exist() {
    let live = Live {
        cluster: "uid-new".to_owned(),
        services: ["uid-shop".to_owned()].into(),
    };
    let objects = [
        balancer("new", "shop", 9),
        balancer("new", "left", 9),
        balancer("new", "late", 1),
        balancer("old", "web", 9),
    ];
    let report = report(&objects.concat(), Some(&live));
    let states = |cluster: &str| -> Vec<(String, State)> {
        let one = report
            .clusters
            .iter()
            .find(|it| it.name == cluster)
            .unwrap();
        let items = one.items.iter();
        items.map(|it| (it.name().to_owned(), it.state)).collect()
    };
    let of = |name: &str, state| (name.to_owned(), state);
    assert_eq!(
        states("new"),
        [
            of("bl-late", State::NoService),
            of("bl-left", State::NoService),
            of("bl-shop", State::InUse)
        ]
    );
    assert_eq!(states("old"), [of("bl-web", State::Gone)]);
    // Fresh signs may be those of a copy.
    let deletes = |force_live| {
        let choice = Choice {
            force_live,
            compare: true,
            ..Choice::default()
        };
        let plan = choose(&report, &choice).unwrap().unwrap();
        assert_eq!(plan.cluster.name, "new", "the current one");
        let names = plan.items.iter().map(|it| it.name().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(deletes(false), ["bl-left"]);
    assert_eq!(deletes(true), ["bl-late", "bl-left"]);
    // A wrong context of the kubeconfig must not delete another cluster's.
    for force_live in [false, true] {
        let choice = Choice {
            cluster: Some("old"),
            force_live,
            compare: true,
        };
        let other = choose(&report, &choice);
        assert!(
            matches!(other, Err(ChoiceError::NotCurrent(_))),
            "{other:?}"
        );
    }
    // A Service that comes before the deletion keeps its load balancer.
    let choice = Choice {
        compare: true,
        ..Choice::default()
    };
    let plan = choose(&report, &choice).unwrap().unwrap();
    let mut later = live.clone();
    assert_eq!(plan.without(&later), Some(plan.clone()));
    later.services.insert("uid-left".to_owned());
    assert_eq!(plan.without(&later), None);
}

#[test]
fn a_plan_is_for_one_cluster_that_is_gone() {
    let plan = |objects: &[Vec<Owned>], cluster: Option<&str>, force_live| {
        let choice = Choice {
            cluster,
            force_live,
            compare: false,
        };
        let plan = choose(&report(&objects.concat(), None), &choice);
        plan.map(|plan| {
            plan.map(|plan| {
                let names = plan.items.iter().map(|it| it.name().to_owned());
                (names.collect::<Vec<_>>(), plan.stays.len())
            })
        })
    };
    let names = |names: &[&str], stays| {
        let names = names.iter().map(|it| (*it).to_owned()).collect();
        Ok(Some((names, stays)))
    };
    let all = [example()];
    assert_eq!(plan(&all, None, false), names(&["bl-api", "bl-web"], 3));
    assert_eq!(
        plan(&all, Some("uid-old"), false),
        names(&["bl-api", "bl-web"], 3)
    );
    assert_eq!(plan(&all, Some("nobody"), false), Ok(None));
    assert!(matches!(
        plan(&all, Some("new"), false),
        Err(ChoiceError::Alive(..))
    ));
    assert_eq!(plan(&all, Some("new"), true), names(&["bl-shop"], 0));
    assert!(matches!(
        plan(&all, None, true),
        Err(ChoiceError::Several(..))
    ));
    let nameless = [with(
        balancer("old", "web", 9),
        "ballast.dev/cluster-name",
        Some("kubernetes"),
    )];
    assert_eq!(
        plan(&nameless, Some("kubernetes"), true),
        Ok(None),
        "no name"
    );
    let two = [balancer("old", "web", 9), balancer("older", "api", 9)];
    assert!(matches!(
        plan(&two, None, false),
        Err(ChoiceError::Several(..))
    ));
    let unmarked = [with(
        balancer("old", "web", 9),
        "ballast.dev/last-seen",
        None,
    )];
    assert!(matches!(
        plan(&unmarked, None, false),
        Err(ChoiceError::NeverSeen(_))
    ));
    assert_eq!(plan(&unmarked, None, true), names(&["bl-web"], 0));
    let kept = [with(balancer("old", "web", 9), KEEP, Some(""))];
    assert_eq!(
        plan(&kept, Some("old"), true),
        Ok(None),
        "whatever people say"
    );
}

#[test]
fn the_plan_and_its_end_are_shown() {
    let report = report(&example(), None);
    let plan = choose(&report, &Choice::default()).unwrap().unwrap();
    insta::assert_snapshot!(render::plan(&plan, &report, &Prices::AWS));
    let swept = Swept {
        deleted: vec!["bl-web".to_owned()],
        left: vec![("bl-api".to_owned(), "it serves".to_owned())],
    };
    insta::assert_snapshot!("swept", render::swept(&report, &swept));
}
