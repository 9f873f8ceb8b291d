//! The clients of a process. Classes with the same connection have the same account and region, so they
//! share AWS's limits: each has its own counters, and everything else in common. A class that was edited
//! finds the buckets as it left them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::{Client, ConnectError, Connection};

/// More regions than AWS has. A former connection makes room; its buckets are full when it comes back.
const MOST: usize = 64;

/// One client for each connection. Copies share them; they stay until the last copy is dropped.
#[derive(Clone, Debug, Default)]
pub struct Clients(Arc<Mutex<Vec<(Connection, Cell)>>>);

type Cell = Arc<OnceCell<Client>>;

// === impl Clients ===

impl Clients {
    /// The client of a connection, with counters of its own. Makes no call to AWS.
    pub async fn client(&self, connection: &Connection) -> Result<Client, ConnectError> {
        let cell = self.cell(connection);
        let client = cell.get_or_try_init(|| Client::connect(connection)).await?;
        Ok(client.with_own_counts())
    }

    fn cell(&self, connection: &Connection) -> Cell {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = all.iter().find(|(known, _)| known == connection) {
            return Arc::clone(cell);
        }
        if all.len() >= MOST {
            all.remove(0);
        }
        let cell = Cell::default();
        all.push((connection.clone(), Arc::clone(&cell)));
        cell
    }
}
