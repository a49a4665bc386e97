//! What ledgers have dropped is known to the tables.

use rstest::rstest;

use crate::domain::stock::{Cause, Command, HOLD_MS_MAX};
use crate::persistence::flush::Flusher;
use crate::persistence::testing::Home::{self, MySql, Sqlite};
use crate::persistence::testing::{Owner, T0, append_all, buyer, open, order};

/// However the slices are cut.
#[rstest]
#[tokio::test]
async fn what_cancelled_an_order_is_known_when_its_ledger_has_dropped_it(
    #[values(Sqlite, MySql)] home: Home,
    #[values(false, true)] in_one_slice: bool,
) {
    let dir = tempfile::tempdir().unwrap();
    let (journal, tables) = (open(&dir).await, home.open(&dir).await);
    let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
    let mut owner = Owner::stocked(1, 100);
    let cancelled: Vec<_> =
        (1..=20).map(|number| (order(number, owner.product), u64::MAX << number)).collect();
    // By a request without a key; and one that still stands.
    let (unkeyed, stands) = (order(21, owner.product), order(22, owner.product));
    for id in cancelled.iter().map(|(id, _)| *id).chain([unkeyed, stands]) {
        owner.hold(id, buyer(1), 1, T0);
    }
    for (order, by) in cancelled.iter().copied().chain([(unkeyed, 0)]) {
        owner.does(&Command::Release { order, cause: Cause::Cancelled, by }, T0);
    }
    append_all(&journal, vec![owner.seal(T0)]);
    if !in_one_slice {
        flusher.run_slice().await.unwrap();
        assert_eq!(tables.orders().cancelled_by(cancelled[0].0).await.unwrap(), None, "its ledger knows");
    }
    let before = T0.plus(i64::from(HOLD_MS_MAX));
    owner.does(&Command::Forget { unkeyed_before: before, keyed_before: before }, before);
    assert_eq!(owner.ledger.remembered(), 1);
    append_all(&journal, vec![owner.seal(before)]);
    while flusher.run_slice().await.unwrap().events > 0 {}
    let known = cancelled.into_iter().map(|(id, by)| (id, Some(by)));
    for (id, by) in known.chain([(unkeyed, None), (stands, None)]) {
        assert_eq!(tables.orders().cancelled_by(id).await.unwrap(), by, "{id}");
    }
    journal.close().await;
    tables.close().await.unwrap();
}
