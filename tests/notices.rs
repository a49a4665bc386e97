//! Letters about orders: each thing that happens is told once, to whoever can be written to, in their language; also when the same
//! is read again after a crash, and never when it is no longer so.

mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use stockade::domain::id::OrderId;
use stockade::domain::notice::{Notice, NoticeKind};
use stockade::domain::postage::PostageLimits;
use stockade::domain::stock::Millis;
use support::{Letter, Pair, Person, Shop, card, id, letters_in, one_line, paid_with, wait_for};

/// Longer than the flush and the dispatcher take to have looked at something, when nothing is to come of it: also where the dispatcher
/// first waits a second to see who pays.
const QUIET: Duration = Duration::from_millis(2_500);
/// Longer than all notices of a test take, though the dispatcher yields to everybody; and nothing beside the forty minutes that ten
/// thousand would take if each were waited for.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// What tells the letters of a kind from all others.
const KINDS: [(&str, &str); 9] = [
    ("placed", "This is what you ordered"),
    ("hold_lapses", "and not longer"),
    ("payment_failed", "The payment "),
    ("expired", "It was not paid in time"),
    ("paid", "We have your payment"),
    ("cancelled", "This will not be sent to you"),
    ("shipped", "We have sent this to you"),
    ("delivered", "This was delivered to you"),
    ("returned", "This has come back to us"),
];

/// The letters about an order, in the order of their names, each with its word.
fn about(shop: &Shop, order: &str) -> Vec<(&'static str, Letter)> {
    let word = |letter: &Letter| {
        let found = KINDS.iter().find(|(_, words)| letter.text.contains(words));
        found.unwrap_or_else(|| panic!("no letter of ours: {}", letter.text)).0
    };
    shop.letters_about(order).into_iter().map(|letter| (word(&letter), letter)).collect()
}

fn words(shop: &Shop, order: &str) -> Vec<&'static str> {
    about(shop, order).into_iter().map(|(word, _)| word).collect()
}

/// Waits for a letter of this kind about an order.
async fn told(shop: &Shop, order: &str, kind: &str) -> Letter {
    let found = || about(shop, order).into_iter().find(|(word, _)| *word == kind);
    wait_for(found).await.1
}

fn message_id(letter: &Letter) -> String {
    letter.head.lines().find(|line| line.starts_with("Message-ID: ")).unwrap().to_owned()
}

async fn buyer(shop: &Shop, number: u32) -> (Person, Pair) {
    let person = shop.newcomer(number).await;
    let pair = shop.log_in(&person).await;
    (person, pair)
}

async fn placed(shop: &Shop, pair: &Pair, body: &Value) -> String {
    id(&shop.as_of(pair, "POST", "/v1/orders").json(body).send().await.ok(201))
}

/// An order of one unit and of two that is paid, once its buyer has read so.
async fn sold(shop: &Shop, pair: &Pair) -> String {
    let (jar, cup) = (shop.stocked(9).await, shop.stocked(9).await);
    let mut body = support::lines(&[(&jar, 1), (&cup, 2)]);
    body["payment"] = card("tok_ok");
    let order = placed(shop, pair, &body).await;
    told(shop, &order, "paid").await;
    order
}

async fn open(folder: &Path, file: &str) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(folder.join(file));
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// Notices as the flush packs them.
fn packed(notices: &[Notice]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Notice { order, kind, line, at } in notices {
        bytes.extend_from_slice(order.as_bytes());
        bytes.extend_from_slice(&[kind.number(), line.unwrap_or(255)]);
        bytes.extend_from_slice(&at.0.to_be_bytes());
    }
    bytes
}

async fn leave(shop: &mut SqliteConnection, pos: i64, notices: &[Notice]) {
    sqlx::query("insert into notice_slices (pos, number, at_ms, packed) values (?, ?, 1, ?)")
        .bind(pos)
        .bind(notices.len() as i64)
        .bind(packed(notices))
        .execute(shop)
        .await
        .unwrap();
}

