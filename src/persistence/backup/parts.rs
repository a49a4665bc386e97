//! The connections of a store that is copied or filled: one to each of its files, or one to a database.

use std::path::Path;

use super::listed::Part;
use crate::persistence::StoreError;
use crate::persistence::journal;
use crate::persistence::sql::mysql::Session;
use crate::persistence::sql::{self, Connection};

/// The files of a store in a folder, in the order of [`Part`].
pub const FILES: [&str; 4] = ["shop.db", "people.db", "money.db", "journal.db"];

/// How many migrations each part has been through.
const LEVEL: &str = "select count(*) from _sqlx_migrations";
const LEVELS_OF_DATABASE: [&str; 4] = [
    "select count(*) from migrations_of_tables",
    "select count(*) from migrations_of_people",
    "select count(*) from migrations_of_money",
    "select count(*) from migrations_of_journal",
];

pub enum Parts {
    Files(Box<[Connection; 4]>),
    Database(Connection),
}

impl Parts {
    pub fn in_database(session: Session) -> Parts {
        Parts::Database(Connection::MySql(session))
    }

    /// Who reads and writes what belongs to `part`.
    pub fn of(&mut self, part: Part) -> &mut Connection {
        match self {
            Parts::Files(files) => &mut files[part as usize],
            Parts::Database(database) => database,
        }
    }

    /// The number of the opening, or of the node's session, that wrote last.
    pub async fn epoch(&mut self) -> Result<i64, StoreError> {
        let text = journal::last_epoch(matches!(self, Parts::Database(_)));
        Ok(sql::query_scalar(text).fetch_one(self.of(Part::Journal)).await?)
    }

    /// What may stand in its journal.
    pub async fn format(&mut self) -> Result<i64, StoreError> {
        journal::format_of(self.of(Part::Journal)).await
    }

    /// How many migrations the store has been through, in the order of [`Part`].
    pub async fn levels(&mut self) -> Result<[i64; 4], StoreError> {
        let mut levels = [0; 4];
        for (part, level) in
            [Part::Shop, Part::People, Part::Money, Part::Journal].into_iter().zip(&mut levels)
        {
            let text = match self {
                Parts::Files(_) => LEVEL,
                Parts::Database(_) => LEVELS_OF_DATABASE[part as usize],
            };
            *level = sql::query_scalar(text).fetch_one(self.of(part)).await?;
        }
        Ok(levels)
    }

    pub async fn close(self) -> Result<(), StoreError> {
        let connections = match self {
            Parts::Files(files) => Vec::from(*files),
            Parts::Database(database) => vec![database],
        };
        for connection in connections {
            match connection {
                Connection::Sqlite(file) => file.close().await?,
                Connection::MySql(session) => session.close().await?,
                Connection::PooledSqlite(_) | Connection::PooledMySql(_) => {}
            }
        }
        Ok(())
    }
}

/// Whether all files of a store are there.
pub fn are_in(dir: &Path) -> bool {
    FILES.iter().all(|file| dir.join(file).is_file())
}
