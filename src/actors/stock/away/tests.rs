//! Two nodes in one process: who is asked where, and what becomes of questions when shards move and the network fails.

mod spent;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_web::http::header::HeaderValue;
use futures_util::future::join_all;

use super::*;
use crate::actors::stock::directory::IDLE_MS;
use crate::actors::stock::inbox::Token;
use crate::actors::stock::testing::{
    Net, OneJournal, all_shards, ask_one, buyer, name, node, one_for, product, settings, until,
};
use crate::actors::stock::{Answer, Question, Reply};
use crate::clock::Clock;
use crate::domain::amount::Quantity;
use crate::domain::id::ProductId;
use crate::domain::stock::{Fingerprint, Refusal, Reserve, Restock};
use crate::logs::{Mark, Marked};
use crate::stalls::Stalls;

const LEAD: u64 = 1;
const OWNER: u64 = 2;

/// A lead, and a node that owns everything.
struct Story {
    net: Arc<Net>,
    journal: OneJournal,
    clock: Clock,
    lead: Directory,
    owner: Directory,
}

impl Story {
    async fn begin() -> Story {
        let (net, journal, clock) = (Arc::new(Net::default()), OneJournal::default(), Clock::start());
        let lead = node(&net, &journal, &clock, LEAD, LEAD).await;
        let owner = node(&net, &journal, &clock, OWNER, LEAD).await;
        owner.settle(&all_shards(), Route::Here).await;
        lead.settle(&all_shards(), Route::Away(Arc::new(name(OWNER)))).await;
        Story { net, journal, clock, lead, owner }
    }

    async fn stocked(&self, number: u128, stock: u64) -> ProductId {
        let product = product(number);
        let create = Command::Create { settings: settings(), stock };
        assert!(matches!(self.lead.ask(product, create).await, Ok(Answer::Done { .. })));
        product
    }

    /// As the lead has it done: nobody takes from the shard's mailboxes while it is on its way.
    async fn move_to(&self, product: ProductId, session: u64) {
        let shards = [product.shard()];
        self.lead.let_go(&shards).await;
        self.owner.let_go(&shards).await;
        let (here, there) = match session {
            LEAD => (Route::Here, Route::Away(Arc::new(name(LEAD)))),
            _ => (Route::Away(Arc::new(name(OWNER))), Route::Here),
        };
        self.owner.settle(&shards, there).await;
        self.lead.settle(&shards, here).await;
    }

    fn available(&self, product: ProductId) -> u64 {
        self.journal.ledger(product).counts().available()
    }
}

/// Reservations of a crowd, each asked before the next.
async fn crowd(directory: &Directory, product: ProductId, buyers: std::ops::Range<u128>) -> Vec<Reply> {
    join_all(buyers.map(|number| directory.reserve(product, one_for(number, product, true), None))).await
}

fn sequences(replies: &[Reply]) -> Vec<u64> {
    let held = replies.iter().filter_map(|reply| match reply {
        Ok(Answer::Reserved(receipt)) => Some(receipt.sequence.0),
        _ => None,
    });
    held.collect()
}

#[actix::test]
async fn an_owner_elsewhere_sells_what_there_is_in_the_order_of_asking() {
    let story = Story::begin().await;
    let product = story.stocked(1, 1_000).await;
    let replies = crowd(&story.lead, product, 0..3_000).await;
    // Who came first has it, and the others hear how many there were.
    assert_eq!(sequences(&replies), (2..=1_001).collect::<Vec<_>>());
    assert!(replies[..1_000].iter().all(Result::is_ok));
    for reply in &replies[1_000..] {
        let Err(NotDone::Refused { refused, .. }) = reply else { panic!("{reply:?}") };
        assert_eq!(refused.why, Refusal::SoldOut { available: 0, requested: 1 });
    }
    assert!(story.net.asked.load(Ordering::SeqCst) < 100, "many travel in one question");
    assert!(story.net.most.load(Ordering::SeqCst) > 1 && story.net.most.load(Ordering::SeqCst) <= ASKS_MAX);
    // What is shown came with the answers; whoever asks is refused by the owner alone.
    assert_eq!(story.lead.peek(product).unwrap().counts.held, 1_000);
    assert!(story.lead.refuse_from_view(product, &one_for(9_999, product, true)).is_ok());
    assert!(story.owner.refuse_from_view(product, &one_for(9_999, product, true)).is_err());
    assert_eq!((story.available(product), story.journal.forks()), (0, 0));
    assert_eq!((story.lead.loaded_by(&name(OWNER)), story.lead.loaded_here()), (1, 0));
    assert_eq!((story.owner.loaded_here(), story.owner.loaded_by(&name(LEAD))), (1, 0));
}

