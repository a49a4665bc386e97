//! How an owner is stored while it is sold from, and what of it is read again.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::*;
use crate::actors::stock::protocol::Protocol;
use crate::actors::stock::shared::Shared;
use crate::actors::stock::testing::{OneJournal, house, one_for, product, settings, until};
use crate::actors::stock::{Answer, Directory, Home, House, Snapshots};
use crate::clock::Clock;
use crate::domain::id::ProductId;
use crate::domain::stock::{Command, Epoch, written_here};

/// So many events are worth a snapshot here.
const FEW: u64 = 2_000;
/// Those who buy before anything else happens.
const CROWD: u128 = FEW as u128;
const SOON: Duration = Duration::from_secs(20);

/// A shop that stands alone.
fn alone(journal: &OneJournal, clock: &Clock) -> Directory {
    let house = House { snapshots: Snapshots::after(FEW), ..house(journal, clock) };
    Directory::new(Arc::new(house))
}

/// A product of which enough is held to be stored.
struct Story {
    journal: OneJournal,
    clock: Clock,
    owners: Directory,
    product: ProductId,
}

impl Story {
    async fn begin() -> Story {
        let (journal, clock) = (OneJournal::default(), Clock::start());
        let (owners, product) = (alone(&journal, &clock), product(1));
        let create = Command::Create { settings: settings(), stock: 10_000_000 };
        assert!(matches!(owners.ask(product, create).await, Ok(Answer::Done { .. })));
        let story = Story { journal, clock, owners, product };
        story.buy(0..CROWD).await;
        story
    }

    async fn buy(&self, buyers: Range<u128>) {
        let asks = buyers.map(|number| one_for(number, self.product, true));
        let replies = join_all(asks.map(|ask| self.owners.reserve(self.product, ask, None))).await;
        assert!(replies.iter().all(|reply| matches!(reply, Ok(Answer::Reserved(_)))));
    }

    fn saved(&self) -> Sequence {
        self.journal.saved(self.product)
    }

    fn is_under_way(&self) -> bool {
        self.owners.house().snapshots.is_under_way()
    }

    /// As a shop that starts now has it: with the snapshot at this sequence, all that is behind it, and each of these orders.
    async fn is_read_again(&self, from: Sequence, buyers: &[u128]) {
        let next = alone(&self.journal, &self.clock);
        let view = next.view(self.product).await.unwrap();
        let journal = self.journal.ledger(self.product);
        assert_eq!((view.sequence, view.counts), (journal.sequence(), journal.counts()));
        let (began_with, entries) = self.journal.read_last();
        assert_eq!((began_with, entries > 0), (from, from < journal.sequence()));
        for buyer in buyers {
            let order = one_for(*buyer, self.product, true).order;
            let found = next.order(self.product, order).await;
            assert!(matches!(found, Ok(Answer::Order(Some(_)))), "{buyer}: {found:?}");
        }
        assert_eq!(self.journal.forks(), 0);
    }
}

#[test]
fn whoever_has_something_under_way_waits_for_ten_times_as_many() {
    let events = Snapshots::default().events();
    assert_eq!((patience(events, true), patience(events, false)), (100_000, 1_000_000));
    assert_eq!(patience(u64::MAX, false), u64::MAX);
}