/// What somebody who moves sold lines leaves in `money.db`.
async fn leave_sold(money: &mut SqliteConnection, notices: &[Notice]) {
    for Notice { order, kind, line, at } in notices {
        sqlx::query("insert into notices (order_id, kind, line, at_ms) values (?, ?, ?, ?)")
            .bind(order.as_bytes().to_vec())
            .bind(i64::from(kind.number()))
            .bind(line.map(i64::from))
            .bind(at.0)
            .execute(&mut *money)
            .await
            .unwrap();
    }
}

async fn count(folder: &Path, file: &str, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut open(folder, file).await).await.unwrap()
}

/// Waits until no notice waits.
async fn all_told(folder: &Path) {
    let told = async {
        while count(folder, "shop.db", "select count(*) from notice_slices").await
            + count(folder, "money.db", "select count(*) from notices").await
            > 0
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TOLD_WITHIN, told).await.expect("all is told in time");
}

#[actix_web::test]
async fn what_happens_to_an_order_is_written_to_its_buyer_once() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(9).await, shop.stocked(9).await);
    let (mina, pair) = buyer(&shop, 1).await;
    let body = support::lines(&[(&jar, 2), (&cup, 1)]);
    let order = placed(&shop, &pair, &body).await;
    let letter = told(&shop, &order, "placed").await;
    assert_eq!(letter.to, mina.email);
    for part in ["· Moon jar, 2 × KRW 1,000 = KRW 2,000", "Total: KRW 3,000", "It is kept for you until"] {
        assert!(letter.text.contains(part), "{part}: {}", letter.text);
    }
    assert!(letter.text.contains(&format!("/orders/{order}")), "{}", letter.text);
    assert!(!letter.text.contains(&mina.name) && !letter.text.contains(&mina.street));
    let path = format!("/v1/orders/{order}");
    shop.as_of(&pair, "POST", &format!("{path}/payment")).json(&card("tok_ok")).send().await.ok(200);
    told(&shop, &order, "paid").await;

    let dropped = placed(&shop, &pair, &one_line(&jar, 1)).await;
    told(&shop, &dropped, "placed").await;
    shop.as_of(&pair, "POST", &format!("/v1/orders/{dropped}/cancel")).send().await.ok(200);
    let cancelled = told(&shop, &dropped, "cancelled").await;
    assert!(cancelled.text.contains("Nothing was charged"), "{}", cancelled.text);

    let declined =
        shop.as_of(&pair, "POST", "/v1/orders").json(&paid_with(&jar, 1, "tok_declined")).send().await;
    let declined = id(&declined.problem(402, "payment_declined")["order"]);
    told(&shop, &declined, "payment_failed").await;

    tokio::time::sleep(QUIET).await;
    assert_eq!(words(&shop, &order), ["placed", "paid"]);
    assert_eq!(words(&shop, &dropped), ["placed", "cancelled"]);
    let last = words(&shop, &declined);
    assert!(last == ["payment_failed"] || last == ["placed", "payment_failed"], "{last:?}");
    let metrics = shop.get("/metrics").send().await.text;
    assert!(metrics.contains(r#"stockade_order_letters_total{kind="order_paid"}"#), "{metrics}");
    shop.close().await;
}

#[actix_web::test]
async fn nobody_who_is_paying_is_asked_to_pay() {
    let shop = Shop::open().await;
    let jar = shop.stocked(2).await;
    let (_, pair) = buyer(&shop, 1).await;
    // The provider does not answer, so the order waits for its money while the letter is written.
    shop.app().payments().provider().simulated().unwrap().set_unreachable(true);
    let paid = shop.as_of(&pair, "POST", "/v1/orders").json(&paid_with(&jar, 1, "tok_ok")).send().await;
    let letter = told(&shop, &id(&paid.ok(202)), "placed").await;
    assert!(!letter.text.contains("Please pay"), "{}", letter.text);
    let held = placed(&shop, &pair, &one_line(&jar, 1)).await;
    let letter = told(&shop, &held, "placed").await;
    assert!(letter.text.contains("Please pay before then"), "{}", letter.text);
    shop.close().await;
}

#[actix_web::test]
async fn a_hold_that_is_about_to_lapse_is_told_if_nobody_has_paid() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    let brief = id(&shop.product(9, json!({ "sale": { "hold_seconds": 240 } })).await);
    let (_, pair) = buyer(&shop, 1).await;
    let (late, paid) =
        (placed(&shop, &pair, &one_line(&jar, 1)).await, placed(&shop, &pair, &one_line(&jar, 1)).await);
    let short = placed(&shop, &pair, &one_line(&brief, 1)).await;
    for order in [&late, &paid, &short] {
        told(&shop, order, "placed").await;
    }
    let pay = format!("/v1/orders/{paid}/payment");
    shop.as_of(&pair, "POST", &pay).json(&card("tok_ok")).send().await.ok(200);
    told(&shop, &paid, "paid").await;
    // So late that the next one's reminder is still to come at the end: it is due 640 seconds after these, and the end is at 601.
    shop.clock.advance(160_000);
    told(&shop, &placed(&shop, &pair, &one_line(&jar, 1)).await, "placed").await;
    assert_eq!(words(&shop, &late), ["placed"], "it has time");
    shop.clock.advance(321_000);
    // Somebody else's order makes the dispatcher look at its clock.
    shop.order(7, &jar, 1).send().await.ok(201);
    let letter = told(&shop, &late, "hold_lapses").await;
    assert!(letter.text.contains("Total: KRW 1,000"), "{}", letter.text);
    shop.clock.advance(120_000);
    // Owners look at their deadlines when somebody comes, for the clock has jumped.
    for product in [&jar, &brief] {
        shop.order(8, product, 1).send().await.ok(201);
    }
    told(&shop, &late, "expired").await;
    told(&shop, &short, "expired").await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(words(&shop, &late), ["placed", "hold_lapses", "expired"]);
    assert_eq!(words(&shop, &paid), ["placed", "paid"]);
    assert_eq!(words(&shop, &short), ["placed", "expired"], "a short hold has no reminder");
    assert_eq!(
        count(shop.folder(), "people.db", "select count(*) from hold_reminders").await,
        1,
        "the third's"
    );
    shop.close().await;
}

