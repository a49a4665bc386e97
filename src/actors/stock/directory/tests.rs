//! What a directory does with an owner that is about to go or cannot say anything, and where there are very many.

use std::pin::pin;

use futures_util::poll;

use super::among::SILENT_AFTER_NS;
use super::*;
use crate::actors::stock::Route;
use crate::actors::stock::testing::{
    Net, OneJournal, all_shards, house, name, node, one_for, product, settings, until,
};
use crate::domain::stock::Restock;

fn create() -> Command {
    Command::Create { settings: settings(), stock: 5 }
}

/// A journal that knows the products with these numbers, none of which is loaded.
async fn journal_of(numbers: std::ops::RangeInclusive<u128>, clock: &Clock) -> OneJournal {
    let journal = OneJournal::default();
    let owners = Directory::new(Arc::new(house(&journal, clock)));
    for number in numbers {
        assert!(matches!(owners.ask(product(number), create()).await, Ok(Answer::Done { .. })));
    }
    owners.drain().await;
    journal
}

#[actix::test]
async fn whoever_wants_to_watch_does_not_stay_with_an_owner_that_goes() {
    let (net, journal, clock) = (Arc::default(), OneJournal::default(), Clock::start());
    let owners = node(&net, &journal, &clock, 1, 1).await;
    owners.settle(&all_shards(), Route::Here).await;
    let product = product(1);
    assert!(matches!(owners.ask(product, create()).await, Ok(Answer::Done { .. })));
    let owner = owners.owner(product, true).unwrap();
    // As one does that rests, a moment before it is forgotten.
    assert!(owner.inbox.close_if_empty());
    let watch = owners.watch(product).await.unwrap();
    assert!(!watch.is_over());
}

#[actix::test]
async fn a_product_whose_owner_goes_a_moment_after_its_word_is_there_all_the_same() {
    let clock = Clock::start();
    let journal = journal_of(1..=1, &clock).await;
    let owners = Directory::new(Arc::new(house(&journal, &clock)));
    let product = product(1);
    let mut looking = pin!(owners.view(product));
    assert!(poll!(looking.as_mut()).is_pending());
    // It has answered, and whoever asked has not listened yet.
    until("it is published", || owners.peek(product).is_some()).await;
    owners.drain().await;
    until("it is forgotten", || owners.loaded_count() == 0).await;
    assert_eq!(looking.await.unwrap().counts.available(), 5);
}

#[actix::test]
async fn beyond_a_number_of_owners_none_is_loaded_for_something_new_and_those_that_idle_rest_soon() {
    let clock = Clock::start();
    let journal = journal_of(1..=4, &clock).await;
    let owners = Directory::new(Arc::new(House { owners_max: 2, ..house(&journal, &clock) }));
    let [one, two, three, four] = [1, 2, 3, 4].map(product);
    let reserve = async |of: ProductId| owners.reserve(of, one_for(1, of, false), None).await;
    for loaded in [one, two] {
        owners.view(loaded).await.unwrap();
    }
    let busy: Result<(), NotDone> = Err(NotDone::Busy { retry_after_ms: OWNERS_RETRY_MS });
    assert_eq!(owners.view(three).await.map(|_| ()), busy);
    assert_eq!(reserve(three).await.map(|_| ()), busy);
    assert_eq!(owners.watch(three).await.map(|_| ()), busy);
    assert_eq!(owners.loaded_count(), 2);

    // Who is there already is asked, and what is not new is done.
    assert!(matches!(reserve(one).await, Ok(Answer::Reserved(_))));
    let restock = Restock { delta: 1, reason: "found".to_owned(), key: None };
    assert!(matches!(owners.ask(three, Command::Restock(restock)).await, Ok(Answer::Done { .. })));
    owners.wake(vec![four]).await;
    assert_eq!(owners.loaded_count(), 4);

    clock.advance(IDLE_CROWDED_MS + 1);
    until("all rest but the one that holds", || owners.loaded_count() == 1).await;
    assert_eq!(owners.peek(one).unwrap().counts.held, 1);
    assert_eq!(owners.view(three).await.unwrap().counts.available(), 6);
}

