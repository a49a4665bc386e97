//! What an owner does when deciding fails, and what it may not do without the journal.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use futures_util::future::{join, join_all, join3};
use futures_util::poll;
use tokio::time::timeout;

use super::super::protocol::{FORGOTTEN_MIN, GROUP_EVENTS_MAX};
use super::*;
use crate::actors::stock::testing::{
    OneJournal, POISON, all_shards, node, one_for, product, settings, until,
};
use crate::actors::stock::{Answer, Home, PATIENCE_MS, Reply, Route};
use crate::clock::Clock;
use crate::domain::id::ProductId;
use crate::domain::stock::{Cause, Event, Place, Refusal, Reserve, Restock, decode_events};

const SOON: Duration = Duration::from_secs(5);

/// A node that owns everything.
struct Story {
    journal: OneJournal,
    clock: Clock,
    owners: Directory,
}

impl Story {
    async fn begin() -> Story {
        Story::by(Clock::start()).await
    }

    async fn by(clock: Clock) -> Story {
        let (net, journal) = (Arc::default(), OneJournal::default());
        let owners = node(&net, &journal, &clock, 1, 1).await;
        owners.settle(&all_shards(), Route::Here).await;
        Story { journal, clock, owners }
    }

    async fn stocked(&self, number: u128, stock: u64) -> ProductId {
        let product = product(number);
        let create = Command::Create { settings: settings(), stock };
        assert!(matches!(self.owners.ask(product, create).await, Ok(Answer::Done { .. })));
        product
    }

    async fn poison(&self, product: ProductId, delta: i64) -> Reply {
        let restock = Restock { delta, reason: POISON.to_owned(), key: None };
        self.owners.ask(product, Command::Restock(restock)).await
    }

    async fn reserve(&self, product: ProductId, buyer: u128) -> Reply {
        self.owners.reserve(product, one_for(buyer, product, true), None).await
    }

    fn held(&self, product: ProductId) -> u64 {
        self.journal.ledger(product).counts().held
    }
}

fn is_held(reply: &Reply) -> bool {
    matches!(reply, Ok(Answer::Reserved(_)))
}

#[actix::test]
async fn a_question_that_makes_it_panic_costs_itself_and_is_not_taken_again() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    assert!(is_held(&story.reserve(product, 1).await));
    assert_eq!(story.poison(product, 1).await, Err(NotDone::Unknown), "nobody knows how far it came");
    // The ledger is read again, and whoever asks meanwhile waits for it.
    assert!(is_held(&story.reserve(product, 2).await));
    assert_eq!(story.poison(product, 1).await, Err(NotDone::Quarantined));
    assert!(is_held(&story.reserve(product, 3).await));
    assert_eq!((story.held(product), story.journal.forks()), (3, 0));
}

#[actix::test]
async fn after_a_panic_it_is_read_again_once_the_journal_has_spoken() {
    let story = Story::begin().await;
    let product = story.stocked(1, 100).await;
    let mut heard = Vec::new();
    for round in 0..20 {
        let buyer = 100 + 2 * round;
        // The first waits, is decided, is with the journal or has been answered when the second makes it panic.
        let poisoning = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            story.poison(product, 1 + round as i64).await
        };
        let (first, poisoned) = join(story.reserve(product, buyer), poisoning).await;
        assert_eq!(poisoned, Err(NotDone::Unknown));
        let denied = first == Err(NotDone::Unavailable);
        assert!(is_held(&first) || denied || first == Err(NotDone::Unknown), "{first:?}");
        assert!(!denied || story.held(product) == round as u64, "it was denied, and stands");
        heard.push(first.clone());
        // Whoever heard nothing certain asks again with his key, and has one unit and no more.
        let again = story.reserve(product, buyer).await;
        let order = one_for(buyer, product, true).order;
        let stands = again == Ok(Answer::Replayed(order));
        assert!(stands || !is_held(&first) && is_held(&again), "first {first:?}, then {again:?}");
        assert_eq!((story.held(product), story.journal.forks()), (round as u64 + 1, 0));
        story.clock.advance(PANIC_WINDOW_MS + 1);
    }
    assert!(heard.contains(&Err(NotDone::Unknown)) && heard.iter().any(is_held), "{heard:?}");
}

