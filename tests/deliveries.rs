//! What happens to a paid order: it ships and arrives by night, it is cancelled by line before that and sent back after, each line
//! once, whoever else is at it.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stockade::actors::delivery::Due;
use stockade::actors::stock::NotDone;
use stockade::domain::delivery::DeliveryState;
use support::{Ask, DAY_MS, Shop, id, lines};

const STOCK: u64 = 1_000;

async fn shelf(shop: &Shop, many: usize) -> Vec<String> {
    let mut products = Vec::new();
    for _ in 0..many {
        products.push(shop.stocked(STOCK).await);
    }
    // In the order in which lines are numbered.
    products.sort_by_key(|id| id.parse::<stockade::domain::id::ProductId>().unwrap());
    products
}

/// Orders one unit of each, and pays in the same call.
fn buying(shop: &Shop, who: u64, products: &[String]) -> Ask {
    let wanted: Vec<_> = products.iter().map(|product| (product.as_str(), 1)).collect();
    let mut body = lines(&wanted);
    body["payment"] = support::card("tok_ok");
    shop.by(who, "POST", "/v1/orders").json(&body)
}

/// A paid order of one unit of each.
async fn bought(shop: &Shop, who: u64, products: &[String]) -> String {
    id(&buying(shop, who, products).send().await.ok(201))
}

/// Status, delivery and total in one line.
fn told(order: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let lines = order["lines"].as_array().unwrap().iter();
    let lines: Vec<_> =
        lines.map(|line| format!("{}/{}", word(&line["status"]), word(&line["delivery_status"]))).collect();
    format!("{} {} {}", word(&order["status"]), lines.join(" "), order["total"]["amount"])
}

async fn seen(shop: &Shop, who: u64, order: &str) -> String {
    told(&shop.order_of(who, order).await)
}

/// The provider's and our own sums agree, the units are where they should be, and so says the audit.
async fn closes(shop: Shop, products: &[String]) {
    shop.settle().await;
    let stock: Vec<_> = products.iter().map(|product| (product.as_str(), STOCK)).collect();
    shop.assert_settled(&stock).await;
    shop.audited().await;
}

#[actix_web::test]
async fn an_order_lives_until_its_last_line_has_ended() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 3).await;
    let order = bought(&shop, 1, &products).await;
    assert_eq!(
        seen(&shop, 1, &order).await,
        "paid ordered/preparing ordered/preparing ordered/preparing 3000"
    );
    let cancelled = shop.cancel_line(1, &order, 2).key("c").send().await.ok(200);
    assert_eq!(told(&cancelled), "paid ordered/preparing cancelled/- ordered/preparing 2000");
    assert_eq!(cancelled["payment"]["refunded"]["amount"], 1_000);
    assert_eq!(shop.counters(&products[1]).await[..3], [STOCK, 0, 0]);

    // Nothing moves before it is time, and nothing twice for one occurrence.
    shop.settle().await;
    let due = Due { scheduled: shop.deliveries(&order).await[0].paid_at, ..shop.due() };
    assert_eq!(shop.app().deliveries().advance(due).await.unwrap().moved, 0);
    shop.clock.advance(DAY_MS);
    let due = shop.due();
    for moved in [2, 0] {
        assert_eq!(shop.app().deliveries().advance(due).await.unwrap().moved, moved);
    }
    assert_eq!(seen(&shop, 1, &order).await, "paid ordered/shipping cancelled/- ordered/shipping 2000");
    let shipped = shop.cancel_line(1, &order, 1).send().await.problem(409, "not_cancellable");
    assert_eq!((&shipped["line"], &shipped["delivery_status"]), (&json!(1), &json!("shipping")));
    assert!(shipped["shipped_at"].is_string());
    let early = shop.send_back(1, &order, 1).send().await.problem(409, "not_returnable");
    assert_eq!((&early["delivery_status"], &early["returnable_until"]), (&json!("shipping"), &Value::Null));
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.problem(409, "not_cancellable");

    assert_eq!(shop.night().await.moved, 2);
    let there = shop.order_of(1, &order).await;
    assert_eq!(told(&there), "paid ordered/delivered cancelled/- ordered/delivered 2000");
    assert!(there["lines"][0]["delivered_at"].is_string() && there["lines"][1]["delivered_at"].is_null());

    let asked = shop.send_back(1, &order, 3).key("r").send().await.ok(200);
    assert_eq!(told(&asked), "paid ordered/delivered cancelled/- return_requested/delivered 2000");
    let again = shop.send_back(1, &order, 3).key("r").send().await;
    assert!(again.replayed() && again.status == 200);
    shop.send_back(1, &order, 1).key("r").send().await.problem(422, "idempotency_key_reused");
    shop.send_back(1, &order, 3).send().await.problem(409, "order_state_conflict");
    assert_eq!(shop.night().await.moved, 1);
    shop.settle().await;
    let back = shop.order_of(1, &order).await;
    assert_eq!(told(&back), "paid ordered/delivered cancelled/- returned/delivered 1000");
    assert_eq!(back["payment"]["refunded"]["amount"], 2_000);
    assert_eq!(shop.counters(&products[2]).await[..3], [STOCK, 0, 0]);

    shop.send_back(1, &order, 1).send().await.ok(200);
    assert_eq!(shop.night().await.moved, 1);
    shop.settle().await;
    assert_eq!(seen(&shop, 1, &order).await, "closed returned/delivered cancelled/- returned/delivered 0");
    shop.tables_follow().await;
    let listed = shop.by(1, "GET", "/v1/orders?status=closed").send().await.ok(200);
    assert_eq!(id(&listed["data"][0]), order);
    closes(shop, &products).await;
}

