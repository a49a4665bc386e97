//! The audit of money: a shop in which everything has happened adds up, and whatever is changed by hand is told.

mod support;

use std::path::Path;

use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stockade::actors::payment::{Reconciled, reconcile};
use stockade::clock::Clock;
use stockade::config::Config;
use stockade::persistence::Tables;
use stockade::persistence::audit::{Report, audit};
use stockade::provider::Books;
use support::{Shop, id, lines, paid_with};
use tempfile::TempDir;

/// A copy that may be spoilt.
fn copied(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

/// Every way in which an order and its money can end.
async fn a_day_of_money() -> TempDir {
    let shop = Shop::open_with(|config| config.payment.attempts = 2).await;
    let (jar, cup) = (shop.stocked(100).await, shop.stocked(100).await);
    // Paid, held without a payment, declined with an attempt left and without.
    shop.buy(1, &jar, 2, "tok_ok").key("bought").send().await.ok(201);
    shop.order(1, &jar, 1).key("held").send().await.ok(201);
    let again = shop.buy(2, &jar, 1, "tok_declined").send().await.problem(402, "payment_declined");
    shop.pay(2, &id(&again["order"]), "tok_ok").send().await.ok(200);
    let lost = shop.buy(3, &jar, 1, "tok_declined").send().await.problem(402, "payment_declined");
    shop.pay(3, &id(&lost["order"]), "tok_declined").send().await.problem(402, "payment_declined");
    // Cancelled before and after it was paid.
    let held = id(&shop.order(4, &jar, 1).send().await.ok(201));
    shop.by(4, "POST", &format!("/v1/orders/{held}/cancel")).send().await.ok(200);
    let mut both = lines(&[(&jar, 1), (&cup, 3)]);
    both["payment"] = support::card("tok_ok");
    let buy = async || id(&shop.by(5, "POST", "/v1/orders").json(&both).send().await.ok(201));
    let refund = async |order: &str, key: &str, body: serde_json::Value| {
        let door = format!("/v1/admin/orders/{order}/refunds");
        shop.admin("POST", &door).key(key).json(&body).send().await.ok(201);
    };
    let won = |amount: i64| json!({ "amount": amount, "currency": "KRW" });
    let cancelled = buy().await;
    refund(&cancelled, "a", json!({ "restock": "leave", "amount": won(300), "reason": "late" })).await;
    shop.by(5, "POST", &format!("/v1/orders/{cancelled}/cancel")).send().await.ok(200);
    // A line with its price, a line with less, an amount for nothing, all that is left.
    refund(&buy().await, "b", json!({ "restock": "to_stock", "line": 1, "reason": "broken" })).await;
    let fee = json!({ "restock": "write_off", "line": 2, "amount": won(2_500), "reason": "used" });
    refund(&buy().await, "c", fee).await;
    refund(&buy().await, "d", json!({ "restock": "leave", "amount": won(100), "reason": "sorry" })).await;
    refund(&buy().await, "e", json!({ "restock": "to_stock", "reason": "wrong" })).await;
    // What costs nothing is paid and cancelled all the same.
    let gift = id(&shop.product(9, json!({ "price": won(0) })).await);
    shop.buy(8, &gift, 1, "tok_ok").send().await.ok(201);
    let free = id(&shop.buy(8, &gift, 2, "tok_ok").send().await.ok(201));
    shop.by(8, "POST", &format!("/v1/orders/{free}/cancel")).send().await.ok(200);
    // Another amount than was asked for: kept, and given back.
    for (what, token) in [
        ("accept", "tok_wrong_amount"),
        ("give-back", "tok_wrong_amount"),
        ("give-back", "tok_wrong_currency"),
    ] {
        let order = shop.buy(6, &jar, 1, token).send().await.ok(202);
        let payment = order["payment"]["id"].as_str().unwrap();
        let door = format!("/v1/admin/compensations/{payment}/{what}");
        shop.admin("POST", &door).send().await.ok(200);
    }
    // Money that comes after all.
    let late = shop.buy(7, &cup, 1, "tok_declined").send().await.problem(402, "payment_declined");
    let late = late["order"]["payment"]["id"].as_str().unwrap().to_owned();
    shop.app().payments().provider().simulated().unwrap().capture_after_all(late.parse().unwrap());
    let (body, signature) = support::signed_event("evt_1", "payment_intent.succeeded", &late, &shop.clock);
    assert_eq!(shop.hear(&body, &signature).await.status, 200);
    shop.settle().await;
    shop.stop().await
}

/// What a comparison with the simulated provider's book says.
async fn reconciled(folder: &Path) -> Reconciled {
    let config = Config::development(folder);
    let books = Books::open(&config.payment, folder, &Clock::start()).unwrap();
    let tables = Tables::read_only(folder);
    reconcile(&tables, &books).await.unwrap()
}

async fn spoil(folder: &Path, file: &str, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(folder.join(file));
    let mut connection = options.pragma("ignore_check_constraints", "1").connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn audited(folder: &Path) -> Report {
    audit(folder).await.unwrap()
}

#[actix_web::test]
async fn a_shop_in_which_everything_has_happened_adds_up() {
    let folder = a_day_of_money().await;
    let report = audited(folder.path()).await;
    assert_eq!(report.all_differences().collect::<Vec<_>>(), [""; 0]);
    let with = reconciled(folder.path()).await;
    assert_eq!(with.differences, [""; 0]);
    assert_eq!((with.charges, with.refunds, with.under_way), (14, 9, 0));
    let money = report.money;
    assert_eq!((money.payments, money.refunds, money.under_way), (16, 10, 0));
    assert_eq!(money.taken.to_string(), "26002 KRW + 1000 XTS");
    assert_eq!(money.given_back.to_string(), "13601 KRW + 1000 XTS");
}

/// What is changed by hand in which file, and what the audit says of it.
const SPOILT: &[(&str, &str, &str)] = &[
    (
        "money.db",
        "update payments set refunded_minor = 0 where refunded_minor = 100",
        "its refunds come to 100, not to 0",
    ),
    (
        "money.db",
        "update refunds set amount_minor = amount_minor - 1 where cause = 'line'",
        "its refunds come to",
    ),
    ("money.db", "delete from refunds where cause = 'late'", "its refunds come to 0, not to 100"),
    (
        "money.db",
        "update payments set refunded_minor = captured_minor + 1 where refunded_minor = 100",
        "4001 are given back of 4000",
    ),
    (
        "money.db",
        "update payments set state = 'declined' where captured_minor = 2000",
        "is declined, 2000 KRW of 2000 KRW are taken and 0 given back",
    ),
    (
        "money.db",
        "update payments set captured_minor = 1999 where captured_minor = 2000",
        "is paid, 1999 KRW of 2000 KRW are taken",
    ),
    (
        "money.db",
        "delete from payments where captured_minor = 2000",
        "line 1 is ordered, and nobody has paid",
    ),
    (
        "money.db",
        "update payments set amount_minor = 1, captured_minor = 1 where captured_minor = 2000",
        "for an order of 2000 KRW",
    ),
    ("money.db", "update payments set buyer_id = zeroblob(16)", "for an order of 2000 KRW"),
    (
        "money.db",
        "update payments set token = 'tok_ok' where state = 'paid'",
        "what it was paid with is still kept",
    ),
    (
        "money.db",
        "insert into open_payments select id, 1 from payments where captured_minor = 2000",
        "waits, and nothing is left to do about it",
    ),
    (
        "money.db",
        "insert into open_payments values (zeroblob(16), 1)",
        "waits, and nothing is left to do about it",
    ),
    (
        "money.db",
        "update payments set state = 'started', captured_minor = 0 where captured_minor = 2000",
        "is open, and nobody will take it up",
    ),
    ("money.db", "update payments set attempt = 9 where captured_minor = 2000", "is not named after order_"),
    ("money.db", "update refunds set cause = 'late' where cause = 'line'", "is not named after pay_"),
    ("money.db", "update refunds set cause = 'late' where cause = 'line'", "is for money that came too late"),
    (
        "money.db",
        "update refunds set state = 'wanted' where cause = 'line'",
        "is wanted, and nobody will take it up",
    ),
    ("money.db", "update refunds set currency = 'USD' where cause = 'line'", "is in USD, its payment in KRW"),
    (
        "money.db",
        "update refunds set payment_id = zeroblob(16) where cause = 'line'",
        "is no payment of order_",
    ),
    (
        "money.db",
        "update refunds set restock = 'leave' where cause = 'order_cancelled'",
        "line 2 is cancelled, and came back without a refund",
    ),
    (
        "money.db",
        "update refunds set restock = 'to_stock' where amount_minor = 100",
        "line 1 is ordered, and should be back",
    ),
    (
        "money.db",
        "update payments set state = 'paid', captured_minor = 1000 where attempt = 1 and state = 'declined' \
         and order_id in (select order_id from payments where attempt = 2 and state = 'paid')",
        "2 attempts have kept money",
    ),
    (
        "money.db",
        "update refunds set amount_minor = amount_minor - 7 where cause = 'order_cancelled'; \
         update payments set refunded_minor = refunded_minor - 7 \
         where id in (select payment_id from refunds where cause = 'order_cancelled')",
        "7 are kept for what is worth 0",
    ),
    (
        "money.db",
        "delete from deliveries where payment_id in (select id from payments where captured_minor = 2000)",
        "0 of its 1 lines are to be delivered as they were sold",
    ),
    (
        "money.db",
        "update deliveries set quantity = quantity + 1 where quantity = 3 and line = 2",
        "lines are to be delivered as they were sold",
    ),
    ("money.db", "update deliveries set payment_id = zeroblob(16)", "has not paid for it"),
    (
        "money.db",
        "update deliveries set shipped_at_ms = 5 where state = 'preparing'",
        "is preparing, and its times do not say so",
    ),
    (
        "money.db",
        "update deliveries set state = 'shipping', shipped_at_ms = 5 where state = 'cancelled'",
        "is cancelled, its delivery shipping",
    ),
    (
        "money.db",
        "update deliveries set state = 'preparing' where state = 'cancelled'",
        "is preparing, and 1 refunds take it back",
    ),
    (
        "money.db",
        "update deliveries set state = 'cancelled' where state = 'preparing'",
        "is cancelled, and no money goes back for it",
    ),
    ("shop.db", "delete from orders where total_minor = 2000", "is missing from the tables"),
    (
        "shop.db",
        "update order_lines set status = 'held' where status = 'ordered'",
        "is paid, and line 1 is held",
    ),
    (
        "shop.db",
        "update order_lines set unit_price_minor = 999 where status = 'ordered'",
        "2000 are kept for what is worth 1998",
    ),
    (
        "shop.db",
        "update orders set key_hash = randomblob(16) where total_minor = 2000",
        "has another key than the journal says",
    ),
    (
        "shop.db",
        "update orders set key_hash = null where total_minor = 2000",
        "has another key than the journal says",
    ),
    (
        "shop.db",
        "update orders set body_hash = 7 where total_minor = 2000",
        "has another hash of its body than the journal says",
    ),
    (
        "shop.db",
        "update orders set key_hash = (select key_hash from orders where total_minor = 2000) where key_hash is not null",
        "2 orders were made with one key: order_",
    ),
    ("shop.db", "update orders set key_hash = x'07' where total_minor = 2000", "keys of orders: damaged key"),
    (
        "shop.db",
        "update orders set cancelled_by = 7 where total_minor = 2000",
        "was cancelled by another request than the journal says",
    ),
    (
        "shop.db",
        "delete from products where id = (select min(id) from products)",
        "has stock, and no row among the products",
    ),
    ("journal.db", "delete from journal where pos = 2", "entries are in the journal, whose last place is"),
];

#[actix_web::test]
async fn whatever_is_changed_by_hand_is_told() {
    let folder = a_day_of_money().await;
    for (file, sql, told) in SPOILT {
        let copy = copied(folder.path());
        spoil(copy.path(), file, sql).await;
        let report = audited(copy.path()).await;
        let all: Vec<&String> = report.all_differences().collect();
        assert!(all.iter().any(|line| line.contains(told)), "{sql}: {told:?} is not in {all:#?}");
    }
}

#[actix_web::test]
async fn what_is_under_way_is_no_difference() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    shop.buy(1, &jar, 1, "tok_ok").send().await.ok(201);
    let body = paid_with(&jar, 1, "tok_wrong_amount");
    shop.by(2, "POST", "/v1/orders").json(&body).send().await.ok(202);
    let failing = id(&shop.buy(3, &jar, 1, "tok_refund_fails_always").send().await.ok(201));
    shop.by(3, "POST", &format!("/v1/orders/{failing}/cancel")).send().await.ok(200);
    shop.app().payments().provider().simulated().unwrap().set_unreachable(true);
    shop.buy(4, &jar, 1, "tok_ok").send().await.ok(202);
    let folder = shop.stop().await;
    let report = audited(folder.path()).await;
    assert_eq!(report.all_differences().collect::<Vec<_>>(), [""; 0]);
    assert_eq!((report.money.payments, report.money.under_way), (4, 3));
    let with = reconciled(folder.path()).await;
    assert_eq!((with.differences, with.charges, with.refunds), (Vec::new(), 3, 0));

    // Units that are pinned for ever.
    spoil(
        folder.path(),
        "money.db",
        "delete from payments where state = 'unknown'; delete from open_payments",
    )
    .await;
    let [pinned, vanished] = &audited(folder.path()).await.money.differences[..] else { panic!() };
    assert!(pinned.ends_with("is pinned by attempt 1, of which no payment is open"), "{pinned}");
    assert!(vanished.ends_with("is open, and nobody will take it up"), "{vanished}");
}

const BOOK: &str = "simulated-provider.book";

/// The first line of the book that has all these words.
fn line_of<'b>(book: &'b str, words: &[&str]) -> &'b str {
    book.lines().find(|line| words.iter().all(|word| line.contains(word))).unwrap()
}

