//! Stories of holds that are paid for: pins and whose they are, attempts that fail, and what comes back.

use super::script::story;
use crate::domain::amount::Quantity;
use crate::domain::id::OrderId;
use crate::domain::stock::{
    Attempt, CameBack, Confirmed, Event, Forgotten, Millis, Pinned, Returned, Unpinned, decode_events,
};

#[test]
fn a_pinned_hold_does_not_lapse_and_cannot_be_cancelled() {
    story(
        "create 1 hold 10         -> created #1                        available 1
         reserve a x1 at 0        -> held #2                           available 0
         next                     -> 10
         confirm a x1             -> not pinned                        available 0
         pin a at 9               -> pinned #3                         available 0
         pin a                    -> done                              available 0
         next                     -> none
         lapse at 99              -> nothing due
         release a                -> payment running                   available 0
         release a unplaced       -> payment running                   available 0
         unpin a at 100           -> unpinned #4                       available 0
         deadline a               -> 160
         lapse at 159             -> nothing due
         lapse at 160             -> expired #5                        available 1
         pin a                    -> expired                           available 1
         unpin a                  -> expired                           available 1
         confirm a x1             -> expired                           available 1
         release a                -> expired                           available 1
         return a x1              -> expired                           available 1",
    );
}

#[test]
fn an_unpin_gives_a_minute_but_takes_nothing() {
    story(
        "create 2 hold 600        -> created #1                        available 2
         reserve a x1 at 0        -> held #2                           available 1
         pin a at 1               -> pinned #3                         available 1
         unpin a at 2             -> unpinned #4                       available 1
         deadline a               -> 600
         pin a at 540 try 2       -> pinned #5                         available 1
         unpin a at 541 try 2     -> unpinned #6                       available 1
         deadline a               -> 601
         next                     -> 601
         lapse at 600             -> nothing due
         lapse at 601             -> expired #7                        available 2",
    );
}

#[test]
fn the_last_decline_releases() {
    story(
        "create 1                 -> created #1                        available 1
         reserve a x1             -> held #2                           available 0
         pin a try 4              -> pinned #3                         available 0
         release a declined by 4  -> released #4                       available 1
         state a                  -> released(paymentfailed)
         release a declined by 4  -> done                              available 1
         release a declined by 5  -> already released (paymentfailed)  available 1
         release a declined       -> already released (paymentfailed)  available 1
         release a by 4           -> already released (paymentfailed)  available 1
         pin a                    -> already released (paymentfailed)  available 1
         unpin a                  -> already released (paymentfailed)  available 1
         confirm a x1             -> already released (paymentfailed)  available 1
         keep a until 9           -> already released (paymentfailed)  available 1
         place a until 9          -> already released (paymentfailed)  available 1",
    );
}

#[test]
fn an_attempt_that_is_over_never_pins_again() {
    story(
        "create 1 hold 600        -> created #1                        available 1
         reserve a x1 at 0        -> held #2                           available 0
         pin a try 1              -> pinned #3                         available 0
         pin a try 2              -> payment running                   available 0
         unpin a try 2            -> payment running                   available 0
         confirm a x1 try 2       -> payment running                   available 0
         release a declined by 2  -> payment running                   available 0
         unpin a try 1            -> unpinned #4                       available 0
         unpin a try 1            -> done                              available 0
         pin a try 1              -> attempt over                      available 0
         release a declined by 1  -> attempt over                      available 0
         release a declined       -> attempt over                      available 0
         confirm a x1 try 1       -> not pinned                        available 0
         pin a try 2              -> pinned #5                         available 0
         pin a try 1              -> payment running                   available 0
         unpin a try 1            -> done                              available 0
         confirm a x1 try 1       -> payment running                   available 0
         release a declined by 1  -> payment running                   available 0
         release a                -> payment running                   available 0
         confirm a x1 try 2       -> confirmed #6                      available 0
         confirm a x1 try 2       -> done                              available 0
         pin a try 3              -> already sold                      available 0",
    );
}

