//! What is behind the words of two: it is done once, whoever dies before it is, and the trail names both.

use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use stockade::actors::payment::GiveBack;
use stockade::domain::amount::{Currency, Money};
use stockade::domain::id::{ApprovalId, SessionId};
use stockade::domain::payment::{Asker, Restock, Seconded};
use stockade::domain::stock::{KeyUse, Millis};

use super::four_eyes::{amount, bought, decide, open, refund, tamper, waiting, who};
use super::support::{DAY_MS, Shop, id, user};
use super::{money_of, refunds_of};

/// Another one's word stands in the row, and whoever gave it has died.
async fn seconded(shop: &Shop, first: &Value, who: u64) {
    let asked: ApprovalId = id(first).parse().unwrap();
    let by = Seconded { by: user(who), at: shop.clock.now(), key: None };
    let due_at = Some(shop.clock.now().plus(30_000));
    assert!(shop.app().payments().rows().approvals().second(asked, &by, due_at).await.unwrap());
}

/// The trail of a shop that was stopped, newest first.
async fn trail_of(shop: Shop) -> Vec<String> {
    let folder = shop.stop().await;
    let trail = stockade::persistence::Tables::read_only(folder.path()).trail();
    let told = trail.before(i64::MAX, 50).await.unwrap().into_iter();
    told.map(|e| format!("{} {} {} {}", e.kind, e.actor, e.subject, e.detail)).collect()
}

/// The second hangs up as soon as he has asked.
#[actix_web::test]
async fn what_has_two_is_done_though_nobody_listens() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 3).await;
    let review = shop.buy(1, &jar, 3, "tok_wrong_amount").send().await.ok(202);
    let payment = review["payment"]["id"].as_str().unwrap().to_owned();
    refund(&shop, 101, &order, "a", &amount(3_000)).await.ok(202);
    decide(&shop, 101, &payment, "accept").await.ok(202);
    let by = Asker { user: user(102), session: SessionId::from_bytes([2; 16]) };
    let ask = GiveBack {
        amount: Some(Money { amount: 3_000, currency: Currency::KRW }),
        line: None,
        restock: Restock::Leave,
        key: KeyUse { key: [1; 16], body: 1 },
    };
    let payments = shop.app().payments();
    assert!(payments.give_back(by, order.parse().unwrap(), ask).now_or_never().is_none());
    assert!(payments.accept(by, payment.parse().unwrap()).now_or_never().is_none());
    while refunds_of(&shop, &order).await.is_empty() {
        tokio::task::yield_now().await;
    }
    while money_of(&shop, 1, &id(&review)).await.0 != "paid" {
        shop.take_up().await;
    }
    shop.settle().await;
    assert_eq!((refunds_of(&shop, &order).await.len(), money_of(&shop, 1, &order).await.2), (1, 3_000));
    shop.audited().await;
}

/// Whoever was the second has died between his word and the refund.
#[actix_web::test]
async fn what_two_have_asked_for_is_done_by_whoever_comes_next() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 9).await;
    let body = amount(3_000);
    let first = refund(&shop, 101, &order, "a", &body).await.ok(202);
    seconded(&shop, &first, 102).await;
    assert!(refunds_of(&shop, &order).await.is_empty());
    let replies = join_all((0..10).map(|n| refund(&shop, 102 + n, &order, "b", &body))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    assert!(replies.iter().all(|reply| [201, 409].contains(&reply.status.as_u16())));
    shop.settle().await;
    assert_eq!((refunds_of(&shop, &order).await.len(), shop.charges()[0].refunded), (1, 3_000));
    shop.audited().await;
}

