//! Nights as a shop has them: what was paid ships and arrives, whatever dies in between, whatever row is damaged, and however many ask.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stockade::clock::Clock;
use stockade::domain::delivery::DeliveryState;
use stockade::domain::id::OrderId;
use stockade::domain::job::LEASE_MS;
use stockade::domain::user::Role;
use stockade::tokens::Tokens;

use super::support::{DAY_MS, Process, SECRET, Shop, id, paid_with, user};
use super::{JOBS, at, jobs};

/// More orders than a night reads at once, which is 256, and than it moves in one write.
const MANY: u64 = 550;

async fn deliveries(shop: &Shop) -> Value {
    jobs(shop).await.into_iter().find(|job| job["name"] == "deliveries").unwrap()
}

/// So many paid orders of one line.
async fn bought(shop: &Shop, many: u64) -> Vec<String> {
    let product = shop.stocked(1_000).await;
    shop.all_paid((1..=many).map(|who| shop.buy(who, &product, 1, "tok_ok"))).await
}

/// How many of them are in this state; each has been moved so often.
async fn count(shop: &Shop, orders: &[String], state: DeliveryState, moves: u64) -> usize {
    let mut found = 0;
    for order in orders {
        let rows = shop.deliveries(order).await;
        for row in rows.iter().filter(|row| row.state == state) {
            assert_eq!(row.version, 1 + moves, "{row:#?}");
            found += 1;
        }
    }
    found
}

#[actix_web::test]
async fn what_is_paid_ships_at_the_first_midnight_and_arrives_at_the_second() {
    let shop = Shop::open().await;
    let orders = bought(&shop, 3).await;
    shop.app().scheduler().look().await;
    assert_eq!(count(&shop, &orders, DeliveryState::Preparing, 0).await, 3);
    // By hand nothing ships before its midnight.
    let path = format!("{JOBS}/deliveries/run");
    assert_eq!(shop.admin("POST", &path).send().await.ok(200)["moved"], 0);
    shop.clock.advance(DAY_MS);
    let dry = shop.admin("POST", &format!("{path}?dry_run=true")).send().await.ok(200);
    assert_eq!((&dry["seen"], &dry["moved"]), (&3.into(), &3.into()));
    assert_eq!(count(&shop, &orders, DeliveryState::Preparing, 0).await, 3);
    // By hand it is the night that is due, and after it the same night.
    for moved in [3, 0, 0] {
        assert_eq!(shop.admin("POST", &path).send().await.ok(200)["moved"], moved);
    }
    shop.app().scheduler().look().await;
    assert_eq!(count(&shop, &orders, DeliveryState::Shipping, 1).await, 3);
    shop.clock.advance(DAY_MS);
    shop.app().scheduler().look().await;
    assert_eq!(count(&shop, &orders, DeliveryState::Delivered, 2).await, 3);
    assert_eq!(deliveries(&shop).await["last_run"]["moved"], 3);
    shop.close().await;
}

#[actix_web::test]
async fn where_the_time_of_deliveries_is_noon_they_move_at_noon() {
    let shop = Shop::open_with(|config| config.days.deliveries_at = "0 12 * * *".to_owned()).await;
    let orders = bought(&shop, 3).await;
    shop.app().scheduler().look().await;
    for (state, moves) in [(DeliveryState::Shipping, 1), (DeliveryState::Delivered, 2)] {
        shop.clock.advance(DAY_MS);
        shop.app().scheduler().look().await;
        assert_eq!(count(&shop, &orders, state, moves).await, 3);
        let job = deliveries(&shop).await;
        assert_eq!(job["schedule"], "0 12 * * *");
        assert!(job["last_run"]["scheduled_at"].as_str().unwrap().ends_with("T12:00:00.000Z"), "{job}");
    }
    shop.close().await;
}

#[actix_web::test]
async fn three_nights_that_were_missed_are_three_nights() {
    let shop = Shop::open().await;
    let orders = bought(&shop, 2).await;
    shop.app().scheduler().look().await;
    shop.clock.advance(3 * DAY_MS);
    shop.app().scheduler().look().await;
    assert_eq!(count(&shop, &orders, DeliveryState::Delivered, 2).await, 2);
    for order in &orders {
        let row = &shop.deliveries(order).await[0];
        // The second midnight after it was paid; the buyer could know when the run was.
        let last = deliveries(&shop).await["last_run"]["scheduled_at"].as_str().map(at).unwrap();
        assert_eq!(row.scheduled, last.plus(-DAY_MS));
        assert!(row.delivered_at.unwrap() > last);
    }
    shop.close().await;
}

#[actix_web::test]
async fn runs_at_once_from_all_sides_move_every_line_once() {
    let shop = Shop::open().await;
    let orders = bought(&shop, 60).await;
    shop.app().scheduler().look().await;
    for (night, state) in [(1, DeliveryState::Shipping), (2, DeliveryState::Delivered)] {
        shop.clock.advance(DAY_MS);
        let path = format!("{JOBS}/deliveries/run");
        let by_hand = join_all((0..20).map(|_| shop.admin("POST", &path).send()));
        let (replies, ()) = tokio::join!(by_hand, shop.app().scheduler().look());
        for reply in replies.iter().filter(|reply| reply.status != 200) {
            reply.problem(409, "order_state_conflict");
        }
        assert_eq!(count(&shop, &orders, state, night).await, 60);
    }
    shop.close().await;
}

