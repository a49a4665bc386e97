//! A slice of which nobody has heard whether it was written.

use rstest::rstest;

use super::super::*;
use super::{a_day_in_the_shop, append, append_all, open};
use crate::persistence::journal::{Appended, Health};
use crate::persistence::testing::Home::{self, MySql, Sqlite};
use crate::persistence::testing::{Owner, T0};

async fn a_day_to_flush(home: Home) -> (tempfile::TempDir, Journal, Tables) {
    let dir = tempfile::tempdir().unwrap();
    let (journal, tables) = (open(&dir).await, home.open(&dir).await);
    append_all(&journal, a_day_in_the_shop().2);
    (dir, journal, tables)
}

#[rstest]
#[tokio::test]
async fn a_slice_that_comes_twice_is_refused_the_second_time(#[values(Sqlite, MySql)] home: Home) {
    let (dir, journal, tables) = a_day_to_flush(home).await;
    let mut first = Flusher::open(&journal, &tables).await.unwrap();
    let mut second = Flusher::open(&journal, &tables).await.unwrap();
    let plan = first.plan(9).await.unwrap().unwrap();
    first.write(&plan).await.unwrap();
    let again = second.write(&plan).await;
    assert!(matches!(again, Err(FlushError::CheckpointMoved { expected: 0 })), "{again:?}");
    let rest = first.plan(10_000).await.unwrap().unwrap();
    let (events, bytes, changes) = (0, 0, Changes::default());
    let mut moved =
        Plan { from: rest.from, to: rest.to, events, bytes, changes, news: None, notices: Packed::default() };
    moved.changes.stock = rest.changes.stock.clone();
    moved.changes.stock[0].before = Some(Sequence(1));
    let stale = first.write(&moved).await;
    assert!(matches!(stale, Err(FlushError::StockMoved { .. })), "{stale:?}");
    first.write(&rest).await.unwrap();
    journal.close().await;
    tables.close().await.unwrap();
    let report = home.audit(&dir).await;
    assert_eq!(report.differences, [""; 0]);
    assert_eq!((report.orders, report.lines, report.products), (7, 8, 2));
}

/// The answer to a commit can be lost, and the commit stands: to the one who asked for it, it is as if another had written the slice.
#[rstest]
#[tokio::test]
async fn a_slice_whose_answer_was_lost_is_found_and_counted_once(#[values(Sqlite, MySql)] home: Home) {
    let (dir, journal, tables) = a_day_to_flush(home).await;
    let mut one = Flusher::open(&journal, &tables).await.unwrap();
    let mut other = Flusher::open(&journal, &tables).await.unwrap();
    let plan = other.plan(9).await.unwrap().unwrap();
    other.write(&plan).await.unwrap();
    assert!(one.slice().await.is_err(), "it does not begin where the tables are");
    while one.slice().await.unwrap().events > 0 {}
    assert_eq!(one.gauge().lag(), Lag::default());
    // A failure that wrote nothing is nothing.
    one.in_doubt = true;
    assert_eq!(one.slice().await.unwrap().events, 0);
    assert_eq!(one.gauge().lag(), Lag::default());
    journal.close().await;
    tables.close().await.unwrap();
    assert_eq!(home.audit(&dir).await.differences, [""; 0]);
}

/// A replica has become the database that had not received the last slice; of the journal it has as much as was there, or more by now. The
/// flush cannot go on from where it believes to be, and nobody is told that the tables show everything.
#[rstest]
#[tokio::test]
async fn a_slice_that_was_forgotten_ends_this_opening(#[values(true, false)] more: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (journal, tables) = (MySql.journal(&dir).await, MySql.open(&dir).await);
    for number in [1, 2] {
        assert_eq!(append(&journal, Owner::stocked(number, 10).seal(T0)), Appended::Written);
    }
    let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
    assert_eq!(flusher.slice().await.unwrap().pos, 2);
    let mut writer = tables.writer().await.unwrap();
    for forgotten in ["update flush_checkpoint set pos = 1 where id = 1", "delete from stock"] {
        sql::query(forgotten).execute(&mut *writer).await.unwrap();
    }
    drop(writer);
    if more {
        assert_eq!(append(&journal, Owner::stocked(3, 10).seal(T0)), Appended::Written);
        assert!(matches!(flusher.slice().await, Err(FlushError::CheckpointMoved { expected: 2 })));
    }
    let told = flusher.slice().await;
    assert!(matches!(told, Err(FlushError::Store(StoreError::Forgotten))), "{told:?}");
    assert!(journal.health() == Health::Fenced && *journal.fatal().borrow());
    journal.close().await;
    tables.close().await.unwrap();
}
