//! Who relieves a holder whose interface is not usable, as its object says, where only Leases count: a
//! better node, or if there is none, any node that would do after the holder's death.

use std::sync::Arc;

use ballast_announce::Input;
use ballast_announce::io::Output;
use ballast_announce::view::{Detection, NodeFacts, Policy, Wanted};

use crate::lone::{Lone, address, claim, name, wanted};

/// What is wrong with which Service, and whether node 0 then takes its address from node 1.
type Case = (&'static str, Policy, &'static [usize], fn(&mut Lone), bool);

fn cordon(lone: &mut Lone, nodes: &[usize]) {
    for node in nodes {
        facts(lone, *node).cordoned = true;
    }
}

fn facts(lone: &mut Lone, node: usize) -> &mut NodeFacts {
    lone.view.nodes.get_mut(&name(node)).unwrap()
}

fn cut(lone: &mut Lone, node: usize) {
    facts(lone, node).interfaces[0].carrier = false;
}

const CASES: [Case; 12] = [
    ("nothing", Policy::Cluster, &[0], |_| {}, false),
    ("cut", Policy::Cluster, &[0], |lone| cut(lone, 1), true),
    ("no endpoints", Policy::Local, &[], |_| {}, false),
    (
        "no endpoints, cut",
        Policy::Local,
        &[],
        |lone| cut(lone, 1),
        true,
    ),
    (
        "all cordoned",
        Policy::Cluster,
        &[0],
        |lone| cordon(lone, &[0, 1, 2]),
        false,
    ),
    (
        "all cordoned, cut",
        Policy::Cluster,
        &[0],
        |lone| {
            cordon(lone, &[0, 1, 2]);
            cut(lone, 1);
        },
        true,
    ),
    (
        "all cordoned, the holder has no interface",
        Policy::Cluster,
        &[0],
        |lone| {
            cordon(lone, &[0, 1, 2]);
            facts(lone, 1).interfaces.clear();
        },
        true,
    ),
    (
        "all cordoned, all cut",
        Policy::Cluster,
        &[0],
        |lone| {
            cordon(lone, &[0, 1, 2]);
            (0..3).for_each(|node| cut(lone, node));
        },
        false,
    ),
    (
        "another node is better",
        Policy::Cluster,
        &[0],
        |lone| {
            cordon(lone, &[0, 1]);
            cut(lone, 1);
        },
        false,
    ),
    (
        "this node is excluded",
        Policy::Local,
        &[],
        |lone| {
            facts(lone, 0).excluded = true;
            cut(lone, 1);
        },
        false,
    ),
    (
        "the only endpoint is behind it",
        Policy::Local,
        &[1],
        |lone| cut(lone, 1),
        false,
    ),
    (
        "no endpoints, cordoned",
        Policy::Local,
        &[],
        |lone| cordon(lone, &[1]),
        false,
    ),
];

#[test]
fn a_holder_that_cannot_be_reached_is_relieved_by_a_spare_node_if_no_better_one_is_there() {
    for (what, policy, endpoints, apply, takes) in CASES {
        let endpoints: Vec<_> = endpoints.iter().copied().map(name).collect();
        let service = Arc::new(Wanted {
            detection: Detection::Lease,
            ..Wanted::clone(&wanted(policy, &endpoints))
        });
        let mut lone = Lone::with_services(3, &[(address(0), service)]);
        lone.input(Input::Holdings(vec![(address(0), claim(3, 1, &[0, 2]))]));
        lone.run(3000);
        apply(&mut lone);
        lone.see();
        // Its host does not answer; its agent reaches the API server.
        let mut out = Vec::new();
        for stamp in 0..30 {
            for node in (0..3).map(name) {
                lone.input(Input::Lease { node, stamp });
            }
            out.extend(lone.run_without(1, 1000));
        }
        let claimed = out.iter().any(|it| matches!(it, Output::Claimed { .. }));
        assert_eq!((claimed, lone.answers(0)), (takes, takes), "{what}");
    }
}