#[actix::test]
async fn a_shard_that_moves_loses_doubles_and_reorders_nothing() {
    buying_while_it_moves(&Story::begin().await).await;
}

#[actix::test]
async fn nor_does_one_whose_keepers_live_on_many_threads() {
    let story = Story::begin().await;
    let threads: Vec<_> = (0..4).map(|_| actix::Arbiter::new()).collect();
    for (at, thread) in threads.iter().enumerate() {
        [&story.lead, &story.owner][at % 2].add_arbiter(thread.handle());
    }
    buying_while_it_moves(&story).await;
    story.lead.drain().await;
    story.owner.drain().await;
    for thread in threads {
        thread.stop();
        thread.join().unwrap();
    }
}

async fn buying_while_it_moves(story: &Story) {
    let product = story.stocked(1, 1_000_000).await;
    let stalls = Stalls::looked_for();
    let (lead, moved) = (story.lead.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let buying = actix::spawn({
        let moved = moved.clone();
        async move {
            // A crowd, and not more than can be answered while it is patient.
            let (mut asked, places) = (Vec::new(), Arc::new(tokio::sync::Semaphore::new(1_000)));
            for number in 0.. {
                if moved.load(Ordering::SeqCst) {
                    break;
                }
                let (lead, place) = (lead.clone(), places.clone().acquire_owned().await.unwrap());
                asked.push(actix::spawn(async move {
                    let _place = place;
                    lead.reserve(product, one_for(number, product, true), None).await
                }));
                match number % 64 {
                    // So that a move is over before there are too many to count.
                    63 => sleep(Duration::from_millis(1)).await,
                    _ => tokio::task::yield_now().await,
                }
            }
            let mut replies = Vec::new();
            for asked in asked {
                replies.push(asked.await.unwrap());
            }
            replies
        }
    });
    let mut held = Sequence(1);
    for turn in 0..24 {
        story.move_to(product, if turn % 2 == 0 { LEAD } else { OWNER }).await;
        // Somebody buys between any two moves.
        until("more are held", || story.journal.last(product) > held).await;
        held = story.journal.last(product);
    }
    moved.store(true, Ordering::SeqCst);
    let replies = buying.await.unwrap();
    let held = sequences(&replies);
    let refused = replies.iter().find_map(|reply| reply.as_ref().err());
    // Nobody waits for longer than he has patience, where the machine stood still for that long.
    let excused = |why: &&NotDone| matches!(why, NotDone::Unavailable) && stalls.were_seen();
    assert!(refused.is_none_or(|why| excused(&why)), "each has one: {refused:?}");
    assert!(held.is_sorted_by(|a, b| a < b), "in the order of asking");
    assert_eq!(story.journal.ledger(product).counts().held, held.len() as u64);
    assert_eq!(story.journal.forks(), 0, "there was one owner at a time");
}

#[actix::test]
async fn an_owner_that_leaves_stores_itself_and_takes_nothing_with_it() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10_000).await;
    crowd(&story.lead, product, 0..2_000).await;
    story.owner.let_go(&[product.shard()]).await;
    assert_eq!(story.journal.snapshots(), 1);
    // Nobody is there: the question waits, and hears whoever comes.
    let waiting = actix::spawn({
        let owner = story.owner.clone();
        async move { owner.order(product, one_for(7, product, true).order).await }
    });
    until("it waits", || story.owner.waiting() == 1).await;
    let elsewhere = Question {
        lead: LEAD,
        number: 1,
        pace: Default::default(),
        about: About::Product { product, asks: vec![ask_one(1, product)] },
    };
    assert_eq!(story.owner.answer(elsewhere).await, Err(NotAsked::Elsewhere));
    story.owner.settle(&[product.shard()], Route::Here).await;
    assert!(matches!(waiting.await.unwrap(), Ok(Answer::Order(Some(_)))));
}

#[actix::test]
async fn a_snapshot_that_two_nodes_wrote_at_once_stops_nothing() {
    let story = Story::begin().await;
    let product = story.stocked(1, 3_000).await;
    crowd(&story.lead, product, 0..2_000).await;
    story.owner.let_go(&[product.shard()]).await;
    assert_eq!(story.journal.snapshots(), 1);
    story.journal.damage_snapshots();
    story.owner.settle(&[product.shard()], Route::Here).await;
    assert_eq!(
        sequences(&crowd(&story.lead, product, 2_000..3_001).await),
        (2_002..=3_001).collect::<Vec<_>>()
    );
    assert_eq!((story.available(product), story.journal.forks()), (0, 0));
}

