//! Every step of a payment and of its undoing, and of a refund, interrupted; then the books are closed.
//!
//! A walk is a value that is advanced step by step. Here it is advanced so far and no further: the process dies, and leaves its files as
//! they are in that moment, with tables that are behind the journal; or it sleeps so long that somebody else takes the payment up, and
//! wakes when all is over. Meanwhile the provider loses what it is told, before or after it has done it. Whatever happens, in the end
//! nothing waits, and money is where the units are.

#[path = "payment_faults/damaged.rs"]
mod damaged;
#[path = "payment_faults/ended.rs"]
mod ended;
#[path = "payment_faults/fault.rs"]
mod fault;
mod support;

use fault::Fault::{self, Dies, Sleeps};
use fault::{die, stand_still};
use serde_json::{Value, json};
use stockade::actors::payment::{Begun, By, GiveWalk, LEASE_MS, Outcome, Pay, Walk, Want, Wanted};
use stockade::config::PaymentProvider;
use stockade::domain::amount::Money;
use stockade::domain::id::{OrderId, PaymentId};
use stockade::domain::order::{LineStatus, OrderStatus};
use stockade::domain::payment::{Cause, Do, Method, Move, PaymentState, RefundState, Restock};
use support::{Shop, id, lines};

/// One way to pay: the token, how many lines, and whether the order is cancelled before the first of them is pinned.
#[derive(Debug, Clone, Copy)]
struct Case {
    token: &'static str,
    lines: usize,
    cancelled: bool,
}

const fn case(token: &'static str, lines: usize) -> Case {
    Case { token, lines, cancelled: false }
}

const CASES: &[Case] = &[
    case("tok_ok", 1),
    case("tok_ok", 2),
    case("tok_declined", 1),
    case("tok_declined", 2),
    case("tok_timeout_then_ok", 2),
    case("tok_timeout_then_declined", 2),
    case("tok_pending_then_ok", 1),
    case("tok_pending_then_declined", 2),
    case("tok_wrong_amount", 2),
    case("nonsense", 1),
    Case { token: "tok_ok", lines: 2, cancelled: true },
];

/// More than any walk has.
const STEPS_MAX: usize = 16;
/// More than any walk of one line's refund has.
const RETURNS: usize = 8;
const STOCK: u64 = 10_000;

struct Shelf {
    shop: Shop,
    products: Vec<String>,
}

impl Shelf {
    async fn open(faults: &str, attempts: u8) -> Shelf {
        let shop = Shop::open_with(|config| choose(config, faults, attempts)).await;
        let products = vec![shop.stocked(STOCK).await, shop.stocked(STOCK).await];
        Shelf { shop, products }
    }

    fn stock(&self) -> Vec<(&str, u64)> {
        self.products.iter().map(|product| (product.as_str(), STOCK)).collect()
    }

    fn body(&self, count: usize) -> Value {
        let wanted: Vec<_> = self.products.iter().take(count).map(|product| (product.as_str(), 2)).collect();
        lines(&wanted)
    }

    /// A payment that is written down, and not walked.
    async fn begun(&self, who: u64, case: Case) -> Walk {
        let held = self.shop.by(who, "POST", "/v1/orders").json(&self.body(case.lines)).send().await.ok(201);
        let order: OrderId = id(&held).parse().unwrap();
        let order = self.shop.app().orders().find(support::user(who), order).await.unwrap().unwrap();
        let pay = Pay { order, method: Method::card(case.token).unwrap(), by: By::Itself(None) };
        let Begun::Walk(walk) = self.shop.app().payments().begin(&pay).await.unwrap() else {
            panic!("begun before")
        };
        if case.cancelled {
            let path = format!("/v1/orders/{}/cancel", pay.order.id);
            self.shop.by(who, "POST", &path).send().await.ok(200);
        }
        *walk
    }