#[actix_web::test]
async fn a_line_is_cancelled_by_its_buyer_once() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 3).await;
    let held = id(&shop.order(1, &products[0], 1).send().await.ok(201));
    shop.cancel_line(1, &held, 1).send().await.problem(409, "order_state_conflict");
    shop.send_back(1, &held, 1).send().await.problem(409, "order_state_conflict");
    shop.by(1, "POST", &format!("/v1/orders/{held}/cancel")).send().await.ok(200);
    shop.cancel_line(1, &held, 1).send().await.problem(409, "order_state_conflict");

    let order = bought(&shop, 1, &products).await;
    // Whose order it is, and that it has such a line, is looked at first.
    let theirs = shop.cancel_line(2, &order, 1).send().await.problem(404, "not_found");
    let nobodys = shop.cancel_line(2, "order_01h455vb4pex5vsknk084sn02q", 1).send().await;
    assert_eq!(theirs["detail"], nobodys.problem(404, "not_found")["detail"]);
    shop.send_back(2, &order, 1).send().await.problem(404, "not_found");
    for line in ["0", "4", "01", "+1", "256", "one"] {
        let path = format!("/v1/orders/{order}/lines/{line}/cancel");
        shop.by(1, "POST", &path).send().await.problem(404, "not_found");
    }
    let long = json!({ "reason": "x".repeat(201) });
    for body in [json!({ "reason": " " }), long, json!({}), json!({ "reason": "x", "price": 1 })] {
        let path = format!("/v1/orders/{order}/lines/1/return");
        shop.by(1, "POST", &path).json(&body).send().await.problem(422, "validation_failed");
    }

    let first = shop.cancel_line(1, &order, 1).key("k").send().await;
    assert!(!first.replayed());
    assert_eq!(told(&first.ok(200)), "paid cancelled/- ordered/preparing ordered/preparing 2000");
    let again = shop.cancel_line(1, &order, 1).key("k").send().await;
    assert!(again.replayed());
    assert_eq!(again.ok(200)["status"], "paid");
    shop.cancel_line(1, &order, 2).key("k").send().await.problem(422, "idempotency_key_reused");
    for key in ["other", "another"] {
        shop.cancel_line(1, &order, 1).key(key).send().await.problem(409, "order_state_conflict");
    }
    // The rest at once: what was cancelled before stays so, and its key hears of it.
    let rest = shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).key("all").send().await.ok(200);
    assert_eq!(told(&rest), "cancelled cancelled/- cancelled/- cancelled/- 0");
    assert!(shop.cancel_line(1, &order, 1).key("k").send().await.replayed());
    shop.cancel_line(1, &order, 2).send().await.problem(409, "order_state_conflict");
    shop.settle().await;
    let refunds = shop.money().await.1;
    let mut amounts: Vec<_> = refunds.iter().map(|refund| refund.amount.amount).collect();
    amounts.sort_unstable();
    assert_eq!(amounts, [1_000, 2_000]);
    // Long after, when nobody remembers the units, the key still does.
    shop.clock.advance(30 * DAY_MS);
    let late = shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).key("all").send().await;
    assert!(late.replayed() && late.status == 200);
    assert_eq!(shop.night().await.moved, 0);
    closes(shop, &products).await;
}

