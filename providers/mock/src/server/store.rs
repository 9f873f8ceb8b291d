//! The cloud's state on disk: one `SQLite` file, one connection, one writer thread.
//!
//! WAL with `synchronous=NORMAL`: a killed process loses nothing, because the kernel has what
//! was committed. A power failure may lose the last commits, but not the consistency; the
//! controller then creates the load balancers again with the same addresses, which the
//! Services publish. A disk flush per call is not worth preventing this. The file does not
//! show whether this happened, or whether it was replaced by an older copy. So each start is
//! another epoch, in which clients list again.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::cloud::{Edit, MAX_CHANGES, Stored};
use super::meter::Meter;
use crate::address::RESTING;
use crate::api::{Family, Protocol};
use crate::plane::Wildcard;

/// Rises with every change that an older program cannot read. This program reads all earlier
/// versions. 2: field names are camelCase.
const SCHEMA: i64 = 2;

/// The oldest released addresses are deleted once in so many changes.
const PRUNED_EVERY: u64 = 4_096;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS load_balancers (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS target_sets (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS resting (address TEXT PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identity (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meter (id INTEGER PRIMARY KEY CHECK (id = 0), meter TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS listeners (protocol TEXT, family TEXT, port INTEGER, PRIMARY KEY (protocol, family, port)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (seq INTEGER PRIMARY KEY, change TEXT NOT NULL);
";

/// The open file.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
}

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be created.
    #[error("cannot create the state directory {path:?}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// An error of `SQLite`.
    #[error("the state file cannot be used")]
    Sqlite(#[from] rusqlite::Error),
    /// The stored content is not what this program writes.
    #[error("cannot read {table} in the state file; move the file away to start without state")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// The error.
        #[source]
        source: serde_json::Error,
    },
    /// A newer program has written the file.
    #[error(
        "the state file has schema {found}, and this program reads schemas up to {SCHEMA}; use a newer program, or move the file away to start without state"
    )]
    Schema {
        /// The version in the file.
        found: i64,
    },
}

// === impl Store ===

impl Store {
    /// Opens or creates the file and reads everything.
    pub(super) fn open(directory: &Path) -> Result<(Self, Stored), StoreError> {
        std::fs::create_dir_all(directory).map_err(|source| StoreError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let connection = Connection::open(directory.join("mock-cloud.sqlite"))?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        // A second server on the same state would assign the same addresses.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if found > SCHEMA {
            return Err(StoreError::Schema { found });
        }
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", SCHEMA)?;
        connection.execute(
            "INSERT INTO identity (id) SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM identity)",
            [random()],
        )?;
        let mut store = Self { connection };
        let mut stored = store.read()?;
        stored.meter = store.meter(&stored)?;
        Ok((store, stored))
    }

    /// Writes all edits or none.
    pub(super) fn commit(&mut self, edits: &[Edit]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        for edit in edits {
            write(&transaction, edit)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn read(&self) -> Result<Stored, StoreError> {
        let records = self.rows("load_balancers", "SELECT record FROM load_balancers")?;
        let changes = self.rows("changes", "SELECT change FROM changes ORDER BY seq")?;
        let mut target_sets = Vec::new();
        let mut resting = Vec::new();
        let mut statement = self
            .connection
            .prepare("SELECT name, body FROM target_sets")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        for row in rows {
            let (name, body) = row?;
            target_sets.push((name, parse("target_sets", &body)?));
        }
        let mut statement = self
            .connection
            .prepare("SELECT address, since FROM resting ORDER BY since")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        })?;
        for row in rows {
            let (address, since) = row?;
            // An address that cannot be parsed is ignored.
            if let Ok(address) = address.parse::<IpAddr>() {
                resting.push((address, since.unsigned_abs()));
            }
        }
        let identity = "SELECT id FROM identity LIMIT 1";
        Ok(Stored {
            identity: self.connection.query_row(identity, [], |row| row.get(0))?,
            epoch: random(),
            seq: self.seq()?,
            records,
            target_sets,
            resting,
            changes,
            meter: Meter::default(),
            listeners: self.listeners()?,
        })
    }

    /// The stored meter. It begins with the state, or with the first program that has one.
    fn meter(&mut self, stored: &Stored) -> Result<Meter, StoreError> {
        let meter: Option<Meter> = self.rows("meter", "SELECT meter FROM meter")?.pop();
        if let Some(meter) = meter {
            return Ok(meter);
        }
        let meter = Meter::begin(Timestamp::now(), &stored.records);
        self.commit(&[Edit::Meter(meter)])?;
        Ok(meter)
    }

    fn listeners(&self) -> Result<Vec<Wildcard>, StoreError> {
        let mut statement = self
            .connection
            .prepare("SELECT protocol, family, port FROM listeners")?;
        let rows = statement.query_map([], |row| {
            let texts = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
            Ok((texts, row.get::<_, u16>(2)?))
        })?;
        let mut listeners = Vec::new();
        for row in rows {
            let ((protocol, family), port) = row?;
            let protocol = [Protocol::Tcp, Protocol::Udp]
                .into_iter()
                .find(|it| it.as_str() == protocol);
            let family = [Family::V4, Family::V6]
                .into_iter()
                .find(|it| it.to_string() == family);
            // A row that a newer program wrote is ignored.
            if let (Some(protocol), Some(family)) = (protocol, family) {
                listeners.push(Wildcard {
                    protocol,
                    family,
                    port,
                });
            }
        }
        Ok(listeners)
    }

    fn rows<T: serde::de::DeserializeOwned>(
        &self,
        table: &'static str,
        query: &str,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare(query)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.map(|row| parse(table, &row?)).collect()
    }

    fn seq(&self) -> Result<u64, StoreError> {
        let query = "SELECT COALESCE(MAX(seq), 0) FROM changes";
        let seq: i64 = self.connection.query_row(query, [], |row| row.get(0))?;
        Ok(seq.unsigned_abs())
    }
}

fn write(transaction: &Transaction<'_>, edit: &Edit) -> Result<(), StoreError> {
    match edit {
        Edit::Put(record) => transaction
            .prepare_cached("INSERT OR REPLACE INTO load_balancers (name, record) VALUES (?1, ?2)")?
            .execute(params![record.name, print("load_balancers", record)?])?,
        Edit::Drop(name) => transaction
            .prepare_cached("DELETE FROM load_balancers WHERE name = ?1")?
            .execute([name])?,
        Edit::Rest(address, at) => {
            if at % PRUNED_EVERY == 0 {
                transaction
                    .prepare_cached("DELETE FROM resting WHERE address NOT IN (SELECT address FROM resting ORDER BY since DESC LIMIT ?1)")?
                    .execute([signed(RESTING as u64)])?;
            }
            transaction
                .prepare_cached("INSERT OR REPLACE INTO resting (address, since) VALUES (?1, ?2)")?
                .execute(params![address.to_string(), signed(*at)])?
        }
        Edit::Hold(address, _) => transaction
            .prepare_cached("DELETE FROM resting WHERE address = ?1")?
            .execute([address.to_string()])?,
        Edit::Targets(name, body) => transaction
            .prepare_cached("INSERT OR REPLACE INTO target_sets (name, body) VALUES (?1, ?2)")?
            .execute(params![name, print("target_sets", body)?])?,
        Edit::Change(change) => {
            transaction
                .prepare_cached("DELETE FROM changes WHERE seq <= ?1")?
                .execute([signed(change.seq) - signed(MAX_CHANGES as u64)])?;
            transaction
                .prepare_cached("INSERT INTO changes (seq, change) VALUES (?1, ?2)")?
                .execute(params![signed(change.seq), print("changes", change)?])?
        }
        Edit::Listener(it) => transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO listeners (protocol, family, port) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![
                it.protocol.as_str(),
                it.family.to_string(),
                it.port
            ])?,
        Edit::Meter(meter) => transaction
            .prepare_cached("INSERT OR REPLACE INTO meter (id, meter) VALUES (0, ?1)")?
            .execute([print("meter", meter)?])?,
        Edit::Plane(..) => 0,
    };
    Ok(())
}

fn random() -> String {
    format!("{:016x}", rand::random::<u64>())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn parse<T: serde::de::DeserializeOwned>(table: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Unreadable { table, source })
}

fn print<T: serde::Serialize>(table: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Unreadable { table, source })
}

#[cfg(test)]
mod tests;