#[actix::test]
async fn a_product_that_panics_again_and_again_is_halted_alone() {
    let story = Story::begin().await;
    let (product, other) = (story.stocked(1, 10).await, story.stocked(2, 10).await);
    for delta in 1..=PANICS_MAX as i64 + 1 {
        assert_eq!(story.poison(product, delta).await, Err(NotDone::Unknown));
    }
    assert_eq!(story.reserve(product, 1).await, Err(NotDone::Internal));
    assert!(is_held(&story.reserve(other, 1).await));
    // That it has no such order it cannot say, and keeps nobody from looking where it stands; of one of its own it says nothing.
    let order = one_for(9, product, true).order;
    assert_eq!(story.owners.find(order).await, Ok(None));
    assert_eq!(story.owners.known_at(product, order).await, Err(NotDone::Internal));
    assert_eq!(story.owners.refuse_from_view(product, &one_for(2, product, true)), Ok(()));
}

#[actix::test]
async fn an_owner_that_dies_as_it_begins_keeps_nobody_waiting() {
    let story = Story::begin().await;
    story.journal.has_no_epoch(true);
    let asked = timeout(SOON, story.reserve(product(1), 1)).await;
    assert_eq!(asked, Ok(Err(NotDone::Unavailable)));
    assert_eq!(story.owners.loaded_count(), 0);
    story.journal.has_no_epoch(false);
    let product = story.stocked(1, 10).await;
    assert!(is_held(&story.reserve(product, 1).await));
}

#[actix::test]
async fn without_a_lease_nobody_is_refused_from_what_was_published() {
    let story = Story::begin().await;
    let product = story.stocked(1, 1).await;
    assert!(is_held(&story.reserve(product, 1).await));
    let refused = || story.owners.refuse_from_view(product, &one_for(2, product, true));
    assert!(
        matches!(refused(), Err(NotDone::Refused { refused, .. }) if matches!(refused.why, Refusal::SoldOut { .. }))
    );
    story.journal.lease_is_over(true);
    assert_eq!(refused(), Ok(()));
    story.journal.lease_is_over(false);
    assert!(refused().is_err());
}

#[actix::test]
async fn while_the_journal_takes_nothing_nothing_is_decided() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    assert!(is_held(&story.reserve(product, 1).await));
    let before = story.journal.last(product);
    story.journal.takes_nothing(true);
    // A hold that is due is not brought to an end either.
    story.clock.advance(i64::from(settings().hold_ms) + 1);
    let asked = join3(story.reserve(product, 2), story.reserve(product, 3), story.reserve(product, 4)).await;
    assert_eq!(asked, (Err(NotDone::Unavailable), Err(NotDone::Unavailable), Err(NotDone::Unavailable)));
    assert_eq!(story.journal.last(product), before);
    story.journal.takes_nothing(false);
    assert!(is_held(&story.reserve(product, 5).await));
    until("the hold has lapsed", || story.held(product) == 1).await;
}

#[actix::test]
async fn what_is_decided_is_answered_though_the_journal_takes_nothing_any_more() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    // It took something when the question was decided, and not when that was to be written.
    story.journal.takes_nothing_after(1);
    assert!(is_held(&timeout(SOON, story.reserve(product, 1)).await.unwrap()));
    story.journal.takes_nothing_after(1);
    let (shards, left) = ([product.shard()], async |shards| story.owners.let_go(shards).await);
    let (asked, has_left) = timeout(SOON, join(story.reserve(product, 2), left(&shards))).await.unwrap();
    assert!(is_held(&asked) && has_left, "{asked:?}");
}

#[actix::test]
async fn whoever_waits_for_a_journal_that_dies_hears_that_nobody_knows() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    story.journal.dies(true);
    assert_eq!(timeout(SOON, story.reserve(product, 1)).await.unwrap(), Err(NotDone::Unknown));
    story.journal.dies(false);
    assert!(is_held(&story.reserve(product, 1).await));
    assert_eq!((story.held(product), story.journal.forks()), (1, 0));
}

/// A product whose owner does not know what became of its last group.
async fn in_doubt(story: &Story) -> ProductId {
    let product = story.stocked(1, 10).await;
    story.journal.is_in_doubt(true);
    assert_eq!(story.reserve(product, 1).await, Err(NotDone::Unknown));
    product
}