#[actix_web::test]
async fn a_hundred_who_cancel_one_line_give_it_back_once() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 2).await;
    let order = bought(&shop, 1, &products).await;
    let replies = join_all((0..100).map(|_| shop.cancel_line(1, &order, 2).send())).await;
    let yes = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(yes, 1);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        reply.problem(409, "order_state_conflict");
    }
    shop.settle().await;
    let refunds = shop.money().await.1;
    assert_eq!((refunds.len(), refunds[0].amount.amount), (1, 1_000));
    let ledger = shop.admin("GET", &format!("/v1/admin/products/{}/ledger?limit=100", products[1]));
    let ledger = ledger.send().await.ok(200);
    let back = ledger["data"].as_array().unwrap().iter().filter(|movement| movement["kind"] == "returned");
    assert_eq!(back.count(), 1, "{ledger}");
    closes(shop, &products).await;
}

#[actix_web::test]
async fn whoever_cancels_what_is_shipped_at_that_moment_wins_or_hears_so() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 2).await;
    let mut orders = Vec::new();
    for who in 1..=40 {
        orders.push(bought(&shop, who, &products).await);
    }
    shop.clock.advance(DAY_MS);
    let cancels = orders.iter().enumerate().map(|(at, order)| {
        let who = at as u64 + 1;
        // By line, or all of it.
        match at % 2 {
            0 => shop.cancel_line(who, order, 1).send(),
            _ => shop.by(who, "POST", &format!("/v1/orders/{order}/cancel")).send(),
        }
    });
    let (replies, tally) = join(join_all(cancels), shop.run()).await;
    assert_eq!((tally.failed, tally.problems.len()), (0, 0));
    let mut cancelled = 0;
    for (at, (order, reply)) in orders.iter().zip(&replies).enumerate() {
        let rows = shop.deliveries(order).await;
        let states: Vec<_> = rows.iter().map(|row| row.state).collect();
        assert_eq!(rows.iter().map(|row| row.version).collect::<Vec<_>>(), [2, 2], "{rows:#?}");
        if reply.status == 200 {
            cancelled += if at % 2 == 0 { 1 } else { 2 };
            let others = if at % 2 == 0 { DeliveryState::Shipping } else { DeliveryState::Cancelled };
            assert_eq!(states, [DeliveryState::Cancelled, others]);
        } else {
            reply.problem(409, "not_cancellable");
            assert_eq!(states, [DeliveryState::Shipping; 2]);
        }
    }
    assert_eq!(tally.moved + cancelled, 80);
    closes(shop, &products).await;
}

#[actix_web::test]
async fn a_line_is_cancelled_in_the_moment_in_which_it_is_paid() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 2).await;
    // The buyer hears that he has paid before the payment's row says so.
    for who in 1..=20 {
        let order = bought(&shop, who, &products).await;
        let told = shop.cancel_line(who, &order, 1 + (who % 2) as u8).send().await.ok(200);
        assert_eq!(told["total"]["amount"], 1_000);
    }
    shop.settle().await;
    assert_eq!(shop.night().await.moved, 20);
    closes(shop, &products).await;
}

/// Orders of one line for each product, all paid at once.
async fn many(shop: &Shop, products: &[String], orders: u64) -> Vec<String> {
    shop.all_paid((1..=orders).map(|who| buying(shop, who, products))).await
}

#[actix_web::test]
async fn two_runs_at_once_move_every_line_once() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 5).await;
    let orders = many(&shop, &products, 80).await;
    for state in [DeliveryState::Shipping, DeliveryState::Delivered] {
        shop.clock.advance(DAY_MS);
        let due = shop.due();
        let dry = shop.app().deliveries().advance(Due { dry: true, ..due }).await.unwrap();
        assert_eq!((dry.seen, dry.moved), (400, 400), "would be");
        let (one, two) =
            join(shop.app().deliveries().advance(due), shop.app().deliveries().advance(due)).await;
        assert_eq!(one.unwrap().moved + two.unwrap().moved, 400);
        for order in &orders {
            let rows = shop.deliveries(order).await;
            assert!(rows.iter().all(|row| row.state == state && row.scheduled == due.scheduled), "{rows:#?}");
        }
    }
    let versions: BTreeSet<u64> = shop.deliveries(&orders[0]).await.iter().map(|row| row.version).collect();
    assert_eq!(versions, BTreeSet::from([3]));
    closes(shop, &products).await;
}