    /// What another amount was taken for waits for a person: it is held and not sold, and nothing of it goes back before he says so.
    /// Here he gives it back; how often that was.
    async fn decide(&self) -> usize {
        let shop = &self.shop;
        shop.settle().await;
        let (payments, refunds) = shop.money().await;
        let waiting: Vec<_> =
            payments.iter().filter(|payment| payment.state == PaymentState::Review).collect();
        for payment in &waiting {
            assert!(payment.captured > 0 && payment.refunded == 0, "{payment:#?}");
            assert!(refunds.iter().all(|refund| refund.payment != payment.id), "{payment:#?}");
            let order = shop.app().orders().find(payment.buyer, payment.order).await.unwrap().unwrap();
            assert_eq!(order.status, OrderStatus::PendingPayment, "{order:#?}");
            assert!(order.lines.iter().all(|line| line.status == LineStatus::Held), "{order:#?}");
            let path = format!("/v1/admin/compensations/{}/give-back", payment.id);
            shop.admin("POST", &path).send().await.ok(200);
        }
        waiting.len()
    }

    /// Ends as it must: nothing waits, and the books agree. A hold that was left for another attempt lapses.
    async fn close(self) {
        self.shop.settle().await;
        self.shop.clock.advance(3_600_000);
        for product in &self.products {
            self.shop.until_nothing_is_held(product).await;
        }
        self.shop.assert_settled(&self.stock()).await;
        self.shop.close().await;
    }
}

fn choose(config: &mut stockade::config::Config, faults: &str, attempts: u8) {
    config.payment.provider = PaymentProvider::Simulated(faults.parse().unwrap());
    config.payment.attempts = attempts;
}

/// At most so many steps; how many there were.
async fn advance(walk: &mut Walk, steps: usize) -> usize {
    for step in 0..steps {
        if !walk.step().await {
            return step;
        }
    }
    steps
}

/// Every case, interrupted after every number of steps; then taken up, and interrupted again after a few more.
async fn interrupted(fault: Fault, faults: &str, attempts: u8) {
    let mut shelf = Shelf::open(faults, attempts).await;
    let (mut begun, mut sleeping): (Vec<(usize, Walk)>, Vec<Walk>) = (Vec::new(), Vec::new());
    let mut again: Vec<(PaymentId, usize)> = Vec::new();
    let mut who = 0;
    for case in CASES {
        who += 1;
        // One goes to its end, and tells how far that is.
        let mut first = shelf.begun(who, *case).await;
        let all = advance(&mut first, STEPS_MAX).await;
        assert!((3..STEPS_MAX).contains(&all), "{case:?} is over after {all} steps");
        begun.push((0, first));
        for steps in 0..=all {
            who += 1;
            begun.push((steps, shelf.begun(who, *case).await));
        }
    }
    let tables = stand_still(&shelf, fault).await;
    for (number, (steps, mut walk)) in begun.into_iter().enumerate() {
        advance(&mut walk, steps).await;
        again.push((walk.payment().id, number % 5));
        if fault == Sleeps {
            sleeping.push(walk);
        }
    }
    shelf = die(shelf, tables, fault, faults, attempts).await;
    for (payment, steps) in again {
        if let Some(mut walk) = shelf.shop.app().payments().resume(payment).await.unwrap() {
            advance(&mut walk, steps).await;
            if fault == Sleeps {
                sleeping.push(walk);
            }
        }
    }
    shelf = die(shelf, None, fault, faults, attempts).await;
    if fault == Sleeps {
        shelf.shop.settle().await;
        for walk in &mut sleeping {
            walk.to_its_end().await;
        }
        drop(sleeping);
    }
    if faults.contains("webhooks") {
        // From here on nothing more comes late.
        shelf.shop.settle().await;
        shelf = die(shelf, None, Dies, "", attempts).await;
    }
    assert!(shelf.decide().await > 0, "nothing waits for a person");
    shelf.close().await;
}

#[actix_web::test]
async fn a_process_that_dies_anywhere_leaves_nothing_half_done() {
    interrupted(Dies, "", 1).await;
}

#[actix_web::test]
async fn a_worker_that_wakes_after_its_claim_does_no_harm() {
    interrupted(Sleeps, "", 1).await;
}

#[actix_web::test]
async fn a_provider_that_loses_what_it_is_told_and_a_process_that_dies() {
    interrupted(Dies, "lost_before=35,lost_after=35,seed=3", 1).await;
}

#[actix_web::test]
async fn a_provider_that_loses_what_it_is_told_and_a_worker_that_wakes() {
    interrupted(Sleeps, "lost_before=35,lost_after=35,seed=4", 1).await;
}

