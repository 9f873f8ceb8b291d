//! Failures of the whole segment.

use ballast_announce::view::Detection;

use crate::judge::Allowed;
use crate::limits::{self, QUIET};
use crate::world::{Event, Micros, Other, World, ms};

impl World {
    pub(super) fn one_way(&mut self, victim: usize) {
        let one = Some(victim);
        let other = self.other_than(victim);
        self.network.cut.insert((victim, other));
        if self.random.below(2) == 0 {
            self.network.cut = [(other, victim)].into();
        }
        if self.chance(50) {
            // Messages of the holder are a little late.
            self.late_host = Some((victim, ms(50)));
        }
        let moves = 1;
        self.phase(
            "one-way path",
            one,
            ms(40_000),
            Allowed {
                gap: limits::ONE_WAY,
                dual: limits::ONE_WAY_TWO,
                moves,
                other_moves: 1,
            },
        );
        self.network.cut.clear();
        self.late_host = None;
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
        let delays: Vec<Micros> = (0..self.shape.nodes)
            .map(|_| self.up_to(ms(5000)))
            .collect();
        self.phase(
            "links come back",
            None,
            0,
            Allowed {
                gap: Micros::MAX,
                ..QUIET
            },
        );
        // A node needs another host to know that it is not cut off.
        let mut sorted = delays.clone();
        sorted.sort_unstable();
        let watched = self.shape.nodes == 1 || self.shape.other != Other::Nobody;
        let witness = if watched { 0 } else { sorted[1] };
        let up = delays
            .iter()
            .enumerate()
            .map(|(host, at)| (*at, host, true));
        let due = |at: Micros| at.max(witness) + limits::LINKS_BACK;
        let due = delays
            .iter()
            .enumerate()
            .map(|(host, at)| (due(*at), host, false));
        let mut steps: Vec<_> = up.chain(due).collect();
        steps.sort_unstable();
        let start = self.now;
        for (at, host, up) in steps {
            self.run(start + at - self.now);
            if up {
                self.set_carrier(host, true);
            } else {
                self.answers_for_its_own(host);
            }
        }
        self.phase("links are back", None, ms(25_000), QUIET);
    }

    /// A holder answers.
    fn answers_for_its_own(&mut self, host: usize) {
        for address in self.addresses().collect::<Vec<_>>() {
            let silent = self
                .answer(host, &address, crate::world::mac(250))
                .is_none();
            if self.holder(&address) == Some(host) && silent {
                self.fail(&format!("node-{host} does not answer for {address} yet"));
            }
        }
    }

    pub(super) fn split(&mut self, victim: Option<usize>) {
        // One node at least is on each side; the gateway stays on the first one.
        let alone = self.random.below(self.shape.nodes);
        let here = self.random.below(2) == 0;
        let side: Vec<usize> = (0..self.shape.nodes)
            .filter(|host| match *host {
                host if host == alone => here,
                host if host == (alone + 1) % self.shape.nodes => !here,
                _ => self.random.below(2) == 0,
            })
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
            gap: self.failover() + limits::SECOND_HAND,
            dual: limits::TAKEOVER_TWO,
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
            _ => limits::HEALED,
        };
        self.phase(
            "segment healed",
            None,
            ms(20_000),
            Allowed {
                gap: healed,
                dual: limits::HEALED_TWO,
                moves: 1,
                other_moves: 1,
            },
        );
        if let Some(victim) = victim {
            self.power_on(victim);
            let back = self.booted();
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
            limits::REPAIRED,
            Allowed {
                gap: limits::REPAIRED_GAP,
                dual: limits::REPAIRED_TWO,
                moves: 4,
                other_moves: 4,
            },
        );
        self.phase("quiet after chaos", None, ms(10_000), QUIET);
    }

    pub(super) fn disturb(&mut self, host: usize) {
        match self.random.below(16) {
            0 | 1 => self.set_carrier(host, false),
            2 => self.set_carrier(host, true),
            3 => self.network.ports[host].passes = false,
            4 => {
                let port = &mut self.network.ports[host];
                (port.passes, port.receives, port.sends) = (true, true, true);
            }
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
            13 => self.network.ports[host].receives = false,
            14 => self.network.ports[host].sends = false,
            12 => {
                if self.shape.nodes > 1 {
                    let other = self.other_than(host);
                    self.network.cut.insert((host, other));
                }
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
            let port = &mut self.network.ports[host];
            (port.passes, port.receives, port.sends) = (true, true, true);
            port.group = 0;
            let entry = &mut self.hosts[host];
            (entry.powered, entry.frozen, entry.stopped) = (true, false, false);
            self.after(ms(500), Event::Start(host));
            self.set_carrier(host, true);
        }
    }
}
