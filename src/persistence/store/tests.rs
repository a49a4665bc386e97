//! One writer at a time, on files and on a database: what a dropped one leaves behind, and what a disk that fails does.

use std::time::Duration;

use rstest::rstest;

use super::*;
use crate::persistence::doubt::UncleanMark;
use crate::persistence::testing::Home::{self, MySql, Sqlite};
use crate::persistence::testing::{killed, without_wal};
use crate::persistence::{Tables, journal};

const MOVE: &str = "update flush_checkpoint set pos = pos + 1 where id = 1";
const POS: &str = "select pos from flush_checkpoint where id = 1";

/// The one in which the flush's checkpoint stands.
async fn store(home: Home) -> (tempfile::TempDir, Store) {
    let (dir, tables) = home.tables().await;
    (dir, tables.jobs().store)
}

async fn moved(transaction: &mut Connection) -> Result<(), StoreError> {
    sql::query(MOVE).execute(transaction).await?;
    Ok(())
}

/// One in which somebody has begun, and nobody has ended.
async fn dropped_half_way(home: Home) -> (tempfile::TempDir, Store) {
    let (dir, store) = store(home).await;
    let mut dropped = store.begin_synced().await.unwrap();
    moved(&mut dropped).await.unwrap();
    drop(dropped);
    (dir, store)
}

async fn pos(store: &Store) -> i64 {
    sql::query_scalar(POS).fetch_one(&store.readers()).await.unwrap()
}

async fn synchronous(writer: &mut Connection) -> i64 {
    sql::query_scalar("pragma synchronous").fetch_one(writer).await.unwrap()
}

#[rstest]
#[tokio::test]
async fn a_transaction_that_was_dropped_half_way_leaves_nothing(#[values(Sqlite, MySql)] home: Home) {
    let (_dir, store) = dropped_half_way(home).await;
    // What comes next is a transaction of its own, not the rest of that one.
    assert_eq!(store.write_synced(sql::query(MOVE)).await.unwrap(), 1);
    assert_eq!(pos(&store).await, 1);
    let mut ended = store.begin_synced().await.unwrap();
    if home == Sqlite {
        assert_eq!(synchronous(&mut ended).await, 2, "full, to its end");
    }
    let outcome = moved(&mut ended).await;
    ended.end(outcome).await.unwrap();
    assert_eq!(pos(&store).await, 2);
    if home == MySql {
        return;
    }
    let mut writer = store.writer().await.unwrap();
    assert_eq!(synchronous(&mut writer).await, 1, "normal again");
}

/// Who reads keeps nobody waiting, and neither does his snapshot outlast what was erased for longer than he reads.
#[tokio::test]
async fn a_wal_with_what_was_erased_is_emptied_as_soon_as_nobody_reads_it() {
    let (dir, store) = store(Sqlite).await;
    let bytes = || std::fs::metadata(dir.path().join("shop.db-wal")).unwrap().len();
    assert_eq!(store.write_synced(sql::query(MOVE)).await.unwrap(), 1);
    let mut reader = store.readers().acquire().await.unwrap();
    sql::query("begin").execute(&mut reader).await.unwrap();
    sql::query(POS).fetch_one(&mut reader).await.unwrap();
    store.checkpoint_if_due().await;
    assert!(bytes() > 0, "it has not grown, and nothing was erased");
    store.forget_soon();
    store.checkpoint_if_due().await;
    assert!(bytes() > 0, "somebody reads");
    sql::query("rollback").execute(&mut reader).await.unwrap();
    store.checkpoint_if_due().await;
    assert_eq!(bytes(), 0);
    assert!(!store.0.has_former.load(Ordering::Acquire));
    let mut writer = store.writer().await.unwrap();
    let patience: i64 = sql::query_scalar("pragma busy_timeout").fetch_one(&mut *writer).await.unwrap();
    assert_eq!(patience, 5_000, "as before");
}

/// What he had erased may still stand in there.
#[tokio::test]
async fn the_wal_of_whoever_was_killed_is_emptied_by_the_next_start() {
    let (dir, _tables) = Sqlite.tables().await;
    let dir = killed(&dir);
    let bytes = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
    assert!(bytes("people.db-wal") > 0 && bytes("money.db-wal") > 0);
    let tables = Tables::open(dir.path()).await.unwrap();
    tables.checkpoint_if_due(false).await;
    tables.money().checkpoint_if_due().await;
    assert_eq!([bytes("people.db-wal"), bytes("money.db-wal")], [0, 0]);
    assert!(!tables.money().has_former());
    tables.close().await.unwrap();
}