#[actix::test]
async fn an_owner_that_is_sold_from_is_stored_and_writes_nothing_down_itself() {
    let before = written_here();
    let story = Story::begin().await;
    let mut next = CROWD;
    let selling = async {
        while story.saved() == Sequence(0) {
            story.buy(next..next + 3).await;
            next += 3;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, selling).await.expect("it is stored");
    assert_eq!((written_here(), story.journal.saved_aside()), (before, 1));
    let at = story.saved();
    assert!(at.0 > FEW, "{at:?}");
    story.buy(next..next + 3).await;
    story.is_read_again(at, &[0, CROWD - 1, CROWD, next + 2]).await;
}

#[actix::test]
async fn one_that_comes_to_nothing_is_tried_again() {
    let story = Story::begin().await;
    story.journal.refuses_aside(true);
    until("it has come to nothing", || story.journal.saved_aside() == 1 && !story.is_under_way()).await;
    // Before its owner answers it has heard of that.
    story.buy(CROWD..CROWD + 1).await;
    assert_eq!(story.saved(), Sequence(0));
    story.journal.refuses_aside(false);
    story.clock.advance(SAVED_EVERY_MS << 1);
    until("it is stored", || story.saved() > Sequence(0)).await;
    assert_eq!(story.journal.saved_aside(), 2);
    story.is_read_again(story.journal.last(story.product), &[0, CROWD]).await;
}

#[actix::test]
async fn whoever_rests_waits_for_nobody_and_what_comes_late_takes_no_place() {
    let (before, story) = (written_here(), Story::begin().await);
    story.journal.holds_aside(true);
    until("one is under way", || story.journal.saved_aside() == 1).await;
    story.buy(CROWD..CROWD + 10).await;
    timeout(SOON, story.owners.drain()).await.expect("it rests");
    let at_rest = story.journal.last(story.product);
    assert_eq!((story.saved(), written_here()), (at_rest, before + 1));
    story.journal.holds_aside(false);
    until("the other one has come", || !story.is_under_way()).await;
    assert_eq!(story.saved(), at_rest);
    story.is_read_again(at_rest, &[0, CROWD + 9]).await;
}

#[actix::test]
async fn whoever_dies_of_making_one_takes_nobody_with_it() {
    let story = Story::begin().await;
    let (home, stood) = (Arc::new(story.journal.clone()), story.journal.ledger(story.product).standing());
    story.journal.choke(story.product);
    let told = story.owners.house().snapshots.begin(home, story.product, stood).unwrap();
    assert!(timeout(SOON, told).await.unwrap().is_err(), "nobody says anything");
    until("another may be made", || !story.is_under_way()).await;
    story.buy(CROWD..CROWD + 1).await;
}

#[actix::test]
async fn a_ledger_that_the_journal_does_not_lead_to_is_not_stored_at_rest_either() {
    let story = Story::begin().await;
    let entries = story.journal.history(story.product).await.unwrap();
    let stood = story.journal.ledger(story.product).standing();
    let rests_after = async |why: NotStored| {
        let shared = Arc::new(Shared::new(story.product));
        let mut owner = StockOwner::new(shared, story.owners.shared_house(), story.owners.clone());
        let protocol = Protocol::recover(story.product, Epoch(1), None, &entries).unwrap();
        owner.phase = Phase::Serving(Box::new(protocol));
        owner.was_saved(stood.sequence, Err(why));
        owner.stored_at_rest().await;
    };
    rests_after(NotStored::DoesNotAddUp(Box::new(stood))).await;
    assert_eq!(story.saved(), Sequence(0));
    rests_after(NotStored::Behind).await;
    assert_eq!(story.saved(), stood.sequence);
}

#[test]
fn the_more_come_to_nothing_the_longer_it_is_until_the_next() {
    let mut saving = Saving::default();
    assert!(saving.is_due(Millis(0)) && !saving.uncounted);
    let mut waits = Vec::new();
    for is_stored in [true, false, false, true, false] {
        saving.under_way = true;
        assert!(!saving.is_due(Millis(i64::MAX)), "one at a time");
        saving.ended(is_stored, Millis(0));
        waits.push(saving.not_before.0 / SAVED_EVERY_MS);
    }
    assert!(saving.uncounted && !saving.is_due(saving.not_before.plus(-1)));
    assert!(saving.is_due(saving.not_before));
    assert_eq!(waits, [1, 2, 4, 1, 2]);
    for _ in 0..100 {
        saving.ended(false, Millis(0));
    }
    assert_eq!(saving.not_before.0 / SAVED_EVERY_MS, 1 << DOUBLED_MAX);
}