/// The provider is silent, so it may be paid by the time that he reads.
#[actix_web::test]
async fn whose_payment_is_in_doubt_is_not_reminded_to_pay() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    let (_, pair) = buyer(&shop, 1).await;
    shop.app().payments().provider().simulated().unwrap().set_unreachable(true);
    let paid = shop.as_of(&pair, "POST", "/v1/orders").json(&paid_with(&jar, 1, "tok_ok")).send().await;
    let in_doubt = id(&paid.ok(202));
    let unpaid = placed(&shop, &pair, &one_line(&jar, 1)).await;
    for order in [&in_doubt, &unpaid] {
        told(&shop, order, "placed").await;
    }
    // Both are due, the one in doubt first; somebody else's order makes the dispatcher look at its clock.
    shop.clock.advance(490_000);
    shop.order(7, &jar, 1).send().await.ok(201);
    told(&shop, &unpaid, "hold_lapses").await;
    assert_eq!(words(&shop, &in_doubt), ["placed"]);
    // The doubt outlasts the hold: he is still to be reminded, should it turn out that he has not paid.
    shop.clock.advance(120_000);
    shop.order(8, &jar, 1).send().await.ok(201);
    told(&shop, &unpaid, "expired").await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(words(&shop, &in_doubt), ["placed"]);
    assert_eq!(count(shop.folder(), "people.db", "select count(*) from hold_reminders").await, 1);
    shop.close().await;
}

#[actix_web::test]
async fn where_no_reminder_is_wanted_none_is_remembered() {
    let shop = Shop::open_with(|config| config.mail.hold_reminder = Duration::ZERO).await;
    let (_, pair) = buyer(&shop, 1).await;
    let order = placed(&shop, &pair, &one_line(&shop.stocked(1).await, 1)).await;
    told(&shop, &order, "placed").await;
    assert_eq!(count(shop.folder(), "people.db", "select count(*) from hold_reminders").await, 0);
    shop.close().await;
}

