//! Spreads: of new addresses, and after a rebalance.

use std::sync::Arc;

use ballast_announce::slip::Slips;
use ballast_announce::view::{Detection, Policy, Rebalance};

use crate::judge::Allowed;
use crate::limits::{self, QUIET};
use crate::world::{Other, Shape, World, ms};

impl World {
    /// All nodes are rebooted in turn, and then somebody asks for a rebalance. Later failures move
    /// what they must, and nothing more.
    pub(super) fn rebalance(&mut self) {
        for victim in 0..self.shape.nodes {
            self.node_killed(victim);
        }
        self.ask_for_a_rebalance();
        self.node_killed(0);
        self.phase("quiet after a rebalance", None, ms(20_000), QUIET);
    }

    /// As `ballast rebalance` does, until it has ended.
    fn ask_for_a_rebalance(&mut self) {
        let request = self.now;
        for wanted in self.api.view.wanted.values_mut() {
            Arc::make_mut(wanted).rebalance = Rebalance {
                gradual: false,
                asked: Some(request),
            };
        }
        self.api.version += 1;
        let addresses = u64::try_from(self.shape.addresses).unwrap();
        let allowed = Allowed {
            gap: 0,
            dual: limits::PLANNED_TWO,
            moves: 1,
            other_moves: 1,
        };
        // It begins after 3 s and ends 10 s after the last move.
        let time = ms(15_000 + addresses * 1200);
        self.phase("rebalance", None, time, allowed);
        let (least, most) = self.spread();
        // With policy Local some nodes, or all, have no endpoint.
        if most > least + 1 && self.shape.policy == Policy::Cluster {
            self.fail(&format!(
                "after a rebalance nodes have {least} to {most} addresses"
            ));
        }
    }

    /// The least and the greatest number of addresses of a node.
    fn spread(&self) -> (usize, usize) {
        let mut counts = vec![0; self.shape.nodes];
        for address in self.addresses() {
            if let Some(holder) = self.holder(&address) {
                counts[holder] += 1;
            }
        }
        let least = counts.iter().min().copied().unwrap_or(0);
        let most = counts.iter().max().copied().unwrap_or(0);
        (least, most)
    }
}

/// One cluster of three nodes with 300 addresses.
pub fn three_hundred_addresses(seed: u64) -> World {
    let shape = Shape {
        nodes: 3,
        addresses: 300,
        detection: Detection::Fast,
        gossip: true,
        other: Other::Gateway,
        policy: Policy::Cluster,
        api_on_segment: false,
    };
    let mut world = World::new(seed, shape, Slips::default());
    let start = Allowed {
        gap: ms(5000),
        dual: ms(200),
        moves: 1,
        other_moves: 1,
    };
    world.phase("start", None, ms(8000), start);
    let (least, most) = world.spread();
    if most * 10 > least * 13 {
        world.fail(&format!(
            "at the start nodes have {least} to {most} addresses"
        ));
    }
    for victim in 0..3 {
        world.node_killed(victim);
    }
    world.ask_for_a_rebalance();
    world.phase("quiet after a rebalance", None, ms(10_000), QUIET);
    world
}
