//! How a database is brought up to date: by one node at a time, and what was interrupted is finished by whoever comes next.
//!
//! Always true: MySQL commits a change of tables by itself, so a history may say of a file that it was begun, and nobody knows whether it
//! was done. Each file is one statement, so it is run again; where that finds its work done, it is. Where there is nothing to do
//! nothing is done: whoever may change no table serves a database that is up to date. And nobody who sells stands still for it: who
//! changes a table waits for those who use it, and whoever comes later for it waits behind him, so he waits for a moment at a time.

use std::time::Duration;

use sqlx::Executor;
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::mysql::MySqlConnection;

use super::{MIGRATIONS_S, Session, StoreError, Unfit, number};

const LOCK: &str = "select cast(coalesce(get_lock(concat('stockade ', md5(database())), ?), 0) as signed)";
const UNLOCK: &str = "select release_lock(concat('stockade ', md5(database())))";

/// How long a table that is to change is waited for at a time, in seconds: less than a try of the journal's to put down a group may take.
const WAIT: &str = "set session lock_wait_timeout = 2";
/// MySQL's number for a lock that was waited for too long.
const IN_USE: u16 = 1205;
/// Whoever stood behind us gets through before the next time …
const REST: Duration = Duration::from_secs(3);
/// … and so often we try: some three minutes.
const TRIES: usize = 36;

/// MySQL's numbers for a table, a column and a key that are there already, and for something to be dropped that is not there.
const DONE: [u16; 4] = [1050, 1060, 1061, 1091];
/// And for a table that is not there: the one that was to be renamed has its new name.
const NO_TABLE: u16 = 1146;
/// And for a user who may not: in that database, with that table, on that server.
const NOT_ALLOWED: [u16; 3] = [1044, 1142, 1227];

/// The files of one folder.
pub struct Migrations {
    pub files: Migrator,
    /// The table that remembers which of them have run.
    pub history: &'static str,
    /// Says in the folder's history that a file has run.
    pub mark: &'static str,
}

/// Runs migrations, one folder after the other, while no other node does.
pub async fn migrate(session: &mut Session, folders: &[Migrations]) -> Result<(), StoreError> {
    let connection = &mut session.connection;
    connection.execute(WAIT).await?;
    let locked: i64 = sqlx::query_scalar(LOCK).bind(MIGRATIONS_S).fetch_one(&mut *connection).await?;
    if locked != 1 {
        return Err(Unfit::Migrating.into());
    }
    let (mut migrated, mut tries) = (Ok(()), TRIES);
    for folder in folders {
        migrated = run_in_tries(connection, folder, &mut tries).await;
        if migrated.is_err() {
            break;
        }
    }
    sqlx::query(UNLOCK).execute(connection).await?;
    migrated
}

/// Runs a folder for as often as there are tries: its tables may be in use, as by a backup, which reads all of them as of one moment.
async fn run_in_tries(
    connection: &mut MySqlConnection,
    folder: &Migrations,
    tries: &mut usize,
) -> Result<(), StoreError> {
    loop {
        let error = match run(connection, folder).await {
            Err(error) if is_in_use(&error) => error,
            ran => return ran,
        };
        *tries = tries.saturating_sub(1);
        if *tries == 0 {
            return Err(Unfit::InUse { why: error.to_string() }.into());
        }
        tracing::warn!(%error, "somebody uses a table that is to change, perhaps a backup: it is tried again in a moment");
        tokio::time::sleep(REST).await;
    }
}

async fn run(connection: &mut MySqlConnection, folder: &Migrations) -> Result<(), StoreError> {
    // Whoever runs files makes the history first, whether or not it is there, and needs the right to.
    if is_current(connection, folder).await? {
        return Ok(());
    }
    match folder.files.run(&mut *connection).await {
        Err(MigrateError::Dirty(begun)) => finish(connection, folder, begun).await.map_err(refused)?,
        ran => return ran.map_err(refused),
    }
    folder.files.run(connection).await.map_err(refused)
}

/// Whether all files of a folder have run, and none is half done.
async fn is_current(connection: &mut MySqlConnection, folder: &Migrations) -> Result<bool, MigrateError> {
    let ran = match connection.list_applied_migrations(folder.history).await {
        Err(MigrateError::Execute(error)) if number(&error) == Some(NO_TABLE) => return Ok(false),
        ran => ran?,
    };
    if connection.dirty_version(folder.history).await?.is_some() {
        return Ok(false);
    }
    if let Some(newer) = ran.iter().find(|one| !folder.files.version_exists(one.version)) {
        return Err(MigrateError::VersionMissing(newer.version));
    }
    let known = folder.files.iter().map(|file| (file.version, &file.checksum));
    Ok(ran.iter().map(|one| (one.version, &one.checksum)).eq(known))
}

/// Whoever may not change tables hears who is to.
fn refused(error: MigrateError) -> StoreError {
    let (MigrateError::Execute(why) | MigrateError::ExecuteMigration(why, _)) = &error else {
        return error.into();
    };
    match number(why) {
        Some(number) if NOT_ALLOWED.contains(&number) => Unfit::NotMigrated { why: why.to_string() }.into(),
        _ => error.into(),
    }
}

/// Whether a statement has not begun, for somebody used its table.
fn is_in_use(error: &StoreError) -> bool {
    let StoreError::Migrate(MigrateError::Execute(why) | MigrateError::ExecuteMigration(why, _)) = error
    else {
        return false;
    };
    number(why) == Some(IN_USE)
}

/// Finishes a file that was begun.
async fn finish(
    connection: &mut MySqlConnection,
    folder: &Migrations,
    begun: i64,
) -> Result<(), MigrateError> {
    // What a newer version began is not ours to finish.
    let Some(file) = folder.files.iter().find(|file| file.version == begun) else {
        return Err(MigrateError::Dirty(begun));
    };
    tracing::warn!(file = &*file.description, "a migration was interrupted, and is run again");
    let ran = connection.execute(file.sql.clone()).await;
    if let Err(error) = ran
        && !is_done(file.sql.as_str(), number(&error))
    {
        return Err(MigrateError::ExecuteMigration(error, begun));
    }
    sqlx::query(folder.mark).bind(begun).execute(connection).await?;
    Ok(())
}

/// Whether what a statement was refused for says that it had run.
fn is_done(sql: &str, refused: Option<u16>) -> bool {
    match refused {
        Some(NO_TABLE) => sql.contains(" rename to "),
        Some(number) => DONE.contains(&number),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_being_there_was_done() {
        let rename = "alter table notices rename to notice_slices";
        let column = "alter table notices add column packed longblob";
        for (sql, refused, done) in [
            (column, Some(1060), true),
            (column, Some(NO_TABLE), false),
            (column, Some(1205), false),
            (column, None, false),
            (rename, Some(NO_TABLE), true),
            (rename, Some(1050), true),
        ] {
            assert_eq!(is_done(sql, refused), done, "{sql}: {refused:?}");
        }
    }
}
