//! MySQL and MariaDB as this house uses them: how a session is opened, which server will do, how a lost one is replaced.
//!
//! Always true: a session is strict, reads what is committed, joins words with `||`, and waits for nothing without end; a
//! server acknowledges a commit when it is on its disk, or we do not start; and a writer whose connection is lost is ended
//! on the server too, before another takes its place.

mod migrate;
#[cfg(test)]
mod tests;

use std::io;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::mysql::{
    MySql, MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlPool, MySqlPoolOptions,
};
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions, Connection, Executor, Row};
use tokio::runtime::Handle;

pub use migrate::{Migrations, migrate};

use super::{Error, StoreError};
use crate::clock::Clock;

/// The oldest servers that will do.
const MARIADB_MIN: (u32, u32) = (10, 6);
const MYSQL_MIN: (u32, u32) = (8, 0);
/// How many statements a connection keeps prepared: all that the house has, in all their lengths. The server's own bound,
/// `max_prepared_stmt_count`, is for all connections together.
const STATEMENTS_MAX: usize = 512;
/// How long a connection may take to come about.
const CONNECT_MS: u64 = 5_000;
/// How long a writer may take to show that it is there.
const SIGN_OF_LIFE_MS: u64 = 2_000;
/// The longest that a statement may take. Longer than the longest wait for a lock.
const STATEMENT_MS: u64 = 30_000;
/// A reader that was idle for so long shows first that it is there.
const IDLE_MS: u64 = 5_000;
/// How far the clocks of nodes, which decide when holds lapse and sales open, may be from the server's.
pub const APART_MAX_MS: i64 = 5_000;
/// How long a node waits for another's migrations.
const MIGRATIONS_S: i64 = 240;

const READ_COMMITTED: &str = "set session transaction isolation level read committed";
/// Too long is an error, `||` joins words, a lock is waited for no longer than an answer (that of a whole table for a day, or a year, where
/// nobody says so), and a page of keys of orders fits into one word.
const SETTINGS: &str = "set session sql_mode = 'STRICT_TRANS_TABLES,PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION', \
    session innodb_lock_wait_timeout = 5, session lock_wait_timeout = 5, \
    session group_concat_max_len = 1048576, session autocommit = 1";
const LOOK: &str = "select version(), @@session.sql_mode, @@session.character_set_client, \
    cast(@@global.innodb_flush_log_at_trx_commit as signed), cast(@@global.log_bin as signed), \
    cast(@@global.sync_binlog as signed)";
const TIME: &str = "select cast(unix_timestamp(now(6)) * 1000 as signed)";
/// Writers of one node, at most: the journal's, its keeper's, its heart's, one for each part of the tables, and those that say who owns
/// what, who leads and who leaves.
const WRITERS_MAX: i64 = 12;
/// How long a connection that was ended may take to be gone …
const GONE_WITHIN_MS: u64 = 2_000;
/// … or each of a node's writers: whoever would take its place goes on looking at its heart in between, and tries again.
const WRITERS_GONE_WITHIN_MS: u64 = 700;
/// … and how often one looks.
const GONE_LOOK_MS: u64 = 10;
/// How long that may take with all that is asked for it.
const ENDED_MS: u64 = 5_000;
const MARK: &str =
    "select cast(coalesce(get_lock(concat('stockade ', md5(database()), ' ', ?, ' ', ?), 0), 0) as signed)";
const MARKED: &str =
    "select cast(is_used_lock(concat('stockade ', md5(database()), ' ', ?, ' ', ?)) as signed)";
const THERE: &str = "select cast(count(*) as signed) from information_schema.processlist where id = ?";
const LIVES: &str =
    "select number from node_sessions where number = ? and coalesce(active, 0) <> 0 lock in share mode";
const REPEATABLE: &str = "set session transaction isolation level repeatable read";
const FREEZE: &str = "start transaction with consistent snapshot, read only";
const TABLES: &str =
    "select cast(count(*) as signed) from information_schema.tables where table_schema = database()";

