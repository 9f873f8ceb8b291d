//! What people do: with Services, clusters, backups and tags.

use rand::RngExt as _;

use super::{Cluster, Svc, World};

impl World {
    pub(super) fn create(&mut self, c: usize, name: &str) {
        let number = self.unique();
        let cluster = &mut self.clusters[c];
        if cluster.api && !cluster.services.contains_key(name) {
            let service = Svc {
                uid: format!("u-{number}"),
                finalizer: false,
                deleting: false,
                created: self.now,
                second_port: false,
            };
            cluster.services.insert(name.to_owned(), service);
        }
    }

    /// In a copy, nobody deletes what the original has before Ballast says that it is one: that is no
    /// orphan, and no controller could know.
    pub(super) fn delete(&mut self, c: usize, name: &str) {
        let cluster = &mut self.clusters[c];
        if !cluster.api || (cluster.is_copied && !cluster.published) {
            return;
        }
        match cluster.services.get_mut(name) {
            Some(service) if service.finalizer => {
                service.deleting = true;
                if cluster.is_copied {
                    self.removed.insert(service.uid.clone());
                }
            }
            Some(_) => self.vanish(c, name),
            None => {}
        }
    }

    /// Adds the second port, or removes it.
    pub(super) fn edit(&mut self, c: usize, name: &str) {
        let cluster = &mut self.clusters[c];
        if cluster.api
            && let Some(service) = cluster.services.get_mut(name)
        {
            service.second_port = !service.second_port;
        }
    }

    pub(super) fn strip(&mut self, c: usize, name: &str) {
        let cluster = &mut self.clusters[c];
        if let Some(service) = cluster.services.get_mut(name) {
            service.finalizer = false;
            if service.deleting {
                self.vanish(c, name);
            }
        }
    }

    pub(super) fn force_delete(&mut self, c: usize, name: &str) {
        if !self.clusters[c].is_copied {
            self.vanish(c, name);
        }
    }

    pub(super) fn clear_namespace(&mut self, c: usize) {
        let names: Vec<String> = self.clusters[c].services.keys().cloned().collect();
        for name in names.iter().skip(1) {
            self.force_delete(c, name);
        }
    }

    /// The object is gone; whoever watches hears it.
    fn vanish(&mut self, c: usize, name: &str) {
        let cluster = &mut self.clusters[c];
        let Some(service) = cluster.services.remove(name) else {
            return;
        };
        if cluster.api
            && let Some(controller) = &mut cluster.controller
        {
            controller.gone.insert(service.uid.clone());
        }
        self.sicken(&service.uid);
    }

    /// Nothing listens on the node port any more, unless a copy has the Service.
    pub(super) fn sicken(&mut self, uid: &str) {
        if self.is_wanted(uid) {
            return;
        }
        let mut state = self.account.state();
        let of = state.objects.values_mut();
        for object in of.filter(|it| it.service.as_deref() == Some(uid)) {
            object.healthy = false;
        }
    }

    pub(super) fn destroy(&mut self, c: usize) {
        // One of them must be there in the end.
        let others = self.clusters.iter().filter(|it| it.exists).count();
        if others < 2 {
            return;
        }
        let cluster = &mut self.clusters[c];
        cluster.exists = false;
        cluster.controller = None;
        let uids: Vec<String> = cluster.services.values().map(|it| it.uid.clone()).collect();
        for uid in uids {
            self.sicken(&uid);
        }
    }

    /// A second cluster from the backup of the first.
    pub(super) fn copy(&mut self, c: usize) {
        let number = self.clusters.len();
        let Some((mut services, lease)) = self.clusters[c].backup.clone() else {
            return;
        };
        // What people have deleted before is on its way out, whoever restores it.
        let original = &self.clusters[c].services;
        services.retain(|_, it| {
            let mut there = original.values();
            there.any(|other| other.uid == it.uid && !other.deleting)
        });
        if self.clusters[c].is_copied || !self.clusters[c].api {
            return;
        }
        self.clusters[c].is_copied = true;
        self.clusters.push(Cluster {
            uid: self.clusters[c].uid.clone(),
            name: self.clusters[c].name.clone(),
            services,
            backup: None,
            lease,
            published: false,
            api: true,
            exists: true,
            controller: None,
            off_until: self.now,
            delete: self.clusters[c].delete,
            is_copied: true,
        });
        self.log.push(format!("{number} is a copy of {c}"));
        // Its first leader surveys once. If it died before, the Lease of the copy would look as if the original
        // had written its signs before it: see "Limits" in docs/architecture.md.
        let (failing, partial) = {
            let mut state = self.account.state();
            (
                std::mem::take(&mut state.failing),
                std::mem::take(&mut state.partial),
            )
        };
        self.keep(number);
        let mut state = self.account.state();
        (state.failing, state.partial) = (failing, partial);
    }

    pub(super) fn tag_by_hand(&mut self, key: &str, value: Option<&str>) {
        let mut state = self.account.state();
        let ids: Vec<String> = state.objects.keys().cloned().collect();
        let id = &ids[self.rng.random_range(0..ids.len())];
        let object = state.objects.get_mut(id).unwrap();
        if object.service.is_none() {
            return;
        }
        match value {
            Some(value) => object.tags.insert(key.to_owned(), value.to_owned()),
            None => object.tags.remove(key),
        };
        self.log.push(format!("  {id}: {key} {value:?}"));
    }
}