#[test]
fn an_unpin_stops_a_pin_that_is_still_on_its_way() {
    story(
        "create 2 hold 600        -> created #1                        available 2
         reserve a x1 at 0        -> held #2                           available 1
         unpin a at 590 try 3     -> unpinned #3                       available 1
         deadline a               -> 600
         pin a try 3              -> attempt over                      available 1
         pin a try 2              -> attempt over                      available 1
         unpin a try 2            -> done                              available 1
         release a declined by 3  -> attempt over                      available 1
         pin a try 4              -> pinned #4                         available 1
         unpin a at 600 try 4     -> unpinned #5                       available 1
         deadline a               -> 660
         release a declined by 5  -> released #6                       available 2
         release a declined by 5  -> done                              available 2
         reserve b x1             -> held #7                           available 1
         release b declined by 1  -> released #8                       available 2
         pin b try 1              -> already released (paymentfailed)  available 2",
    );
}

#[test]
fn what_came_back_once_does_not_come_back_twice() {
    story(
        "create 5                 -> created #1                        available 5
         reserve a x3             -> held #2                           available 2
         pin a                    -> pinned #3                         available 2
         confirm a x3             -> confirmed #4                      available 2
         return a x1 by 7         -> returned #5                       available 3
         return a x1 by 8 sent    -> returned #6                       available 4
         return a x1 by 7         -> done                              available 4
         return a x3 by 8         -> done                              available 4
         returned a               -> none
         return a x1 by 9 sent    -> returned #7                       available 5
         return a x1 by 9 sent    -> done                              available 5
         return a x1 by 10        -> more than sold: 1 of 0,           available 5
         returned a               -> some(returned)
         counts                   -> 5 on hand, 0 held, 0 sold",
    );
}

#[test]
fn what_earlier_versions_wrote_is_still_read() {
    // Kind, version, and the fields as they were: an order, a deadline; an order, a line, a quantity, whether to stock; two times.
    let order = [b"\x10".as_slice(), &[b'a'; 16]].concat();
    let pinned = [b"\x0a\x01".as_slice(), &order].concat();
    let unpinned = [b"\x0b\x01".as_slice(), &order, b"\x12"].concat();
    let confirmed = [b"\x0c\x01".as_slice(), &order, b"\x00\x02"].concat();
    let returned = [b"\x0f\x01".as_slice(), &order, b"\x00\x02\x01"].concat();
    let forgotten = b"\x10\x01\x12\x14".to_vec();
    let order = OrderId::from_bytes([b'a'; 16]);
    let (unkeyed_before, keyed_before, cancelled) = (Millis(9), Millis(10), Vec::new());
    let (attempt, deadline, quantity) = (Attempt::FIRST, Millis(9), Quantity::of_line(2).unwrap());
    let (line, to_stock, why, by, whole) = (0, true, CameBack::Cancelled, 0, false);
    assert_eq!(
        decode_events(&[pinned, unpinned, confirmed, returned, forgotten].concat()),
        Ok(vec![
            Event::Pinned(Pinned { order, attempt }),
            Event::Unpinned(Unpinned { order, deadline, attempt }),
            Event::Confirmed(Confirmed { order, line, quantity, held: None }),
            Event::Returned(Returned { order, line, quantity, to_stock, why, by, whole }),
            Event::Forgotten(Forgotten { unkeyed_before, keyed_before, cancelled }),
        ])
    );
}

#[test]
fn what_was_sold_can_come_back() {
    story(
        "create 5                 -> created #1                        available 5
         return a x1              -> no such order                     available 5
         reserve a x3             -> held #2                           available 2
         return a x1              -> not pinned                        available 2
         pin a                    -> pinned #3                         available 2
         confirm a x3             -> confirmed #4                      available 2
         return a x4              -> more than sold: 4 of 3,           available 2
         return a x1              -> returned #5                       available 3
         return a x1 off          -> returned #6                       available 3
         return a x2              -> more than sold: 2 of 1,           available 3
         counts                   -> 4 on hand, 0 held, 1 sold
         state a                  -> sold
         unpin a                  -> already sold                      available 3
         pin a                    -> already sold                      available 3",
    );
}