/// The disk has failed in a commit, and nobody knows what it has.
#[tokio::test]
async fn a_disk_that_failed_ends_this_opening_and_the_next_one_writes_everything_back_first() {
    let (dir, tables) = Sqlite.tables().await;
    let store = tables.jobs().store;
    assert_eq!(store.write_synced(sql::query(MOVE)).await.unwrap(), 1);
    let over = tables.fatal();
    let mut writer = store.writer().await.unwrap();
    let twice = sql::query("insert into flush_checkpoint (id, pos) values (1, 1)");
    let refused = twice.execute(&mut *writer).await.unwrap_err();
    let Connection::Sqlite(own) = &*writer else { panic!("a file") };
    own.tell(&refused);
    assert!(!*over.borrow(), "what was certainly not written leaves no doubt");
    own.tell(&Error::WorkerCrashed);
    assert!(*over.borrow());
    drop(writer);
    let written = store.write_synced(sql::query(MOVE)).await;
    assert!(matches!(written, Err(StoreError::DiskFailed)), "{written:?}");
    let begun = tables.begin().await.map(drop);
    assert!(matches!(begun, Err(StoreError::DiskFailed)), "nor another file that was opened with it");

    let file = |dir: &tempfile::TempDir| dir.path().join("shop.db");
    let mark = |dir: &tempfile::TempDir| UncleanMark::of(&file(dir));
    let (read, quiet) = (killed(&dir), killed(&dir));
    assert!(std::fs::metadata(quiet.path().join("shop.db-wal")).unwrap().len() > 0);
    assert!(mark(&read).stands() && mark(&quiet).stands());
    assert!(matches!(tables.close().await, Err(StoreError::DiskFailed)));

    // Whoever reads what the WAL has keeps it from being emptied.
    let mut reader = sqlite::writer(&file(&read), &journal::tuning()).await.unwrap();
    sqlx::query("begin").execute(&mut reader).await.unwrap();
    sqlx::query(POS).fetch_one(&mut reader).await.unwrap();
    let refused = Tables::open(read.path()).await.map(drop).unwrap_err();
    assert!(matches!(&refused, StoreError::StillRead { path } if *path == file(&read)), "{refused}");
    assert!(mark(&read).stands());

    let tables = Tables::open(quiet.path()).await.unwrap();
    assert!(!mark(&quiet).stands());
    let alone = without_wal(&file(&quiet));
    let mut looking = sqlite::writer(&file(&alone), &journal::tuning()).await.unwrap();
    let pos: i64 = sqlx::query_scalar(POS).fetch_one(&mut looking).await.unwrap();
    assert_eq!(pos, 1);
    tables.close().await.unwrap();
}

/// Begins it, and goes; `false` if it has ended at once.
async fn gone_from<T>(ending: impl Future<Output = T>) -> bool {
    tokio::select! {
        biased;
        _ = ending => false,
        () = std::future::ready(()) => true,
    }
}

/// SQLite commits whether or not anybody waits for it.
#[tokio::test]
async fn what_came_of_a_commit_is_heard_though_whoever_began_it_has_gone() {
    let (_dir, tables) = Sqlite.tables().await;
    let store = tables.jobs().store;
    let mut transaction = store.begin_synced().await.unwrap();
    moved(&mut transaction).await.unwrap();
    assert!(gone_from(transaction.end(Ok::<_, StoreError>(()))).await);
    drop(store.writer().await.unwrap());
    assert_eq!(pos(&store).await, 1);
    assert!(!*tables.fatal().borrow(), "it is known");

    // Whoever was to stay is gone as well.
    let mut writer = store.writer().await.unwrap();
    let Connection::Sqlite(file) = &mut *writer else { panic!("a file") };
    loop {
        sqlite::begin(file).await.unwrap();
        sqlx::query(MOVE).execute(&mut **file).await.unwrap();
        // The connection's own thread may be quicker than whoever is to go.
        if gone_from(file.end(Ok::<_, Error>(()))).await {
            break;
        }
    }
    drop(writer);
    assert!(matches!(store.writer().await, Err(StoreError::DiskFailed)));
    assert!(*tables.fatal().borrow());
    assert!(matches!(tables.close().await, Err(StoreError::DiskFailed)));
}

/// Its locks go with it, and nobody has to come for that: the row of a node's session is one of them.
#[rstest]
#[tokio::test]
async fn what_was_dropped_is_undone_though_nobody_comes(#[values(Sqlite, MySql)] home: Home) {
    let (_dir, store) = dropped_half_way(home).await;
    let undoing = async {
        while store.0.unended.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), undoing).await.expect("it stays open");
    if home == MySql {
        let locked = sql::query("select pos from flush_checkpoint where id = 1 for update nowait");
        locked.fetch_one(&store.readers()).await.unwrap();
    }
}

#[rstest]
#[tokio::test]
async fn a_transaction_that_went_wrong_is_undone(#[values(Sqlite, MySql)] home: Home) {
    let (_dir, store) = store(home).await;
    let mut transaction = store.begin_synced().await.unwrap();
    moved(&mut transaction).await.unwrap();
    let wrong = transaction.end::<(), _>(Err(StoreError::Closed)).await;
    assert!(wrong.is_err());
    assert_eq!(pos(&store).await, 0);
}
