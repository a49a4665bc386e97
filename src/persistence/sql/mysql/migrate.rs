//! How a database is brought up to date: by one node at a time, and what was interrupted is finished by whoever comes next.
//!
//! Always true: MySQL commits a change of tables by itself, so a history may say of a file that it was begun, and nobody knows whether it
//! was done. Each file is one statement, so it is run again; where that finds its work done, it is.

use sqlx::Executor;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::mysql::MySqlConnection;

use super::{MIGRATIONS_S, Session, StoreError, Unfit, number};

const LOCK: &str = "select cast(coalesce(get_lock(concat('stockade ', md5(database())), ?), 0) as signed)";
const UNLOCK: &str = "select release_lock(concat('stockade ', md5(database())))";

/// MySQL's numbers for a table, a column and a key that are there already, and for something to be dropped that is not there.
const DONE: [u16; 4] = [1050, 1060, 1061, 1091];
/// And for a table that is not there: the one that was to be renamed has its new name.
const NO_TABLE: u16 = 1146;

/// The files of one folder.
pub struct Migrations {
    pub files: Migrator,
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
    Ok(migrated?)
}

async fn run(connection: &mut MySqlConnection, folder: &Migrations) -> Result<(), MigrateError> {
    match folder.files.run(&mut *connection).await {
        Err(MigrateError::Dirty(begun)) => finish(connection, folder, begun).await?,
        ran => return ran,
    }
    folder.files.run(connection).await
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