#[actix::test]
async fn who_buys_while_the_link_is_down_waits_for_it_and_not_for_ever() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    let asking = |buyers: std::ops::Range<u128>| {
        let lead = story.lead.clone();
        actix::spawn(async move { crowd(&lead, product, buyers).await })
    };
    story.net.down.store(true, Ordering::SeqCst);
    let waiting = asking(0..5);
    until("they wait", || story.lead.waiting() == 5).await;
    story.clock.advance(WAIT_MAX_MS - 3_000);
    story.net.down.store(false, Ordering::SeqCst);
    assert_eq!(sequences(&waiting.await.unwrap()), [2, 3, 4, 5, 6]);

    story.net.down.store(true, Ordering::SeqCst);
    let waiting = asking(5..8);
    until("they wait", || story.lead.waiting() == 3).await;
    story.clock.advance(WAIT_MAX_MS + 1);
    assert_eq!(waiting.await.unwrap(), vec![Err(NotDone::Unavailable); 3]);
    story.net.down.store(false, Ordering::SeqCst);
    assert_eq!(story.available(product), 5);

    // The same where a shard is on its way for too long.
    story.lead.let_go(&[product.shard()]).await;
    let waiting = asking(8..9);
    until("he waits", || story.lead.waiting() == 1).await;
    story.clock.advance(WAIT_MAX_MS + 1);
    assert_eq!(waiting.await.unwrap(), [Err(NotDone::Unavailable)]);
}

#[actix::test]
async fn what_has_waited_for_a_shard_is_not_too_old_for_its_new_owner() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    story.lead.let_go(&[product.shard()]).await;
    let lead = story.lead.clone();
    let waiting = actix::spawn(async move { crowd(&lead, product, 0..3).await });
    until("they wait", || story.lead.waiting() == 3).await;
    story.clock.advance(WAIT_MAX_MS - 5_000);
    story.owner.let_go(&[product.shard()]).await;
    story.lead.settle(&[product.shard()], Route::Here).await;
    assert_eq!(sequences(&waiting.await.unwrap()), [2, 3, 4]);
}

#[actix::test]
async fn an_answer_that_is_lost_is_unknown_or_asked_for_again() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    let restock = |delta| Command::Restock(Restock { delta, reason: String::new(), key: None });
    story.net.deaf.store(true, Ordering::SeqCst);
    assert_eq!(story.lead.ask(product, restock(5)).await, Err(NotDone::Unknown));
    assert_eq!(story.available(product), 15, "and it was done");
    let without = story.lead.reserve(product, one_for(1, product, false), None).await;
    assert_eq!(without, Err(NotDone::Unknown));
    let keyed = one_for(2, product, true);
    let print = Fingerprint::of(keyed.buyer, keyed.key.unwrap().key);
    let claim = story.lead.house().keys.claim(print, product, keyed.order.made_at()).unwrap();
    let (asked, order) = (story.net.asked.load(Ordering::SeqCst), keyed.order);
    let again = actix::spawn({
        let lead = story.lead.clone();
        async move { (lead.reserve(product, keyed, Some(claim)).await, lead.order(product, order).await) }
    });
    until("it is asked again", || story.net.asked.load(Ordering::SeqCst) > asked + 1).await;
    story.net.deaf.store(false, Ordering::SeqCst);
    let (reserved, seen) = again.await.unwrap();
    assert_eq!(reserved, Ok(Answer::Replayed(order)));
    assert!(story.lead.house().keys.is_kept(print), "no other order is made with its key");
    assert!(matches!(seen, Ok(Answer::Order(Some(view))) if view.order == order));
    assert_eq!(story.available(product), 13, "once");

    // What may have been done is never told as not done.
    story.net.deaf.store(true, Ordering::SeqCst);
    let (lead, doubtful) = (story.lead.clone(), one_for(3, product, true));
    let asked = story.net.asked.load(Ordering::SeqCst);
    let doubtful = actix::spawn(async move { lead.reserve(product, doubtful, None).await });
    until("it was sent", || story.net.asked.load(Ordering::SeqCst) > asked).await;
    story.net.down.store(true, Ordering::SeqCst);
    until("it is back", || story.lead.waiting() == 1).await;
    story.clock.advance(WAIT_MAX_MS + 1);
    assert_eq!(doubtful.await.unwrap(), Err(NotDone::Unknown));
    assert_eq!(story.available(product), 12);
}