/// His answer waits for a group like everybody's, but nothing was to be done. What a key has made may depend on it.
#[actix::test]
async fn whoever_only_looks_hears_of_no_doubt() {
    let story = Story::begin().await;
    let (owners, product, ask) = (&story.owners, product(1), one_for(1, product(1), true));
    story.journal.holds_back(true);
    let mut making = pin!(owners.ask(product, Command::Create { settings: settings(), stock: 10 }));
    assert!(poll!(making.as_mut()).is_pending());
    until("it is decided", || owners.waiting() == 0).await;
    let of_key = Ask::OrderOfKey { buyer: ask.buyer, key: ask.key.unwrap().key };
    let order = ask.order;
    let mut looks = pin!(join3(owners.view(product), owners.order(product, order), owners.find(order)));
    let mut key = pin!(owners.send(product, of_key));
    assert!(poll!(looks.as_mut()).is_pending() && poll!(key.as_mut()).is_pending());
    until("they are decided", || owners.waiting() == 0).await;
    story.journal.is_in_doubt(true);
    story.journal.holds_back(false);
    assert_eq!(making.await, Err(NotDone::Unknown));
    assert_eq!(key.await, Err(NotDone::Unknown));
    let (view, seen, found) = looks.await;
    assert_eq!(view, Err(NotDone::Unavailable));
    assert_eq!(seen, Err(NotDone::Unavailable));
    assert_eq!(found, Err(NotDone::Unavailable));
    story.journal.is_in_doubt(false);
    assert_eq!(owners.view(product).await.unwrap().counts.available(), 10);
}

#[actix::test]
async fn nobody_lets_go_before_it_is_known_what_became_of_the_last_group() {
    let story = Story::begin().await;
    let product = in_doubt(&story).await;
    let shards = [product.shard()];
    let mut letting_go = std::pin::pin!(story.owners.let_go(&shards));
    assert!(
        timeout(2 * LOAD_AGAIN, &mut letting_go).await.is_err(),
        "it may be written behind the next owner"
    );
    story.journal.is_in_doubt(false);
    assert!(timeout(SOON, letting_go).await.unwrap());
    story.owners.settle(&shards, Route::Here).await;
    let stands = Ok(Answer::Replayed(one_for(1, product, true).order));
    assert_eq!((story.reserve(product, 1).await, story.journal.forks()), (stands, 0));
}

/// What cannot be read back is in no doubt any more.
#[actix::test]
async fn whoever_finds_the_ledger_damaged_or_panics_at_it_lets_go() {
    let harms: [fn(&OneJournal, ProductId); 2] = [OneJournal::damage, OneJournal::choke];
    for harm in harms {
        let story = Story::begin().await;
        let product = in_doubt(&story).await;
        let shards = [product.shard()];
        let mut letting_go = std::pin::pin!(story.owners.let_go(&shards));
        assert!(timeout(2 * LOAD_AGAIN, &mut letting_go).await.is_err(), "nobody knows yet");
        harm(&story.journal, product);
        story.journal.is_in_doubt(false);
        assert!(timeout(SOON, letting_go).await.unwrap());
        story.owners.settle(&shards, Route::Here).await;
        assert_eq!(story.reserve(product, 2).await, Err(NotDone::Internal), "it stands still");
    }
}

#[actix::test]
async fn whoever_does_not_find_out_stays_where_it_is_and_keeps_nobody() {
    let story = Story::begin().await;
    let product = in_doubt(&story).await;
    let shards = [product.shard()];
    {
        let mut letting_go = std::pin::pin!(story.owners.let_go(&shards));
        assert!(timeout(2 * LOAD_AGAIN, &mut letting_go).await.is_err(), "the journal may say it yet");
        story.clock.advance(LEAVE_WITHIN.as_millis() as i64);
        assert!(!timeout(SOON, letting_go).await.unwrap(), "the shard is not to be given away");
    }
    timeout(SOON, story.owners.settle(&shards, Route::Here)).await.unwrap();
    story.journal.is_in_doubt(false);
    let stands = Ok(Answer::Replayed(one_for(1, product, true).order));
    assert_eq!((story.reserve(product, 1).await, story.journal.forks()), (stands, 0));
    assert!(timeout(SOON, story.owners.let_go(&shards)).await.unwrap(), "and now it may");
}

