//! Orders that end before they are paid, and what their buyers hear of that.

use serde_json::json;
use stockade::actors::payment::{Begun, By, Outcome, Pay};
use stockade::domain::order::OrderStatus;
use stockade::domain::payment::{Do, Method};

use super::support::{Shop, card, film, id, lines, paid_with, user};

/// A line is pinned in time, and the next one has lapsed.
#[actix_web::test]
async fn an_order_that_lapses_between_two_pins_is_told_as_it_has_ended() {
    let shop = Shop::open().await;
    let sale = json!({ "sale": { "hold_seconds": 20 } });
    let products = [id(&shop.product(3, sale.clone()).await), id(&shop.product(3, sale).await)];
    let body = lines(&[(products[0].as_str(), 1), (products[1].as_str(), 1)]);
    let held = id(&shop.by(1, "POST", "/v1/orders").json(&body).send().await.ok(201)).parse().unwrap();
    let payments = shop.app().payments();
    let order = shop.app().orders().find(user(1), held).await.unwrap().unwrap();
    let pay = Pay { order: order.clone(), method: Method::card("tok_ok").unwrap(), by: By::PlacingAgain };
    let Begun::Walk(mut walk) = payments.begin(&pay).await.unwrap() else { panic!("begun before") };
    while matches!(walk.next(), Do::Ask(product, _) if *product == order.home) {
        assert!(walk.step().await);
    }
    shop.clock.advance(20_000);
    walk.to_its_end().await;
    assert_eq!(walk.payment().reason.as_deref(), Some("hold_expired"));
    drop(walk);
    let paying = payments.pay(payments.place().unwrap(), pay).await.unwrap();
    let told = payments.told(order, paying).await.unwrap();
    assert_eq!((told.order.status, told.outcome), (OrderStatus::PaymentFailed, Outcome::Declined));
    shop.settle().await;
    shop.assert_settled(&[(&products[0], 3), (&products[1], 3)]).await;
    shop.close().await;
}

/// It was made, and its buyer is to know which it was.
#[actix_web::test]
async fn an_order_that_ends_before_it_is_paid_is_in_what_its_buyer_hears() {
    let shop = Shop::open().await;
    let jar = shop.stocked(3).await;
    let buy = |shop: &Shop| shop.buy(1, &jar, 1, "tok_ok").key("k").send_once();
    // It is placed, and the process dies before its payment can be put down.
    let money = shop.hold("money.db").await;
    buy(&shop).await.problem(503, "outcome_unknown");
    let left = tempfile::tempdir().unwrap();
    film::copy(shop.folder(), left.path());
    money.let_go().await;
    shop.close().await;
    let shop = Shop::open_in(left).await;
    shop.tables_follow().await;
    let placed = id(&shop.by(1, "GET", "/v1/orders").send().await.ok(200)["data"][0]);
    let order = shop.app().orders().find(user(1), placed.parse().unwrap()).await.unwrap().unwrap();
    let pay = Pay { order, method: Method::card("tok_ok").unwrap(), by: By::PlacingAgain };
    let Begun::Walk(mut walk) = shop.app().payments().begin(&pay).await.unwrap() else {
        panic!("begun before")
    };
    shop.by(1, "POST", &format!("/v1/orders/{placed}/cancel")).send().await.ok(200);
    walk.to_its_end().await;
    drop(walk);
    let heard = buy(&shop).await;
    assert!(heard.replayed());
    let problem = heard.problem(409, "order_state_conflict");
    let order = &problem["order"];
    assert_eq!((&order["id"], &order["status"]), (&json!(placed), &json!("cancelled")));
    assert_eq!(
        (&problem["reason"], &order["payment"]["reason"]),
        (&json!("order_ended"), &json!("order_ended"))
    );
    shop.settle().await;
    shop.assert_settled(&[(&jar, 3)]).await;
    shop.close().await;
}

/// The process dies before the payment can be put down, and the order ends before anybody comes back to pay it.
#[actix_web::test]
async fn an_order_that_ends_before_its_payment_has_a_row_is_in_what_its_buyer_hears() {
    for lapses in [false, true] {
        let shop = Shop::open().await;
        let jar = shop.stocked(3).await;
        let item = format!("/v1/cart/items/{jar}");
        shop.by(1, "PUT", &item).json(&json!({ "quantity": 1 })).send().await.ok(200);
        // One comes by the cart, the other does not.
        let (door, body) = match lapses {
            true => ("/v1/cart/checkout", json!({ "payment": card("tok_ok") })),
            false => ("/v1/orders", paid_with(&jar, 1, "tok_ok")),
        };
        let buy = |shop: &Shop| shop.by(1, "POST", door).key("k").json(&body).send_once();
        let money = shop.hold("money.db").await;
        buy(&shop).await.problem(503, "outcome_unknown");
        let left = tempfile::tempdir().unwrap();
        film::copy(shop.folder(), left.path());
        money.let_go().await;
        shop.close().await;
        let shop = Shop::open_in(left).await;
        shop.tables_follow().await;
        let placed = id(&shop.by(1, "GET", "/v1/orders").send().await.ok(200)["data"][0]);
        let (status, code, reason, ended) = if lapses {
            shop.clock.advance(3_600_000);
            shop.until_nothing_is_held(&jar).await;
            (410, "hold_expired", "hold_expired", "expired")
        } else {
            shop.by(1, "POST", &format!("/v1/orders/{placed}/cancel")).send().await.ok(200);
            (409, "order_state_conflict", "order_ended", "cancelled")
        };
        for _ in 0..2 {
            let heard = buy(&shop).await;
            assert!(heard.replayed());
            let problem = heard.problem(status, code);
            let order = &problem["order"];
            assert_eq!((&order["id"], &order["status"]), (&json!(placed), &json!(ended)));
            assert_eq!((&problem["reason"], &order["payment"]), (&json!(reason), &json!(null)));
        }
        let cart = shop.by(1, "GET", "/v1/cart").send().await.ok(200);
        assert_eq!(cart["lines"].as_array().unwrap().len(), 1, "{cart}");
        shop.assert_settled(&[(&jar, 3)]).await;
        shop.close().await;
    }
}
