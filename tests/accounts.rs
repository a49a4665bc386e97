//! Accounts from the first letter to the last: signing up, proving the address, changing what was said, leaving.

mod support;

#[allow(unused_imports)]
use serde_json::{Value, json};
use support::{Pair, Person, Shop, id, one_line};

#[actix_web::test]
async fn the_whole_journey_of_a_person() {
    let shop = Shop::open().await;
    let product = shop.stocked(5).await;
    let mina = Person::number(1);

    assert_eq!(shop.sign_up(&mina).await.status, 202);
    let letter = shop.letter(&mina.email, 1).await;
    shop.try_log_in(&mina).await.problem(403, "email_not_verified");
    assert_eq!(shop.verify(&letter.token()).await.status, 204);
    let pair = shop.log_in(&mina).await;

    let order = shop.as_of(&pair, "POST", "/v1/orders").json(&one_line(&product, 1)).send().await.ok(201);
    let next = Pair::of(&shop.try_refresh(&pair.refresh).await);
    shop.as_of(&next, "GET", &format!("/v1/orders/{}", id(&order))).send().await.ok(200);

    let out = shop.as_of(&next, "DELETE", "/v1/sessions/current").send().await;
    assert_eq!(out.status, 204, "{}", out.text);
    for access in [&pair.access, &next.access] {
        shop.get("/v1/orders").bearer(access).send().await.problem(401, "unauthenticated");
    }
    shop.try_refresh(&next.refresh).await.problem(401, "unauthenticated");
    shop.close().await;
}