/// Why a server is not one to keep a shop on.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("the address of the database names none: mysql://USER:PASSWORD@HOST:PORT/DATABASE is needed")]
    NoDatabase,
    #[error("the database server is {found}: MariaDB 10.6, MySQL 8.0 or later is needed")]
    Old { found: String },
    #[error(
        "the database server says yes to what is not on its disk: set innodb_flush_log_at_trx_commit = 1 there \
         (it is {found})"
    )]
    NotDurable { found: i64 },
    #[error(
        "the database server says yes before its binary log is on the disk: set sync_binlog = 1 there (it is {found})"
    )]
    BinlogNotDurable { found: i64 },
    #[error(
        "the database server would cut what is too long: let our sessions set sql_mode = STRICT_TRANS_TABLES \
         (it is {found:?})"
    )]
    NotStrict { found: String },
    #[error("the database server speaks {found} with us: utf8mb4 is needed")]
    Letters { found: String },
    #[error(
        "this machine's clock is {ahead_s} seconds ahead of the database server's: holds would lapse at a time that was promised to nobody. \
         Set both by one time server, then start again"
    )]
    Clock { ahead_s: i64 },
    #[error(
        "another node, or `stockade migrate`, is still bringing the database up to date, after {MIGRATIONS_S} seconds: look what it does"
    )]
    Migrating,
    #[error(
        "the database could not be brought up to date, for somebody uses a table that is to change, and goes on doing so: a backup? Try again \
         when that is over ({why})"
    )]
    InUse { why: String },
    #[error(
        "the database is not what this version needs, and its user may not change tables: run `stockade migrate` as a user who \
         may ({why})"
    )]
    NotMigrated { why: String },
}

/// A transaction of a node that counts as dead.
#[derive(Debug, thiserror::Error)]
#[error("another node has taken over: nothing more is written here")]
pub struct TakenOver;

/// Where a database is, and for whom. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    options: Arc<MySqlConnectOptions>,
    /// The number of the node whose writers these are.
    node: Option<i64>,
}

/// A connection that writes, and the name under which the server knows it.
pub struct Session {
    connection: MySqlConnection,
    name: Name,
}

/// What the server knows a connection by. Its number alone is somebody else's when the server has started again, or is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    id: i64,
    /// Its node, and the place of its mark among that one's.
    mark: Option<(i64, i64)>,
}

impl Session {
    pub fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }

    pub fn name(&self) -> Name {
        self.name
    }

    /// Refuses a clock that tells another time than the server's.
    pub async fn agrees_with(&mut self, clock: &Clock) -> Result<(), StoreError> {
        match self.ahead_ms(clock).await? {
            ahead_ms if ahead_ms.abs() <= APART_MAX_MS => Ok(()),
            ahead_ms => Err(Unfit::Clock { ahead_s: ahead_ms / 1_000 }.into()),
        }
    }

    /// By how much a clock is ahead of the server's, at the least; below zero it is behind.
    pub async fn ahead_ms(&mut self, clock: &Clock) -> Result<i64, Error> {
        let before = clock.now().0;
        let there = bounded(sqlx::query(TIME).fetch_one(&mut self.connection)).await?.try_get(0)?;
        Ok(ahead(there, before, clock.now().0))
    }

    pub async fn close(self) -> Result<(), Error> {
        self.connection.close().await
    }
}

impl Server {
    /// The one that an address names: `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, with `?ssl-mode=VERIFY_CA` and its kind.
    pub fn at(url: &str) -> Result<Server, StoreError> {
        let options = MySqlConnectOptions::from_str(url)?;
        if options.get_database().is_none() {
            return Err(Unfit::NoDatabase.into());
        }
        let options = options
            .charset("utf8mb4")
            .collation("utf8mb4_bin")
            // The mode is set as a whole.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .statement_cache_capacity(STATEMENTS_MAX)
            .disable_statement_logging();
        Ok(Server { options: Arc::new(options), node: None })
    }

    /// The same for a node's writers: each bears a mark by which it is found and ended, and writes nothing once the node counts as
    /// dead.
    pub fn of_node(&self, node: i64) -> Server {
        Server { options: self.options.clone(), node: Some(node) }
    }

    /// A connection for whoever asks, on whichever thread.
    pub async fn connect(&self) -> Result<Session, Error> {
        let server = self.clone();
        driven(async move { server.connect_here().await }).await
    }

