//! The life of orders, in days that look like chance: placed, paid, cancelled whole and by line, shipped, delivered, sent back, left
//! to lapse; with processes that die in between.
//!
//! It is the real shop on a real disk. After every step each order is looked at by its door: it has made legal moves only, its total
//! is the sum of the lines that still count, and what was asked was answered as the line stood. Whenever nothing is on its way the
//! units of every product add up, and at the end so does the money: each unit that was cancelled or sent back came back once, and
//! what went back for an order is what its ended lines cost.
//!
//! `STOCKADE_LIFE_CASES=500` for a longer one. A failing day is printed, as short as it could be made, and always how many there were.

#[path = "order_life/seen.rs"]
mod seen;
mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use futures_util::future::join;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use seen::{PRICE, Seen};
use stockade::actors::payment::{Begun, By, LEASE_MS, Pay};
use stockade::clock::Clock;
use stockade::domain::id::{OrderId, ProductId};
use stockade::domain::order::{LineStatus, OrderStatus};
use stockade::domain::payment::Method;
use stockade::persistence::audit::audit;
use support::{DAY_MS, Shop, id, lines};

const PRODUCTS: usize = 10;
/// Too little for everybody.
const STOCK: u64 = 7;
/// No day begins later, unless so many were asked for.
const BEGIN_WITHIN_NS: u64 = 40_000_000_000;
/// But so many begin however busy the machine is: with fewer nothing has been shown.
const DAYS_MIN: u32 = 3;
/// No step waits for anything that takes so long.
const HANGS_AFTER: Duration = Duration::from_secs(30);
const TOKENS: [&str; 6] = [
    "tok_ok",
    "tok_ok",
    "tok_declined",
    "tok_timeout_then_ok",
    "tok_timeout_then_declined",
    "tok_refund_fails_twice",
];

