//! Troubles of the network and of the server itself: watches that end or are late, a backup that is restored,
//! and writes that are refused.

use super::{Api, Backup, Kind, Past};

// === impl Api ===

impl Api {
    /// Ends all watches; they may be resumed.
    pub fn cut_watches(&self) {
        self.lock().generation += 1;
        self.journal.changed();
    }

    /// Ends all watches and forgets the history: clients that resume must list.
    pub fn compact(&self) {
        {
            let mut state = self.lock();
            state.generation += 1;
            state.version += 1;
            state.compacted = state.version;
            state.history.clear();
            state.pages.clear();
        }
        self.journal.changed();
    }

    /// Watches are open and silent.
    pub fn freeze_watches(&self, frozen: bool) {
        self.lock().frozen = frozen;
        self.journal.changed();
    }

    /// Makes the watches of one kind silent, or lets them continue.
    pub fn delay_watches(&self, kind: Kind, late: bool) {
        let mut state = self.lock();
        if late {
            state.late.insert(kind);
        } else {
            state.late.remove(&kind);
        }
        drop(state);
        self.journal.changed();
    }

    /// The watches that are open now stay open and become silent.
    pub fn silence_watches(&self) {
        let mut state = self.lock();
        state.silent = state.watches;
    }

    /// A backup of etcd.
    pub fn backup(&self) -> Backup {
        let state = self.lock();
        Backup {
            version: state.version,
            objects: state.objects.clone(),
        }
    }

    /// Restores etcd from a backup and restarts the API server: versions decrease, and a watch
    /// from a version that does not exist yet is silent until it does.
    pub fn restore(&self, backup: Backup) {
        let mut state = self.lock();
        let Backup { version, objects } = backup;
        state.history.retain(|change| change.version <= version);
        state.version = version;
        state.objects = objects;
        state.pages.clear();
        state.generation += 1;
        drop(state);
        self.journal.changed();
    }

    /// All Services in their present state.
    pub fn remember(&self) -> Past {
        let state = self.lock();
        let objects = state.objects.iter();
        let services = objects.filter(|((kind, _), _)| *kind == Kind::Service);
        Past {
            version: state.version,
            services: services.map(|(_, object)| object.clone()).collect(),
        }
    }

    /// A server whose cache lags behind: lists return the old state, watches are silent. With
    /// `None` this ends, and watches deliver all that has happened since.
    pub fn lag(&self, past: Option<Past>) {
        let mut state = self.lock();
        state.frozen = past.is_some();
        state.past = past;
        drop(state);
        self.journal.changed();
    }

    /// At most this many objects per page, whatever the client requests.
    pub fn limit_pages(&self, limit: usize) {
        self.lock().page_limit = limit;
    }

    /// The next writes of Services and classes fail with this code.
    pub fn refuse_writes(&self, code: u16, times: usize) {
        self.lock().refuse = Some((code, times));
    }
}