/// The same, and nobody comes.
#[actix_web::test]
async fn what_two_have_asked_for_is_done_though_nobody_asks_again() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 9).await;
    let body = amount(3_000);
    let first = refund(&shop, 101, &order, "a", &body).await.ok(202);
    shop.clock.advance(DAY_MS - 10_000);
    seconded(&shop, &first, 102).await;
    let listed = shop.admin("GET", "/v1/admin/compensations?state=pending").send().await.ok(200);
    let (waits, approval) = (&listed["data"][0], &listed["data"][0]["approval"]);
    assert_eq!((&waits["id"], &approval["seconded_by"]), (&first["id"], &who(102)));
    assert_eq!(approval["refund_id"], Value::Null, "there is none yet");
    assert!(waiting(&shop).await.is_empty(), "nobody has to decide anything");
    // The first one's day is over, and what two have asked for stands.
    shop.clock.advance(60_000);
    while refunds_of(&shop, &order).await.is_empty() {
        shop.take_up().await;
    }
    let made = refunds_of(&shop, &order).await[0]["id"].clone();
    let told = refund(&shop, 101, &order, "a", &body).await;
    assert!(told.replayed());
    assert_eq!(told.ok(202)["refund_id"], made);
    let third = refund(&shop, 103, &order, "c", &body).await;
    assert_eq!(third.problem(409, "order_state_conflict")["refund_id"], made);
    shop.settle().await;
    assert_eq!((refunds_of(&shop, &order).await.len(), shop.charges()[0].refunded), (1, 3_000));
    assert!(shop.app().payments().rows().approvals().due(Millis(i64::MAX), 9).await.unwrap().is_empty());
    let (made, one, other) = (made.as_str().unwrap(), user(101), user(102));
    let by_itself = format!(
        "refund_asked  {order} refund={made} amount_minor=3000 restock=leave asked_by={one} seconded_by={other}"
    );
    let trail = trail_of(shop).await;
    assert!(trail.contains(&by_itself), "{trail:#?}");
}

/// Whoever was the first asks again: it is done, or he hears that it cannot be any more.
#[actix_web::test]
async fn the_first_one_s_request_has_it_done_as_well() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let (order, other) = (bought(&shop, &jar, 5).await, bought(&shop, &jar, 4).await);
    let body = amount(3_000);
    let first = refund(&shop, 101, &order, "a", &body).await.ok(202);
    seconded(&shop, &first, 102).await;
    let told = refund(&shop, 101, &order, "a", &body).await.ok(202);
    let made = refunds_of(&shop, &order).await;
    assert_eq!((made.len(), &told["refund_id"], &told["seconded_by"]), (1, &made[0]["id"], &who(102)));
    assert_eq!(refund(&shop, 101, &order, "a", &body).await.ok(202), told);

    let first = refund(&shop, 101, &other, "b", &body).await.ok(202);
    seconded(&shop, &first, 102).await;
    shop.by(1, "POST", &format!("/v1/orders/{other}/cancel")).send().await.ok(200);
    refund(&shop, 101, &other, "b", &body).await.problem(409, "order_state_conflict");
    // Nobody tries it for ever.
    shop.clock.advance(60_000);
    while !shop.app().payments().rows().approvals().due(Millis(i64::MAX), 9).await.unwrap().is_empty() {
        shop.take_up().await;
    }
    shop.settle().await;
    assert_eq!(money_of(&shop, 1, &order).await.2, 3_000);
    assert_eq!(money_of(&shop, 1, &other).await.2, 4_000);
    shop.audited().await;
}

