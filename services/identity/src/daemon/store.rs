//! What the identity service keeps: hashes of keys, what was revoked, and the own issuer's keys.
//!
//! Plain SQL. Every change is on disk before it is answered.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clawgress_identity::admin::Key;
use clawgress_identity::api_key::Hash;
use clawgress_identity::snapshot::{KeyRecord, RevokedToken, Snapshot};
use clawgress_identity::text;
use rusqlite::{Connection, OptionalExtension, Row, params};

const VERSION: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE keys (
    prefix TEXT PRIMARY KEY, agent TEXT NOT NULL, name TEXT NOT NULL, hash BLOB NOT NULL, sources TEXT NOT NULL,
    workload_fingerprint TEXT, created BIGINT NOT NULL, expires BIGINT, last_used BIGINT, revoked BIGINT
);
CREATE INDEX keys_of_agent ON keys (agent);
CREATE TABLE revoked_tokens (
    issuer TEXT NOT NULL, id TEXT NOT NULL, until BIGINT NOT NULL, PRIMARY KEY (issuer, id)
);
CREATE TABLE tokens_before (agent TEXT PRIMARY KEY, before BIGINT NOT NULL);
CREATE TABLE revoked_certificates (serial TEXT PRIMARY KEY, revoked BIGINT NOT NULL);
CREATE TABLE signing_keys (id TEXT PRIMARY KEY, pkcs8 BLOB NOT NULL, created BIGINT NOT NULL, retired BIGINT);
";
const KEY_COLUMNS: &str =
    "prefix, agent, name, sources, workload_fingerprint, created, expires, last_used, revoked";
/// A revoked key is still shown for so long, and its use still called by its name.
const REMEMBERED: i64 = 90 * 24 * 3600;
const MOST_OF_AGENT: i64 = 16;
const MOST: i64 = 200_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{doing} {}: {source}", path.display())]
    Sql {
        doing: &'static str,
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("opening {}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} was written by a newer version of the appliance; boot that one, or restore a backup", path.display())]
    Newer { path: PathBuf },
    #[error("no key in use has the prefix '{0}'; list them")]
    UnknownKey(String),
    #[error("the agent {0} has {MOST_OF_AGENT} keys in use; revoke one first")]
    AgentFull(String),
    #[error("there are {MOST} keys; revoke those that nobody uses")]
    Full,
}

pub(crate) struct Store {
    path: PathBuf,
    connection: Connection,
}

/// A key of the own issuer.
pub(crate) struct KeptSigningKey {
    pub(crate) pkcs8: Vec<u8>,
    pub(crate) retired: Option<i64>,
}

