//! What is stored beside an owner, and what is not.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use rstest::rstest;

use super::*;
use crate::actors::stock::NoHome;
use crate::actors::stock::testing::until;
use crate::domain::stock::Sequence;
use crate::persistence::journal::{Appended, Journal};
use crate::persistence::testing::{Home as Place, Owner, T0, append, buyer, open, order};

/// Each buys one, and each third's is written together with the next one's.
fn write(journal: &Journal, owner: &mut Owner, buyers: Range<u128>) {
    for number in buyers {
        owner.hold(order(number, owner.product), buyer(number), 1, T0);
        if number % 3 > 0 {
            assert_eq!(append(journal, owner.seal(T0)), Appended::Written);
        }
    }
}

/// What is said of a snapshot of where this owner stands.
async fn told(journal: &Journal, product: ProductId, stood: Standing) -> Result<(), NotStored> {
    let snapshots = Snapshots::default();
    snapshots.begin(Arc::new(journal.clone()), product, stood).unwrap().await.unwrap()
}

#[rstest]
#[tokio::test]
async fn what_is_stored_is_the_ledger_where_its_owner_stood(
    #[values(Place::Sqlite, Place::MySql)] place: Place,
) {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = place.journal(&dir).await;
    let mut owner = Owner::stocked(1, 10_000);
    // More entries than are read at once; then the second begins with the first.
    for buyers in [1..401, 402..503] {
        let last = buyers.end;
        write(&journal, &mut owner, buyers);
        let stood = owner.ledger.standing();
        // What comes behind it is not of it.
        owner.hold(order(last, owner.product), buyer(last), 1, T0);
        assert_eq!(append(&journal, owner.seal(T0)), Appended::Written);
        told(&journal, owner.product, stood).await.unwrap();
        journal.close().await;

        journal = place.journal(&dir).await;
        let stored = journal.reader().load(owner.product).await.unwrap();
        let mut ledger = Ledger::restore(&stored.snapshot.unwrap()).unwrap();
        assert_eq!((ledger.standing(), stored.entries.len()), (stood, 1));
        stored.entries.iter().for_each(|entry| ledger.replay(entry).unwrap());
        assert_eq!(ledger.digest(), owner.ledger.digest());
    }
    journal.close().await;
}

#[tokio::test]
async fn what_is_on_its_way_is_waited_for_and_not_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let mut owner = Owner::stocked(1, 10);
    assert_eq!(append(&journal, owner.seal(T0)), Appended::Written);
    owner.hold(order(1, owner.product), buyer(1), 1, T0);
    let (entry, snapshots) = (owner.seal(T0), Snapshots::default());
    let begin = || snapshots.begin(Arc::new(journal.clone()), owner.product, owner.ledger.standing());
    let told = begin().unwrap();
    assert!(begin().is_none(), "one at a time");
    drop(told);
    until("nobody wants it", || !snapshots.is_under_way()).await;
    assert!(journal.reader().snapshots(owner.product).await.is_empty());
    let told = begin().unwrap();
    assert_eq!(append(&journal, entry), Appended::Written);
    told.await.unwrap().unwrap();
    assert_eq!(journal.reader().snapshots(owner.product).await, [(2, 1, 1)]);
    journal.close().await;
}