/// As after a panic where nobody catches it.
#[actix::test]
async fn whoever_ends_with_a_group_under_way_has_not_let_go() {
    let story = Story::begin().await;
    let shared = Arc::new(Shared::new(product(1)));
    let mut dying = StockOwner::new(shared, story.owners.shared_house(), story.owners.clone());
    for is_asked in [true, false] {
        dying.phase = Phase::Halted;
        let (left, mut has_left) = oneshot::channel();
        match is_asked {
            true => dying.leaving = Leaving::Asked(left),
            false => dying.shared.inbox.leave(left),
        }
        dying.stays_in_doubt();
        assert!(has_left.try_recv().is_err(), "nothing is under way");
        dying.in_flight_since_ns = Some(1);
        dying.stays_in_doubt();
        assert_eq!(has_left.try_recv(), Ok(false));
        dying.in_flight_since_ns = None;
    }
}

/// Somebody sets the machine's clock: an hour on, and two back.
#[actix::test]
async fn a_hold_stands_for_as_long_as_it_was_promised_whatever_the_wall_clock_says() {
    static PASSED_NS: AtomicI64 = AtomicI64::new(0);
    static SET_MS: AtomicI64 = AtomicI64::new(0);
    const HOUR_MS: i64 = 3_600_000;
    let boot_ns = || Clock::start().nanos().cast_signed() + PASSED_NS.load(Ordering::SeqCst);
    let wall_ms = || Clock::start().now().0 + SET_MS.load(Ordering::SeqCst);
    let story = Story::by(Clock::of(boot_ns, wall_ms)).await;
    let product = story.stocked(1, 10).await;
    assert!(is_held(&story.reserve(product, 1).await));
    SET_MS.fetch_add(HOUR_MS, Ordering::SeqCst);
    assert!(is_held(&story.reserve(product, 2).await));
    assert_eq!(story.held(product), 2, "neither has lapsed");
    SET_MS.fetch_sub(2 * HOUR_MS, Ordering::SeqCst);
    PASSED_NS.fetch_add((i64::from(settings().hold_ms) + 1_000) * 1_000_000, Ordering::SeqCst);
    assert!(is_held(&story.reserve(product, 3).await));
    until("the holds have lapsed", || story.held(product) == 1).await;
}

#[actix::test]
async fn a_hold_lapses_though_its_timer_slept() {
    let story = Story::begin().await;
    let product = story.stocked(1, 1).await;
    assert!(is_held(&story.reserve(product, 1).await));
    // As behind a lid that was closed. Nobody asks: the view says that it is sold out.
    story.clock.advance(i64::from(settings().hold_ms) + 1);
    assert!(story.owners.refuse_from_view(product, &one_for(2, product, true)).is_err());
    until("the hold has lapsed", || story.held(product) == 0).await;
}

/// More wait than two groups have room for, and all of them came in time.
#[actix::test]
async fn whoever_came_before_a_deadline_is_decided_before_the_hold_lapses() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10_000).await;
    assert!(is_held(&story.reserve(product, 1).await));
    story.clock.advance(i64::from(settings().hold_ms) - PATIENCE_MS / 2);
    story.journal.holds_back(true);
    let crowd = 3 * u128::from(GROUP_EVENTS_MAX) + 100;
    let mut asked = std::pin::pin!(join_all((2..crowd + 2).map(|buyer| story.reserve(product, buyer))));
    assert!(timeout(Duration::from_millis(50), &mut asked).await.is_err(), "nothing is written");
    story.clock.advance(PATIENCE_MS / 2);
    story.journal.holds_back(false);
    assert!(timeout(SOON, asked).await.unwrap().iter().all(is_held));
    until("the hold has lapsed", || u128::from(story.held(product)) == crowd).await;
    let events = story.journal.events(product);
    let lapsed = events.iter().position(|event| matches!(event, Event::Expired(_)));
    assert!(lapsed > events.iter().rposition(|event| matches!(event, Event::Held(_))));
}

/// The owner could not decide while its answer mattered.
#[actix::test]
async fn what_matters_to_nobody_any_more_is_not_decided() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    story.journal.reads_slowly(true);
    assert_eq!(story.poison(product, 1).await, Err(NotDone::Unknown), "its ledger is read again");
    let mut asked = std::pin::pin!(story.reserve(product, 1));
    assert!(timeout(Duration::from_millis(50), &mut asked).await.is_err(), "it waits for the ledger");
    story.clock.advance(PATIENCE_MS + 1);
    story.journal.reads_slowly(false);
    assert_eq!(timeout(SOON, asked).await.unwrap(), Err(NotDone::Unavailable));
    assert!(is_held(&story.reserve(product, 2).await));
    assert_eq!(story.held(product), 1);
}

