//! The rules of stock as stories. What stands behind each arrow is what the ledger must answer.

mod paying;
mod script;

use super::*;
use crate::domain::amount::{Currency, Money, Quantity};
use crate::domain::id::{OrderId, ProductId, UserId};
use script::story;

#[test]
fn a_snapshot_is_known_by_its_checksum_in_whatever_pieces_it_comes() {
    let body = Ledger::default().snapshot();
    for many in 1..=body.len() {
        let mut intact = Intact::default();
        body.chunks(many).for_each(|piece| intact.add(piece));
        assert!(intact.is_it(), "in pieces of {many}");
        intact.add(&[0]);
        assert!(!intact.is_it());
    }
    let mut short = Intact::default();
    assert!(!short.is_it(), "nothing is none");
    short.add(&body[1..]);
    assert!(!short.is_it());
}

#[test]
fn first_come_first_served_and_the_last_unit_goes_once() {
    story(
        "create 0                 -> created #1                        available 0
         restock 1                -> restocked #2                      available 1
         reserve a x1 at 0        -> held #3                           available 0
         reserve b x1 at 0        -> sold out: 0 left, asked 1,        available 0
         reserve a x1 at 5        -> already a                         available 0
         reserve a x2 at 5        -> order id taken                    available 0
         reserve b x1 as a        -> order id taken                    available 0
         reserve a x1 line 1      -> order id taken                    available 0
         pin a at 6               -> pinned #4                         available 0
         confirm a x1             -> confirmed #5                      available 0
         release a                -> already sold                      available 0
         place-in-queue a         -> #3
         counts                   -> 1 on hand, 0 held, 1 sold",
    );
}

#[test]
fn a_product_is_created_once_and_nothing_works_before() {
    story(
        "reserve a x1             -> no product                        available 0
         restock 5                -> no product                        available 0
         pause                    -> no product                        available 0
         archive                  -> no product                        available 0
         pin a                    -> no product                        available 0
         forget unkeyed 1 keyed 1 -> no product                        available 0
         create 1000000000001     -> at most 1000000000000,            available 0
         create 3                 -> created #1                        available 3
         create 3                 -> exists                            available 3",
    );
}

#[test]
fn a_quantity_is_held_whole_or_not_at_all() {
    story(
        "create 5                 -> created #1                        available 5
         reserve a x3             -> held #2                           available 2
         reserve b x3             -> sold out: 2 left, asked 3,        available 2
         reserve b x2             -> held #3                           available 0
         release a                -> released #4                       available 3
         reserve c x3             -> held #5                           available 0",
    );
}

#[test]
fn the_limit_counts_live_holds_and_sold_units() {
    story(
        "create 100 limit 3 hold 10 -> created #1                      available 100
         reserve a x2 at 0        -> held #2                           available 98
         reserve a/2 x2           -> limit 3: has 2, asked 2           available 98
         reserve b x4             -> limit 3: has 0, asked 4           available 98
         reserve a/2 x1           -> held #3                           available 97
         bought a                 -> 3
         pin a                    -> pinned #4                         available 97
         reserve a/3 x1           -> limit 3: has 3, asked 1           available 97
         confirm a x2             -> confirmed #5                      available 97
         bought a                 -> 3
         reserve a/3 x1           -> limit 3: has 3, asked 1           available 97
         lapse at 10              -> expired #6                        available 98
         bought a                 -> 2
         reserve a/3 x1           -> held #7                           available 97
         release a/3              -> released #8                       available 98
         bought a                 -> 2
         return a x1              -> returned #9                       available 99
         bought a                 -> 1
         return a x1 off          -> returned #10                      available 99
         bought a                 -> 0",
    );
}

#[test]
fn only_the_event_that_returns_the_unit_gives_the_limit_back() {
    story(
        "create 9 limit 1 hold 10 -> created #1                        available 9
         reserve a x1 at 0        -> held #2                           available 8
         reserve a/2 x1 at 99     -> limit 1: has 1, asked 1           available 8
         lapse                    -> expired #3                        available 9
         reserve a/2 x1           -> held #4                           available 8
         configure limit 0        -> configured #5                     available 8
         bought a                 -> 1
         reserve b x1             -> limit 0: has 0, asked 1           available 8
         configure                -> configured #6                     available 8
         configure                -> done                              available 8
         reserve a/3 x8           -> held #7                           available 0",
    );
}