#[actix_web::test]
async fn a_run_that_is_dropped_in_the_middle_is_gone_on_with() {
    let mut shop = Shop::open().await;
    let products = shelf(&shop, 5).await;
    let orders = many(&shop, &products, 110).await;
    shop.clock.advance(DAY_MS);
    let due = shop.due();
    let shipped = async |shop: &Shop| {
        let mut shipped = 0;
        for order in &orders {
            let rows = shop.deliveries(order).await;
            assert!(rows.iter().all(|row| row.version <= 2), "{rows:#?}");
            shipped += rows.iter().filter(|row| row.state == DeliveryState::Shipping).count() as u64;
        }
        shipped
    };
    // Dropped after more and more time, until it was somewhere in the middle; the process ends there too.
    let (mut before, mut ms) = (0, 1);
    while before == 0 {
        let run = tokio::time::timeout(Duration::from_millis(ms), shop.app().deliveries().advance(due)).await;
        drop(run);
        shop = shop.reopen().await;
        before = shipped(&shop).await;
        ms += 1 + ms / 4;
    }
    assert!(before < 550, "it came to its end");
    let rest = shop.app().deliveries().advance(due).await.unwrap();
    assert_eq!((rest.moved, rest.failed), (550 - before, 0));
    assert_eq!(shipped(&shop).await, 550);
    closes(shop, &products).await;
}

async fn spoil(shop: &Shop, sql: &'static str, id: &[u8]) {
    let options = SqliteConnectOptions::new().filename(shop.folder().join("money.db"));
    let mut connection = options.pragma("ignore_check_constraints", "1").connect().await.unwrap();
    assert_eq!(sqlx::query(sql).bind(id).execute(&mut connection).await.unwrap().rows_affected(), 1);
    connection.close().await.unwrap();
}

#[actix_web::test]
async fn a_row_that_is_damaged_is_told_and_all_the_others_move() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 3).await;
    let orders = many(&shop, &products, 100).await;
    let poisoned: stockade::domain::id::OrderId = orders[50].parse().unwrap();
    let bytes = poisoned.as_bytes();
    spoil(&shop, "update deliveries set quantity = -1 where order_id = ? and line = 2", bytes).await;
    shop.clock.advance(DAY_MS);
    let tally = shop.run().await;
    assert_eq!((tally.seen, tally.moved, tally.failed), (300, 299, 1));
    assert_eq!(tally.problems, [format!("{poisoned} line 2: damaged number")]);
    // Its buyer still sees the order, and can cancel nothing of what nobody can read.
    let who = 51;
    assert_eq!(shop.order_of(who, &orders[50]).await["lines"][0]["delivery_status"], "shipping");
    shop.cancel_line(who, &orders[50], 2).send().await.problem(500, "internal");
    // Mended, it is taken along the next time.
    spoil(&shop, "update deliveries set quantity = 1 where order_id = ? and line = 2", bytes).await;
    assert_eq!(shop.night().await.moved, 300);
    assert_eq!(shop.night().await.moved, 1);

    // A payment that cannot be read keeps its line, and nobody else's.
    for (who, order) in (1..).zip(&orders).take(10) {
        shop.send_back(who, order, 1).send().await.ok(200);
    }
    let payment = shop.deliveries(&orders[3]).await[0].payment;
    spoil(&shop, "update payments set currency = 'coins' where id = ?", payment.as_bytes()).await;
    shop.clock.advance(DAY_MS);
    let tally = shop.run().await;
    assert_eq!((tally.seen, tally.moved, tally.failed), (10, 9, 1));
    assert!(tally.problems[0].starts_with(&format!("{} line 1: ", orders[3])), "{tally:?}");
    spoil(&shop, "update payments set currency = 'KRW' where id = ?", payment.as_bytes()).await;
    assert_eq!(shop.night().await.moved, 1);
    closes(shop, &products).await;
}