#[derive(Debug, Clone)]
enum Step {
    /// Some of the products, so many of each; paid at once, or held.
    Place {
        products: u16,
        quantity: u32,
        token: Option<usize>,
    },
    Pay {
        order: usize,
        token: usize,
    },
    /// The process dies after so many steps of paying.
    DieWhilePaying {
        order: usize,
        after: usize,
    },
    CancelLine {
        order: usize,
        line: usize,
    },
    CancelOrder {
        order: usize,
    },
    SendBack {
        order: usize,
        line: usize,
    },
    Night,
    /// The run is dropped after so long, and done again.
    BrokenNight {
        ms: u64,
    },
    /// Two runs for one occurrence, and somebody who cancels meanwhile.
    CrowdedNight {
        order: usize,
        line: usize,
    },
    /// All that is held and not being paid lapses.
    Expire,
    /// Stops in order, and starts again.
    Restart,
    /// Is killed, and starts again.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let (order, line) = (0..8_usize, 0..10_usize);
    let token = 0..TOKENS.len();
    let place = (1..1_024_u16, 1..3_u32, prop::option::weighted(0.8, token.clone()));
    prop_oneof![
        6 => place.prop_map(|(products, quantity, token)| Step::Place { products, quantity, token }),
        2 => (order.clone(), token).prop_map(|(order, token)| Step::Pay { order, token }),
        1 => (order.clone(), 0..14_usize).prop_map(|(order, after)| Step::DieWhilePaying { order, after }),
        6 => (order.clone(), line.clone()).prop_map(|(order, line)| Step::CancelLine { order, line }),
        1 => order.clone().prop_map(|order| Step::CancelOrder { order }),
        6 => (order.clone(), line.clone()).prop_map(|(order, line)| Step::SendBack { order, line }),
        4 => Just(Step::Night),
        1 => (0..12_u64).prop_map(|ms| Step::BrokenNight { ms }),
        1 => (order, line).prop_map(|(order, line)| Step::CrowdedNight { order, line }),
        1 => Just(Step::Expire),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

struct Life {
    shop: Option<Shop>,
    products: Vec<String>,
    /// Buyer, order, and what was seen of it last.
    orders: Vec<(u64, String, Seen)>,
    began_at: i64,
    /// Whether somebody's payment may still be on its way.
    open: bool,
}

impl Life {
    async fn begin() -> Life {
        let shop = Shop::open().await;
        let mut products = Vec::new();
        for _ in 0..PRODUCTS {
            products.push(shop.stocked(STOCK).await);
        }
        products.sort_by_key(|id| id.parse::<ProductId>().unwrap());
        let began_at = shop.clock.now().0;
        Life { shop: Some(shop), products, orders: Vec::new(), began_at, open: false }
    }

    fn shop(&self) -> &Shop {
        self.shop.as_ref().unwrap()
    }

    async fn look(&self, at: usize) -> Seen {
        let (who, order, _) = &self.orders[at];
        Seen::of(&self.shop().order_of(*who, order).await)
    }

    /// Looks at all orders: they have moved as they may, and they add up.
    async fn look_around(&mut self) {
        for at in 0..self.orders.len() {
            let now = self.look(at).await;
            now.adds_up();
            now.follows(&self.orders[at].2);
            self.orders[at].2 = now;
        }
    }

    /// Nothing is on its way: units and orders agree, product by product.
    async fn settle(&mut self) {
        self.shop().settle().await;
        self.open = false;
        self.look_around().await;
        for product in &self.products {
            let [available, held, sold, _] = self.shop().counters(product).await;
            assert_eq!(available + held + sold, STOCK, "{product}");
            let lines = self.orders.iter().flat_map(|(_, _, seen)| &seen.lines);
            let lines = lines.filter(|line| line.product == *product && line.is_sold());
            assert_eq!(lines.map(|line| line.quantity).sum::<u64>(), sold, "{product}");
        }
    }

    /// Starts again: on the same data, or on what a kill has left. Its clock goes on where the last one was.
    async fn again(&mut self, killed: bool) {
        let Some(shop) = self.shop.take() else { return };
        let now = shop.clock.now().0;
        let shop = if killed {
            shop.app().payments().at_rest().await;
            let left = tempfile::tempdir().unwrap();
            for file in std::fs::read_dir(shop.folder()).unwrap().map(Result::unwrap) {
                let is_index = file.file_name().to_string_lossy().ends_with("-shm");
                if file.path().is_file() && !is_index {
                    std::fs::copy(file.path(), left.path().join(file.file_name())).unwrap();
                }
            }
            shop.close().await;
            Shop::open_in(left).await
        } else {
            shop.reopen().await
        };
        shop.clock.advance((now - shop.clock.now().0).max(0));
        self.shop = Some(shop);
    }

    /// The order that a step means, and one of its lines.
    fn chosen(&self, order: usize, line: usize) -> Option<(usize, usize)> {
        let at = order.checked_rem(self.orders.len())?;
        Some((at, line % self.orders[at].2.lines.len()))
    }

    async fn place(&mut self, products: u16, quantity: u32, token: Option<usize>) {
        let chosen = self.products.iter().enumerate().filter(|(at, _)| products & (1 << at) != 0);
        let wanted: Vec<_> = chosen.map(|(_, product)| (product.as_str(), quantity)).collect();
        let mut body = lines(&wanted);
        if let Some(token) = token {
            body["payment"] = support::card(TOKENS[token]);
        }
        let who = self.orders.len() as u64 % 3 + 1;
        let reply = self.shop().by(who, "POST", "/v1/orders").json(&body).send().await;
        let order = match reply.status.as_u16() {
            201 | 202 => reply.json(),
            402 => reply.problem(402, "payment_declined")["order"].clone(),
            _ => {
                reply.problem(409, "sold_out");
                return;
            }
        };
        self.open |= reply.status == 202;
        self.orders.push((who, id(&order), Seen::of(&order)));
    }

    async fn pay(&mut self, at: usize, token: usize) {
        let (who, order, seen) = &self.orders[at];
        let reply = self.shop().pay(*who, order, TOKENS[token]).send().await;
        let status = reply.status.as_u16();
        match seen.status {
            // It may have lapsed since it was looked at.
            OrderStatus::PendingPayment if status == 410 => {
                assert_eq!(self.look(at).await.status, OrderStatus::Expired);
            }
            OrderStatus::PendingPayment => assert!([200, 202, 402, 409].contains(&status), "{}", reply.text),
            OrderStatus::Expired => assert!([409, 410].contains(&status), "{}", reply.text),
            _ => assert_eq!(status, 409, "{}", reply.text),
        }
        self.open |= status == 202;
    }

    /// Somebody pays, and the process ends in the middle of it.
    async fn die_while_paying(&mut self, at: usize, after: usize) {
        let (who, order, _) = &self.orders[at];
        let (shop, order): (&Shop, OrderId) = (self.shop(), order.parse().unwrap());
        let order = shop.app().orders().find(support::user(*who), order).await.unwrap().unwrap();
        let pay = Pay { order, method: Method::card("tok_ok").unwrap(), by: By::Itself(None) };
        let Ok(Begun::Walk(mut walk)) = shop.app().payments().begin(&pay).await else { return };
        for _ in 0..after {
            if !walk.step().await {
                break;
            }
        }
        drop(walk);
        self.again(true).await;
        self.shop().clock.advance(LEASE_MS + 1);
        self.settle().await;
    }

    async fn cancel_line(&mut self, at: usize, line: usize) {
        let (who, order, seen) = &self.orders[at];
        let reply = self.shop().cancel_line(*who, order, line as u8 + 1).send().await;
        let of = &seen.lines[line];
        match (of.status, of.delivery.as_str()) {
            (LineStatus::Ordered, "preparing") => drop(reply.ok(200)),
            (LineStatus::Ordered | LineStatus::ReturnRequested, _) => {
                drop(reply.problem(409, "not_cancellable"))
            }
            // A payment may have come to its end meanwhile.
            (LineStatus::Held, _) if self.open => {}
            _ => drop(reply.problem(409, "order_state_conflict")),
        }
    }

    async fn cancel_order(&mut self, at: usize) {
        let (who, order, seen) = &self.orders[at];
        let reply = self.shop().by(*who, "POST", &format!("/v1/orders/{order}/cancel")).send().await;
        let left: Vec<_> = seen.lines.iter().filter(|line| line.is_sold()).collect();
        match seen.status {
            OrderStatus::Paid if left.iter().all(|line| line.delivery == "preparing") => {
                drop(reply.ok(200));
                assert_eq!(self.look(at).await.total, 0);
            }
            OrderStatus::Paid => drop(reply.problem(409, "not_cancellable")),
            OrderStatus::PendingPayment if self.open => {}
            OrderStatus::PendingPayment if reply.status != 200 => {
                assert!([409, 410].contains(&reply.status.as_u16()), "{}", reply.text);
                assert_eq!(self.look(at).await.status, OrderStatus::Expired);
            }
            OrderStatus::PendingPayment => drop(reply.ok(200)),
            OrderStatus::Expired => assert!([409, 410].contains(&reply.status.as_u16()), "{}", reply.text),
            _ => drop(reply.problem(409, "order_state_conflict")),
        }
    }

    async fn send_back(&mut self, at: usize, line: usize) {
        let (who, order, seen) = &self.orders[at];
        let reply = self.shop().send_back(*who, order, line as u8 + 1).send().await;
        let of = &seen.lines[line];
        match (of.status, of.delivery.as_str()) {
            // In time, or too late.
            (LineStatus::Ordered, "delivered") if reply.status == 200 => {}
            (LineStatus::Ordered, _) => drop(reply.problem(409, "not_returnable")),
            (LineStatus::Held, _) if self.open => {}
            _ => drop(reply.problem(409, "order_state_conflict")),
        }
    }

    async fn night(&mut self, broken: Option<u64>) {
        self.shop().clock.advance(DAY_MS);
        let due = self.shop().due();
        if let Some(ms) = broken {
            let run = self.shop().app().deliveries().advance(due);
            drop(tokio::time::timeout(Duration::from_millis(ms), run).await);
            self.again(true).await;
        }
        let tally = self.shop().app().deliveries().advance(due).await.unwrap();
        assert_eq!(tally.failed, 0, "{tally:?}");
        // What it was to move it has moved, and by one state.
        for (_, order, seen) in &self.orders {
            let rows = self.shop().deliveries(order).await;
            for (row, before) in rows.iter().zip(&seen.lines) {
                let expected = match (before.status, before.delivery.as_str()) {
                    (LineStatus::Ordered, "preparing") => "shipping",
                    (LineStatus::Ordered, _) => "delivered",
                    (LineStatus::ReturnRequested, _) => "returned",
                    _ => continue,
                };
                assert_eq!(row.state.as_str(), expected, "{order} {seen}");
            }
        }
    }

    async fn crowded_night(&mut self, chosen: Option<(usize, usize)>) {
        self.shop().clock.advance(DAY_MS);
        let due = self.shop().due();
        let (shop, deliveries) = (self.shop(), self.shop().app().deliveries());
        let cancelling = async {
            let Some((at, line)) = chosen else { return };
            let (who, order, _) = &self.orders[at];
            shop.cancel_line(*who, order, line as u8 + 1).send().await;
        };
        let runs = join(deliveries.advance(due), deliveries.advance(due));
        let ((one, two), ()) = join(runs, cancelling).await;
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.failed + two.failed, 0, "{one:?} {two:?}");
        assert_eq!(deliveries.advance(due).await.unwrap().moved, 0);
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Place { products, quantity, token } => self.place(products, quantity, token).await,
            Step::Pay { order, token } => {
                if let Some((at, _)) = self.chosen(order, 0) {
                    self.pay(at, token).await;
                }
            }
            Step::DieWhilePaying { order, after } => {
                if let Some((at, _)) = self.chosen(order, 0) {
                    self.die_while_paying(at, after).await;
                }
            }
            Step::CancelLine { order, line } => {
                if let Some((at, line)) = self.chosen(order, line) {
                    self.cancel_line(at, line).await;
                }
            }
            Step::CancelOrder { order } => {
                if let Some((at, _)) = self.chosen(order, 0) {
                    self.cancel_order(at).await;
                }
            }
            Step::SendBack { order, line } => {
                if let Some((at, line)) = self.chosen(order, line) {
                    self.send_back(at, line).await;
                }
            }
            Step::Night => {
                self.settle().await;
                self.night(None).await;
            }
            Step::BrokenNight { ms } => {
                self.settle().await;
                self.night(Some(ms)).await;
            }
            Step::CrowdedNight { order, line } => {
                self.settle().await;
                self.crowded_night(self.chosen(order, line)).await;
            }
            Step::Expire => {
                self.settle().await;
                self.expire().await;
            }
            Step::Restart => self.again(false).await,
            Step::Crash => self.again(true).await,
        }
        self.look_around().await;
    }