#[test]
fn the_sale_window_opens_at_its_first_moment_and_is_closed_at_its_last() {
    story(
        "create 9 opens 10 closes 20 -> created #1                     available 9
         reserve a x1 at 9        -> opens at 10                       available 9
         reserve a x1 at 10       -> held #2                           available 8
         reserve b x1 at 19       -> held #3                           available 7
         reserve c x1 at 20       -> closed at 20                      available 7
         reserve b x1 at 20       -> already b                         available 7
         pin a at 21              -> pinned #4                         available 7
         confirm a x1             -> confirmed #5                      available 7
         return a x1              -> returned #6                       available 8",
    );
}

#[test]
fn a_pause_stops_new_holds_only() {
    story(
        "create 9                 -> created #1                        available 9
         reserve a x1             -> held #2                           available 8
         resume                   -> done                              available 8
         pause                    -> paused #3                         available 8
         pause                    -> done                              available 8
         reserve b x1             -> paused                            available 8
         pin a                    -> pinned #4                         available 8
         confirm a x1             -> confirmed #5                      available 8
         resume                   -> resumed #6                        available 8
         reserve b x1             -> held #7                           available 7",
    );
}

#[test]
fn an_archived_product_only_finishes_what_it_began() {
    story(
        "create 9                 -> created #1                        available 9
         reserve a x2             -> held #2                           available 7
         reserve b x1             -> held #3                           available 6
         archive                  -> archived #4                       available 6
         archive                  -> done                              available 6
         reserve c x1             -> archived                          available 6
         configure price 5        -> archived                          available 6
         pin a                    -> pinned #5                         available 6
         confirm a x2             -> confirmed #6                      available 6
         return a x1              -> returned #7                       available 7
         return a x1 off          -> returned #8                       available 7
         release b                -> released #9                       available 8
         counts                   -> 8 on hand, 0 held, 0 sold",
    );
}

#[test]
fn the_first_reason_is_the_one_that_is_told() {
    story(
        "create 1 limit 1 opens 5 closes 9 -> created #1               available 1
         reserve a x1 at 6        -> held #2                           available 0
         pause                    -> paused #3                         available 0
         archive                  -> archived #4                       available 0
         reserve a/2 x2 at 0      -> archived                          available 0
         sale                     -> archived",
    );
    story(
        "create 1 limit 1 opens 5 closes 5 -> created #1               available 1
         pause                    -> paused #2                         available 1
         reserve a x2 at 0        -> paused                            available 1
         sale                     -> paused
         resume                   -> resumed #3                        available 1
         reserve a x2 at 3        -> opens at 5                        available 1
         reserve a x2 at 5        -> closed at 5                       available 1
         configure limit 1        -> configured #4                     available 1
         reserve a x2 expected 9  -> limit 1: has 0, asked 2           available 1
         configure                -> configured #5                     available 1
         reserve a x2 expected 9  -> sold out: 1 left, asked 2,        available 1
         reserve a x1 expected 9  -> price changed from 9 to 100       available 1
         sale                     -> open",
    );
}

#[test]
fn a_price_is_agreed_on_and_frozen() {
    story(
        "create 9 price 100       -> created #1                        available 9
         reserve a x2 expected 200 -> held #2                          available 7
         configure price 150      -> configured #3                     available 7
         reserve b x2 expected 200 -> price changed from 200 to 300    available 7
         reserve b x2             -> held #4                           available 5
         price a                  -> 100
         price b                  -> 150
         configure price 9223372036854775807 -> configured #5          available 5
         reserve c x2             -> amount too large                  available 5
         reserve c x1             -> held #6                           available 4",
    );
}

#[test]
fn one_key_makes_one_order() {
    story(
        "create 2 hold 10         -> created #1                        available 2
         reserve a x1 at 0 key k body 7        -> held #2              available 1
         reserve a x1 as a/2 key k body 7      -> already a            available 1
         reserve a x1 as a/2 key k body 8      -> key reused: it made a available 1
         reserve b x1 key k body 8             -> held #3              available 0
         reserve a x1 as a/2 key k body 7      -> already a            available 0
         pause                                 -> paused #4            available 0
         reserve a x1 as a/2 key k body 7      -> already a            available 0
         lapse at 10                           -> expired #5           available 1
         reserve a x1 as a/2 key k body 7      -> already a            available 1
         state a                               -> expired
         reserve a x1 as a/2 key k body 8      -> key reused: it made a available 1",
    );
}