#[actix::test]
async fn a_line_whose_answer_was_lost_is_held_and_told_once_more() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    for keyed in [true, false] {
        let line =
            Reserve { placing: Some(product), line: 1, ..one_for(1 + u128::from(keyed), product, keyed) };
        story.net.deaf.store(true, Ordering::SeqCst);
        let (asked, order) = (story.net.asked.load(Ordering::SeqCst), line.order);
        let again = actix::spawn({
            let lead = story.lead.clone();
            async move { lead.ask(product, Command::Reserve(line)).await }
        });
        until("it is asked again", || story.net.asked.load(Ordering::SeqCst) > asked + 1).await;
        story.net.deaf.store(false, Ordering::SeqCst);
        let held = again.await.unwrap();
        assert!(
            matches!(&held, Ok(Answer::Reserved(held)) if (held.order, held.line) == (order, 1)),
            "{held:?}"
        );
    }
    assert_eq!(story.available(product), 8, "one each");
    let another = Reserve {
        placing: Some(product),
        order: one_for(9, product, true).order,
        ..one_for(2, product, true)
    };
    let refused = story.lead.ask(product, Command::Reserve(another)).await;
    assert!(
        matches!(&refused, Err(NotDone::Refused { refused, .. }) if refused.why == Refusal::KeyInProgress),
        "{refused:?}"
    );
}

#[actix::test]
async fn letting_go_waits_for_what_was_asked() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    story.net.slow.store(true, Ordering::SeqCst);
    let lead = story.lead.clone();
    let asked = actix::spawn(async move { crowd(&lead, product, 0..2).await });
    until("it is done", || story.available(product) == 8).await;
    let lead = story.lead.clone();
    let mut going = Box::pin(async move { lead.let_go(&[product.shard()]).await });
    for _ in 0..100 {
        assert!(poll!(&mut going).is_pending(), "an answer is on its way");
        tokio::task::yield_now().await;
    }
    story.net.slow.store(false, Ordering::SeqCst);
    story.net.quick_again.notify_waiters();
    going.await;
    assert_eq!(sequences(&asked.await.unwrap()), [2, 3]);
}

#[actix::test]
async fn of_one_lead_nothing_is_begun_once_another_is_followed() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    let question = |lead| Question {
        lead,
        number: 1_000,
        pace: super::super::Pace { brake_us: 70, lagging: true },
        about: About::Product { product, asks: vec![ask_one(u128::from(lead), product)] },
    };
    let mut asked = Box::pin(story.owner.answer(question(LEAD)));
    assert!(poll!(&mut asked).is_pending());
    assert!(story.owner.house().lagging.load(Ordering::Relaxed), "as the lead says");
    let routes = story.owner.routes().unwrap();
    let mut following = Box::pin(routes.follow(3));
    assert!(poll!(&mut following).is_pending(), "what was asked is answered first");
    assert_eq!(story.owner.answer(question(LEAD)).await, Err(NotAsked::Elsewhere));
    assert!(matches!(asked.await, Ok(Said::Product { replies, view: Some(_) }) if replies[0].is_ok()));
    following.await;
    assert!(story.owner.answer(question(3)).await.is_ok());
    assert_eq!(story.available(product), 8);
}

#[actix::test]
async fn an_order_is_found_and_its_home_asked_wherever_they_are() {
    let story = Story::begin().await;
    let (away, home) = (story.stocked(1, 10).await, story.stocked(2, 10).await);
    assert_ne!(away.shard(), home.shard());
    story.move_to(home, LEAD).await;
    // At the owner's node the home is at the lead's.
    assert!(story.owner.routes().unwrap().is_at(home.shard(), &name(LEAD)));
    let placing = Command::Reserve(Reserve { placing: Some(home), ..one_for(1, away, false) });
    let Ok(Answer::Reserved(held)) = story.lead.ask(away, placing).await else { panic!() };
    let alone = one_for(2, away, false);
    story.lead.reserve(away, alone.clone(), None).await.unwrap();
    let found = story.lead.find(alone.order).await.unwrap().unwrap();
    assert_eq!((found.order, found.buyer, found.product), (alone.order, buyer(2), away));
    assert!(
        story.lead.known_at(away, held.order).await.unwrap().is_some(),
        "a line, which has its home elsewhere"
    );
    assert_eq!(story.lead.known_at(product(77), held.order).await, Ok(None));
    // The order was never born: its home says so, over the network, and the units come back.
    story.clock.advance(crate::domain::stock::PLACING_MS + 1);
    story.lead.order(away, held.order).await.unwrap();
    until("the units are back", || story.available(away) == 9).await;
}

