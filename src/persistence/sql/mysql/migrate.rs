//! How a database is brought up to date: by one node at a time, and what was interrupted is finished by whoever comes next.
//!
//! Always true: MySQL commits a change of tables by itself, so a history may say of a file that it was begun, and nobody knows whether it
//! was done. Each file is one statement, so it is run again; where that finds its work done, it is. And where there is nothing to do
//! nothing is done: whoever may change no table serves a database that is up to date.

use sqlx::Executor;
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::mysql::MySqlConnection;

use super::{MIGRATIONS_S, Session, StoreError, Unfit, number};

const LOCK: &str = "select cast(coalesce(get_lock(concat('stockade ', md5(database())), ?), 0) as signed)";
const UNLOCK: &str = "select release_lock(concat('stockade ', md5(database())))";

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
    let locked: i64 = sqlx::query_scalar(LOCK).bind(MIGRATIONS_S).fetch_one(&mut *connection).await?;
    if locked != 1 {
        return Err(Unfit::Migrating.into());
    }
    let mut migrated = Ok(());
    for folder in folders {
        migrated = run(connection, folder).await;
        if migrated.is_err() {
            break;
        }
    }
    sqlx::query(UNLOCK).execute(connection).await?;
    migrated
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