/// The money went another way: the provider misses nothing, unless it has given it back as well.
#[actix_web::test]
async fn what_was_settled_by_hand_is_no_difference() {
    let folder = a_day_of_money().await;
    let book = std::fs::read_to_string(folder.path().join(BOOK)).unwrap();
    let refund = line_of(&book, &["refund ", " 2500 KRW ", "done"]);
    let returned = refund.split(' ').nth(1).unwrap();
    let settled = copied(folder.path());
    let by_hand = "update refunds set reason = 'settled_by_hand' where amount_minor = 2500";
    spoil(settled.path(), "money.db", by_hand).await;
    std::fs::write(settled.path().join(BOOK), book.replace(&format!("{refund}\n"), "")).unwrap();
    assert_eq!(reconciled(settled.path()).await.differences, [""; 0]);
    std::fs::write(settled.path().join(BOOK), &book).unwrap();
    let twice = format!("{returned}: is settled by hand here, and the provider gives it back as well");
    assert_eq!(reconciled(settled.path()).await.differences, [twice]);
}

/// Both ways: what they have and we do not, and what we have and they do not.
#[actix_web::test]
async fn the_provider_s_books_are_held_against_ours() {
    let folder = a_day_of_money().await;
    let book = std::fs::read_to_string(folder.path().join(BOOK)).unwrap();
    let charge = line_of(&book, &["charge ", " 2000 KRW 2000 KRW captured"]);
    let id = charge.split(' ').nth(1).unwrap();
    let refund = line_of(&book, &["refund ", " 2500 KRW ", "done"]);
    let returned = refund.split(' ').nth(1).unwrap();
    let stranger = charge.replace(id, "pay_01h455vb4pex5vsknk084sn02q");
    let another = refund.replace(returned, "ref_01h455vb4pex5vsknk084sn02q");
    for (spoilt, told) in [
        (
            format!("{book}{stranger}\n"),
            "pay_01h455vb4pex5vsknk084sn02q: the provider knows it and has taken 2000 KRW, we do not"
                .to_owned(),
        ),
        (
            book.replace(charge, &stranger),
            format!("{id}: 2000 are taken here, the provider knows of nothing"),
        ),
        (
            book.replace(charge, &charge.replace("2000 KRW captured", "2001 KRW captured")),
            format!("{id}: the provider has taken 2001, here it is paid with 2000"),
        ),
        (
            book.replace(charge, &charge.replace("captured", "cancelled")),
            format!("{id}: the provider has taken 0, here it is paid with 2000"),
        ),
        (
            book.replace(charge, &charge.replace("2000 KRW captured", "2000 USD captured")),
            format!("{id}: is in USD at the provider, in KRW here"),
        ),
        (
            format!("{book}{another}\n"),
            "ref_01h455vb4pex5vsknk084sn02q: the provider gives back 2500 KRW, we do not know it".to_owned(),
        ),
        (
            format!("{book}{another}\n"),
            "the provider has given back 5000, here 2500 of 2500 are done".to_owned(),
        ),
        (
            book.replace(refund, &refund.replace("2500", "2499")),
            format!("{returned}: the provider gives back 2499 of pay_"),
        ),
        (
            book.replace(refund, &refund.replace("done", "not_yet")),
            format!("{returned}: is done here, the provider knows of nothing"),
        ),
    ] {
        let copy = copied(folder.path());
        std::fs::write(copy.path().join(BOOK), spoilt).unwrap();
        let all = reconciled(copy.path()).await.differences;
        assert!(all.iter().any(|line| line.contains(&told)), "{told:?} is not in {all:#?}");
    }
    // A late yes of the bank that nobody has heard of is seen here first.
    let declined = line_of(&book, &["charge ", "card_declined"]);
    let copy = copied(folder.path());
    std::fs::write(
        copy.path().join(BOOK),
        book.replace(declined, &declined.replace("card_declined", "captured")),
    )
    .unwrap();
    let all = reconciled(copy.path()).await.differences;
    assert!(all[0].contains("the provider has taken 1000, here it is declined with 0"), "{all:?}");
    // No book at all, and it stays so.
    std::fs::remove_file(copy.path().join(BOOK)).unwrap();
    assert_eq!(reconciled(copy.path()).await.differences.len(), 11 + 9);
    assert!(!copy.path().join(BOOK).exists());
}