    async fn expire(&mut self) {
        self.shop().clock.advance(3_600_000);
        for product in &self.products {
            self.shop().until_nothing_is_held(product).await;
        }
    }

    /// The books are closed.
    async fn end(mut self) {
        self.settle().await;
        self.expire().await;
        self.settle().await;
        let shop = self.shop();
        let mut returned: BTreeMap<(String, String), u64> = BTreeMap::new();
        for product in &self.products {
            let page = shop.admin("GET", &format!("/v1/admin/products/{product}/ledger?limit=100"));
            let page = page.send().await.ok(200);
            for movement in page["data"].as_array().unwrap().iter().filter(|one| one["kind"] == "returned") {
                let order = movement["order_id"].as_str().unwrap().to_owned();
                *returned.entry((order, product.clone())).or_default() +=
                    movement["quantity"].as_u64().unwrap();
            }
        }
        let (payments, refunds) = shop.money().await;
        for (_, order, seen) in &self.orders {
            let mut back = 0;
            for line in &seen.lines {
                let units = returned.remove(&(order.clone(), line.product.clone())).unwrap_or_default();
                assert_eq!(units, if line.came_back() { line.quantity } else { 0 }, "{order} {seen}");
                back += PRICE * units as i64;
            }
            let order: OrderId = order.parse().unwrap();
            let given: i64 = refunds
                .iter()
                .filter(|refund| refund.order == order)
                .map(|refund| refund.amount.amount)
                .sum();
            assert_eq!(given, back, "{order} {seen}");
            let taken: i64 = payments
                .iter()
                .filter(|payment| payment.order == order)
                .map(|payment| payment.captured)
                .sum();
            assert_eq!(taken - given, if seen.was_sold() { seen.total } else { 0 }, "{order} {seen}");
        }
        assert!(returned.is_empty(), "{returned:?}");
        let stock: Vec<_> = self.products.iter().map(|product| (product.as_str(), STOCK)).collect();
        shop.assert_settled(&stock).await;
        assert!(shop.clock.now().0 > self.began_at);
        let Some(shop) = self.shop.take() else { return };
        let folder = shop.stop().await;
        let report = audit(folder.path()).await.unwrap();
        assert_eq!(report.all_differences().collect::<Vec<_>>(), [""; 0]);
    }
}

