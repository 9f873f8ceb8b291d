//! Client affinity: which client stays with which target. Pure. The places that its clients
//! take bound it: if none is free, the client that was idle for longest is removed.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::places::{Place, Share};

/// Clients and their targets.
#[derive(Debug)]
pub(super) struct StickyTable {
    share: Arc<Share>,
    clients: HashMap<IpAddr, Client>,
    by_silence: BTreeSet<(Instant, IpAddr)>,
}

#[derive(Debug)]
struct Client {
    target: Arc<str>,
    heard: Instant,
    _place: Place,
}

// === impl StickyTable ===

impl StickyTable {
    pub(super) fn new(share: Arc<Share>) -> Self {
        Self {
            share,
            clients: HashMap::new(),
            by_silence: BTreeSet::new(),
        }
    }

    /// The client's target, unless the client was silent for `timeout`.
    pub(super) fn get(
        &mut self,
        client: IpAddr,
        now: Instant,
        timeout: Duration,
    ) -> Option<Arc<str>> {
        let known = self.clients.get(&client)?;
        if now.duration_since(known.heard) < timeout {
            return Some(Arc::clone(&known.target));
        }
        self.by_silence.remove(&(known.heard, client));
        self.clients.remove(&client);
        None
    }

    /// The client uses this target now.
    pub(super) fn set(&mut self, client: IpAddr, target: &Arc<str>, now: Instant) {
        if let Some(known) = self.clients.get_mut(&client) {
            self.by_silence.remove(&(known.heard, client));
            known.target = Arc::clone(target);
            known.heard = now;
        } else {
            let Some(place) = self.place() else { return };
            let known = Client {
                target: Arc::clone(target),
                heard: now,
                _place: place,
            };
            self.clients.insert(client, known);
        }
        self.by_silence.insert((now, client));
    }

    fn place(&mut self) -> Option<Place> {
        if let Some(place) = self.share.take() {
            return Some(place);
        }
        let (_, silent) = self.by_silence.pop_first()?;
        self.clients.remove(&silent);
        self.share.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::places::Places;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn table(limit: usize) -> StickyTable {
        StickyTable::new(Places::new(1_000).share(limit))
    }

    #[test]
    fn a_client_stays_until_it_was_silent_for_the_timeout() {
        let mut table = table(8);
        let (start, n1) = (Instant::now(), "n1".into());
        table.set(client(1), &n1, start);
        let later = start + Duration::from_secs(9);
        assert_eq!(table.get(client(1), later, TIMEOUT).as_deref(), Some("n1"));
        table.set(client(1), &n1, later);
        let still = start + Duration::from_secs(18);
        assert_eq!(table.get(client(1), still, TIMEOUT).as_deref(), Some("n1"));
        let silent = start + Duration::from_secs(19);
        assert_eq!(table.get(client(1), silent, TIMEOUT), None);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_most_silent() {
        let mut table = table(2);
        let (start, n1) = (Instant::now(), "n1".into());
        for last in 1..=3 {
            let at = start + Duration::from_secs(last.into());
            table.set(client(last), &n1, at);
        }
        let now = start + Duration::from_secs(4);
        assert_eq!(table.get(client(1), now, TIMEOUT), None);
        assert!(table.get(client(2), now, TIMEOUT).is_some());
        assert!(table.get(client(3), now, TIMEOUT).is_some());
        assert_eq!(table.by_silence.len(), table.clients.len());
    }

    #[test]
    fn all_tables_together_are_bounded() {
        let places = Places::new(16);
        let mut tables: Vec<_> = (0..20)
            .map(|_| StickyTable::new(places.share(16)))
            .collect();
        let (now, n1) = (Instant::now(), "n1".into());
        for last in 0..50 {
            for table in &mut tables {
                table.set(client(last), &n1, now);
            }
        }
        let clients: usize = tables.iter().map(|table| table.clients.len()).sum();
        assert!((1..=16).contains(&clients), "{clients}");
    }
}