/// Those about orders leave room for accounts, a crowd of addresses leaves room for both, and whatever waits comes later.
#[actix_web::test]
async fn an_hour_sees_no_more_letters_than_it_may_and_none_is_lost() {
    let limits = PostageLimits { per_hour: 8, unproved_per_hour: 2 };
    let shop = Shop::open_with(|config| config.mail.letters = limits).await;
    let jar = id(&shop.product(9, json!({ "sale": { "hold_seconds": 86_400 } })).await);
    let (mina, pair) = buyer(&shop, 1).await;
    let mut orders = Vec::new();
    for _ in 0..6 {
        orders.push(placed(&shop, &pair, &one_line(&jar, 1)).await);
    }
    all_told(shop.folder()).await;
    let written = || orders.iter().filter(|order| !shop.letters_about(order).is_empty()).count();
    // One has left to an address that was not proved; two are kept for accounts, and one more for such an address.
    wait_for(|| (written() >= 4).then_some(())).await;
    let second = shop.newcomer(2).await;
    // A third address waits, which nobody sees who signs up.
    let third = Person::number(3);
    assert_eq!(shop.sign_up(&third).await.status, 202);
    // When the second of these comes, the outbox has looked at all that was there before the first.
    for person in [&mina, &second] {
        let asked = shop.post("/v1/password-resets", &json!({ "email": person.email })).send().await;
        assert_eq!(asked.status, 202);
        shop.letter(&person.email, 2).await;
    }
    assert_eq!((written(), shop.letters_to(&third.email).len()), (4, 0));
    let all = || letters_in(&shop.folder().join("mail")).len();
    assert_eq!(all(), 8);

    shop.clock.advance(61 * 60_000);
    // Whoever comes now makes the outbox look at its clock.
    shop.newcomer(4).await;
    let letter = shop.letter(&third.email, 1).await;
    assert_eq!(shop.verify(&letter.token()).await.status, 204, "a link is good for a day");
    wait_for(|| (written() == 6).then_some(())).await;
    assert_eq!(all(), 12);
    shop.close().await;
}

#[actix_web::test]
async fn everybody_is_written_to_in_their_language() {
    let shop = Shop::open().await;
    let jar = shop.stocked(2).await;
    let minji = Person::number(3);
    let signed_up = shop.post("/v1/users", &minji.words()).header("Accept-Language", "ko").send().await;
    assert_eq!(signed_up.status, 202);
    let token = shop.letter(&minji.email, 1).await.token();
    assert_eq!(shop.verify(&token).await.status, 204);
    let pair = shop.log_in(&minji).await;
    let order = placed(&shop, &pair, &one_line(&jar, 2)).await;
    let letter = wait_for(|| shop.letters_about(&order).pop()).await;
    assert_eq!(letter.to, minji.email);
    assert!(letter.text.contains("· Moon jar, 2 × 1,000원 = 2,000원"), "{}", letter.text);
    assert!(letter.text.contains("합계: 2,000원"), "{}", letter.text);
    shop.close().await;
}

#[actix_web::test]
async fn a_notice_that_a_crash_left_behind_is_no_second_letter() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    let (_, pair) = buyer(&shop, 1).await;
    let order = placed(&shop, &pair, &one_line(&jar, 1)).await;
    let first = told(&shop, &order, "placed").await;
    all_told(shop.folder()).await;
    let folder = shop.stop().await;
    // As much as a crash between the outbox and the notice's removal leaves; and another that nobody has looked at.
    let notice = Notice::of(order.parse().unwrap(), NoticeKind::Placed, Millis(1));
    assert!(message_id(&first).contains(&notice.letter().to_string()), "{}", first.head);
    leave(&mut open(folder.path(), "shop.db").await, 1, &[notice, notice]).await;
    std::fs::remove_dir_all(folder.path().join("mail")).unwrap();

    let shop = Shop::open_in(folder).await;
    let next = placed(&shop, &pair, &one_line(&jar, 1)).await;
    told(&shop, &next, "placed").await;
    all_told(shop.folder()).await;
    assert_eq!(words(&shop, &order), [""; 0], "it had gone");
    shop.close().await;
}

