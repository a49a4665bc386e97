//! What tables and journal lose without anybody's counting wrong.

use rstest::rstest;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use super::*;
use crate::clock::Clock;
use crate::domain::stock::{Command, Entry, HOLD_MS_MAX, Place};
use crate::persistence::flush::Flusher;
use crate::persistence::journal::{DatabaseConfig, Journal};
use crate::persistence::sql;
use crate::persistence::testing::Home::{self, MySql, Sqlite};
use crate::persistence::testing::{Owner, T0, append_all, buyer, new_database, open, order};

/// The tables follow all that is in the journal.
async fn follow(journal: &Journal, tables: &Tables) {
    let mut flusher = Flusher::open(journal, tables).await.unwrap();
    while flusher.run_slice().await.unwrap().events > 0 {}
}

/// A journal with these entries, all of which the tables have followed.
async fn flushed(home: Home, entries: Vec<Entry>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (journal, tables) = (open(&dir).await, home.open(&dir).await);
    append_all(&journal, entries);
    follow(&journal, &tables).await;
    journal.close().await;
    tables.close().await.unwrap();
    dir
}

async fn spoil_tables(home: Home, dir: &TempDir, sql: &'static str) {
    let tables = home.open(dir).await;
    sql::query(sql).execute(&mut *tables.writer().await.unwrap()).await.unwrap();
    tables.close().await.unwrap();
}

async fn spoil_journal(dir: &Path, sql: &'static str) {
    let file = SqliteConnectOptions::new().filename(dir.join("journal.db"));
    let mut connection = file.connect().await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Its order was born, so its owner had to keep it.
#[rstest]
#[tokio::test]
async fn a_line_of_an_order_that_was_born_is_not_let_go_of_as_not_placed(
    #[values(Sqlite, MySql)] home: Home,
    #[values(true, false)] is_born: bool,
) {
    let (mut a, mut b) = (Owner::stocked(1, 10), Owner::stocked(2, 10));
    let (both, at_home) = (order(1, a.product), Some(a.product));
    a.hold_for(both, 0, buyer(1), 1, at_home, T0);
    b.hold_for(both, 1, buyer(1), 1, at_home, T0);
    if is_born {
        let lines = vec![a.placed_line(both), b.placed_line(both)];
        a.does(&Command::Place(Place { order: both, deadline: T0.plus(600_000), lines }), T0);
    }
    b.does(&Command::Release { order: both, cause: Cause::NotPlaced, by: 0 }, T0);
    let dir = flushed(home, vec![a.seal(T0), b.seal(T0)]).await;
    let report = home.audit(&dir).await;
    assert_eq!(report.differences.len(), usize::from(is_born), "{:?}", report.differences);
    if let Some(told) = report.differences.first() {
        let begins = format!("{both}: line is Some(");
        assert!(told.starts_with(&begins) && told.ends_with("expected None"), "{told}");
    }
}

#[rstest]
#[tokio::test]
async fn what_cancelled_an_order_that_its_ledger_has_dropped_is_compared(
    #[values(Sqlite, MySql)] home: Home,
) {
    let mut owner = Owner::stocked(1, 10);
    let id = order(1, owner.product);
    owner.hold(id, buyer(1), 1, T0);
    owner.does(&Command::Release { order: id, cause: Cause::Cancelled, by: u64::MAX - 1 }, T0);
    let before = T0.plus(i64::from(HOLD_MS_MAX));
    owner.does(&Command::Forget { unkeyed_before: before, keyed_before: before }, before);
    let dir = flushed(home, vec![owner.seal(before)]).await;
    assert_eq!(home.audit(&dir).await.differences, [""; 0]);
    for lost in ["update orders set cancelled_by = 7", "update orders set cancelled_by = null"] {
        spoil_tables(home, &dir, lost).await;
        let told = home.audit(&dir).await.differences;
        assert_eq!(told, [format!("{id}: was cancelled by another request than the journal says")], "{lost}");
    }
}

/// The tables have not followed them yet, so nothing else tells of them.
#[tokio::test]
async fn a_products_last_entries_are_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, tables) = (open(&dir).await, Sqlite.open(&dir).await);
    let (mut a, mut b) = (Owner::stocked(1, 10), Owner::stocked(2, 10));
    append_all(&journal, vec![a.seal(T0), b.seal(T0)]);
    follow(&journal, &tables).await;
    for owner in [&mut a, &mut b] {
        owner.hold(order(1, owner.product), buyer(1), 1, T0);
    }
    append_all(&journal, vec![a.seal(T0), b.seal(T0)]);
    journal.close().await;
    tables.close().await.unwrap();
    assert_eq!(Sqlite.audit(&dir).await.differences, [""; 0]);
    spoil_journal(dir.path(), "delete from journal where pos = 3").await;
    let told = Sqlite.audit(&dir).await.differences;
    assert_eq!(told, ["3 entries are in the journal, whose last place is 4"]);
}

#[tokio::test]
async fn in_a_database_the_journals_end_is_missed_too() {
    let url = new_database().await;
    let (journal, _) = Journal::connect(DatabaseConfig::new(&url, Clock::start())).await.unwrap();
    let tables = Tables::connect(&url).await.unwrap();
    let (mut a, mut b) = (Owner::stocked(1, 10), Owner::stocked(2, 10));
    append_all(&journal, vec![a.seal(T0), b.seal(T0)]);
    journal.close().await;
    let audited = async || of_stopped(Stopped::Database(&url), None, &[]).await.unwrap().differences;
    assert_eq!(audited().await, [""; 0]);
    let lost = "delete from journal where pos = 2";
    sql::query(lost).execute(&mut *tables.writer().await.unwrap()).await.unwrap();
    assert_eq!(audited().await, ["places up to 2 were given, and the journal ends at 1"]);
    // As in one that was filled from a backup, and whose places are counted when a node begins.
    let filled = "update journal_end set pos = 0";
    sql::query(filled).execute(&mut *tables.writer().await.unwrap()).await.unwrap();
    assert_eq!(audited().await, [""; 0]);
    tables.close().await.unwrap();
}

#[rstest]
#[tokio::test]
async fn a_product_that_has_stock_and_no_row_is_named(#[values(Sqlite, MySql)] home: Home) {
    let mut owner = Owner::stocked(1, 10);
    let dir = flushed(home, vec![owner.seal(T0)]).await;
    let tables = home.open(&dir).await;
    assert_eq!(tables.products().without_rows().await.unwrap(), [owner.product]);
    tables.close().await.unwrap();
}