#[actix::test]
async fn a_view_is_shown_if_it_is_newer_and_comes_from_the_owner() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    let shown = || story.lead.peek(product).unwrap().sequence.0;
    let mut view = (*story.owner.peek(product).unwrap()).clone();
    let mut watched = story.lead.watch(product).await.unwrap();
    for (sequence, node, expected) in [(9, 3, 1), (9, OWNER, 9), (8, OWNER, 9), (10, OWNER, 10)] {
        view.sequence = Sequence(sequence);
        story.lead.show(product, view.clone(), &name(node));
        assert_eq!(shown(), expected);
    }
    assert_eq!(watched.newest().unwrap().sequence, Sequence(10));
    let mut changed = Vec::new();
    story.lead.house().changes.take(&mut changed);
    assert_eq!(changed.len(), 1, "the mirror hears of it");
    // Another product of that node, of which nobody has asked here. What is shown refuses nobody, from the first moment.
    let other = super::super::testing::product(5);
    story.lead.show(other, view.clone(), &name(OWNER));
    assert_eq!(story.lead.peek(other).unwrap().sequence, Sequence(10));
    let more_than_there_is = Reserve { quantity: Quantity::of_line(99).unwrap(), ..one_for(8, other, true) };
    assert!(story.lead.refuse_from_view(other, &more_than_there_is).is_ok());
    story.lead.let_go(&[product.shard()]).await;
    view.sequence = Sequence(11);
    story.lead.show(product, view, &name(OWNER));
    assert_eq!(shown(), 10, "a shard on its way has no owner");
}

#[actix::test]
async fn a_limit_is_kept_by_an_owner_that_comes_back() {
    let story = Story::begin().await;
    let product = product(1);
    let limited = crate::domain::stock::Settings { per_customer_limit: Some(1), ..settings() };
    story.lead.ask(product, Command::Create { settings: limited, stock: 1 }).await.unwrap();
    story.move_to(product, LEAD).await;
    story.lead.view(product).await.unwrap();
    story.move_to(product, OWNER).await;
    story.lead.reserve(product, one_for(1, product, true), None).await.unwrap();
    story.move_to(product, LEAD).await;
    story.lead.view(product).await.unwrap();
    until("the owner has published", || {
        story.lead.refuse_from_view(product, &one_for(2, product, true)).is_err()
    })
    .await;
    // Nothing is left, and yet he is told that he has had his.
    assert!(story.lead.refuse_from_view(product, &one_for(1, product, true)).is_ok());
}

#[actix::test]
async fn at_the_end_everybody_is_answered() {
    let story = Story::begin().await;
    let (product, unborn) = (story.stocked(1, 10).await, product(2));
    // A name without a product keeps nobody busy.
    assert!(story.lead.view(unborn).await.is_err());
    until("both have forgotten it", || story.lead.loaded_count() == 1 && story.owner.loaded_count() == 1)
        .await;
    story.net.down.store(true, Ordering::SeqCst);
    let lead = story.lead.clone();
    let waiting = actix::spawn(async move { crowd(&lead, product, 0..3).await });
    until("they wait", || story.lead.waiting() == 3).await;
    story.lead.drain().await;
    story.owner.drain().await;
    assert_eq!(waiting.await.unwrap(), vec![Err(NotDone::Unavailable); 3]);
    assert_eq!((story.lead.loaded_count(), story.owner.loaded_count()), (0, 0));
    assert_eq!(story.lead.view(product).await, Err(NotDone::Unavailable));
}

#[actix::test]
async fn whoever_gives_up_waiting_for_a_move_leaves_nothing_half_done() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    story.net.slow.store(true, Ordering::SeqCst);
    let lead = story.lead.clone();
    let asked = actix::spawn(async move { crowd(&lead, product, 0..1).await });
    until("it is done", || story.available(product) == 9).await;
    {
        let shards = [product.shard()];
        let mut going = Box::pin(story.lead.let_go(&shards));
        assert!(poll!(&mut going).is_pending());
    }
    story.net.slow.store(false, Ordering::SeqCst);
    story.net.quick_again.notify_waiters();
    assert_eq!(sequences(&asked.await.unwrap()), [2]);
    story.move_to(product, LEAD).await;
    assert_eq!(sequences(&crowd(&story.lead, product, 1..2).await), [3]);
}