/// Behind the second's word nobody says that nothing was done.
#[actix_web::test]
async fn what_fails_behind_two_words_is_not_said_to_be_undone() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 3).await;
    let review = shop.buy(1, &jar, 3, "tok_wrong_amount").send().await.ok(202);
    let payment = review["payment"]["id"].as_str().unwrap().to_owned();
    let body = amount(3_000);
    refund(&shop, 101, &order, "a", &body).await.ok(202);
    decide(&shop, 101, &payment, "accept").await.ok(202);
    let full = "create trigger full before insert on trail when new.kind in ('refund_asked', 'review_accepted') \
        begin select raise(abort, 'no room'); end";
    tamper(&shop, "people.db", full).await;
    refund(&shop, 102, &order, "a", &body).await.problem(503, "outcome_unknown");
    decide(&shop, 102, &payment, "accept").await.problem(503, "outcome_unknown");
    assert!(refunds_of(&shop, &order).await.is_empty());
    tamper(&shop, "people.db", "drop trigger full").await;
    // His key finds out.
    refund(&shop, 102, &order, "a", &body).await.ok(201);
    decide(&shop, 103, &payment, "accept").await.ok(200);
    shop.settle().await;
    assert_eq!(money_of(&shop, 1, &id(&review)).await, ("paid".into(), "paid".into(), 0));
    assert_eq!(refunds_of(&shop, &order).await.len(), 1);
    // Whoever did it, both are named.
    let (one, other, third) = (user(101), user(102), user(103));
    let accepted = format!(
        "review_accepted {third} {} payment={payment} asked_by={one} seconded_by={other}",
        id(&review)
    );
    let trail = trail_of(shop).await;
    assert!(trail.contains(&accepted), "{trail:#?}");
}

#[actix_web::test]
async fn the_trail_names_both() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 3).await;
    let all = json!({ "restock": "write_off", "reason": "broken" });
    let first = refund(&shop, 101, &order, "a", &all).await.ok(202);
    let made = id(&refund(&shop, 102, &order, "a", &all).await.ok(201));
    let review = shop.buy(1, &jar, 3, "tok_wrong_amount").send().await.ok(202);
    let payment = review["payment"]["id"].as_str().unwrap().to_owned();
    decide(&shop, 102, &payment, "accept").await.ok(202);
    decide(&shop, 101, &payment, "accept").await.ok(200);
    shop.settle().await;
    let told = trail_of(shop).await;
    let (one, other, paid) = (user(101), user(102), first["payment_id"].as_str().unwrap());
    for line in [
        format!(
            "approval_asked {one} {order} payment={paid} what=refund amount_minor=3000 restock=write_off"
        ),
        format!(
            "approval_seconded {other} {order} payment={paid} what=refund amount_minor=3000 restock=write_off \
             asked_by={one}"
        ),
        format!(
            "refund_asked {other} {order} refund={made} amount_minor=3000 restock=write_off asked_by={one} \
             seconded_by={other}"
        ),
        format!(
            "approval_asked {other} {} payment={payment} what=accept amount_minor=3001 restock=leave",
            id(&review)
        ),
        format!("review_accepted {one} {} payment={payment} asked_by={other} seconded_by={one}", id(&review)),
    ] {
        assert!(told.contains(&line), "{line} is not in {told:#?}");
    }
    // The newest first: it is in there before it is made.
    let [made, seconded] = ["refund_asked", "approval_seconded"]
        .map(|word| told.iter().rposition(|line| line.starts_with(word)));
    assert!(made < seconded, "{told:#?}");
}

/// Nobody makes it for a while: it is listed as what needs somebody, and whoever looks after it has it tried at once.
#[actix_web::test]
async fn what_two_have_asked_for_and_nobody_makes_is_stuck_until_it_is_tried() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 9).await;
    let first = refund(&shop, 101, &order, "a", &amount(3_000)).await.ok(202);
    seconded(&shop, &first, 102).await;
    let retry = || shop.admin("POST", &format!("/v1/admin/compensations/{}/retry", id(&first))).send();
    let far = Some(Millis(i64::MAX));
    let approval: ApprovalId = id(&first).parse().unwrap();
    shop.app().payments().rows().approvals().due_at(approval, far).await.unwrap();
    shop.clock.advance(3_600_000);
    let listed = shop.admin("GET", "/v1/admin/compensations?state=stuck").send().await.ok(200);
    assert_eq!(listed["data"][0]["id"], first["id"]);
    assert_eq!(retry().await.status, 202);
    while refunds_of(&shop, &order).await.is_empty() {
        shop.take_up().await;
    }
    shop.settle().await;
    while !shop.app().payments().rows().approvals().due(Millis(i64::MAX), 9).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    retry().await.problem(404, "not_found");
    shop.audited().await;
}
