//! Why nodes may claim addresses in each phase.

use std::net::IpAddr;

use ballast_announce::holding::Origin;
use ballast_announce::view::Detection;

use crate::world::World;

impl World {
    /// The causes that fit a phase; `None` is anything but a rebalance.
    pub(super) fn causes(&self, phase: &str) -> Option<Vec<Origin>> {
        let mut causes = match phase {
            "rebalance" => return Some(vec![Origin::Rebalanced]),
            _ if !self.strict => return None,
            "start" | "new address" => vec![Origin::New],
            "planned move" => vec![Origin::NotEligible],
            "endpoint moves" | "all addresses on one node" => vec![Origin::EndpointsMoved],
            "agent gone" | "agent back" | "agent stopped" | "agent continued" => {
                vec![Origin::AnnouncerDown]
            }
            "link cut"
            | "node killed"
            | "frozen"
            | "thawed"
            | "suspended"
            | "resumed, its clock stood still"
            | "uplink dead"
            | "port hears nothing"
            | "port sends nothing"
            | "link cut while the API server is away"
            | "node killed behind that switch"
            | "node with many successors killed" => vec![Origin::HostDown],
            _ => return None,
        };
        let leases = self.shape.detection == Detection::Lease;
        if leases && (causes[0] == Origin::AnnouncerDown || causes[0] == Origin::HostDown) {
            causes.push(Origin::LeaseExpired);
        }
        Some(causes)
    }

    /// A node has claimed an address.
    pub fn claimed(&mut self, node: usize, address: &IpAddr, cause: Origin) {
        self.traces += 1;
        if self.trace {
            println!(
                "{:7} ms node-{node} claims {address} because of {cause:?}",
                self.now / 1000
            );
        }
        let told = self.hosts[node].api.healthy.contains(address);
        if !told && !self.serves(node, address) {
            self.fail(&format!(
                "node-{node} claimed {address} before its health port said 200"
            ));
        }
        if !self.judge.expects(cause) {
            self.fail(&format!(
                "node-{node} claimed {address} because of {cause:?}"
            ));
        }
    }
}