#[actix::test]
async fn a_hold_that_is_due_lapses_before_a_crowd_that_fills_each_group() {
    const CROWD: u128 = 5_000;
    let story = Story::begin().await;
    let product = story.stocked(1, CROWD as u64 - 1).await;
    assert!(is_held(&story.reserve(product, 1).await));
    let before = story.journal.last(product).0;
    story.journal.holds_back(true);
    let restock = Restock { delta: 1, reason: "as many as want one".to_owned(), key: None };
    let restocked = story.owners.ask(product, Command::Restock(restock));
    let crowd = async {
        // The restock is being written, and the hold is due, when they all come at once.
        tokio::time::sleep(Duration::from_millis(20)).await;
        story.clock.advance(i64::from(settings().hold_ms) + 1);
        let all = join_all((2..CROWD + 2).map(|buyer| story.reserve(product, buyer)));
        let release = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            story.journal.holds_back(false);
        };
        join(all, release).await.0
    };
    let (restocked, crowd) = join(restocked, crowd).await;
    assert!(restocked.is_ok());
    assert!(crowd.iter().all(is_held), "its unit went to one of them");
    let written = story.journal.history(product).await.unwrap();
    let behind = written.iter().filter(|entry| entry.first.0 > before);
    let groups: Vec<Vec<Event>> = behind.map(|entry| decode_events(&entry.events).unwrap()).collect();
    let [restocked, next, others @ ..] = &groups[..] else { panic!("{} groups", groups.len()) };
    assert!(matches!(restocked[..], [Event::Restocked(_)]));
    assert!(matches!(next[..], [Event::Expired(_), Event::Held(_), ..]) && next.len() == 512);
    assert!(others.len() >= 8, "the crowd filled {} more", others.len());
}

#[actix::test]
async fn what_ended_long_ago_is_forgotten_and_what_lives_is_not() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10_000).await;
    let many = FORGOTTEN_MIN as u128;
    let held = join_all((1..=many).map(|buyer| story.reserve(product, buyer))).await;
    assert!(held.iter().all(is_held));
    story.clock.advance(i64::from(settings().hold_ms) + 1);
    until("all have lapsed", || story.held(product) == 0).await;
    story.clock.advance(ENDED_REMEMBERED_MS);
    assert!(is_held(&story.reserve(product, many + 1).await));
    until("they are forgotten", || story.journal.ledger(product).keys().count() == 1).await;
    assert_eq!(story.held(product), 1);
}

/// It was cancelled at its home, and then the node died.
#[actix::test]
async fn a_line_that_never_heard_of_its_orders_end_is_let_go_when_its_ledger_is_read() {
    let story = Story::begin().await;
    let (home, other) = (story.stocked(1, 10).await, story.stocked(2, 10).await);
    let deadline = story.clock.now().plus(i64::from(settings().hold_ms));
    let of = |number| Reserve { placing: Some(home), ..one_for(number, home, false) };
    for reserve in [of(1), of(2)] {
        let order = reserve.order;
        for product in [home, other] {
            assert!(is_held(&story.owners.ask(product, Command::Reserve(reserve.clone())).await));
        }
        let place = Command::Place(Place { order, deadline, lines: Vec::new() });
        story.owners.ask(home, place).await.unwrap();
        story.owners.ask(other, Command::Keep { order, deadline }).await.unwrap();
    }
    let cancel = Command::Release { order: of(1).order, cause: Cause::Cancelled, by: 7 };
    story.owners.ask(home, cancel).await.unwrap();
    assert_eq!((story.held(home), story.held(other)), (1, 2));
    story.owners.drain().await;
    let next = node(&Arc::default(), &story.journal, &story.clock, 1, 1).await;
    next.settle(&all_shards(), Route::Here).await;
    next.view(other).await.unwrap();
    until("its home has said so", || story.held(other) < 2).await;
    let stands = next.order(other, of(2).order).await;
    assert!(matches!(stands, Ok(Answer::Order(Some(line))) if line.deadline == deadline));
    assert_eq!((story.held(other), story.journal.forks()), (1, 0));
}