/// A forwarder that nobody runs, and its mailbox.
fn at_rest(story: &Story) -> (Forwarder, Arc<Shared>) {
    let shared = Arc::new(Shared::new(product(9)));
    (Forwarder::new(shared.clone(), story.lead.clone()), shared)
}

#[actix::test]
async fn a_forwarder_goes_when_nobody_asks_and_nothing_is_news() {
    let story = Story::begin().await;
    let (mut forwarder, shared) = at_rest(&story);
    assert!(!forwarder.is_over().await);
    story.clock.advance(IDLE_MS + 1);
    let view = {
        let product = story.stocked(1, 10).await;
        (*story.lead.peek(product).unwrap()).clone()
    };
    assert!(shared.show(Arc::new(view)));
    assert!(!forwarder.is_over().await, "there is news");
    let watch = shared.watch();
    story.clock.advance(IDLE_MS + 1);
    assert!(!forwarder.is_over().await && !watch.is_over(), "somebody looks on");
    drop(watch);
    story.clock.advance(IDLE_MS / 2);
    assert!(!forwarder.is_over().await);
    story.clock.advance(IDLE_MS / 2 + 1);
    assert!(forwarder.is_over().await && shared.inbox.is_closed());
}

#[actix::test]
async fn a_question_is_not_larger_than_it_may_be() {
    let story = Story::begin().await;
    let (mut forwarder, shared) = at_rest(&story);
    let mut hears = Vec::new();
    let mut push = |reason: usize| {
        let restock = Restock { delta: 1, reason: "x".repeat(reason), key: None };
        let (reply, heard) = oneshot::channel();
        hears.push(heard);
        let token = Token { reply, buyer: None, asked_ns: 0, in_doubt: false };
        let post = Post::new(Ask::Command(Command::Restock(restock)), token);
        shared.inbox.push(post, 1_000, &story.clock).unwrap();
    };
    (0..30).for_each(|_| push(4_000));
    push(2 * QUESTION_BYTES_MAX);
    (0..300).for_each(|_| push(0));
    let mut sizes = Vec::new();
    let mut last = 0;
    loop {
        let posts = forwarder.batch();
        if posts.is_empty() {
            break;
        }
        assert!(posts.iter().all(|(at, _)| std::mem::replace(&mut last, *at) < *at));
        sizes.push(posts.len());
        assert_eq!(shared.inbox.undecided(), 331 - sizes.iter().sum::<usize>());
        posts.into_iter().for_each(|(_, post)| post.give_up());
    }
    assert_eq!(sizes, [11, 11, 8, 1, ASKS_MAX, 300 - ASKS_MAX]);
}

/// It was asked anew meanwhile, and whoever waited has heard the answer to that.
#[actix::test]
async fn a_question_that_was_long_on_its_way_is_not_begun_after_a_later_one() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    let question = |number: u64| Question {
        lead: LEAD,
        number,
        pace: Default::default(),
        about: About::Product { product, asks: vec![ask_one(u128::from(number), product)] },
    };
    assert!(story.owner.answer(question(1_005)).await.is_ok());
    assert_eq!(story.owner.answer(question(1_004)).await, Err(NotAsked::Elsewhere));
    assert_eq!(story.owner.answer(question(1_005)).await, Err(NotAsked::Elsewhere), "nor twice");
    assert!(story.owner.answer(question(1_006)).await.is_ok());
}

/// What the owner's node says of it is found by the request's id. Questions of many buyers travel together, for none of them.
#[actix_web::test]
async fn a_look_for_an_order_bears_the_name_of_its_request() {
    let story = Story::begin().await;
    let product = story.stocked(1, 5).await;
    let reserve = one_for(1, product, true);
    let order = reserve.order;
    let mark = Mark { request_id: HeaderValue::from_static("build-42/7"), trace: None };
    Marked::new(story.lead.reserve(product, reserve, None), mark.clone()).await.unwrap();
    assert_eq!(story.net.named.lock().unwrap().take(), None);
    assert!(Marked::new(story.lead.find(order), mark).await.unwrap().is_some());
    assert_eq!(story.net.named.lock().unwrap().take().as_deref(), Some("build-42/7"));
    assert!(story.lead.find(order).await.unwrap().is_some());
    assert_eq!(story.net.named.lock().unwrap().take(), None);
}
