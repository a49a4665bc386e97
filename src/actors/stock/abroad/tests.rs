//! What travels arrives as it left.

use std::fmt::Debug;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::*;
use crate::actors::stock::testing::{buyer, one_for, product, settings};
use crate::actors::stock::{Answer, NotDone, Receipt};
use crate::domain::amount::{Currency, Money, Quantity};
use crate::domain::stock::{
    Attempt, Back, CameBack, Cause, Counts, HoldState, KeyUse, Millis, Place, PlacedLine, Refusal, Refused,
    Reserve, Restock, Sequence, Settings,
};

fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(said: &T) {
    let bytes = postcard::to_stdvec(said).unwrap();
    let (heard, rest) =
        postcard::take_from_bytes::<T>(&bytes).unwrap_or_else(|why| panic!("{said:?}: {why}"));
    assert!(heard == *said && rest.is_empty(), "{said:?} came as {heard:?}");
    for short in 0..bytes.len() {
        assert!(postcard::from_bytes::<T>(&bytes[..short]).is_err(), "{said:?} cut at {short}");
    }
}

fn order() -> OrderId {
    one_for(1, product(1), true).order
}

fn units(units: u32) -> Quantity {
    Quantity::of_line(units).unwrap()
}

fn won(amount: i64) -> Money {
    Money { amount, currency: Currency::KRW }
}

fn line(number: u8) -> PlacedLine {
    PlacedLine {
        line: number,
        product: product(u128::from(number)),
        quantity: units(3),
        unit_price: won(i64::MAX),
        sequence: Sequence(u64::MAX),
    }
}

fn asks() -> Vec<Ask> {
    let (order, attempt, quantity) = (order(), Attempt::new(7).unwrap(), units(1_000));
    let key = Some(KeyUse { key: [0xff; 16], body: u64::MAX });
    let keyed = Reserve { expected: Some(won(5)), placing: Some(product(2)), ..one_for(1, product(1), true) };
    let limited = Settings {
        opens_at: Some(Millis(-1)),
        closes_at: Some(Millis(i64::MAX)),
        per_customer_limit: Some(u32::MAX),
        ..settings()
    };
    let back = |back, why| Command::Return { order, quantity, back, why, by: 4 };
    let release = |cause| Command::Release { order, cause, by: u64::MAX };
    let commands = vec![
        Command::Create { settings: settings(), stock: u64::MAX },
        Command::Configure(limited),
        Command::Restock(Restock { delta: i64::MIN, reason: "다시 들어온".to_owned(), key }),
        Command::Restock(Restock { delta: 1, reason: String::new(), key: None }),
        Command::Pause,
        Command::Resume,
        Command::Archive,
        Command::Reserve(one_for(1, product(1), false)),
        Command::Reserve(keyed),
        Command::Place(Place { order, deadline: Millis(9), lines: (0..50).map(line).collect() }),
        Command::Keep { order, deadline: Millis(i64::MIN) },
        Command::Pin { order, attempt },
        Command::Unpin { order, attempt: Attempt::FIRST },
        Command::Confirm { order, quantity, attempt },
        release(Cause::Cancelled),
        release(Cause::NotPlaced),
        release(Cause::PaymentFailed),
        back(Back::ToStock, CameBack::Cancelled),
        back(Back::WrittenOff, CameBack::Returned),
        Command::Forget { unkeyed_before: Millis(1), keyed_before: Millis(2) },
    ];
    let mut asks: Vec<_> = commands.into_iter().map(Ask::Command).collect();
    asks.extend([Ask::Order(order), Ask::OrderOfKey { buyer: buyer(3), key: [7; 16] }]);
    asks
}