#[actix_web::test]
async fn a_provider_that_tells_twice_and_late_and_a_process_that_dies() {
    interrupted(Dies, "webhooks=on,duplicates=50,late=30,late_ms=20,seed=7", 1).await;
}

#[actix_web::test]
async fn a_decline_with_attempts_left_interrupted_leaves_a_hold_that_lapses() {
    for fault in [Dies, Sleeps] {
        interrupted(fault, "", 3).await;
    }
}

/// An order of two lines that is paid.
async fn bought(shelf: &Shelf, who: u64, token: &str) -> OrderId {
    let mut body = shelf.body(2);
    body["payment"] = support::card(token);
    id(&shelf.shop.by(who, "POST", "/v1/orders").json(&body).send().await.ok(201)).parse().unwrap()
}

/// A refund of it that is written down, and not walked.
async fn wanted(shelf: &Shelf, who: u64, order: OrderId, cause: Cause) -> GiveWalk {
    let payments = shelf.shop.app().payments();
    let order = shelf.shop.app().orders().find(support::user(who), order).await.unwrap().unwrap();
    let payment = payments.paid(order.id).await.unwrap().unwrap();
    let amount = payment.captured / if cause.line().is_some() { 2 } else { 1 };
    let amount = Money { amount, ..payment.amount };
    let want = Want { cause, amount, restock: Restock::ToStock, key: None };
    match payments.begin_refund(&payment, &order, want).await.unwrap() {
        Wanted::New(walk) => *walk,
        Wanted::Before(_) | Wanted::TooMuch { .. } | Wanted::Ended(_) => panic!("refunded before"),
    }
}

#[actix_web::test]
async fn a_refund_interrupted_anywhere_is_given_back_once() {
    for (fault, faults) in [
        (Dies, ""),
        (Sleeps, ""),
        (Dies, "lost_before=40,lost_after=40,seed=5"),
        (Sleeps, "lost_before=40,lost_after=40"),
    ] {
        let mut shelf = Shelf::open("", 1).await;
        let (mut begun, mut sleeping, mut delivered) = (Vec::new(), Vec::new(), Vec::new());
        let mut buyers = 0;
        let tokens = ["tok_ok", "tok_refund_fails_twice"];
        for token in tokens {
            for _ in 0..RETURNS {
                buyers += 1;
                delivered.push((token, buyers, bought(&shelf, buyers, token).await));
            }
        }
        // Whoever hears of it may do so before the row says so.
        shelf.shop.settle().await;
        shelf.shop.night().await;
        shelf.shop.night().await;
        for token in tokens {
            for cause in
                [Cause::OrderCancelled, Cause::Line(2), Cause::LineCancelled(2), Cause::LineReturned(2)]
            {
                let mut next = async || {
                    let (who, order) = if let Cause::LineReturned(line) = cause {
                        let at = delivered.iter().position(|(of, ..)| *of == token).unwrap();
                        let (_, who, order) = delivered.swap_remove(at);
                        shelf.shop.send_back(who, &order.to_string(), line).send().await.ok(200);
                        (who, order)
                    } else {
                        buyers += 1;
                        (buyers, bought(&shelf, buyers, token).await)
                    };
                    wanted(&shelf, who, order, cause).await
                };
                // The first goes to its end, and tells how far that is.
                let (mut first, mut all) = (next().await, 0);
                while first.step().await {
                    all += 1;
                }
                begun.push((0, first));
                for steps in 0..=all {
                    begun.push((steps, next().await));
                }
            }
        }
        let given = begun.len();
        let tables = stand_still(&shelf, fault).await;
        for (steps, mut walk) in begun {
            for _ in 0..steps {
                walk.step().await;
            }
            if fault == Sleeps {
                sleeping.push(walk);
            }
        }
        shelf = die(shelf, tables, fault, faults, 1).await;
        shelf.shop.settle().await;
        for walk in &mut sleeping {
            walk.to_its_end().await;
        }
        drop(sleeping);
        let refunds = shelf.shop.app().payments().provider().simulated().unwrap().refunds();
        assert_eq!(refunds.len(), given, "{fault:?} {faults}");
        shelf.close().await;
    }
}

