//! The checker of refusals is told lies, and must not believe them.

use stockade::actors::order::Item;
use stockade::domain::amount::Currency;
use stockade::domain::stock::{
    Attempt as Try, Confirmed, Created, Expired, Forgotten, Held, Pinned, Restock, Sequence,
};

use super::*;
use crate::story::{By, Fact, Said};
use crate::time::SECOND;

fn product() -> ProductId {
    ProductId::new(shown(0), 1)
}

fn mina() -> UserId {
    UserId::new(shown(0), 2)
}

fn order() -> OrderId {
    OrderId::for_home(shown(0), 3, product())
}

fn won(amount: i64) -> Money {
    Money { amount, currency: Currency::KRW }
}

fn one() -> Quantity {
    Quantity::of_line(1).unwrap()
}

/// Two units, of which Mina holds one until the tenth second; then what else happened.
fn events(then: Vec<Event>) -> Vec<Event> {
    let settings = Settings {
        price: won(1_000),
        opens_at: None,
        closes_at: None,
        per_customer_limit: Some(1),
        hold_ms: 10_000,
    };
    let held = Held {
        order: order(),
        line: 1,
        buyer: mina(),
        quantity: one(),
        unit_price: won(1_000),
        deadline: shown(10 * SECOND),
        key: Some(Key { key: [7; 16], body: 1 }),
        placing: None,
    };
    [vec![Event::Created(Created { settings, stock: 2 }), Event::Held(held)], then].concat()
}

/// Whether the checker believes that Mina, who asked for this, was told so in that second, after all of these events.
fn believes(events: &[Event], what: What, why: Refusal, second: i64) -> bool {
    believes_of(events, Attempt::new(mina(), what, 0), why, second)
}

fn believes_of(events: &[Event], attempt: Attempt, why: Refusal, second: i64) -> bool {
    let fact = Fact { by: By::Lapse, decided: 0, arrived: 0, error_us: 0, process: 1, owner: 1, durable: 0 };
    let refused = Refused { at: Sequence(events.len() as u64), why };
    let heard = Heard::Refused { product: Some(0), refused };
    let said = Some(Said { at: second * SECOND, heard, from_view: false });
    let attempt = Attempt { said, process: 1, ..attempt };
    let chapter = Chapter {
        product: product(),
        entries: Vec::new(),
        events: events.to_vec(),
        facts: vec![fact; events.len()],
        snapshots: Vec::new(),
    };
    let story = Story { chapters: vec![chapter], attempts: vec![attempt], ..Story::default() };
    i15_refusals_are_true(&story).is_ok()
}

fn ordering(units: u32, key: u8, body: u64) -> What {
    let quantity = Quantity::of_line(units).unwrap();
    let items = vec![Item { product: product(), quantity }];
    What::Order { items, key: Some(KeyUse { key: [key; 16], body }) }
}

fn asking(command: Command) -> What {
    What::Command { product: 0, command }
}

fn pinning() -> What {
    asking(Command::Pin { order: order(), attempt: Try::FIRST })
}

#[test]
fn numbers_are_those_of_the_sequence() {
    let held = events(vec![]);
    let hears = |what, why| believes(&held, what, why, 1);
    let changed = |expected, actual| Refusal::PriceChanged { expected: won(expected), actual: won(actual) };
    assert!(hears(ordering(2, 8, 2), changed(1_800, 2_000)));
    assert!(!hears(ordering(2, 8, 2), changed(1_800, 2_100)), "it costs 2,000");
    assert!(!hears(ordering(2, 8, 2), changed(2_000, 2_000)), "it is as expected");
    let limit = |has| Refusal::LimitExceeded { limit: 1, has, requested: 1 };
    assert!(hears(ordering(1, 8, 2), limit(1)) && !hears(ordering(1, 8, 2), limit(2)));
    let sold_out = |available| Refusal::SoldOut { available, requested: 2 };
    assert!(hears(ordering(2, 8, 2), sold_out(1)) && !hears(ordering(2, 8, 2), sold_out(0)));
    let restock = |delta| asking(Command::Restock(Restock { delta, reason: String::new(), key: None }));
    let below = |would_be| Refusal::BelowPromised { promised: 1, would_be };
    assert!(hears(restock(-2), below(0)) && !hears(restock(-1), below(1)));
    assert!(hears(restock(0), Refusal::NothingToDo) && !hears(restock(1), Refusal::NothingToDo));
}

