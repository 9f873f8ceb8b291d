//! An address that another Service gets at once. The allocator does not wait until its holder has ended: the
//! claim is on the address, so it has one holder all the time, whoever the Service is.

use std::sync::Arc;

use ballast_announce::view::Wanted;
use ballast_announce::{Input, Output};

use crate::lone::{Lone, address, claim, cluster, name};

/// Node 0 of two, which holds the address.
fn holder() -> Lone {
    let mut lone = Lone::with_services(2, &[(address(0), cluster())]);
    lone.input(Input::Holdings(vec![(address(0), claim(3, 0, &[1]))]));
    live(&mut lone, 5);
    assert!(lone.answers(0));
    lone
}

/// Time passes while node 1 lives. Whether this node claimed something.
fn live(lone: &mut Lone, seconds: usize) -> bool {
    let mut claimed = false;
    for _ in 0..seconds * 2 {
        let sequence = lone.next_sequence();
        lone.beat(1, sequence);
        let out = lone.run(500);
        claimed |= out.iter().any(|it| matches!(it, Output::Claimed { .. }));
    }
    claimed
}

/// A Service that only these nodes announce.
fn only(node: usize) -> Arc<Wanted> {
    Arc::new(Wanted {
        nodes: Some([name(node)].into()),
        ..Wanted::clone(&cluster())
    })
}

#[test]
fn the_holder_of_a_released_address_ends_at_once() {
    let mut lone = holder();
    lone.view.wanted.clear();
    lone.see();
    lone.run(50);
    assert!(!lone.answers(0));
    // Another Service gets it before the claim is forgotten: it stays where it was.
    live(&mut lone, 20);
    lone.view.wanted.insert(address(0), cluster());
    lone.see();
    assert!(!live(&mut lone, 5), "the claim counts");
    assert!(lone.answers(0));
}

/// The deletion of one Service and the other one arrive in the same view.
#[test]
fn a_holder_that_may_not_announce_the_other_service_answers_until_a_node_that_may_has_claimed() {
    let mut lone = holder();
    lone.view.wanted.insert(address(0), only(1));
    lone.see();
    live(&mut lone, 5);
    assert!(lone.answers(0), "no gap");
    lone.input(Input::Holdings(vec![(address(0), claim(4, 1, &[0]))]));
    live(&mut lone, 1);
    assert!(!lone.answers(0), "the higher epoch counts");
    assert!(!live(&mut lone, 60));
}

/// The node to which the other Service belongs does not answer beside a holder: it claims with a higher
/// epoch, which ends the other one.
#[test]
fn a_node_that_gets_the_address_of_another_service_takes_it_from_its_holder() {
    let mut lone = Lone::with_services(2, &[(address(0), cluster())]);
    lone.input(Input::Holdings(vec![(address(0), claim(3, 1, &[0]))]));
    assert!(!live(&mut lone, 5));
    lone.view.wanted.insert(address(0), only(0));
    lone.see();
    assert!(live(&mut lone, 5), "a planned move");
    assert!(lone.answers(0));
    let claim = lone.node.claims().get(&address(0)).unwrap();
    assert_eq!((claim.epoch, &claim.holder), (4, &name(0)));
}

/// It does not know of the deletion. What it announces is of an old epoch, and it ends when it hears so.
#[test]
fn a_holder_without_the_api_server_ends_when_it_hears_of_the_next_one() {
    let mut lone = holder();
    lone.input(Input::Api { connected: false });
    live(&mut lone, 5);
    assert!(lone.answers(0));
    let sequence = lone.next_sequence();
    lone.beat_with(1, sequence, vec![(address(0), claim(4, 1, &[0]))]);
    live(&mut lone, 1);
    assert!(!lone.answers(0));
}
