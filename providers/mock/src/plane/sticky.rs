//! Which client stays with which target. Pure, bounded: when it is full, the client
//! silent for longest is forgotten.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Clients and their targets.
#[derive(Debug)]
pub(super) struct StickyTable {
    capacity: usize,
    clients: HashMap<IpAddr, (String, Instant)>,
    by_silence: BTreeSet<(Instant, IpAddr)>,
}

// === impl StickyTable ===

impl StickyTable {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
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
    ) -> Option<String> {
        let (target, heard) = self.clients.get(&client)?;
        if now.duration_since(*heard) < timeout {
            return Some(target.clone());
        }
        self.by_silence.remove(&(*heard, client));
        self.clients.remove(&client);
        None
    }

    /// The client was heard of, with this target.
    pub(super) fn set(&mut self, client: IpAddr, target: &str, now: Instant) {
        let entry = (target.to_owned(), now);
        if let Some((_, heard)) = self.clients.insert(client, entry) {
            self.by_silence.remove(&(heard, client));
        }
        self.by_silence.insert((now, client));
        if self.clients.len() > self.capacity
            && let Some((_, silent)) = self.by_silence.pop_first()
        {
            self.clients.remove(&silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_client_stays_until_it_was_silent_for_the_timeout() {
        let mut table = StickyTable::new(8);
        let start = Instant::now();
        table.set(client(1), "n1", start);
        let later = start + Duration::from_secs(9);
        assert_eq!(table.get(client(1), later, TIMEOUT).as_deref(), Some("n1"));
        table.set(client(1), "n1", later);
        let still = start + Duration::from_secs(18);
        assert_eq!(table.get(client(1), still, TIMEOUT).as_deref(), Some("n1"));
        let silent = start + Duration::from_secs(19);
        assert_eq!(table.get(client(1), silent, TIMEOUT), None);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_most_silent() {
        let mut table = StickyTable::new(2);
        let start = Instant::now();
        for last in 1..=3 {
            table.set(client(last), "n1", start + Duration::from_secs(last.into()));
        }
        let now = start + Duration::from_secs(4);
        assert_eq!(table.get(client(1), now, TIMEOUT), None);
        assert!(table.get(client(2), now, TIMEOUT).is_some());
        assert!(table.get(client(3), now, TIMEOUT).is_some());
        assert_eq!(table.by_silence.len(), table.clients.len());
    }
}
