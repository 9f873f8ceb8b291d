//! Two processes of one node: the older one hears nobody.

use ballast_announce::claim::Claim;
use ballast_announce::holding::State;
use ballast_announce::io::Body;
use ballast_announce::{Input, Output};

use crate::lone::{Lone, address, announced, cluster, name};

const REPLACED: Input = Input::Replaced { replaced: true };
const RESUMED: Input = Input::Replaced { replaced: false };

fn claim(epoch: u64, holder: usize) -> Claim {
    crate::lone::claim(epoch, holder, &[0, 2])
}

fn sent(out: &[Output]) -> usize {
    let sent = out.iter().filter(|it| matches!(it, Output::Send { .. }));
    sent.count()
}

/// A node that holds one address and succeeds another node for a second one.
fn pair() -> Lone {
    let services = [(address(0), cluster()), (address(1), cluster())];
    let mut lone = Lone::with_services(3, &services);
    lone.input(Input::Holdings(vec![
        (address(0), claim(3, 0)),
        (address(1), claim(1, 1)),
    ]));
    for sequence in 1..6 {
        lone.beat(1, sequence);
        lone.run(500);
    }
    assert!(lone.answers(0));
    assert!(!lone.node.cables().is_empty());
    lone
}

#[test]
fn a_replaced_process_answers_and_decides_nothing() {
    let mut lone = pair();
    let before = lone.node.claims().get(&address(0)).cloned();
    lone.input(REPLACED);
    assert!(lone.node.cables().is_empty());
    // All of its peers seem to be silent.
    let out = lone.run(60_000);
    assert!(lone.answers(0));
    assert!(!lone.answers(1), "it does not stand in");
    assert_eq!(sent(&out), 0);
    let decided = |it: &Output| matches!(it, Output::Record(_) | Output::Claimed { .. });
    assert!(!out.iter().any(decided));
    assert_eq!(lone.node.claims().get(&address(0)).cloned(), before);
    // A new Service is a matter of the newer process.
    lone.view.wanted.insert(address(2), cluster());
    lone.see();
    lone.run(5000);
    assert_eq!(lone.node.state(&address(2)), State::Idle);
}

#[test]
fn a_replaced_process_withdraws_what_another_node_has() {
    let mut lone = pair();
    lone.input(REPLACED);
    lone.run(1000);
    lone.input(Input::Holdings(vec![(address(0), claim(4, 1))]));
    // It meets the other holder by a probe.
    lone.run(1000);
    assert!(!lone.answers(0));
}

/// The newer process ended: this one goes on, under another name, because peers ignore its former
/// one.
#[test]
fn a_process_resumes_when_the_newer_one_ends() {
    let mut lone = pair();
    let incarnation = |out: &[Output]| {
        out.iter().find_map(|output| match output {
            Output::Send { message, .. } => Some(message.stamp),
            _ => None,
        })
    };
    let first = incarnation(&lone.run(1000)).unwrap();
    lone.input(REPLACED);
    lone.run(10_000);
    lone.input(RESUMED);
    let out = lone.run(1000);
    let next = incarnation(&out).unwrap();
    assert_ne!(next.incarnation, first.incarnation);
    assert_eq!(next.sequence, 1);
    assert!(lone.answers(0), "without a pause");
    assert_eq!(announced(&out), [], "nothing moved");
    assert!(
        !lone.answers(1),
        "nobody is suspected for what was not heard"
    );
    let told = out.iter().any(|output| match output {
        Output::Send { message, .. } => match &message.body {
            Body::Beat { claims, .. } => claims.iter().any(|it| it.0 == address(0)),
            _ => false,
        },
        _ => false,
    });
    assert!(told, "whoever knows a better claim answers");
    assert!(out.iter().any(|it| matches!(it, Output::Record(_))));
    // Now it can hear, and node 1 is silent.
    lone.run(4000);
    assert!(lone.answers(1), "it stands in");
}

/// Both sides of a split claimed an address that nobody had.
#[test]
fn of_two_claims_of_one_epoch_the_winner_says_so() {
    let mut lone = Lone::with_services(3, &[(address(0), cluster())]);
    lone.run(20_000);
    assert!(lone.answers(0));
    let healed = |lone: &mut Lone| {
        lone.run(100).into_iter().find_map(|output| match output {
            Output::Healed { epoch, rival, .. } => Some((epoch, rival)),
            _ => None,
        })
    };
    // A third node's memory is no rival, and neither is a former holder.
    lone.beat_with(2, 1, vec![(address(0), claim(1, 1))]);
    assert_eq!(healed(&mut lone), None);
    lone.beat_with(1, 1, vec![(address(0), claim(0, 1))]);
    assert_eq!(healed(&mut lone), None);
    lone.beat_with(1, 2, vec![(address(0), claim(1, 1))]);
    assert_eq!(healed(&mut lone), Some((1, name(1))));
}