    /// The same for a thread that waits for nothing else: its own runtime sees to the connection, and dies with it.
    pub async fn connect_here(&self) -> Result<Session, Error> {
        let connecting = async {
            let mut connection = self.options.connect().await?;
            settle(&mut connection).await?;
            let mark = match self.node {
                Some(node) => Some((node, mark(&mut connection, node).await?)),
                None => None,
            };
            let id = sqlx::query("select cast(connection_id() as signed)").fetch_one(&mut connection).await?;
            Ok(Session { name: Name { id: id.try_get(0)?, mark }, connection })
        };
        within(CONNECT_MS, connecting).await
    }

    /// Connections that read, opened when they are needed.
    pub fn readers(&self, most: u32) -> MySqlPool {
        MySqlPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(Duration::from_millis(CONNECT_MS))
            .test_before_acquire(false)
            .after_connect(|connection, _| Box::pin(settle(connection)))
            .before_acquire(|connection, known| {
                Box::pin(async move {
                    let idle = known.idle_for >= Duration::from_millis(IDLE_MS);
                    // `false`: another one is opened in its place.
                    Ok(!idle || within(SIGN_OF_LIFE_MS, connection.ping()).await.is_ok())
                })
            })
            .connect_lazy_with(MySqlConnectOptions::clone(&self.options))
    }

    /// Makes a writer fit to begin: what its last holder left half done is undone, and a connection that is lost is replaced.
    pub async fn mend(&self, writer: &mut Session) -> Result<(), StoreError> {
        if within(SIGN_OF_LIFE_MS, writer.connection.execute("rollback")).await.is_ok() {
            return Ok(());
        }
        let mut next = self.connect().await?;
        // It may stand at the server still, with all its locks, and is not forgotten before it is gone.
        if !within(ENDED_MS, end_one(&mut next, writer.name)).await? {
            return Err(Error::PoolTimedOut.into());
        }
        *writer = next;
        Ok(())
    }
}

/// The runtime that sees to all connections which several threads share: one that began on the runtime of a busy thread would wait
/// for that thread, and end with it.
static DRIVER: LazyLock<io::Result<Handle>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let drive = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("stockade-mysql".to_owned()).spawn(drive)?;
    Ok(handle)
});

/// Does something on it. What is awaited is only its end: work may be large, and whoever reads a table would carry room for it.
fn driven<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> impl Future<Output = Result<T, Error>> + Send {
    let doing = match DRIVER.as_ref() {
        Ok(driver) => Ok(driver.spawn(work)),
        Err(error) => Err(Error::Io(io::Error::new(error.kind(), error.to_string()))),
    };
    async { doing?.await.map_err(|_| Error::WorkerCrashed)? }
}

/// One of a pool's connections.
pub async fn acquire(pool: &MySqlPool) -> Result<PoolConnection<MySql>, Error> {
    let pool = pool.clone();
    driven(async move { pool.acquire().await }).await
}

/// Takes the first mark of a node that is free, and says its place. A mark goes with its connection, after whatever that had left open is undone.
async fn mark(connection: &mut MySqlConnection, node: i64) -> Result<i64, Error> {
    for place in 0..WRITERS_MAX {
        let taken = sqlx::query(MARK).bind(node).bind(place).fetch_one(&mut *connection).await?;
        if taken.try_get::<i64, _>(0)? == 1 {
            return Ok(place);
        }
    }
    Err(Error::PoolTimedOut)
}

/// Ends every writer of a node, wherever it is, and waits until each is gone with whatever it had left open. Whether that is so.
pub async fn end_writers(session: &mut Session, node: i64) -> Result<bool, Error> {
    // A connection that is heard no more must not hold up whoever takes over: he comes again with another.
    within(ENDED_MS, end_each_writer(session, node)).await
}

async fn end_each_writer(session: &mut Session, node: i64) -> Result<bool, Error> {
    for _ in 0..WRITERS_GONE_WITHIN_MS / GONE_LOOK_MS {
        let mut gone = true;
        for place in 0..WRITERS_MAX {
            let Some(writer) = marked(session, node, place).await? else { continue };
            gone = false;
            // It may have ended by itself meanwhile: that it is not there is no error.
            let _ = sqlx::query("kill ?").bind(writer).execute(&mut session.connection).await;
        }
        if gone {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(GONE_LOOK_MS)).await;
    }
    Ok(false)
}