fn seen(state: HoldState, returned: Option<CameBack>, home: Option<ProductId>) -> OrderView {
    OrderView {
        order: order(),
        product: product(1),
        buyer: buyer(1),
        line: 0,
        quantity: units(1),
        unit_price: won(0),
        deadline: Millis(3),
        sequence: Sequence(4),
        state,
        returned,
        lines: if home.is_none() { vec![line(0), line(1)] } else { Vec::new() },
        home,
    }
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::NoProduct,
        Refusal::ProductExists,
        Refusal::Archived,
        Refusal::Paused,
        Refusal::NotOpen { opens_at: Millis(1) },
        Refusal::Closed { closed_at: Millis(2) },
        Refusal::LimitExceeded { limit: 1, has: 2, requested: 3 },
        Refusal::SoldOut { available: u64::MAX, requested: 5 },
        Refusal::PriceChanged { expected: won(1), actual: won(2) },
        Refusal::TwoCurrencies,
        Refusal::AmountTooLarge,
        Refusal::KeyReused { order: None },
        Refusal::KeyReused { order: Some(order()) },
        Refusal::KeyInProgress,
        Refusal::OrderIdTaken,
        Refusal::NoSuchOrder,
        Refusal::HoldExpired,
        Refusal::AlreadyReleased { cause: Cause::NotPlaced },
        Refusal::AlreadySold,
        Refusal::PaymentRunning,
        Refusal::NotPinned,
        Refusal::AttemptOver,
        Refusal::StillPlacing,
        Refusal::MoreThanHeld { confirmed: 1, held: 2 },
        Refusal::MoreThanSold { returned: 3, sold: 4 },
        Refusal::BelowPromised { promised: 5, would_be: -6 },
        Refusal::TooMuchStock { limit: 7 },
        Refusal::NothingToDo,
    ]
}

fn replies() -> Vec<Reply> {
    let receipt = Receipt {
        order: order(),
        product: product(1),
        line: 49,
        quantity: units(2),
        unit_price: won(3),
        sequence: Sequence(4),
        deadline: Millis(5),
        hold_ms: 6,
    };
    let counts = Counts { on_hand: 1, held: 2, sold: 3 };
    let done = |replayed| Answer::Done { sequence: Sequence(1), counts, replayed };
    let mut replies: Vec<Reply> = vec![
        Ok(Answer::Reserved(receipt)),
        Ok(Answer::Replayed(order())),
        Ok(done(false)),
        Ok(done(true)),
        Ok(Answer::Order(None)),
        Ok(Answer::OrderOfKey(None)),
        Ok(Answer::OrderOfKey(Some((order(), u64::MAX)))),
        Err(NotDone::Busy { retry_after_ms: u64::MAX }),
        Err(NotDone::Unavailable),
        Err(NotDone::Unknown),
        Err(NotDone::Quarantined),
        Err(NotDone::Internal),
    ];
    let states = [
        HoldState::Placing,
        HoldState::Held,
        HoldState::Pinned,
        HoldState::Sold,
        HoldState::Released(Cause::Cancelled),
        HoldState::Expired,
    ];
    let views = states.map(|state| seen(state, Some(CameBack::Returned), None));
    replies.extend(views.into_iter().map(|view| Ok(Answer::Order(Some(Box::new(view))))));
    let refused = |why| NotDone::Refused { product: product(1), refused: Refused { at: Sequence(8), why } };
    replies.extend(refusals().into_iter().map(|why| Err(refused(why))));
    replies
}

#[test]
fn a_question_arrives_as_it_was_asked() {
    let pace = Pace { brake_us: u64::MAX, lagging: true };
    let (product, asks) = (product(1), asks());
    let order = order();
    for about in [
        About::Product { product, asks: Vec::new() },
        About::Product { product, asks: asks.clone() },
        About::Order { order, at: None },
        About::Order { order, at: Some(product) },
    ] {
        there_and_back(&Question { lead: u64::MAX, number: 7, pace, about });
    }
    asks.iter().for_each(there_and_back);
}

#[test]
fn what_is_said_arrives_as_it_was_said() {
    let view = View {
        sequence: Sequence(7),
        counts: Counts { on_hand: u64::MAX, held: 1, sold: 2 },
        settings: Arc::new(settings()),
        paused: true,
        archived: false,
        as_of: Millis(-9),
    };
    there_and_back(&Said::Product { replies: replies(), view: Some(view) });
    there_and_back(&Said::Product { replies: Vec::new(), view: None });
    there_and_back(&Said::Order(None));
    there_and_back(&Said::Order(Some(Box::new(seen(HoldState::Held, None, Some(product(9)))))));
    replies().iter().for_each(there_and_back);
}

#[test]
fn no_ask_is_larger_than_it_is_thought_to_be() {
    for ask in asks() {
        let bytes = postcard::to_stdvec(&ask).unwrap().len();
        assert!(bytes <= weight(&ask), "{ask:?} takes {bytes}");
    }
}