#[tokio::test]
async fn a_ledger_that_the_journal_does_not_lead_to_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let mut owner = Owner::stocked(1, 10_000);
    write(&journal, &mut owner, 1..12);
    let product = owner.product;
    let stands = owner.ledger.standing();
    let mut counted = stands;
    counted.counts.held += 1;
    // Another order, or another history of as many events.
    let remembered = Standing { remembered: stands.remembered + 1, ..stands };
    let chained = Standing { hash: Default::default(), ..stands };
    // The third hold and the fourth are one entry.
    let amid = Standing { sequence: Sequence(4), ..stands };
    for wrong in [counted, remembered, chained, amid] {
        let told = told(&journal, product, wrong).await;
        assert!(matches!(&told, Err(why @ NotStored::Differs { .. }) if why.is_wrong()), "{told:?}");
    }
    assert!(journal.reader().snapshots(product).await.is_empty());
    told(&journal, product, stands).await.unwrap();
    // Of an owner that is behind somebody else nothing is to be said.
    let behind = Standing { sequence: Sequence(3), ..stands };
    let told = told(&journal, product, behind).await;
    assert!(matches!(&told, Err(why @ NotStored::Unwanted) if !why.is_wrong()), "{told:?}");
    journal.close().await;

    assert!(check(&owner.ledger, &stands).is_ok());
    owner.ledger.tamper();
    let told = check(&owner.ledger, &owner.ledger.standing());
    assert!(matches!(&told, Err(why @ NotStored::DoesNotAddUp(_)) if why.is_wrong()), "{told:?}");
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_replaced_from_the_whole_history() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let mut owner = Owner::stocked(1, 10_000);
    write(&journal, &mut owner, 1..12);
    journal.save_snapshot(owner.product, Sequence(2), vec![7; 100]).await.unwrap();
    told(&journal, owner.product, owner.ledger.standing()).await.unwrap();
    let body = journal.reader().load(owner.product).await.unwrap().snapshot.unwrap();
    assert_eq!(Ledger::restore(&body).unwrap().digest(), owner.ledger.digest());
    journal.close().await;
}

#[test]
fn where_memory_is_short_none_is_made() {
    const NEEDED: u64 = BYTES_SPARED + 1_000_000 * BYTES_AN_ORDER;
    let (reply, told) = oneshot::channel();
    let stood = Owner::stocked(1, 10).ledger.standing();
    let (home, product) = (Arc::new(NoHome), ProductId::from_bytes([1; 16]));
    let mut making = Making { home, product, stood, room: || Some(NEEDED), reply };
    assert!(making.has_room(1_000_000, 0).is_ok());
    making.room = || None;
    assert!(making.has_room(1_000_000, 0).is_ok());
    making.room = || Some(NEEDED - 1);
    let short = making.has_room(1_000_000, 0);
    assert!(matches!(&short, Err(why @ NotStored::NoRoom { orders: 1_000_000 }) if !why.is_wrong()));
    assert!(making.has_room(1_000_000, 1).is_ok(), "what is taken need not be there");
    making.room = || Some(BYTES_SPARED - 1);
    assert!(making.has_room(1_000_000, NEEDED).is_err(), "and what is spared is");
    assert!(making.is_wanted().is_ok());
    drop(told);
    assert!(matches!(making.is_wanted(), Err(NotStored::Unwanted)));
}

#[tokio::test]
async fn a_stored_snapshot_for_which_memory_is_short_is_not_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let mut owner = Owner::stocked(1, 10_000);
    write(&journal, &mut owner, 1..12);
    // As of a time when ten thousand were remembered.
    journal.save_snapshot(owner.product, Sequence(2), vec![7; 10_000 * RECORD_BYTES]).await.unwrap();
    let room = || Some(BYTES_SPARED + 1_000_000);
    let snapshots = Snapshots { room, ..Snapshots::default() };
    let (home, stood) = (Arc::new(journal.clone()), owner.ledger.standing());
    let told = snapshots.begin(home, owner.product, stood).unwrap().await.unwrap();
    assert!(matches!(told, Err(NotStored::NoRoom { orders: 10_000 })), "{told:?}");
    assert_eq!(journal.reader().snapshots(owner.product).await.len(), 1);
    journal.close().await;
}

#[tokio::test]
async fn whoever_takes_the_memory_meanwhile_keeps_it() {
    static LOOKS: AtomicU64 = AtomicU64::new(0);
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir).await;
    let mut owner = Owner::stocked(1, 10_000);
    write(&journal, &mut owner, 1..602);
    // There is enough before it begins, and behind the first entries.
    let room = || Some(if LOOKS.fetch_add(1, Ordering::Relaxed) < 2 { u64::MAX } else { BYTES_SPARED - 1 });
    let snapshots = Snapshots { room, ..Snapshots::default() };
    let (home, stood) = (Arc::new(journal.clone()), owner.ledger.standing());
    let told = snapshots.begin(home, owner.product, stood).unwrap().await.unwrap();
    assert!(matches!(told, Err(NotStored::NoRoom { .. })), "{told:?}");
    assert_eq!(LOOKS.load(Ordering::Relaxed), 3);
    assert!(journal.reader().snapshots(owner.product).await.is_empty());
    journal.close().await;
}
