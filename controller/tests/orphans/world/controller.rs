//! What a controller does: turns of Services, and surveys of its class with the real choices.

use std::collections::{BTreeMap, BTreeSet};

use ballast::class::orphans::{Halt, Look, Memory, Policy, decide};
use ballast_provider::mark::{KEEP, LAST_SEEN, ORPHANED_AT};
use ballast_provider::{Key, Kind, Mark, Provider as _, Removal, ServiceId};
use jiff::SignedDuration;
use rand::Rng as _;

use super::super::account::Object;
use super::{Controller, World};

const CLASS: &str = "edge";
/// What a second target group is called.
pub(super) const SECOND: &str = "tg2";
const GRACE: SignedDuration = SignedDuration::from_hours(24);

impl World {
    fn mark(&self, c: usize) -> Mark {
        let cluster = &self.clusters[c];
        Mark {
            cluster: cluster.uid.clone(),
            cluster_name: cluster.name.clone(),
            class: CLASS.to_owned(),
            writer: cluster
                .controller
                .as_ref()
                .map_or_else(String::new, |it| it.writer.clone()),
        }
    }

    /// The controller works, if it can. False: it cannot.
    fn starts(&mut self, c: usize) -> bool {
        let number = self.rng.next_u32();
        let cluster = &mut self.clusters[c];
        if !cluster.exists || !cluster.api || self.now < cluster.off_until {
            return false;
        }
        if cluster.controller.is_none() {
            cluster.controller = Some(Controller {
                writer: format!("w-{number}"),
                memory: Memory::new(cluster.lease).with_foreign(
                    cluster
                        .published
                        .then(|| (self.now, "an object".to_owned())),
                ),
                gone: BTreeSet::new(),
                // Nothing is deleted before the first survey.
                shared: true,
            });
        }
        cluster.lease = Some(self.now);
        true
    }

    fn dies(&mut self, c: usize) {
        self.tally.crashes += 1;
        self.log.push(format!("  the controller of {c} dies"));
        self.clusters[c].controller = None;
    }

    /// Each Service has a turn.
    pub(super) fn turn(&mut self, c: usize) {
        if !self.starts(c) {
            return;
        }
        let names: Vec<String> = self.clusters[c].services.keys().cloned().collect();
        for name in names {
            if self.turn_of(c, &name).is_none() {
                return self.dies(c);
            }
        }
        let Some(controller) = &self.clusters[c].controller else {
            return;
        };
        if controller.shared {
            return;
        }
        for uid in controller.gone.clone() {
            match self.release(c, &uid) {
                Some(true) => {
                    if let Some(controller) = &mut self.clusters[c].controller {
                        controller.gone.remove(&uid);
                    }
                }
                Some(false) => {}
                None => return self.dies(c),
            }
        }
    }

    /// `None`: the process died.
    fn turn_of(&mut self, c: usize, name: &str) -> Option<()> {
        let service = self.clusters[c].services.get(name)?.clone();
        let shared = self.clusters[c].controller.as_ref()?.shared;
        if service.deleting {
            if shared || !self.release(c, &service.uid)? {
                return Some(());
            }
            self.account.state().change().ok()?;
            self.clusters[c].services.remove(name);
            self.sicken(&service.uid);
            return Some(());
        }
        if !service.finalizer {
            self.account.state().change().ok()?;
            let service = self.clusters[c].services.get_mut(name)?;
            service.finalizer = true;
        }
        let mark = self.mark(c);
        let id = id_of(name, &service.uid);
        for (kind, what, wanted) in [
            (Kind::SecurityGroup, "sg", true),
            (Kind::TargetGroup, "tg", true),
            (Kind::TargetGroup, SECOND, service.second_port),
            (Kind::LoadBalancer, "lb", true),
        ] {
            let mut state = self.account.state();
            let object_id = format!("{}-{what}", service.uid);
            if state.failing > 0 {
                continue;
            }
            let there = state.objects.get(&object_id);
            if !wanted {
                // As a provider does: not what people keep, nor what is no longer its own, nor while a copy may use it.
                let may_go = there.is_some_and(|it| {
                    mark.owns(&it.tags) && !it.tags.contains_key(KEEP) && !shared
                });
                if may_go {
                    state.change().ok()?;
                    state.delete(&object_id);
                }
                continue;
            }
            if there.is_some() {
                continue;
            }
            state.change().ok()?;
            let mut tags = mark.tags(&id);
            tags.extend(mark.birth(self.now));
            let object = Object {
                kind,
                tags,
                service: Some(service.uid.clone()),
                healthy: true,
            };
            state.objects.insert(object_id, object);
        }
        Some(())
    }

    /// Whether it is released. `None`: the process died.
    fn release(&mut self, c: usize, uid: &str) -> Option<bool> {
        let provider = self.account.provider_of(self.mark(c));
        let id = id_of("", uid);
        let key = Key::alone(&id);
        let released = self
            .runtime
            .block_on(provider.release(&id, &key, Removal::Delete));
        let died = self.account.state().fuse == Some(0);
        match released {
            Ok(_) => Some(true),
            Err(_) if died => None,
            Err(_) => Some(false),
        }
    }

    /// One survey of the class.
    pub(super) fn keep(&mut self, c: usize) {
        if !self.starts(c) {
            return;
        }
        let mark = self.mark(c);
        let provider = self.account.provider_of(mark.clone());
        let Ok(objects) = self.runtime.block_on(provider.survey()) else {
            return;
        };
        let cluster = &mut self.clusters[c];
        let Some(controller) = &mut cluster.controller else {
            return;
        };
        let uids: BTreeSet<&str> = cluster.services.values().map(|it| &*it.uid).collect();
        let gone = controller.gone.clone();
        let look = Look {
            objects: &objects,
            exists: &|id| uids.contains(&*id.uid),
            going: &|id| gone.contains(&*id.uid),
            newest: cluster.services.values().map(|it| it.created).max(),
            writer: &controller.writer,
            policy: Policy {
                delete: cluster.delete,
                grace: GRACE,
                draining: false,
            },
            now: self.now,
        };
        let steps = decide(&look, &mut controller.memory);
        controller.shared = steps.found.shared.is_some();
        cluster.published = controller.shared;
        self.tally.shared += u64::from(controller.shared);
        let halted = matches!(steps.found.halt, Some(Halt::Breaker { .. }));
        self.tally.breakers += u64::from(halted);
        let sign = mark.sign(self.now).to_string();
        for (some, key, value) in [
            (&steps.sign, LAST_SEEN, Some(sign.clone())),
            (&steps.clear, ORPHANED_AT, None),
            (&steps.tag, ORPHANED_AT, Some(sign.clone())),
        ] {
            let tags = BTreeMap::from([(key.to_owned(), value)]);
            let tagged = self.runtime.block_on(provider.tag(some, &tags));
            if tagged.is_err() {
                if self.account.state().fuse == Some(0) {
                    self.dies(c);
                }
                return;
            }
        }
        for (id, _) in steps.gone {
            self.log
                .push(format!("  {c} knows that {} is gone", id.uid));
            self.tally.deleted_by_class += 1;
            if let Some(controller) = &mut self.clusters[c].controller {
                controller.gone.insert(id.uid.to_string());
            }
        }
        self.turn(c);
    }
}

fn id_of(name: &str, uid: &str) -> ServiceId {
    ServiceId {
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
    }
}
