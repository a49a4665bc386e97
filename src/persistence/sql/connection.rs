//! Connections and pools of either database, and transactions on them.

use sqlx::mysql::{MySql, MySqlConnection, MySqlPool};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool};

use super::Error;
use super::mysql::{self, Session};
use super::sqlite::{self, OwnFile};

/// One connection, ours alone.
pub enum Connection {
    Sqlite(OwnFile),
    MySql(Session),
    /// Out of a pool, and back into it afterwards.
    PooledSqlite(PoolConnection<Sqlite>),
    PooledMySql(PoolConnection<MySql>),
}

/// Connections that read. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Pool {
    Sqlite(SqlitePool),
    MySql(MySqlPool),
}

/// What a query meets.
pub enum On<'c> {
    File(&'c mut SqliteConnection),
    Files(SqlitePool),
    Server(&'c mut MySqlConnection),
    Servers(MySqlPool),
}

impl<'c> From<&'c mut Connection> for On<'c> {
    fn from(connection: &'c mut Connection) -> On<'c> {
        match connection {
            Connection::Sqlite(file) => On::File(file),
            Connection::PooledSqlite(file) => On::File(file),
            Connection::MySql(session) => On::Server(session.connection()),
            Connection::PooledMySql(session) => On::Server(session),
        }
    }
}

impl<'c> From<&'c mut SqliteConnection> for On<'c> {
    fn from(file: &'c mut SqliteConnection) -> On<'c> {
        On::File(file)
    }
}

impl From<&Pool> for On<'_> {
    fn from(pool: &Pool) -> Self {
        match pool {
            Pool::Sqlite(pool) => On::Files(pool.clone()),
            Pool::MySql(pool) => On::Servers(pool.clone()),
        }
    }
}

impl Pool {
    /// One of them, for several statements.
    pub async fn acquire(&self) -> Result<Connection, Error> {
        match self {
            Pool::Sqlite(pool) => pool.acquire().await.map(Connection::PooledSqlite),
            Pool::MySql(pool) => mysql::acquire(pool).await.map(Connection::PooledMySql),
        }
    }

    pub async fn close(&self) {
        match self {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::MySql(pool) => pool.close().await,
        }
    }
}

/// Begins a transaction that is going to write.
pub async fn begin(writer: &mut Connection) -> Result<(), Error> {
    match writer {
        Connection::Sqlite(file) => sqlite::begin(file).await,
        Connection::PooledSqlite(file) => sqlite::begin(file).await,
        Connection::MySql(session) => mysql::begin(session).await,
        Connection::PooledMySql(server) => mysql::begin_plainly(server).await,
    }
}

/// Commits what went well and undoes what did not.
pub async fn end<T, E: From<Error>>(writer: &mut Connection, outcome: Result<T, E>) -> Result<T, E> {
    match writer {
        Connection::Sqlite(file) => file.end(outcome).await,
        Connection::PooledSqlite(file) => sqlite::end(file, outcome).await,
        Connection::MySql(session) => mysql::end(session.connection(), outcome).await,
        Connection::PooledMySql(server) => mysql::end(server, outcome).await,
    }
}
