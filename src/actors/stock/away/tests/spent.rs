//! A node that refuses, or of which no answer arrives, and that may not be asked again.

use std::ops::Range;

use tokio::task::JoinHandle;

use super::*;

impl Story {
    /// Whoever is asked refuses, or takes what comes again; and may be asked again, or may not.
    fn sets(&self, refuses: bool, spent: bool) {
        self.net.refuses.store(refuses, Ordering::SeqCst);
        self.net.spent.store(spent, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.net.asked.load(Ordering::SeqCst)
    }

    fn asking(&self, product: ProductId, buyers: Range<u128>) -> JoinHandle<Vec<Reply>> {
        let lead = self.lead.clone();
        actix::spawn(async move { crowd(&lead, product, buyers).await })
    }
}

/// As long as whoever waits looks a few times.
async fn a_while() {
    sleep(Duration::from_millis(400)).await;
}

#[actix::test]
async fn what_was_lost_and_may_not_be_asked_again_is_told_as_what_it_is() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    story.net.deaf.store(true, Ordering::SeqCst);
    story.sets(false, true);
    let asked = story.asked();
    let order = one_for(1, product, true).order;
    assert_eq!(crowd(&story.lead, product, 1..2).await, [Err(NotDone::Unknown)]);
    assert_eq!(story.lead.order(product, order).await, Err(NotDone::Unavailable), "it was only a look");
    assert_eq!(story.asked(), asked + 2, "each was asked once");
    story.net.deaf.store(false, Ordering::SeqCst);
    let again = crowd(&story.lead, product, 1..2).await;
    assert_eq!(again, [Ok(Answer::Replayed(order))], "it had been done");
    assert_eq!(story.available(product), 9);
}

#[actix::test]
async fn what_nobody_waits_for_any_more_takes_nothing_of_what_may_be_asked_again() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    story.net.slow.store(true, Ordering::SeqCst);
    story.net.deaf.store(true, Ordering::SeqCst);
    let waiting = story.asking(product, 0..1);
    until("it is done", || story.available(product) == 9).await;
    story.clock.advance(WAIT_MAX_MS + 1);
    story.net.slow.store(false, Ordering::SeqCst);
    story.net.quick_again.notify_waiters();
    assert_eq!(waiting.await.unwrap(), [Err(NotDone::Unknown)]);
    assert_eq!(story.net.wanted.load(Ordering::SeqCst), 0);
}

#[actix::test]
async fn what_was_refused_waits_until_it_may_be_asked_again() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    story.sets(true, true);
    let asked = story.asked();
    let waiting = story.asking(product, 0..3);
    until("they wait", || story.lead.waiting() == 3 && story.asked() > asked).await;
    let later = story.asking(product, 3..5);
    a_while().await;
    assert!(story.asked() <= asked + QUESTIONS_MAX, "what was on its way at once, and nothing since");
    assert_eq!(story.lead.waiting(), 5);
    story.sets(false, false);
    assert_eq!(sequences(&waiting.await.unwrap()), [2, 3, 4], "in the order of asking");
    assert_eq!(sequences(&later.await.unwrap()), [5, 6]);

    // For as long as somebody has patience.
    story.sets(true, true);
    let waiting = story.asking(product, 5..7);
    until("they wait again", || story.lead.waiting() == 2).await;
    story.clock.advance(WAIT_MAX_MS + 1);
    assert_eq!(waiting.await.unwrap(), vec![Err(NotDone::Unavailable); 2]);
    assert_eq!(story.available(product), 5);
}

#[actix::test]
async fn while_it_refuses_one_question_is_on_its_way_at_a_time() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10_000).await;
    story.sets(true, false);
    let (asked, began) = (story.asked(), story.clock.nanos());
    let waiting = story.asking(product, 0..3_000);
    a_while().await;
    // The pauses grow to a tenth of a second.
    let pauses = usize::try_from((story.clock.nanos() - began) / 100_000_000).unwrap() + 6;
    let asked = story.asked() - asked;
    assert!(asked <= QUESTIONS_MAX + pauses, "{asked} questions in {pauses} pauses");
    story.sets(false, false);
    assert_eq!(sequences(&waiting.await.unwrap()), (2..=3_001).collect::<Vec<_>>());
}

#[actix::test]
async fn what_was_refused_goes_to_whoever_is_the_owner_next() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    story.sets(true, true);
    let asked = story.asked();
    let waiting = story.asking(product, 0..3);
    until("they are refused", || story.lead.waiting() == 3 && story.asked() > asked).await;
    story.sets(false, true);
    story.move_to(product, LEAD).await;
    assert_eq!(sequences(&waiting.await.unwrap()), [2, 3, 4]);
}

#[actix::test]
async fn an_order_is_looked_for_again_only_if_it_may_be() {
    let story = Story::begin().await;
    let product = story.stocked(1, 10).await;
    let order = one_for(1, product, true).order;
    story.lead.reserve(product, one_for(1, product, true), None).await.unwrap();
    story.sets(true, true);
    let asked = story.asked();
    let looking = actix::spawn({
        let lead = story.lead.clone();
        async move { lead.find(order).await }
    });
    a_while().await;
    assert_eq!(story.asked(), asked + 1);
    story.sets(false, false);
    assert_eq!(looking.await.unwrap().unwrap().unwrap().order, order);
}