/// Each call takes six seconds, and there is always time for the next one.
#[actix_web::test]
async fn a_provider_that_takes_its_time_is_asked_what_follows() {
    const SLOW_MS: i64 = 6_000;
    let shelf = Shelf::open("", 1).await;
    let (shop, payments) = (&shelf.shop, shelf.shop.app().payments());
    // Never charged: found nowhere, and charged then, or called off when that is too late.
    for (who, waited_ms, state) in
        [(1, LEASE_MS + 1, PaymentState::Paid), (2, 3_600_000, PaymentState::Cancelled)]
    {
        // The shop itself may be quicker to take it up: then with another.
        let mut walk = loop {
            let id = shelf.begun(who, case("tok_ok", 2)).await.payment().id;
            shop.clock.advance(waited_ms);
            if let Some(walk) = payments.resume(id).await.unwrap() {
                break walk;
            }
        };
        assert!(walk.step().await);
        shop.clock.advance(SLOW_MS);
        walk.to_its_end().await;
        assert_eq!(walk.payment().state, state);
    }
    // The units come back, and then the money.
    let mut walk = wanted(&shelf, 3, bought(&shelf, 3, "tok_ok").await, Cause::OrderCancelled).await;
    while walk.refund().state == RefundState::Wanted {
        assert!(walk.step().await);
    }
    shop.clock.advance(SLOW_MS);
    walk.to_its_end().await;
    assert_eq!(walk.refund().state, RefundState::Done);
    // A claim that has run out is nobody's to renew.
    let mut walk = wanted(&shelf, 4, bought(&shelf, 4, "tok_ok").await, Cause::OrderCancelled).await;
    while walk.refund().state == RefundState::Wanted {
        assert!(walk.step().await);
    }
    shop.clock.advance(LEASE_MS);
    walk.to_its_end().await;
    assert_eq!(walk.refund().state, RefundState::Restocked);
    drop(walk);
    shelf.close().await;
}

#[actix_web::test]
async fn of_two_decisions_about_one_payment_the_first_to_be_written_stands() {
    let shelf = Shelf::open("", 1).await;
    let (shop, payments) = (&shelf.shop, shelf.shop.app().payments());
    let product = &shelf.products[0];
    let review = async |who| {
        let order: OrderId =
            id(&shop.buy(who, product, 1, "tok_wrong_amount").send().await.ok(202)).parse().unwrap();
        let row = payments.rows().payments().of_order(order).await.unwrap().remove(0);
        (row, shop.app().orders().find(support::user(who), order).await.unwrap().unwrap())
    };
    let decide = |payment: PaymentId, what: &str| {
        shop.admin("POST", &format!("/v1/admin/compensations/{payment}/{what}")).send()
    };
    // Whoever gives back has seen the row, and another keeps it before he goes on.
    let (kept, order) = review(1).await;
    decide(kept.id, "accept").await.ok(200);
    assert!(payments.begin_giving_back(&kept, &order).await.is_err());
    // The other way round; nothing has moved yet, and the decision stands all the same.
    let (given, order) = review(2).await;
    let mut walk = payments.begin_giving_back(&given, &order).await.unwrap();
    decide(given.id, "accept").await.problem(409, "order_state_conflict");
    decide(given.id, "give-back").await.ok(200);
    walk.to_its_end().await;
    // Whoever has begun to give back is gone: it goes on without him.
    let (left, order) = review(3).await;
    let mut gone = payments.begin_giving_back(&left, &order).await.unwrap();
    assert!(gone.step().await);
    drop((gone, walk));
    shop.clock.advance(LEASE_MS + 1);
    shop.settle().await;
    for (payment, state) in
        [(&kept, PaymentState::Paid), (&given, PaymentState::Orphaned), (&left, PaymentState::Orphaned)]
    {
        let row = payments.rows().payments().find(payment.id).await.unwrap().unwrap();
        assert_eq!((row.state, row.due_at), (state, None));
    }
    assert_eq!(shop.counters(product).await[..3], [STOCK - 1, 0, 1]);
    shelf.shop.close().await;
}