#[test]
fn a_key_is_reused_only_for_something_else() {
    let held = events(vec![]);
    let reused = || Refusal::KeyReused { order: Some(order()) };
    assert!(believes(&held, ordering(1, 7, 2), reused(), 1));
    assert!(!believes(&held, ordering(1, 7, 1), reused(), 1), "it is the same request");
    assert!(!believes(&held, ordering(1, 8, 2), reused(), 1), "it is another key");
    assert!(!believes(&held, ordering(1, 7, 1), Refusal::KeyInProgress, 1), "it stands");
}

#[test]
fn a_hold_is_as_it_is_called() {
    let quantity = one();
    let pinned = events(vec![Event::Pinned(Pinned { order: order(), attempt: Try::FIRST })]);
    let confirmed = Confirmed { order: order(), line: 1, quantity, held: Some(quantity) };
    let sold = [pinned.clone(), vec![Event::Confirmed(confirmed)]].concat();
    let expired = events(vec![Event::Expired(Expired { order: order(), line: 1, quantity })]);
    let (unkeyed_before, keyed_before) = (Millis(0), shown(11 * SECOND));
    let cancelled = Vec::new();
    let forgotten = Event::Forgotten(Forgotten { unkeyed_before, keyed_before, cancelled });
    let gone = [expired.clone(), vec![forgotten]].concat();
    let later = || asking(Command::Pin { order: order(), attempt: Try::FIRST.next().unwrap() });
    let tells = [
        (events(vec![]), Refusal::NotPinned),
        (pinned, Refusal::PaymentRunning),
        (sold, Refusal::AlreadySold),
        (expired, Refusal::HoldExpired),
        (gone, Refusal::NoSuchOrder),
    ];
    for (is, (events, _)) in tells.iter().enumerate() {
        for (told, (_, why)) in tells.iter().enumerate() {
            assert_eq!(believes(events, later(), why.clone(), 1), is == told, "{is}: {why:?}");
        }
    }
    let own = believes(&tells[1].0, pinning(), Refusal::PaymentRunning, 1);
    assert!(!own, "that is the attempt which pins");
}

#[test]
fn nobody_is_told_expired_before_the_time() {
    let held = events(vec![]);
    assert!(!believes(&held, pinning(), Refusal::HoldExpired, 9));
    assert!(believes(&held, pinning(), Refusal::HoldExpired, 10));
}

#[test]
fn a_sale_is_open_between_its_times_and_nobody_is_told_otherwise() {
    let (opens_at, closed_at) = (shown(5 * SECOND), shown(20 * SECOND));
    let settings = Settings {
        price: won(1_000),
        opens_at: Some(opens_at),
        closes_at: Some(closed_at),
        per_customer_limit: Some(1),
        hold_ms: 10_000,
    };
    let on_sale = events(vec![Event::Configured(settings)]);
    let told = |why, sent: i64, second| {
        let attempt = Attempt::new(mina(), ordering(1, 8, 2), sent * SECOND);
        believes_of(&on_sale, attempt, why, second)
    };
    let (not_open, closed) = (|| Refusal::NotOpen { opens_at }, || Refusal::Closed { closed_at });
    assert!(told(not_open(), 4, 6), "it may have been decided when it came");
    assert!(!told(not_open(), 6, 6));
    assert!(told(closed(), 19, 20));
    assert!(!told(closed(), 19, 19));
}
