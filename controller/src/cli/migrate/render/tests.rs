use super::super::convert::{Choice, convert};
use super::super::source::Source;
use super::*;

fn migration() -> Migration {
    let mut source = Source::default();
    source
        .read("{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: front}, spec: {addresses: [192.0.2.0/28]}}\n---\n{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: all}}\n")
        .unwrap();
    convert(
        &source,
        Choice {
            class: "metallb",
            default: true,
        },
    )
}

#[test]
fn services_with_the_commands_below() {
    let line = |name: &str, outcome, why: &str, commands: &[&str]| ServiceLine {
        namespace: "shop".into(),
        name: name.into(),
        addresses: vec!["192.0.2.3".into()],
        outcome,
        why: why.into(),
        commands: commands.iter().map(|&it| it.to_owned()).collect(),
    };
    let lines = [
        line("web", Outcome::Keeps, "", &[]),
        line(
            "classy",
            Outcome::ByHand,
            "its class cannot be changed",
            &["one", "two"],
        ),
    ];
    insta::assert_snapshot!(services(&lines, Look::default()));
    assert_eq!(services(&[], Look::default()), "");
}

#[test]
fn what_to_do_next_is_said() {
    let running = Running {
        controllers: vec![
            "Deployment m/controller".into(),
            "Pod m/controller-1".into(),
        ],
        speakers: vec!["DaemonSet m/speaker".into()],
        lb_class: None,
    };
    let gone = Running {
        controllers: vec![],
        ..running.clone()
    };
    let stopping = Running {
        controllers: vec!["Pod m/controller-1".into()],
        ..running.clone()
    };
    let other = Blocked::OtherDefault("local".into());
    let its_own = Blocked::ClassOfItsOwn("metallb.io/x".into());
    let mut all = String::new();
    for (blocked, running) in [
        (None, &gone),
        (Some(&Blocked::ControllerRuns), &running),
        (Some(&Blocked::ControllerRuns), &stopping),
        (Some(&Blocked::TwoWriters), &running),
        (Some(&Blocked::TwoWriters), &stopping),
        (Some(&other), &gone),
        (Some(&its_own), &gone),
        (Some(&Blocked::Failed), &gone),
    ] {
        for line in next(&migration(), blocked, running, "ballast") {
            all.extend([&line, "\n"]);
        }
        all.push('\n');
    }
    insta::assert_snapshot!(all);
    let nothing = Migration::default();
    assert_eq!(next(&nothing, None, &gone, "ballast").len(), 1);
}