/// The connection that bears this mark of a node.
async fn marked(session: &mut Session, node: i64, place: i64) -> Result<Option<i64>, Error> {
    sqlx::query(MARKED).bind(node).bind(place).fetch_one(&mut session.connection).await?.try_get(0)
}

/// Ends one writer of a node, if it is there.
#[cfg(test)]
pub async fn cut_writer(session: &mut Session, node: i64, place: i64) -> bool {
    let Some(writer) = marked(session, node, place).await.unwrap() else { return false };
    sqlx::query("kill ?").bind(writer).execute(&mut session.connection).await.is_ok()
}

/// The connections that bear the marks of a node.
#[cfg(test)]
pub async fn writers(session: &mut Session, node: i64) -> Vec<i64> {
    let mut writers = Vec::new();
    for place in 0..WRITERS_MAX {
        writers.extend(marked(session, node, place).await.unwrap());
    }
    writers
}

/// Ends one connection, if it is there still, and waits until it is gone with whatever it had left open. Whether that is so.
pub async fn end_one(session: &mut Session, lost: Name) -> Result<bool, Error> {
    for _ in 0..GONE_WITHIN_MS / GONE_LOOK_MS {
        if !is_there(session, lost).await? {
            return Ok(true);
        }
        let _ = sqlx::query("kill ?").bind(lost.id).execute(&mut session.connection).await;
        tokio::time::sleep(Duration::from_millis(GONE_LOOK_MS)).await;
    }
    Ok(false)
}

async fn is_there(session: &mut Session, name: Name) -> Result<bool, Error> {
    // Whoever asks is not the one that was lost: no server gives a number twice while it runs.
    if session.name.id == name.id {
        return Ok(false);
    }
    if let Some((node, place)) = name.mark {
        return Ok(marked(session, node, place).await? == Some(name.id));
    }
    let row = sqlx::query(THERE).bind(name.id).fetch_one(&mut session.connection).await?;
    Ok(row.try_get::<i64, _>(0)? != 0)
}

/// The same over a connection of its own, in no more than the time that this may take.
pub async fn end_lost(server: &Server, lost: Name) -> bool {
    let ending = async { end_one(&mut server.connect().await?, lost).await };
    within(ENDED_MS, ending).await.unwrap_or(false)
}

/// What every session of ours agrees upon.
async fn settle(connection: &mut MySqlConnection) -> Result<(), Error> {
    connection.execute(READ_COMMITTED).await?;
    connection.execute(SETTINGS).await?;
    Ok(())
}

/// What a server says of itself, and of our session.
struct Found {
    version: String,
    mode: String,
    letters: String,
    flush: i64,
    binlog: i64,
    sync: i64,
}

/// Whether a server will do.
pub async fn check(session: &mut Session) -> Result<(), StoreError> {
    Ok(look(&mut session.connection).await?.fits()?)
}

/// The same of one that is in use: somebody may have changed its settings since, or put another in its place.
pub async fn check_again(pool: &MySqlPool) -> Result<(), StoreError> {
    let mut connection = acquire(pool).await?;
    Ok(bounded(look(&mut connection)).await?.fits()?)
}

async fn look(connection: &mut MySqlConnection) -> Result<Found, Error> {
    let row = sqlx::query(LOOK).fetch_one(connection).await?;
    Ok(Found {
        version: row.try_get(0)?,
        mode: row.try_get(1)?,
        letters: row.try_get(2)?,
        flush: row.try_get(3)?,
        binlog: row.try_get(4)?,
        sync: row.try_get(5)?,
    })
}

impl Found {
    fn fits(self) -> Result<(), Unfit> {
        let Found { version, mode, letters, flush, binlog, sync } = self;
        if !is_new_enough(&version) {
            return Err(Unfit::Old { found: version });
        }
        if flush != 1 {
            return Err(Unfit::NotDurable { found: flush });
        }
        if binlog != 0 && sync != 1 {
            return Err(Unfit::BinlogNotDurable { found: sync });
        }
        if !mode.split(',').any(|word| word == "STRICT_TRANS_TABLES") {
            return Err(Unfit::NotStrict { found: mode });
        }
        if letters != "utf8mb4" {
            return Err(Unfit::Letters { found: letters });
        }
        Ok(())
    }
}