/// A run that cannot say what it has written has not come to its end: whoever runs it next does the rest.
#[actix_web::test]
async fn a_run_of_which_nobody_knows_is_none() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 1).await;
    bought(&shop, 1, &products).await;
    shop.settle().await;
    let rule = async |sql: &'static str| {
        let money = SqliteConnectOptions::new().filename(shop.folder().join("money.db"));
        sqlx::raw_sql(sql).execute(&mut money.connect().await.unwrap()).await.unwrap();
    };
    rule("create trigger stubborn before update on deliveries begin select raise(abort, 'no'); end").await;
    shop.clock.advance(DAY_MS);
    assert_eq!(shop.app().deliveries().advance(shop.due()).await, Err(NotDone::Unknown));
    rule("drop trigger stubborn").await;
    assert_eq!(shop.run().await.moved, 1);
    closes(shop, &products).await;
}

#[actix_web::test]
async fn a_line_is_sent_back_until_two_days_after_it_has_arrived() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 2).await;
    let order = bought(&shop, 1, &products).await;
    shop.settle().await;
    shop.night().await;
    shop.night().await;
    let arrived = shop.deliveries(&order).await[0].delivered_at.unwrap();
    let until = arrived.plus(2 * DAY_MS);
    shop.clock.advance(until.0 - shop.clock.now().0 - 60_000);
    shop.send_back(1, &order, 1).send().await.ok(200);
    shop.clock.advance(until.0 - shop.clock.now().0 + 1);
    let late = shop.send_back(1, &order, 2).send().await.problem(409, "not_returnable");
    let shown = shop.order_of(1, &order).await;
    assert_eq!(late["delivered_at"], shown["lines"][1]["delivered_at"]);
    let last: jiff::Timestamp = late["returnable_until"].as_str().unwrap().parse().unwrap();
    assert_eq!(last.as_millisecond(), until.0);
    assert_eq!(shop.night().await.moved, 1);
    closes(shop, &products).await;
}

#[actix_web::test]
async fn what_a_clerk_gives_back_ends_the_line_too() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 4).await;
    let order = bought(&shop, 1, &products).await;
    shop.settle().await;
    let clerk = |key: &str, body: Value| {
        shop.admin("POST", &format!("/v1/admin/orders/{order}/refunds")).key(key).json(&body).send()
    };
    // The price is given back for one that its buyer keeps; then he cancels it all the same: only the units come back.
    clerk("a", json!({ "line": 1, "restock": "leave", "reason": "sorry" })).await.ok(201);
    let told_ = shop.cancel_line(1, &order, 1).send().await.ok(200);
    assert_eq!(told_["payment"]["refunded"]["amount"], 1_000);
    // One is taken back before it ships.
    clerk("b", json!({ "line": 2, "restock": "to_stock", "reason": "broken" })).await.ok(201);
    assert_eq!(
        seen(&shop, 1, &order).await,
        "paid cancelled/- cancelled/- ordered/preparing ordered/preparing 2000"
    );
    shop.cancel_line(1, &order, 2).send().await.problem(409, "order_state_conflict");
    clerk("c", json!({ "line": 1, "restock": "to_stock", "reason": "again" }))
        .await
        .problem(409, "order_state_conflict");
    assert_eq!(shop.night().await.moved, 2);
    // One comes back that nobody took in, and one is asked back by nobody.
    clerk("d", json!({ "line": 3, "restock": "to_stock", "reason": "refused at the door" })).await.ok(201);
    assert_eq!(shop.night().await.moved, 1);
    clerk("e", json!({ "restock": "to_stock", "reason": "all that is left" })).await.ok(201);
    shop.settle().await;
    assert_eq!(
        seen(&shop, 1, &order).await,
        "closed cancelled/- cancelled/- returned/shipping returned/delivered 0"
    );
    shop.send_back(1, &order, 4).send().await.problem(409, "order_state_conflict");
    assert_eq!(shop.night().await.moved, 0);
    closes(shop, &products).await;
}