/// Whoever was decided waits until it is known what became of him. Whoever comes now is told so now, unless he ends what was begun.
#[actix::test]
async fn nothing_is_begun_while_the_database_says_nothing() {
    let (net, journal, clock) = (Arc::default(), OneJournal::default(), Clock::start());
    let owners = node(&net, &journal, &clock, 1, 1).await;
    owners.settle(&all_shards(), Route::Here).await;
    let product = product(1);
    owners.ask(product, Command::Create { settings: settings(), stock: 10 }).await.unwrap();
    let reserve = |number| owners.reserve(product, one_for(number, product, true), None);
    journal.holds_back(true);
    let mut before = Box::pin(reserve(1));
    assert!(poll!(&mut before).is_pending());
    until("it is decided", || owners.waiting() == 0).await;
    journal.says_nothing(true);
    assert_eq!(reserve(2).await, Err(NotDone::Unavailable));
    let mut pausing = Box::pin(owners.ask(product, Command::Pause));
    assert!(poll!(&mut pausing).is_pending());
    journal.says_nothing(false);
    journal.holds_back(false);
    assert!(matches!(before.await, Ok(Answer::Reserved(_))));
    assert!(matches!(pausing.await, Ok(Answer::Done { .. })));
    owners.ask(product, Command::Resume).await.unwrap();
    assert!(matches!(reserve(3).await, Ok(Answer::Reserved(_))));
}

/// A node that is heard and does not answer waits for its database. One that is not heard either may be dead, and is waited for.
#[actix::test]
async fn an_owner_elsewhere_is_stuck_if_its_node_is_heard_and_does_not_answer() {
    let (net, journal, clock) = (Arc::<Net>::default(), OneJournal::default(), Clock::start());
    let lead = node(&net, &journal, &clock, 1, 1).await;
    let owner = node(&net, &journal, &clock, 2, 1).await;
    owner.settle(&all_shards(), Route::Here).await;
    lead.settle(&all_shards(), Route::Away(Arc::new(name(2)))).await;
    let product = product(1);
    lead.ask(product, Command::Create { settings: settings(), stock: 10 }).await.unwrap();
    let mailbox = lead.owner(product, true).unwrap();
    net.slow.store(true, Ordering::SeqCst);
    let asking = {
        let lead = lead.clone();
        actix::spawn(async move { lead.reserve(product, one_for(1, product, true), None).await })
    };
    let is_silent = || {
        let since = mailbox.inbox.unanswered_ns();
        since.is_some_and(|since| clock.nanos() - since > SILENT_AFTER_NS)
    };
    until("it has not answered for long", is_silent).await;
    assert!(!lead.is_stuck(&mailbox));
    lead.routes().unwrap().listen_to(2, clock.nanos());
    let is_stuck = || {
        lead.heard(&name(2));
        lead.is_stuck(&mailbox)
    };
    until("it is heard, and known to be stuck", is_stuck).await;
    net.slow.store(false, Ordering::SeqCst);
    net.quick_again.notify_waiters();
    assert!(matches!(asking.await.unwrap(), Ok(Answer::Reserved(_))));
    lead.heard(&name(2));
    assert!(!lead.is_stuck(&mailbox));
}

/// What the owners on a node publish comes to the lead by itself. Where it does not, whoever looks asks; and is not kept by one that is silent.
#[actix::test]
async fn an_owner_elsewhere_that_is_not_heard_is_asked_for_its_view() {
    let (net, journal, clock) = (Arc::<Net>::default(), OneJournal::default(), Clock::start());
    let lead = node(&net, &journal, &clock, 1, 1).await;
    let owner = node(&net, &journal, &clock, 2, 1).await;
    owner.settle(&all_shards(), Route::Here).await;
    lead.settle(&all_shards(), Route::Away(Arc::new(name(2)))).await;
    let product = product(1);
    lead.ask(product, Command::Create { settings: settings(), stock: 10 }).await.unwrap();
    owner.reserve(product, one_for(1, product, true), None).await.unwrap();
    assert_eq!(lead.peek(product).unwrap().counts.held, 0, "nobody has told it");
    assert_eq!(lead.young_view(product).await.unwrap().counts.held, 1);
    owner.reserve(product, one_for(2, product, true), None).await.unwrap();
    net.down.store(true, Ordering::SeqCst);
    assert_eq!(lead.young_view(product).await.unwrap().counts.held, 1, "the last that it has published");
    assert!(lead.is_unheard(product) && !owner.is_unheard(product));
}