#[test]
fn a_refusal_does_not_bind_its_key() {
    story(
        "create 0                 -> created #1                        available 0
         reserve a x1 key k body 7 -> sold out: 0 left, asked 1,       available 0
         reserve a x2 key k body 8 -> sold out: 0 left, asked 2,       available 0
         restock 1                -> restocked #2                      available 1
         reserve a x1 key k body 7 -> held #3                          available 0
         release a by 3           -> released #4                       available 1
         reserve a x1 as a/2 key k body 7 -> already a                 available 1",
    );
}

#[test]
fn a_partly_confirmed_order_is_still_the_same_order() {
    story(
        "create 9                 -> created #1                        available 9
         reserve a x3             -> held #2                           available 6
         pin a                    -> pinned #3                         available 6
         confirm a x4             -> more than held: 4 of 3,           available 6
         confirm a x2             -> confirmed #4                      available 7
         bought a                 -> 2
         confirm a x2             -> done                              available 7
         confirm a x3             -> already sold                      available 7
         reserve a x3             -> already a                         available 7
         reserve a x1             -> order id taken                    available 7
         counts                   -> 9 on hand, 0 held, 2 sold",
    );
}

#[test]
fn a_cancelled_hold_is_free_at_once() {
    story(
        "create 1                 -> created #1                        available 1
         release a                -> no such order                     available 1
         reserve a x1             -> held #2                           available 0
         release a by 9           -> released #3                       available 1
         release a by 9           -> done                              available 1
         release a                -> already released (cancelled)      available 1
         reserve b x1             -> held #4                           available 0
         next                     -> 600",
    );
}

#[test]
fn stock_is_never_taken_from_under_a_promise() {
    story(
        "create 5                 -> created #1                        available 5
         reserve a x2             -> held #2                           available 3
         reserve b x1             -> held #3                           available 2
         pin b                    -> pinned #4                         available 2
         confirm b x1             -> confirmed #5                      available 2
         restock -3               -> 3 promised, would be 2,           available 2
         restock -9               -> 3 promised, would be -4,          available 2
         restock -2               -> restocked #6                      available 0
         restock -1               -> 3 promised, would be 2,           available 0
         restock 0                -> nothing to do                     available 0
         restock 999999999998     -> at most 1000000000000,            available 0
         restock 9223372036854775807 -> at most 1000000000000,         available 0
         restock -9223372036854775808 -> 3 promised, would be -9223372036854775805, available 0
         restock 999999999997     -> restocked #7                      available 999999999997",
    );
}

#[test]
fn a_restock_happens_once_per_key() {
    story(
        "create 0                 -> created #1                        available 0
         restock -1 key k body 1  -> 0 promised, would be -1,          available 0
         restock 5 key k body 1   -> restocked #2                      available 5
         restock 5 key k body 1   -> done                              available 5
         restock 6 key k body 2   -> key reused                        available 5
         restock 6 key l body 2   -> restocked #3                      available 11",
    );
}

#[test]
fn an_order_of_several_lines_is_born_at_its_home() {
    story(
        "create 3                 -> created #1                        available 3
         reserve a x1 at 0 home here key k body 7 -> held #2           available 2
         state a                  -> placing
         deadline a               -> 5
         reserve a x1 as a/2 key k body 7 -> key in progress           available 2
         reserve a x1 as a/2 key k body 8 -> key reused: it made a     available 2
         reserve a x1             -> already a                         available 2
         pin a                    -> still placing                     available 2
         unpin a                  -> still placing                     available 2
         confirm a x1             -> still placing                     available 2
         return a x1              -> still placing                     available 2
         place a until 600 at 4   -> placed #3                         available 2
         lines a                  -> 2
         state a                  -> held
         deadline a               -> 600
         place a until 600        -> done                              available 2
         reserve a x1 as a/2 key k body 7 -> already a                 available 2
         pin a                    -> pinned #4                         available 2
         place a until 600        -> done                              available 2
         confirm a x1             -> confirmed #5                      available 2
         place a until 600        -> done                              available 2
         keep a until 600         -> done                              available 2",
    );
}