#[actix_web::test]
async fn what_costs_nothing_moves_like_everything_else() {
    let shop = Shop::open().await;
    let gift = json!({ "price": { "amount": 0, "currency": "KRW" } });
    let mut products = vec![id(&shop.product(STOCK, gift).await), shop.stocked(STOCK).await];
    products.sort_by_key(|id| id.parse::<stockade::domain::id::ProductId>().unwrap());
    let order = bought(&shop, 1, &products).await;
    let free = bought(&shop, 2, &products[..1]).await;
    shop.settle().await;
    let told_ = shop.cancel_line(1, &order, 1).send().await.ok(200);
    assert_eq!(
        (told(&told_), &told_["payment"]["refunded"]["amount"]),
        ("paid cancelled/- ordered/preparing 1000".into(), &json!(0))
    );
    assert_eq!(shop.night().await.moved, 2);
    assert_eq!(shop.night().await.moved, 2);
    shop.send_back(2, &free, 1).send().await.ok(200);
    assert_eq!(shop.night().await.moved, 1);
    shop.settle().await;
    assert_eq!(seen(&shop, 2, &free).await, "returned returned/delivered 0");
    assert_eq!(shop.counters(&products[0]).await[..3], [STOCK, 0, 0]);
    shop.audited().await;
}

#[actix_web::test]
async fn after_days_without_a_run_a_line_moves_one_state_per_missed_day() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 1).await;
    let order = bought(&shop, 1, &products).await;
    shop.settle().await;
    let paid = shop.deliveries(&order).await[0].paid_at;
    shop.clock.advance(3 * DAY_MS);
    let mut states = Vec::new();
    for day in [0, 1, 1, 2, 3] {
        let due = Due { scheduled: paid.plus(day * DAY_MS - 1_000), ..shop.due() };
        shop.app().deliveries().advance(due).await.unwrap();
        states.push(shop.deliveries(&order).await[0].state.as_str());
    }
    assert_eq!(states, ["preparing", "shipping", "shipping", "delivered", "delivered"]);
    // The buyer's two days begin when he could know.
    assert!(shop.deliveries(&order).await[0].delivered_at.unwrap() >= paid.plus(3 * DAY_MS));
    shop.audited().await;
}

#[actix_web::test]
async fn why_a_line_came_back_is_forgotten_with_it_and_with_whoever_said_so() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 2).await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let wanted: Vec<_> = products.iter().map(|product| (product.as_str(), 1)).collect();
    let mut body = lines(&wanted);
    body["payment"] = support::card("tok_ok");
    let order = id(&shop.as_of(&pair, "POST", "/v1/orders").json(&body).send().await.ok(201));
    shop.settle().await;
    shop.night().await;
    shop.night().await;
    let pair = shop.log_in(&mina).await;
    let send_back = async |line: u8| {
        let path = format!("/v1/orders/{order}/lines/{line}/return");
        let reason = json!({ "reason": "it does not go with my kitchen" });
        shop.as_of(&pair, "POST", &path).json(&reason).send().await.ok(200);
    };
    let reasons = async || {
        let rows = shop.deliveries(&order).await;
        rows.iter().map(|row| (row.state, row.reason.is_some())).collect::<Vec<_>>()
    };
    send_back(1).await;
    let told = shop.as_of(&pair, "GET", "/v1/users/me/export").send().await.ok(200);
    assert_eq!(told["deliveries"][0]["reason"], "it does not go with my kitchen");
    shop.night().await;
    let pair = shop.log_in(&mina).await;
    assert_eq!(reasons().await, [(DeliveryState::Returned, false), (DeliveryState::Delivered, false)]);
    let path = format!("/v1/orders/{order}/lines/2/return");
    let reason = json!({ "reason": "nor does this" });
    shop.as_of(&pair, "POST", &path).json(&reason).send().await.ok(200);
    assert_eq!(reasons().await[1], (DeliveryState::ReturnRequested, true));
    let leaves = shop.as_of(&pair, "DELETE", "/v1/users/me").json(&json!({ "password": mina.password }));
    assert_eq!(leaves.send().await.status, 204);
    assert_eq!(reasons().await[1], (DeliveryState::ReturnRequested, false));
    // It comes back all the same.
    assert_eq!(shop.night().await.moved, 1);
    shop.settle().await;
    assert_eq!(shop.counters(&products[1]).await[..3], [STOCK, 0, 0]);
    shop.close().await;
}