#[actix_web::test]
async fn a_night_that_died_in_the_middle_is_gone_on_with() {
    let mut shop = Shop::open().await;
    let orders = bought(&shop, MANY).await;
    shop.app().scheduler().look().await;
    let midnight = at(deliveries(&shop).await["next_at"].as_str().unwrap());
    // So long after that midnight, at which no earlier one's lease stands any more.
    let night = |shop: &Shop, tries: i64| {
        let until = midnight.plus(tries * 2 * LEASE_MS).0 - shop.clock.now().0;
        shop.clock.advance(until.max(0));
        let scheduler = shop.app().scheduler().clone();
        tokio::spawn(async move { scheduler.look().await })
    };
    // Abandoned after more and more time, until some have moved; the process ends there too.
    let (mut shipped, mut ms, mut tries) = (0, 1, 0);
    while shipped == 0 {
        let run = night(&shop, tries);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        shop.app().scheduler().abandon().await;
        let _ = run.await;
        // The clock of the next process is that of the wall: the night has not come yet.
        shop = shop.reopen().await;
        shipped = count(&shop, &orders, DeliveryState::Shipping, 1).await;
        assert_eq!(shipped + count(&shop, &orders, DeliveryState::Preparing, 0).await, orders.len());
        (ms, tries) = (ms + 1 + ms / 8, tries + 1);
    }
    if shipped == orders.len() {
        println!("it came to its end between two looks");
    }
    night(&shop, tries).await.unwrap();
    assert_eq!(count(&shop, &orders, DeliveryState::Shipping, 1).await, orders.len());
    shop.close().await;
}

async fn spoil(shop: &Shop, sql: &'static str, order: &str) {
    let id: OrderId = order.parse().unwrap();
    let options = SqliteConnectOptions::new().filename(shop.folder().join("money.db"));
    let mut connection = options.pragma("ignore_check_constraints", "1").connect().await.unwrap();
    let done = sqlx::query(sql).bind(&id.as_bytes()[..]).execute(&mut connection).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
    connection.close().await.unwrap();
}

#[actix_web::test]
async fn a_poisoned_line_is_told_and_taken_along_when_it_is_mended() {
    let shop = Shop::open().await;
    let orders = bought(&shop, 20).await;
    shop.app().scheduler().look().await;
    spoil(&shop, "update deliveries set quantity = -1 where order_id = ?", &orders[7]).await;
    shop.clock.advance(DAY_MS);
    shop.app().scheduler().look().await;
    let last = &deliveries(&shop).await["last_run"];
    assert_eq!((&last["moved"], &last["failed"], &last["outcome"]), (&19.into(), &1.into(), &"done".into()));
    assert!(last["problems"][0].as_str().unwrap().starts_with(&format!("{} line 1", orders[7])), "{last}");
    let metrics = shop.get("/metrics").send().await.text;
    assert!(metrics.contains(r#"stockade_job_rows_failed_total{name="deliveries"}"#));
    spoil(&shop, "update deliveries set quantity = 1 where order_id = ?", &orders[7]).await;
    shop.clock.advance(1_000);
    shop.app().scheduler().look().await;
    assert_eq!(count(&shop, &orders, DeliveryState::Shipping, 1).await, 20);
    shop.close().await;
}

fn token(who: u64, role: Role) -> String {
    let clock = Clock::start();
    let tokens = Tokens::new(SECRET.as_bytes(), &[]).unwrap();
    tokens.sign(user(who), role, 900, clock.now(), clock.chance()).unwrap()
}

/// Days of four seconds, in a process of its own that is killed in the first of them and away for some.
#[actix_web::test]
async fn a_compressed_day_passes_in_a_real_server() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("STOCKADE_CALENDAR_DAY", "4s"), ("STOCKADE_CALENDAR_ZONE", "Asia/Seoul")];
    let mut process = Process::start(folder.path(), &settings).await;
    let product = json!({ "sku": "JAR", "name": "Moon jar", "price": { "amount": 1_000, "currency": "KRW" }, "stock": 9 });
    let made =
        process.post("/v1/admin/products", &product).bearer(&token(0, Role::Admin)).send().await.ok(201);
    let order = async |process: &Process| {
        let body = paid_with(&id(&made), 1, "tok_ok");
        id(&process.post("/v1/orders", &body).bearer(&token(1, Role::Shopper)).send().await.ok(201))
    };
    let state = async |process: &Process, order: &str| {
        let path = format!("/v1/orders/{order}");
        let shown = process.ask("GET", &path).bearer(&token(1, Role::Shopper)).send().await.ok(200);
        shown["lines"][0]["delivery_status"].as_str().unwrap_or_default().to_owned()
    };
    let until_delivered = async |process: &Process, order: &str| {
        let mut seen: Vec<String> = Vec::new();
        while seen.last().is_none_or(|last| last != "delivered") {
            let now = state(process, order).await;
            if seen.last() != Some(&now) {
                seen.push(now);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        seen
    };

    let first = order(&process).await;
    let seen = until_delivered(&process, &first).await;
    assert!(seen.ends_with(&["shipping".to_owned(), "delivered".to_owned()]), "{seen:?}");
    let last = last_run(&process).await;
    assert_eq!(at(last["scheduled_at"].as_str().unwrap()).0 % 4_000, 0);

    let second = order(&process).await;
    process.kill();
    // Two midnights go by without it.
    tokio::time::sleep(Duration::from_millis(8_400)).await;
    let process = Process::start(folder.path(), &settings).await;
    let began = Clock::start();
    let opened = began.now();
    until_delivered(&process, &second).await;
    assert!(
        began.now() < opened.plus(3_900 + LEASE_MS),
        "made up for at once, or when the dead one's lease has lapsed"
    );
    process.stop().await;
}

async fn last_run(process: &Process) -> Value {
    let list = process.ask("GET", JOBS).bearer(&token(0, Role::Admin)).send().await.ok(200);
    let jobs = list["data"].as_array().unwrap().clone();
    jobs.into_iter().find(|job| job["name"] == "deliveries").unwrap()["last_run"].clone()
}
