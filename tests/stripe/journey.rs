//! The journey of a buyer with Stripe behind the shop: pay, be declined, pay what was held, cancel and have it back.

use serde_json::json;

use super::far_end::account_at;
use super::support::{Bank, Shop, id, one_line};

#[actix_web::test]
async fn a_shop_is_paid_through_stripe() {
    let Some(bank) = Bank::open() else { return };
    let shop = Shop::open_with(|config| config.payment.provider = account_at(&bank.url).provider).await;
    let jar = shop.stocked(5).await;

    // Ordered and paid in one call.
    let paid = shop.buy(1, &jar, 2, "pm_card_visa").key("first").send().await.ok(201);
    assert_eq!((&paid["status"], &paid["payment"]["status"]), (&json!("paid"), &json!("paid")));
    assert_eq!(shop.counters(&jar).await[..3], [3, 0, 2]);
    let intents = bank.ask("/v1/payment_intents").await;
    assert_eq!(intents["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(intents["data"][0]["metadata"]["stockade_order"], paid["id"]);

    // A card that is no good: the unit is on sale again at once.
    let declined = shop.buy(2, &jar, 1, "pm_card_chargeCustomerFail").send().await;
    let problem = declined.problem(402, "payment_declined");
    assert_eq!(problem["order"]["status"], "payment_failed");
    assert_eq!(shop.counters(&jar).await[..3], [3, 0, 2]);

    // Held first, paid later.
    let held = shop.by(1, "POST", "/v1/orders").json(&one_line(&jar, 1)).send().await.ok(201);
    let later = shop.pay(1, &id(&held), "pm_card_visa").send().await.ok(200);
    assert_eq!(later["payment"]["status"], "paid");

    // Cancelled: units back before the answer, money back behind it.
    let order = id(&paid);
    let cancelled = shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(shop.counters(&jar).await[..3], [4, 0, 1]);
    shop.settle().await;
    assert_eq!(shop.order_of(1, &order).await["payment"]["status"], "refunded");
    let refunds = bank.ask("/v1/refunds").await;
    assert_eq!(refunds["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(refunds["data"][0]["amount"], paid["total"]["amount"]);
    shop.close().await;
}