/// The provider took a won too much, and a clerk has kept it: with the last line it goes back too, whoever ends that.
#[actix_web::test]
async fn what_was_taken_above_the_price_goes_back_with_the_last_line() {
    let shop = Shop::open().await;
    let products = shelf(&shop, 2).await;
    let accepted = async |who: u64| {
        let mut body = lines(&[(&products[0], 1), (&products[1], 1)]);
        body["payment"] = support::card("tok_wrong_amount");
        let order = shop.by(who, "POST", "/v1/orders").json(&body).send().await.ok(202);
        let door = format!("/v1/admin/compensations/{}/accept", order["payment"]["id"].as_str().unwrap());
        shop.admin("POST", &door).send().await.ok(200);
        shop.settle().await;
        id(&order)
    };
    let clerk = async |order: &str, line: u8, key: &str| {
        let body = json!({ "line": line, "restock": "to_stock", "reason": "broken" });
        let door = format!("/v1/admin/orders/{order}/refunds");
        let ask = || shop.admin("POST", &door).key(key).json(&body).send();
        let given = ask().await.ok(201);
        assert_eq!(ask().await.ok(201)["id"], given["id"], "asked again it is the same");
    };
    // By lines, by the rest, by a clerk; and one that comes back by night.
    let by_lines = accepted(1).await;
    shop.cancel_line(1, &by_lines, 1).send().await.ok(200);
    shop.cancel_line(1, &by_lines, 2).send().await.ok(200);
    let by_rest = accepted(2).await;
    shop.cancel_line(2, &by_rest, 1).send().await.ok(200);
    shop.by(2, "POST", &format!("/v1/orders/{by_rest}/cancel")).send().await.ok(200);
    let by_clerk = accepted(3).await;
    clerk(&by_clerk, 1, "a").await;
    clerk(&by_clerk, 2, "b").await;
    // That won goes back alone, and then both lines for their price.
    let by_amount = accepted(5).await;
    let won =
        json!({ "amount": { "amount": 1, "currency": "KRW" }, "restock": "leave", "reason": "too much" });
    let door = format!("/v1/admin/orders/{by_amount}/refunds");
    shop.admin("POST", &door).key("c").json(&won).send().await.ok(201);
    clerk(&by_amount, 1, "d").await;
    clerk(&by_amount, 2, "e").await;
    let by_night = accepted(4).await;
    shop.cancel_line(4, &by_night, 1).send().await.ok(200);
    shop.night().await;
    shop.night().await;
    shop.send_back(4, &by_night, 2).send().await.ok(200);
    shop.night().await;
    shop.settle().await;
    for (who, order) in (1..).zip([&by_lines, &by_rest, &by_clerk, &by_night, &by_amount]) {
        let payment = shop.order_of(who, order).await["payment"].clone();
        assert_eq!(
            (&payment["status"], &payment["refunded"]["amount"]),
            (&json!("refunded"), &json!(2_001)),
            "{who}"
        );
    }
    let each: Vec<i64> = shop.money().await.1.iter().map(|refund| refund.amount.amount).collect();
    assert!(each.iter().all(|amount| [1, 1_000, 1_001].contains(amount)), "{each:?}");
    closes(shop, &products).await;
}

/// What a clerk has kept of a line that came back stays kept when its buyer cancels the rest.
#[actix_web::test]
async fn cancelling_the_rest_gives_back_the_rest() {
    let shop = Shop::open().await;
    let (first, second) = (shop.stocked(5).await, shop.stocked(5).await);
    let mut body = support::lines(&[(&first, 1), (&second, 1)]);
    body["payment"] = support::card("tok_ok");
    let order = support::id(&shop.by(1, "POST", "/v1/orders").json(&body).send().await.ok(201));
    let part = json!({ "line": 1, "amount": { "amount": 700, "currency": "KRW" }, "restock": "to_stock", "reason": "used" });
    shop.admin("POST", &format!("/v1/admin/orders/{order}/refunds"))
        .key("part")
        .json(&part)
        .send()
        .await
        .ok(201);
    shop.settle().await;
    let cancelled = shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    assert_eq!(cancelled["status"], "cancelled");
    shop.settle().await;
    let given: Vec<i64> = shop.money().await.1.iter().map(|refund| refund.amount.amount).collect();
    assert_eq!(given.iter().sum::<i64>(), 1_700, "{given:?}");
    shop.audited().await;
}