#[actix_web::test]
async fn what_is_taken_and_not_sold_yet_is_not_given_back() {
    let shelf = Shelf::open("", 1).await;
    let mut walk = shelf.begun(1, case("tok_ok", 2)).await;
    let due_at = walk.payment().due_at;
    shelf.shop.clock.advance(1_000);
    while walk.payment().state != PaymentState::Captured {
        assert!(walk.step().await);
    }
    assert_eq!(walk.payment().due_at, due_at, "there is time enough for what is left");
    // One of two lines is sold.
    assert!(walk.step().await);
    let order = walk.payment().order;
    let give_back = |key: &str| {
        let ask = shelf.shop.admin("POST", &format!("/v1/admin/orders/{order}/refunds")).key(key);
        ask.json(&json!({ "restock": "to_stock", "reason": "early" })).send()
    };
    give_back("a").await.problem(409, "order_state_conflict");
    walk.to_its_end().await;
    drop(walk);
    give_back("b").await.ok(201);
    shelf.close().await;
}

#[actix_web::test]
async fn a_buyer_who_comes_again_after_a_crash_hears_how_his_payment_stands() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    // The order stands, and the process died before its payment was written down: the same request begins it.
    let held = id(&shop.order(2, &jar, 1).send().await.ok(201)).parse().unwrap();
    let shop = shop.reopen().await;
    let order = shop.app().orders().find(support::user(2), held).await.unwrap().unwrap();
    let payments = shop.app().payments();
    let pay = |order, by| Pay { order, method: Method::card("tok_ok").unwrap(), by };
    let first = payments.pay(payments.place().unwrap(), pay(order.clone(), By::PlacingAgain)).await.unwrap();
    let second = payments.pay(payments.place().unwrap(), pay(order.clone(), By::PlacingAgain)).await.unwrap();
    assert_eq!((first.payment.id, first.replayed, second.replayed), (second.payment.id, false, true));
    // Or the one that had placed it was only slow, and comes when the other has paid: it still sees the order as it placed it.
    let slow = payments.pay(payments.place().unwrap(), pay(order, By::Placing)).await.unwrap();
    assert_eq!((slow.payment.id, slow.replayed), (first.payment.id, true));

    // It died after: whoever comes again hears how it stands by then.
    let body = support::paid_with(&jar, 1, "tok_ok");
    let provider = shop.app().payments().provider().simulated().unwrap().clone();
    provider.set_unreachable(true);
    let unknown = shop.by(1, "POST", "/v1/orders").key("k").json(&body).send().await.ok(202);
    assert_eq!(unknown["payment"]["status"], "unknown");
    let shop = shop.reopen().await;
    // Reached again: taken up at the start, without anybody asking for it.
    shop.settle().await;
    let again = shop.by(1, "POST", "/v1/orders").key("k").json(&body).send().await;
    assert!(again.replayed());
    // As he heard it first, with the order as it is now.
    let again = again.ok(202);
    assert_eq!((&again["id"], &again["payment"]["status"]), (&unknown["id"], &json!("paid")));
    shop.assert_settled(&[(&jar, 5)]).await;
    shop.close().await;
}

/// Asked again, a request is answered as it was the first time, also after a restart, with the order as it is by then.
#[actix_web::test]
async fn what_was_told_first_is_told_again_whatever_has_become_of_it() {
    let shop = Shop::open_with(|config| config.payment.attempts = 2).await;
    let jar = shop.stocked(9).await;
    let provider = shop.app().payments().provider().simulated().unwrap().clone();
    let held = id(&shop.order(1, &jar, 1).send().await.ok(201));
    provider.set_unreachable(true);
    let alone = shop.pay(1, &held, "tok_ok").key("p").send().await;
    let in_doubt = shop.buy(2, &jar, 1, "tok_declined").key("k").send().await;
    for open in [&alone, &in_doubt] {
        assert!(!open.replayed());
        assert_eq!(open.ok(202)["payment"]["status"], "unknown");
    }
    // While it runs as well.
    assert!(shop.buy(2, &jar, 1, "tok_declined").key("k").send().await.replayed());
    provider.set_unreachable(false);
    shop.settle().await;
    // What another attempt has paid since is paid, and the first request hears what it has heard.
    let in_doubt = id(&in_doubt.json());
    assert_eq!(shop.order_of(2, &in_doubt).await["payment"]["status"], "declined");
    let declined = shop.buy(3, &jar, 1, "tok_declined").key("k").send().await;
    let declined = id(&declined.problem(402, "payment_declined")["order"]);
    for (who, order) in [(2, &in_doubt), (3, &declined)] {
        shop.pay(who, order, "tok_ok").key("p").send().await.ok(200);
    }

    let shop = shop.reopen().await;
    let again = shop.pay(1, &held, "tok_ok").key("p").send().await;
    assert!(again.replayed());
    assert_eq!(again.ok(202)["status"], "paid");
    for (who, status) in [(2, 202), (3, 402)] {
        let again = shop.buy(who, &jar, 1, "tok_declined").key("k").send().await;
        assert!(again.replayed());
        assert_eq!(again.status, status, "{}", again.text);
        let told = again.json();
        let order = if status == 402 { &told["order"] } else { &told };
        assert_eq!((&order["status"], &order["payment"]["attempt"]), (&json!("paid"), &json!(2)));
    }
    for (who, order) in [(2, &in_doubt), (3, &declined)] {
        let again = shop.pay(who, order, "tok_ok").key("p").send().await;
        assert!(again.replayed());
        assert_eq!(again.ok(200)["status"], "paid");
    }
    shop.settle().await;
    shop.assert_settled(&[(&jar, 9)]).await;
    shop.close().await;
}