impl Store {
    pub(crate) fn open(state: &Path) -> Result<Self, StoreError> {
        let path = state.join("identity.db");
        let failed = |doing| {
            let path = path.clone();
            move |source| StoreError::Sql {
                doing,
                path,
                source,
            }
        };
        // SQLite gives its other files the mode of this one.
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| StoreError::File {
                path: path.clone(),
                source,
            })?;
        let connection = Connection::open(&path).map_err(failed("opening"))?;
        // Whatever is reported as written survives a power cut.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
            )
            .map_err(failed("setting up"))?;
        let version: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(failed("reading the version of"))?;
        match version {
            VERSION => {}
            0 => connection
                .execute_batch(&format!(
                    "BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
                ))
                .map_err(failed("making"))?,
            _ => return Err(StoreError::Newer { path }),
        }
        Ok(Self { path, connection })
    }

    pub(crate) fn has_keys(&self) -> Result<bool, StoreError> {
        let count: i64 = self.one("counting the keys of", "SELECT COUNT(*) FROM keys", [])?;
        Ok(count > 0)
    }

    pub(crate) fn add(&self, key: &Key, hash: &Hash) -> Result<(), StoreError> {
        let total: i64 = self.one("counting the keys of", "SELECT COUNT(*) FROM keys", [])?;
        if total >= MOST {
            return Err(StoreError::Full);
        }
        let of_agent: i64 = self.one(
            "counting the keys of",
            "SELECT COUNT(*) FROM keys WHERE agent = ?1 AND revoked IS NULL AND (expires IS NULL OR expires > ?2)",
            params![key.agent, key.created],
        )?;
        if of_agent >= MOST_OF_AGENT {
            return Err(StoreError::AgentFull(key.agent.clone()));
        }
        self.change(
            "INSERT INTO keys (prefix, agent, name, hash, sources, workload_fingerprint, created, expires)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                key.prefix,
                key.agent,
                key.name,
                hash.as_slice(),
                key.sources.join(" "),
                key.workload_fingerprint,
                key.created,
                key.expires
            ],
        )
        .map(drop)
    }

    pub(crate) fn keys(&self, agent: Option<&str>) -> Result<Vec<Key>, StoreError> {
        let sql = format!(
            "SELECT {KEY_COLUMNS} FROM keys WHERE ?1 IS NULL OR agent = ?1 ORDER BY agent, created, prefix"
        );
        self.many("listing the keys of", &sql, params![agent], key_of)
    }

    /// One that is in use.
    pub(crate) fn key(&self, prefix: &str) -> Result<Key, StoreError> {
        let sql = format!("SELECT {KEY_COLUMNS} FROM keys WHERE prefix = ?1 AND revoked IS NULL");
        self.connection
            .query_row(&sql, params![prefix], key_of)
            .optional()
            .map_err(self.failed("reading a key of"))?
            .ok_or_else(|| StoreError::UnknownKey(prefix.chars().take(16).collect()))
    }

    pub(crate) fn revoke(&self, prefix: &str, now: i64) -> Result<Key, StoreError> {
        let mut key = self.key(prefix)?;
        self.change(
            "UPDATE keys SET revoked = ?2 WHERE prefix = ?1",
            params![prefix, now],
        )?;
        key.revoked = Some(now);
        Ok(key)
    }

    /// Never later than it would have ended anyway.
    pub(crate) fn end(&self, prefix: &str, at: i64) -> Result<(), StoreError> {
        let sql =
            "UPDATE keys SET expires = ?2 WHERE prefix = ?1 AND (expires IS NULL OR expires > ?2)";
        self.change(sql, params![prefix, at]).map(drop)
    }

    pub(crate) fn note_uses(&mut self, uses: &[(String, i64)]) -> Result<(), StoreError> {
        let path = self.path.clone();
        let failed = |source| StoreError::Sql {
            doing: "noting uses in",
            path,
            source,
        };
        let note = || {
            let transaction = self.connection.transaction()?;
            for (prefix, at) in uses {
                transaction.execute(
                    "UPDATE keys SET last_used = ?2 WHERE prefix = ?1 AND (last_used IS NULL OR last_used < ?2)",
                    params![prefix, at],
                )?;
            }
            transaction.commit()
        };
        let mut note = note;
        note().map_err(failed)
    }

    pub(crate) fn revoke_token(&self, token: &RevokedToken) -> Result<(), StoreError> {
        self.change(
            "INSERT INTO revoked_tokens (issuer, id, until) VALUES (?1, ?2, ?3)
             ON CONFLICT (issuer, id) DO UPDATE SET until = MAX(until, excluded.until)",
            params![token.issuer, token.id, token.until],
        )
        .map(drop)
    }

    pub(crate) fn revoke_tokens(&self, agent: &str, before: i64) -> Result<(), StoreError> {
        self.change(
            "INSERT INTO tokens_before (agent, before) VALUES (?1, ?2)
             ON CONFLICT (agent) DO UPDATE SET before = MAX(before, excluded.before)",
            params![agent, before],
        )
        .map(drop)
    }

    pub(crate) fn revoke_certificate(&self, serial: &str, now: i64) -> Result<(), StoreError> {
        let sql = "INSERT INTO revoked_certificates (serial, revoked) VALUES (?1, ?2) ON CONFLICT (serial) DO NOTHING";
        self.change(sql, params![serial, now]).map(drop)
    }

    /// Newest first.
    pub(crate) fn signing_keys(&self) -> Result<Vec<KeptSigningKey>, StoreError> {
        let sql =
            "SELECT pkcs8, retired FROM signing_keys ORDER BY retired IS NOT NULL, created DESC";
        self.many("reading the signing keys of", sql, [], |row| {
            Ok(KeptSigningKey {
                pkcs8: row.get(0)?,
                retired: row.get(1)?,
            })
        })
    }

    /// The new one signs from now on.
    pub(crate) fn add_signing_key(
        &mut self,
        id: &str,
        pkcs8: &[u8],
        now: i64,
    ) -> Result<(), StoreError> {
        let path = self.path.clone();
        let failed = |source| StoreError::Sql {
            doing: "keeping a signing key in",
            path,
            source,
        };
        let mut keep = || {
            let transaction = self.connection.transaction()?;
            transaction.execute(
                "UPDATE signing_keys SET retired = ?1 WHERE retired IS NULL",
                params![now],
            )?;
            transaction.execute(
                "INSERT INTO signing_keys (id, pkcs8, created) VALUES (?1, ?2, ?3)",
                params![id, pkcs8, now],
            )?;
            transaction.commit()
        };
        keep().map_err(failed)
    }

    /// Forgets what no longer makes a difference.
    pub(crate) fn forget(&self, now: i64, longest_token: i64) -> Result<(), StoreError> {
        self.change(
            "DELETE FROM keys WHERE revoked < ?1",
            params![now - REMEMBERED],
        )?;
        self.change(
            "DELETE FROM revoked_tokens WHERE until < ?1",
            params![now - longest_token],
        )?;
        self.change(
            "DELETE FROM signing_keys WHERE retired < ?1",
            params![now - 2 * longest_token],
        )
        .map(drop)
    }

    /// The part of a snapshot that comes from here.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let doing = "reading the snapshot out of";
        let keys = self.many(
            doing,
            "SELECT prefix, agent, hash, sources, expires, revoked, workload_fingerprint FROM keys ORDER BY prefix",
            [],
            |row| {
                Ok(KeyRecord {
                    prefix: row.get(0)?,
                    agent: row.get(1)?,
                    hash: text::base64url(&row.get::<_, Vec<u8>>(2)?),
                    sources: words(&row.get::<_, String>(3)?),
                    expires: row.get(4)?,
                    revoked: row.get::<_, Option<i64>>(5)?.is_some(),
                    workload_fingerprint: row.get(6)?,
                })
            },
        )?;
        let revoked_tokens = self.many(
            doing,
            "SELECT issuer, id, until FROM revoked_tokens ORDER BY issuer, id",
            [],
            |row| {
                Ok(RevokedToken {
                    issuer: row.get(0)?,
                    id: row.get(1)?,
                    until: row.get(2)?,
                })
            },
        )?;
        let tokens_before = self.many(
            doing,
            "SELECT agent, before FROM tokens_before",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let revoked_certificates = self.many(
            doing,
            "SELECT serial FROM revoked_certificates",
            [],
            |row| row.get(0),
        )?;
        Ok(Snapshot {
            keys,
            revoked_tokens,
            tokens_before: tokens_before.into_iter().collect(),
            revoked_certificates: revoked_certificates.into_iter().collect(),
            ..Snapshot::default()
        })
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |source| StoreError::Sql {
            doing,
            path,
            source,
        }
    }

    fn change(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize, StoreError> {
        self.connection
            .execute(sql, values)
            .map_err(self.failed("changing"))
    }

    fn one<T: rusqlite::types::FromSql>(
        &self,
        doing: &'static str,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> Result<T, StoreError> {
        self.connection
            .query_row(sql, values, |row| row.get(0))
            .map_err(self.failed(doing))
    }

    fn many<T>(
        &self,
        doing: &'static str,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = || {
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map(values, read)?;
            rows.collect::<rusqlite::Result<Vec<T>>>()
        };
        rows().map_err(self.failed(doing))
    }
}

fn key_of(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key {
        prefix: row.get(0)?,
        agent: row.get(1)?,
        name: row.get(2)?,
        sources: words(&row.get::<_, String>(3)?),
        workload_fingerprint: row.get(4)?,
        created: row.get(5)?,
        expires: row.get(6)?,
        last_used: row.get(7)?,
        revoked: row.get(8)?,
    })
}

fn words(text: &str) -> Vec<String> {
    text.split(' ')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}