fn live(steps: &[Step]) {
    actix_web::rt::System::new().block_on(async {
        let mut life = Life::begin().await;
        for step in steps {
            let done = tokio::time::timeout(HANGS_AFTER, life.step(step)).await;
            assert!(done.is_ok(), "{step:?} hangs");
        }
        assert!(tokio::time::timeout(HANGS_AFTER, life.end()).await.is_ok(), "the end hangs");
    });
}

fn cases() -> u32 {
    std::env::var("STOCKADE_LIFE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(12)
}

#[test]
fn whatever_happens_an_order_moves_as_it_may_and_adds_up() {
    let config = ProptestConfig {
        cases: cases(),
        // A day takes a second: making it shorter must not take an hour.
        max_shrink_iters: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new(config);
    let (clock, asked) = (Clock::start(), std::env::var_os("STOCKADE_LIFE_CASES").is_some());
    let (began, days) = (clock.nanos(), Cell::new(0));
    let outcome = runner.run(&prop::collection::vec(step(), 8..30), |steps| {
        // On a busy machine there are fewer days.
        if asked || days.get() < DAYS_MIN || clock.nanos() - began < BEGIN_WITHIN_NS {
            days.set(days.get() + 1);
            live(&steps);
        }
        Ok(())
    });
    // Past the harness, which keeps what a test that passes prints.
    let mut aloud = std::io::stderr();
    writeln!(aloud, "{} of {} days were lived", days.get(), cases()).unwrap();
    if let Err(TestError::Fail(why, steps)) = outcome {
        panic!("{why}\nthe day was: {steps:#?}");
    }
    assert!(days.get() >= DAYS_MIN.min(cases()), "only {} days were lived", days.get());
}

/// One of everything, in order, so that each is done at least once however chance falls.
#[test]
fn a_day_with_everything_in_it() {
    let place = |products, token| Step::Place { products, quantity: 1, token };
    live(&[
        place(0b11_1111_1111, Some(0)),
        place(0b111, None),
        place(0b111, Some(3)),
        place(0b1100, Some(2)),
        Step::CancelLine { order: 0, line: 2 },
        Step::DieWhilePaying { order: 1, after: 5 },
        Step::CancelOrder { order: 1 },
        Step::Crash,
        Step::Night,
        Step::CancelLine { order: 0, line: 0 },
        Step::CancelLine { order: 2, line: 0 },
        place(0b1001, Some(5)),
        Step::CancelLine { order: 4, line: 1 },
        Step::BrokenNight { ms: 3 },
        Step::SendBack { order: 0, line: 9 },
        Step::SendBack { order: 4, line: 0 },
        Step::Restart,
        Step::CrowdedNight { order: 4, line: 0 },
        Step::SendBack { order: 0, line: 8 },
        place(0b11_0000_0000, None),
        Step::Night,
        Step::Expire,
        Step::Pay { order: 5, token: 0 },
        Step::Night,
        Step::SendBack { order: 0, line: 7 },
    ]);
}
