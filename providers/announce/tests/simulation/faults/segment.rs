//! Failures of the whole segment.

use ballast_announce::view::Detection;

use super::QUIET;
use crate::judge::Allowed;
use crate::world::{Event, Micros, World, ms};

impl World {
    pub(super) fn one_way(&mut self, victim: usize) {
        let one = Some(victim);
        let other = self.random.below(self.shape.nodes);
        self.network.cut.insert((victim, other));
        if self.random.below(2) == 0 {
            self.network.cut = [(other, victim)].into();
        }
        let moves = 1;
        self.phase(
            "one-way path",
            one,
            ms(40_000),
            Allowed {
                gap: ms(200),
                dual: ms(1000),
                moves,
                other_moves: 1,
            },
        );
        self.network.cut.clear();
        self.phase(
            "path back",
            None,
            ms(10_000),
            Allowed {
                moves: 0,
                ..self.back()
            },
        );
    }

    pub(super) fn pair_cut(&mut self, victim: usize) {
        let one = Some(victim);
        let other = (victim + 1) % self.shape.nodes;
        self.network.cut = [(victim, other), (other, victim)].into();
        let moves = 0;
        self.phase(
            "two nodes do not reach each other",
            one,
            ms(40_000),
            Allowed { moves, ..QUIET },
        );
        self.network.cut.clear();
        self.phase("path back", None, ms(10_000), Allowed { moves: 0, ..QUIET });
    }

    pub(super) fn noise(&mut self) {
        self.network.loss_percent = 1 + self.random.below(5) as u64;
        self.network.copies_percent = 10;
        self.network.delay = ms(20);
        self.phase("loss, copies and delay", None, ms(60_000), QUIET);
        self.network.loss_percent = 0;
        // Successors that seemed silent are recorded again.
        self.phase("after loss", None, ms(8000), QUIET);
    }

    pub(super) fn busy_hosts(&mut self) {
        self.lateness = ms(250);
        self.phase("busy hosts", None, ms(30_000), QUIET);
        self.lateness = ms(5);
    }

    pub(super) fn all_links_down(&mut self) {
        for host in 0..self.shape.nodes {
            self.set_carrier(host, false);
        }
        self.phase(
            "all links down",
            None,
            ms(20_000),
            Allowed {
                gap: Micros::MAX,
                ..QUIET
            },
        );
        let mut delays: Vec<Micros> = (0..self.shape.nodes)
            .map(|_| self.up_to(ms(5000)))
            .collect();
        // The holder of an address answers at most 3 s after its own port is up.
        self.phase(
            "links come back",
            None,
            0,
            Allowed {
                gap: ms(8000),
                ..QUIET
            },
        );
        let start = self.now;
        while let Some((host, &at)) = delays.iter().enumerate().min_by_key(|(_, at)| **at) {
            if at == Micros::MAX {
                break;
            }
            self.run(start + at - self.now);
            self.set_carrier(host, true);
            delays[host] = Micros::MAX;
        }
        self.run(ms(3000));
        self.phase("links are back", None, ms(25_000), QUIET);
    }

    pub(super) fn split(&mut self, victim: Option<usize>) {
        let side: Vec<usize> = (0..self.shape.nodes)
            .filter(|_| self.random.below(2) == 0)
            .collect();
        for host in &side {
            self.network.ports[*host].group = 1;
        }
        if let Some(victim) = victim {
            self.kill(victim);
            self.hosts[victim].powered = false;
        }
        // The third successor may be alone on its side.
        let mut allowed_here = Allowed {
            gap: self.failover() + ms(800),
            dual: ms(300),
            moves: 1,
            other_moves: 1,
        };
        if self.shape.detection == Detection::Tolerant && !self.shape.api_on_segment {
            // The holder has recorded successors on its own side before the 5 s are over.
            allowed_here.gap = Micros::MAX;
        }
        if victim.is_some() && !self.shape.api_on_segment {
            // The other side has claimed, and the API server says so.
            allowed_here.gap = Micros::MAX;
        }
        if !self.shape.gossip {
            // The Leases decide. They see no split of a segment on which the API server is not,
            // and nothing at all on the side that has lost it.
            allowed_here.gap = Micros::MAX;
        }
        self.phase(
            "segment split",
            None,
            self.failover() + ms(8000),
            allowed_here,
        );
        for port in &mut self.network.ports {
            port.group = 0;
        }
        let healed = match victim {
            // All nodes may have been on the side without the API server: then the Lease of the
            // dead holder expires only now.
            Some(_) if !self.shape.gossip => self.failover(),
            _ => ms(600),
        };
        self.phase(
            "segment healed",
            None,
            ms(20_000),
            Allowed {
                gap: healed,
                dual: ms(3000),
                moves: 1,
                other_moves: 1,
            },
        );
        if let Some(victim) = victim {
            self.power_on(victim);
            let back = Allowed {
                gap: ms(6000),
                ..self.back()
            };
            self.phase("node back after the split", None, ms(20_000), back);
        }
    }

    pub(super) fn chaos(&mut self) {
        let anything = Allowed {
            gap: Micros::MAX,
            dual: Micros::MAX,
            moves: 30,
            other_moves: 30,
        };
        self.phase("chaos", None, 0, anything);
        for _ in 0..12 {
            let host = self.random.below(self.shape.nodes);
            self.disturb(host);
            let time = self.up_to(ms(5000));
            self.run(time);
        }
        self.repair();
        // Agents that restart read the API, hold-downs end, Leases of dead agents expire.
        self.phase(
            "after chaos",
            None,
            ms(30_000),
            Allowed {
                moves: 4,
                other_moves: 4,
                ..anything
            },
        );
        self.phase("quiet after chaos", None, ms(10_000), QUIET);
    }

    pub(super) fn disturb(&mut self, host: usize) {
        match self.random.below(14) {
            0 | 1 => self.set_carrier(host, false),
            2 => self.set_carrier(host, true),
            3 => self.network.ports[host].passes = false,
            4 => self.network.ports[host].passes = true,
            5 => self.network.ports[host].group ^= 1,
            6 => self.hosts[host].frozen ^= true,
            7 => self.hosts[host].stopped ^= true,
            8 => self.kill(host),
            9 => {
                self.kill(host);
                self.hosts[host].powered = false;
            }
            10 => {
                self.hosts[host].powered = true;
                self.after(ms(500), Event::Start(host));
            }
            11 => self.api.away ^= true,
            12 => {
                let other = self.random.below(self.shape.nodes);
                self.network.cut.insert((host, other));
            }
            _ => {
                self.network.loss_percent = self.random.below(20) as u64;
                self.lateness = ms(self.random.below(600) as u64);
            }
        }
    }

    pub(super) fn repair(&mut self) {
        self.network.cut.clear();
        self.network.loss_percent = 0;
        self.lateness = ms(5);
        self.api.away = false;
        for host in 0..self.shape.nodes {
            self.network.ports[host].passes = true;
            self.network.ports[host].group = 0;
            let entry = &mut self.hosts[host];
            (entry.powered, entry.frozen, entry.stopped) = (true, false, false);
            self.after(ms(500), Event::Start(host));
            self.set_carrier(host, true);
        }
    }
}