#[actix_web::test]
async fn a_flush_that_is_done_again_after_a_cut_tells_nothing_twice() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    let (_, pair) = buyer(&shop, 1).await;
    let folder = shop.stop().await;
    let (now, before) = (folder.path().join("shop.db"), folder.path().join("before.db"));
    std::fs::copy(&now, &before).unwrap();
    let shop = Shop::open_in(folder).await;
    let order = placed(&shop, &pair, &one_line(&jar, 1)).await;
    let letter = told(&shop, &order, "placed").await;
    let folder = shop.stop().await;
    // What was not synced is gone with the power, and follows from the journal once more.
    std::fs::rename(&before, &now).unwrap();
    std::fs::remove_dir_all(folder.path().join("mail")).unwrap();
    let shop = Shop::open_in(folder).await;
    let next = placed(&shop, &pair, &one_line(&jar, 1)).await;
    assert_ne!(message_id(&told(&shop, &next, "placed").await), message_id(&letter));
    all_told(shop.folder()).await;
    assert_eq!(words(&shop, &order), [""; 0]);
    shop.close().await;
}

#[actix_web::test]
async fn what_becomes_of_sold_lines_is_told_line_by_line() {
    let shop = Shop::open().await;
    let (_, pair) = buyer(&shop, 1).await;
    let order = sold(&shop, &pair).await;
    told(&shop, &order, "placed").await;
    let folder = shop.stop().await;
    let (of, at): (OrderId, _) = (order.parse().unwrap(), Millis(1_700_000_000_000));
    let line = |line, kind| Notice::of_line(of, line, kind, at);
    let mut money = open(folder.path(), "money.db").await;
    let notices = [
        line(1, NoticeKind::Cancelled),
        line(2, NoticeKind::Shipped),
        line(2, NoticeKind::Shipped),
        line(2, NoticeKind::Delivered),
        line(1, NoticeKind::Returned),
        line(2, NoticeKind::Returned),
        line(40, NoticeKind::Shipped),
    ];
    leave_sold(&mut money, &notices).await;
    let odd = sqlx::query("insert into notices (order_id, kind, at_ms) values (x'00', 77, 1)");
    odd.execute(&mut money).await.unwrap();
    money.close().await.unwrap();
    let shop = Shop::open_in(folder).await;
    all_told(shop.folder()).await;
    let returned = told(&shop, &order, "returned").await;
    for line in ["1 × KRW 1,000", "2 × KRW 1,000"] {
        assert!(returned.text.contains(line), "one letter of {line}: {}", returned.text);
    }
    let cancelled = told(&shop, &order, "cancelled").await;
    assert!(cancelled.text.contains("Part of your order"), "{}", cancelled.text);
    for letter in [&cancelled, &returned] {
        let says = |words: &str| letter.text.contains(words);
        assert!(!says("way back") && !says("charged"), "no money moves with these: {}", letter.text);
    }
    let shipped = told(&shop, &order, "shipped").await;
    assert!(shipped.text.contains("· Moon jar, 2 ×") && !shipped.text.contains("· Moon jar, 1 ×"));
    told(&shop, &order, "delivered").await;
    assert_eq!(words(&shop, &order), ["placed", "paid", "cancelled", "shipped", "delivered", "returned"]);
    shop.close().await;
}