#[test]
fn the_other_lines_are_kept_when_the_order_is_born() {
    story(
        "create 3                 -> created #1                        available 3
         keep a until 600         -> no such order                     available 3
         place a until 600        -> no such order                     available 3
         reserve a x1 at 0 home elsewhere -> held #2                   available 2
         next                     -> 5
         lapse at 5               -> ask the home of a
         ask-again a              -> 6
         lapse                    -> nothing due
         lapse at 6               -> ask the home of a
         deadline a               -> 5
         keep a until 600         -> kept #3                           available 2
         keep a until 700         -> done                              available 2
         deadline a               -> 600
         lines a                  -> 0
         pin a                    -> pinned #4                         available 2
         keep a until 600         -> done                              available 2",
    );
}

#[test]
fn a_line_hears_that_its_order_was_born_and_has_ended() {
    story(
        "create 3                 -> created #1                        available 3
         reserve a x1 at 0 home elsewhere -> held #2                   available 2
         lapse at 5               -> ask the home of a
         ask-again a              -> 6
         release a                -> released #3                       available 3
         next                     -> none
         deadline a               -> 5
         state a                  -> released(cancelled)",
    );
}

#[test]
fn a_line_that_was_kept_is_not_let_go_as_unplaced() {
    story(
        "create 3                 -> created #1                        available 3
         reserve a x1 at 0 home elsewhere -> held #2                   available 2
         keep a until 600         -> kept #3                           available 2
         release a unplaced       -> not pinned                        available 2
         release a                -> released #4                       available 3",
    );
}

#[test]
fn an_order_that_is_never_born_leaves_nothing() {
    story(
        "create 1                 -> created #1                        available 1
         reserve a x1 at 0 home here key k body 7 -> held #2           available 0
         place a until 600 at 5   -> expired                           available 0
         lapse                    -> released #3                       available 1
         state a                  -> unknown
         remembered               -> 0
         bought a                 -> 0
         reserve a x1 as a/2 key k body 8 -> held #4                   available 0
         reserve b x1 home elsewhere -> sold out: 0 left, asked 1,     available 0
         release a/2              -> released #5                       available 1
         reserve b x1 home elsewhere -> held #6                        available 0
         release b unplaced       -> released #7                       available 1
         release b unplaced       -> no such order                     available 1
         state b                  -> unknown",
    );
}

#[test]
fn a_command_before_the_deadline_wins_and_one_at_it_loses() {
    story(
        "create 2 hold 10         -> created #1                        available 2
         reserve a x1 at 0        -> held #2                           available 1
         reserve b x1 at 0        -> held #3                           available 0
         pin a at 9               -> pinned #4                         available 0
         pin b at 10              -> expired                           available 0
         state b                  -> held
         lapse at 10              -> expired #5                        available 1
         lapse                    -> nothing due
         confirm a x1 at 999      -> confirmed #6                      available 1",
    );
}

#[test]
fn holds_lapse_in_the_order_of_their_deadlines() {
    story(
        "create 3 hold 30         -> created #1                        available 3
         reserve a x1 at 0        -> held #2                           available 2
         configure hold 10        -> configured #3                     available 2
         reserve b x1 at 1        -> held #4                           available 1
         reserve c x1 at 2        -> held #5                           available 0
         deadline a               -> 30
         next                     -> 11
         release b                -> released #6                       available 1
         next                     -> 12
         lapse at 60              -> expired #7                        available 2
         state c                  -> expired
         next                     -> 30
         lapse                    -> expired #8                        available 3
         next                     -> none",
    );
}

