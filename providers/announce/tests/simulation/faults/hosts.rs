//! Failures of hosts and their links.

use std::net::IpAddr;

use ballast_announce::Mac;

use crate::judge::Allowed;
use crate::limits::{self, QUIET};
use crate::world::{Event, World, mac, ms};

impl World {
    pub(super) fn link_cut(&mut self, victim: usize) {
        let one = Some(victim);
        let wait = self.failover() + ms(5000);
        self.set_carrier(victim, false);
        self.phase("link cut", one, wait, self.lost());
        self.set_carrier(victim, true);
        self.phase("link back", one, ms(15_000), self.back());
    }

    pub(super) fn node_killed(&mut self, victim: usize) {
        let one = Some(victim);
        let wait = self.failover() + ms(5000);
        self.kill(victim);
        self.hosts[victim].powered = false;
        self.phase("node killed", one, wait, self.lost());
        self.power_on(victim);
        let back = self.booted();
        self.phase("node back", one, ms(10_000), back);
    }

    pub(super) fn short_freeze(&mut self, victim: usize) {
        let one = Some(victim);
        self.hosts[victim].frozen = true;
        let time = ms(300);
        self.phase(
            "frozen for 0.3 s",
            one,
            time,
            Allowed { gap: time, ..QUIET },
        );
        self.hosts[victim].frozen = false;
        self.phase(
            "thawed",
            one,
            ms(5000),
            Allowed {
                gap: limits::BACK,
                ..QUIET
            },
        );
    }

    pub(super) fn freeze(&mut self, victim: usize) {
        let one = Some(victim);
        self.hosts[victim].frozen = true;
        let time = ms(1000) + self.up_to(ms(9000));
        self.phase("frozen", one, time, self.lost());
        self.hosts[victim].frozen = false;
        let moves = 1;
        let thawed = Allowed {
            dual: limits::THAWED_TWO,
            moves,
            ..self.back()
        };
        self.phase("thawed", one, ms(10_000), thawed);
    }

    pub(super) fn suspension(&mut self, victim: usize) {
        let one = Some(victim);
        self.hosts[victim].frozen = true;
        let time = ms(3000) + self.up_to(ms(5000));
        self.phase("suspended", one, time, self.lost());
        self.hosts[victim].frozen = false;
        self.set_back(victim, time);
        let moves = 1;
        let back = Allowed {
            moves,
            ..self.back()
        };
        self.phase("resumed, its clock stood still", one, ms(10_000), back);
    }

    pub(super) fn uplink_dead(&mut self, victim: usize) {
        let one = Some(victim);
        let wait = self.failover() + ms(5000);
        self.network.ports[victim].passes = false;
        self.phase("uplink dead", one, wait, self.lost());
        self.network.ports[victim].passes = true;
        self.phase("uplink back", one, ms(10_000), self.back());
    }

    /// The port sends and does not receive: the holder's messages arrive, and clients get no answer.
    pub(super) fn deaf_port(&mut self, victim: usize) {
        let one = Some(victim);
        // Until an announcement would be repeated.
        let wait = ms(70_000);
        self.network.ports[victim].receives = false;
        let deaf = Allowed {
            gap: limits::DEAF[self.shape.detection as usize],
            ..self.lost()
        };
        self.phase("port hears nothing", one, wait, deaf);
        self.network.ports[victim].receives = true;
        self.phase("port hears again", one, ms(10_000), self.back());
    }

    /// The port receives and does not send.
    pub(super) fn mute_port(&mut self, victim: usize) {
        let one = Some(victim);
        let wait = self.failover() + ms(5000);
        self.network.ports[victim].sends = false;
        self.phase("port sends nothing", one, wait, self.lost());
        self.network.ports[victim].sends = true;
        self.phase("port sends again", one, ms(10_000), self.back());
    }

    /// Whoever hears nothing must not draw clients away from the node that has taken over.
    pub fn announced(&mut self, from: usize, address: &IpAddr, answer: Mac) {
        let phase = self.judge.phase == "port hears nothing";
        let deaf = phase && self.strict && !self.network.ports[from].receives;
        let holder = self.holder(address).filter(|holder| *holder != from);
        if let Some(holder) = holder.filter(|_| deaf && answer == mac(from)) {
            self.fail(&format!(
                "node-{from} announces {address}, which node-{holder} has taken over"
            ));
        }
    }

    pub(super) fn interception(&mut self, victim: usize) {
        let one = Some(victim);
        let wait = self.failover() + ms(5000);
        self.network.intercepts = true;
        self.phase("a switch answers ARP", None, ms(15_000), QUIET);
        self.kill(victim);
        self.hosts[victim].powered = false;
        self.phase("node killed behind that switch", one, wait, self.lost());
        self.power_on(victim);
        let back = self.booted();
        self.phase("node back behind that switch", one, ms(10_000), back);
    }

    pub(super) fn power_on(&mut self, host: usize) {
        self.hosts[host].powered = true;
        self.after(ms(3000), Event::Start(host));
    }
}