/// Whether the bank said no, the fault was ours or money was taken: the letter says which.
#[actix_web::test]
async fn who_could_not_pay_reads_what_has_become_of_the_money() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    let (_, pair) = buyer(&shop, 1).await;
    let buy = |token: &str| {
        let body = paid_with(&jar, 1, token);
        shop.as_of(&pair, "POST", "/v1/orders").json(&body).send_once()
    };
    let declined = buy("tok_declined").await.problem(402, "payment_declined");
    let refused = buy("tok_refused").await.problem(503, "payment_unavailable");
    let mut given_back = Vec::new();
    for token in ["tok_wrong_amount", "tok_wrong_currency"] {
        let held = buy(token).await.ok(202);
        let path = format!("/v1/admin/compensations/{}/give-back", id(&held["payment"]));
        shop.admin("POST", &path).send().await.ok(200);
        given_back.push(id(&held));
    }
    let (nothing, on_its_way) = ("nothing was charged", "What was taken for it is on its way back to you");
    for (order, words, says, unsaid) in [
        (&id(&declined["order"]), "The payment was declined", nothing, on_its_way),
        (&id(&refused["order"]), "The payment could not be made", nothing, on_its_way),
        (&given_back[0], "The payment could not be completed", on_its_way, nothing),
        (&given_back[1], "The payment could not be completed", on_its_way, nothing),
    ] {
        let letter = told(&shop, order, "payment_failed").await;
        assert!(letter.text.contains(words) && letter.text.contains(says), "{}", letter.text);
        assert!(!letter.text.contains(unsaid), "{}", letter.text);
    }
    shop.close().await;
}

/// A clerk has given a price back before the line was cancelled, and takes another line back for less than its price.
#[actix_web::test]
async fn a_letter_promises_no_more_money_than_goes_back() {
    let shop = Shop::open().await;
    let (_, pair) = buyer(&shop, 1).await;
    let order = sold(&shop, &pair).await;
    let path = format!("/v1/admin/orders/{order}/refunds");
    let price = json!({ "line": 1, "restock": "leave", "reason": "late" });
    shop.admin("POST", &path).key("a").json(&price).send().await.ok(201);
    let cancel = format!("/v1/orders/{order}/lines/1/cancel");
    shop.as_of(&pair, "POST", &cancel).send().await.ok(200);
    let cancelled = told(&shop, &order, "cancelled").await;
    assert!(cancelled.text.contains("1 × KRW 1,000"), "{}", cancelled.text);
    for words in ["way back", "charged"] {
        assert!(!cancelled.text.contains(words), "{words}: {}", cancelled.text);
    }
    let some = json!({ "amount": 500, "currency": "KRW" });
    let part = json!({ "line": 2, "amount": some, "restock": "to_stock", "reason": "lost" });
    shop.admin("POST", &path).key("b").json(&part).send().await.ok(201);
    let of_line = || about(&shop, &order).into_iter().find(|(_, letter)| letter.text.contains("KRW 500"));
    let (word, letter) = wait_for(of_line).await;
    assert!(word == "cancelled" && letter.text.contains("2 × KRW 1,000"), "{}", letter.text);
    assert!(letter.text.contains("KRW 500 is on its way back to you"), "{}", letter.text);
    shop.close().await;
}