#[test]
fn what_nobody_can_ask_for_is_forgotten() {
    story(
        "create 9 hold 10         -> created #1                        available 9
         reserve a x1 at 0        -> held #2                           available 8
         reserve b x1 key k body 1 -> held #3                          available 7
         reserve c x1             -> held #4                           available 6
         reserve d x1             -> held #5                           available 5
         pin c                    -> pinned #6                         available 5
         confirm c x1             -> confirmed #7                      available 5
         release a                -> released #8                       available 6
         release b                -> released #9                       available 7
         forget unkeyed 10 keyed 10 -> forgotten #10                   available 7
         remembered               -> 4
         forget unkeyed 11 keyed 10 -> forgotten #11                   available 7
         state a                  -> unknown
         reserve b x1 as b/2 key k body 1 -> already b                 available 7
         forget unkeyed 11 keyed 11 -> forgotten #12                   available 7
         reserve b x1 as b/2 key k body 2 -> held #13                  available 6
         remembered               -> 3
         return c x1              -> returned #14                      available 7
         forget unkeyed 11 keyed 11 -> forgotten #15                   available 7
         state c                  -> sold
         state d                  -> held",
    );
}

#[test]
fn what_was_cancelled_with_a_key_answers_its_request_until_it_is_dropped() {
    story(
        "create 9 hold 10         -> created #1                        available 9
         reserve a x1 at 0        -> held #2                           available 8
         reserve b x1             -> held #3                           available 7
         release a by 5           -> released #4                       available 8
         release b                -> released #5                       available 9
         forget unkeyed 10 keyed 10 -> forgotten #6                    available 9
         remembered               -> 2
         release a by 5           -> done                              available 9
         forget unkeyed 11 keyed 11 -> forgotten #7                    available 9
         remembered               -> 0
         release a by 5           -> no such order                     available 9
         release b                -> no such order                     available 9",
    );
}

#[test]
fn what_is_dropped_is_named_if_a_key_cancelled_it() {
    let price = Money { amount: 100, currency: Currency::KRW };
    let (opens_at, closes_at, per_customer_limit) = (None, None, None);
    let settings = Settings { price, opens_at, closes_at, per_customer_limit, hold_ms: 10 };
    let (order, quantity) = (|n| OrderId::from_bytes([n; 16]), Quantity::of_line(1).unwrap());
    let reserve = |n| {
        let (buyer, key, expected) = (UserId::from_bytes([n; 16]), None, None);
        Command::Reserve(Reserve { order: order(n), line: 1, buyer, quantity, key, expected, placing: None })
    };
    let release = |n, by| Command::Release { order: order(n), cause: Cause::Cancelled, by };
    let before = Millis(100);
    let forget = Command::Forget { unkeyed_before: before, keyed_before: before };
    let mut ledger = Ledger::default();
    let mut does = |command| {
        let Ok(Decision::Event(event)) = ledger.decide(&command, Millis(1)) else { panic!("{command:?}") };
        ledger.apply(&event);
        (event, ledger.remembered())
    };
    does(Command::Create { settings, stock: 9 });
    for command in [reserve(1), reserve(2), release(1, 7), release(2, 0)] {
        does(command);
    }
    let (event, left) = does(forget);
    let cancelled = vec![(order(1), 7)];
    assert_eq!(
        event,
        Event::Forgotten(Forgotten { unkeyed_before: before, keyed_before: before, cancelled })
    );
    assert_eq!(left, 0);
}

#[test]
fn a_clock_that_goes_back_changes_nobodys_mind() {
    story(
        "create 3 opens 50 hold 10 -> created #1                       available 3
         reserve a x1 at 100      -> held #2                           available 2
         reserve b x1 at 40       -> held #3                           available 1
         deadline b               -> 110
         pin a at 0               -> pinned #4                         available 1
         unpin a at 0             -> unpinned #5                       available 1
         deadline a               -> 160
         lapse at 0               -> nothing due
         lapse at 110             -> expired #6                        available 2
         reserve c x1 at -5       -> held #7                           available 1
         deadline c               -> 120",
    );
}

#[test]
fn an_id_word_of_any_length_is_read_or_refused() {
    for length in 0..40 {
        for letter in ["7", "z", "i", "é", "_", "\0"] {
            let word = format!("order_{}", letter.repeat(length));
            let read = word.parse::<OrderId>();
            assert_eq!(read.is_ok(), length == 26 && letter == "7", "{word}");
            assert!(word.parse::<ProductId>().is_err());
        }
    }
    assert_eq!(OrderId::new(Millis(-1), 0).made_at(), Millis(0));
}