/// Who is told that it is on its way does not disturb whoever walks it; who asks first when all is over hears that.
#[actix_web::test]
async fn a_payment_is_told_as_open_beside_whoever_walks_it() {
    let shelf = Shelf::open("", 1).await;
    let (orders, payments) = (shelf.shop.app().orders(), shelf.shop.app().payments());
    for (who, first) in [(1, Outcome::Open), (2, Outcome::Paid)] {
        let mut walk = shelf.begun(who, case("tok_ok", 2)).await;
        let order = orders.find(support::user(who), walk.payment().order).await.unwrap().unwrap();
        let ask = async || {
            let (order, method) = (order.clone(), Method::card("tok_ok").unwrap());
            let pay = Pay { order: order.clone(), method, by: By::PlacingAgain };
            let paying = payments.pay(payments.place().unwrap(), pay).await.unwrap();
            payments.told(order, paying).await.unwrap()
        };
        if first == Outcome::Open {
            assert_eq!(ask().await.outcome, Outcome::Open);
        }
        walk.to_its_end().await;
        assert!(!walk.is_lost());
        let told = ask().await;
        assert_eq!((told.outcome, told.stands, told.order.status), (first, true, OrderStatus::Paid));
    }
    shelf.close().await;
}

#[actix_web::test]
async fn what_cannot_be_noted_is_told_as_open_all_the_same() {
    let shelf = Shelf::open("", 1).await;
    let mut walk = shelf.begun(1, case("tok_ok", 1)).await;
    let (orders, payments) = (shelf.shop.app().orders(), shelf.shop.app().payments());
    let order = orders.find(support::user(1), walk.payment().order).await.unwrap().unwrap();
    // Somebody else has the file.
    let other = shelf.shop.hold("money.db").await;
    let pay = Pay { order: order.clone(), method: Method::card("tok_ok").unwrap(), by: By::PlacingAgain };
    let paying = payments.pay(payments.place().unwrap(), pay).await.unwrap();
    assert_eq!(payments.told(order, paying).await.unwrap().outcome, Outcome::Open);
    other.let_go().await;
    walk.to_its_end().await;
    shelf.close().await;
}

/// The lines of a declined order are given back before its row says so: whoever asks in between hears one story.
#[actix_web::test]
async fn an_order_that_is_given_back_is_not_told_as_one_that_may_still_be_paid() {
    let shelf = Shelf::open("", 1).await;
    let mut walk = shelf.begun(1, case("tok_declined", 2)).await;
    while !matches!(walk.next(), Do::Write(Move { to: PaymentState::Declined, .. })) {
        assert!(walk.step().await);
    }
    let (orders, payments) = (shelf.shop.app().orders(), shelf.shop.app().payments());
    let order = orders.find(support::user(1), walk.payment().order).await.unwrap().unwrap();
    assert_eq!(order.status, OrderStatus::PaymentFailed);
    let pay =
        Pay { order: order.clone(), method: Method::card("tok_declined").unwrap(), by: By::PlacingAgain };
    let paying = payments.pay(payments.place().unwrap(), pay).await.unwrap();
    assert_eq!((paying.payment.state, paying.replayed), (PaymentState::Started, true));
    assert_eq!(payments.told(order, paying).await.unwrap().outcome, Outcome::Declined);
    walk.to_its_end().await;
    shelf.close().await;
}