#[actix_web::test]
async fn an_order_is_written_about_until_the_last_line_is_back() {
    let shop = Shop::open().await;
    let (jar, cup, bowl) = (shop.stocked(9).await, shop.stocked(9).await, shop.stocked(9).await);
    let (mina, pair) = buyer(&shop, 1).await;
    let mut body = support::lines(&[(&jar, 1), (&cup, 2), (&bowl, 3)]);
    body["payment"] = card("tok_ok");
    let order = placed(&shop, &pair, &body).await;
    let all = placed(&shop, &pair, &body).await;
    told(&shop, &order, "paid").await;
    told(&shop, &all, "paid").await;
    let ask = |pair: &Pair, path: &str| shop.as_of(pair, "POST", &format!("/v1/orders/{path}"));
    ask(&pair, &format!("{order}/lines/1/cancel")).send().await.ok(200);
    let cancelled = told(&shop, &order, "cancelled").await;
    for part in ["Part of your order is cancelled", "KRW 1,000 is on its way back to you"] {
        assert!(cancelled.text.contains(part), "{part}: {}", cancelled.text);
    }
    ask(&pair, &format!("{all}/cancel")).send().await.ok(200);
    let cancelled = told(&shop, &all, "cancelled").await;
    assert!(cancelled.text.contains("Your order is cancelled"), "{}", cancelled.text);
    for line in ["1 × KRW 1,000", "2 × KRW 1,000", "3 × KRW 1,000", "KRW 6,000 is on its way back"] {
        assert!(cancelled.text.contains(line), "{line}: {}", cancelled.text);
    }
    for kind in ["shipped", "delivered"] {
        shop.clock.advance(24 * 3_600_000);
        shop.run().await;
        let letter = told(&shop, &order, kind).await;
        assert!(letter.text.contains("2 × KRW 1,000") && letter.text.contains("3 × KRW 1,000"), "one letter");
    }
    let pair = shop.log_in(&mina).await;
    let reason = json!({ "reason": "It is too blue." });
    ask(&pair, &format!("{order}/lines/2/return")).json(&reason).send().await.ok(200);
    shop.clock.advance(24 * 3_600_000);
    shop.run().await;
    let returned = told(&shop, &order, "returned").await;
    assert!(returned.text.contains("2 × KRW 1,000") && !returned.text.contains("3 × KRW 1,000"));
    assert!(returned.text.contains("KRW 2,000 is on its way back to you"), "{}", returned.text);
    all_told(shop.folder()).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(words(&shop, &order), ["placed", "paid", "cancelled", "shipped", "delivered", "returned"]);
    assert_eq!(words(&shop, &all), ["placed", "paid", "cancelled"]);
    shop.close().await;
}

#[actix_web::test]
async fn who_left_hears_nothing_and_who_is_kept_out_still_does() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    let (mina, mine) = buyer(&shop, 1).await;
    let (_, theirs) = buyer(&shop, 2).await;
    let gone = placed(&shop, &mine, &one_line(&jar, 1)).await;
    let kept_out = placed(&shop, &theirs, &one_line(&jar, 1)).await;
    told(&shop, &gone, "placed").await;
    told(&shop, &kept_out, "placed").await;
    let suspend = format!("/v1/admin/users/{}/suspend", shop.id_of(&theirs).await);
    shop.admin("POST", &suspend).send().await;
    let leave = shop.as_of(&mine, "DELETE", "/v1/users/me").json(&json!({ "password": mina.password }));
    assert_eq!(leave.send().await.status, 204);
    shop.clock.advance(601_000);
    shop.order(7, &jar, 1).send().await.ok(201);
    told(&shop, &kept_out, "expired").await;
    all_told(shop.folder()).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(words(&shop, &gone), ["placed"]);
    shop.close().await;
}

#[actix_web::test]
async fn ten_thousand_orders_of_nobody_are_soon_passed_over() {
    const ORDERS: usize = 10_000;
    let folder = Shop::open().await.stop().await;
    let mut shop = open(folder.path(), "shop.db").await;
    let orders = "insert into orders select randomblob(16), randomblob(16), x'00000000000000000000000000000001', 'expired', 1, \
        'KRW', null, 0, 1, 1, 1, 1, null from (with recursive n(i) as (select 1 union all select i + 1 from n where i < 10000) \
        select i from n)";
    sqlx::query(orders).execute(&mut shop).await.unwrap();
    let ids: Vec<Vec<u8>> = sqlx::query_scalar("select id from orders").fetch_all(&mut shop).await.unwrap();
    assert_eq!(ids.len(), ORDERS);
    let notices: Vec<Notice> = ids
        .iter()
        .map(|id| OrderId::from_bytes(id.as_slice().try_into().unwrap()))
        .map(|order| Notice::of(order, NoticeKind::Placed, Millis(1)))
        .collect();
    for (pos, slice) in (1..).zip(notices.chunks(2_500)) {
        leave(&mut shop, pos, slice).await;
    }
    shop.close().await.unwrap();
    let shop = Shop::open_in(folder).await;
    // How long it takes is for a bench to say; that it does not wait for each of them is what ends this at all.
    all_told(shop.folder()).await;
    assert!(shop.letters_about("order_").is_empty());
    assert_eq!(count(shop.folder(), "people.db", "select count(*) from letters_told").await, 0);
    shop.close().await;
}