/// Whether the database has no table.
pub async fn is_empty(session: &mut Session) -> Result<bool, Error> {
    let tables: i64 = sqlx::query_scalar(TABLES).fetch_one(&mut session.connection).await?;
    Ok(tables == 0)
}

/// From now on this session sees, in all tables, what is committed by this moment, and nothing else.
pub async fn freeze(session: &mut Session) -> Result<(), Error> {
    session.connection.execute(REPEATABLE).await?;
    bounded(session.connection.execute(FREEZE)).await.map(drop)
}

/// The server's number for what went wrong.
pub fn number(error: &Error) -> Option<u16> {
    let server = error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(server.number())
}

/// Its time was read between these two of ours: how long that took is nobody's fault.
fn ahead(there: i64, before: i64, after: i64) -> i64 {
    match (before - there, after - there) {
        (least, _) if least > 0 => least,
        (_, most) if most < 0 => most,
        _ => 0,
    }
}

fn is_new_enough(version: &str) -> bool {
    let least = if version.contains("MariaDB") { MARIADB_MIN } else { MYSQL_MIN };
    // Behind some proxies MariaDB says `5.5.5-` first.
    let mut numbers =
        version.trim_start_matches("5.5.5-").split(['.', '-']).map(|number| number.parse().ok());
    let found = numbers.next().flatten().zip(numbers.next().flatten());
    found.is_some_and(|found| found >= least)
}

/// Begins a transaction. `Server::mend` has seen to it that there is no other. That of a node holds on to the row that says that it
/// lives: whoever declares it dead waits for its end.
pub async fn begin(session: &mut Session) -> Result<(), Error> {
    begin_plainly(&mut session.connection).await?;
    let Some((node, _)) = session.name.mark else { return Ok(()) };
    let lives = sqlx::query(LIVES).bind(node).fetch_optional(&mut session.connection);
    match bounded(lives).await? {
        Some(_) => Ok(()),
        None => Err(Error::AnyDriverError(Box::new(TakenOver))),
    }
}

/// Begins a transaction that is nobody's in particular.
pub async fn begin_plainly(connection: &mut MySqlConnection) -> Result<(), Error> {
    bounded(connection.execute("start transaction")).await.map(|_| ())
}

/// Undoes what was begun, if anything was.
pub async fn roll_back(session: &mut Session) -> Result<(), Error> {
    within(SIGN_OF_LIFE_MS, session.connection.execute("rollback")).await.map(drop)
}

/// Commits what went well and undoes what did not.
pub async fn end<T, E: From<Error>>(connection: &mut MySqlConnection, outcome: Result<T, E>) -> Result<T, E> {
    let ended = match outcome {
        Ok(value) => bounded(connection.execute("commit")).await.map(|_| value).map_err(E::from),
        Err(error) => Err(error),
    };
    if ended.is_err() {
        let _ = within(SIGN_OF_LIFE_MS, connection.execute("rollback")).await;
    }
    ended
}

/// A statement, for no longer than a statement may take.
pub async fn bounded<T>(statement: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    within(STATEMENT_MS, statement).await
}

/// Rows as they come, none of them longer on its way than a statement may be.
pub fn each_bounded<'c, T: Send + 'c>(
    rows: BoxStream<'c, Result<T, Error>>,
) -> BoxStream<'c, Result<T, Error>> {
    each_within(STATEMENT_MS, rows)
}

fn each_within<'c, T: Send + 'c>(
    ms: u64,
    rows: BoxStream<'c, Result<T, Error>>,
) -> BoxStream<'c, Result<T, Error>> {
    let rows = stream::unfold(Some(rows), move |rows| async move {
        let mut rows = rows?;
        let next = within(ms, rows.try_next()).await;
        match next {
            Ok(Some(row)) => Some((Ok(row), Some(rows))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    rows.boxed()
}

pub async fn within<T, E: From<Error>>(ms: u64, doing: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match tokio::time::timeout(Duration::from_millis(ms), doing).await {
        Ok(outcome) => outcome,
        Err(_) => {
            Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database does not answer")).into())
        }
    }
}
