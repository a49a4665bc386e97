//! What tokens are signed with, and how it is replaced under the people who are logged in.

use secrecy::SecretString;
use serde_json::json;
use stockade::config::JwtAlgorithm;

use super::part;
use super::support::{Pair, SECRET, Shop, one_line};

const NEXT: &str = "the next signing key for tests, long enough";

/// ASVS 13.3: a signing key is replaced without logging anybody out.
#[actix_web::test]
async fn signing_keys_are_rotated_under_the_people_who_are_logged_in() {
    rotate(JwtAlgorithm::Hs256).await;
}

/// The same by the other algorithm; and whoever is logged in orders.
#[actix_web::test]
async fn signing_keys_of_ed25519_are_rotated_as_well() {
    rotate(JwtAlgorithm::EdDsa).await;
}

async fn rotate(algorithm: JwtAlgorithm) {
    let shop = Shop::open_with(|config| config.tokens.algorithm = algorithm).await;
    let product = shop.stocked(3).await;
    let order = async |shop: &Shop, pair: &Pair| {
        shop.as_of(pair, "POST", "/v1/orders").json(&one_line(&product, 1)).send().await.ok(201)
    };
    let mina = shop.newcomer(1).await;
    let before = shop.log_in(&mina).await;
    assert_eq!(part(&before.access, 0)["alg"], algorithm.as_str());
    order(&shop, &before).await;
    let shop = shop
        .reopen_with(|config| {
            config.tokens.algorithm = algorithm;
            config.tokens.secret = Some(SecretString::from(NEXT));
            config.tokens.former = vec![SecretString::from(SECRET)];
        })
        .await;
    order(&shop, &before).await;
    let after = Pair::of(&shop.try_refresh(&before.refresh).await);
    assert_ne!(part(&before.access, 0)["kid"], part(&after.access, 0)["kid"]);
    order(&shop, &after).await;
    let shop = shop
        .reopen_with(|config| {
            config.tokens.algorithm = algorithm;
            config.tokens.secret = Some(SecretString::from(NEXT));
        })
        .await;
    assert!(!shop.admits(&before.access).await && shop.admits(&after.access).await);
    shop.close().await;
}

/// ASVS 9.1.2: exactly one algorithm is believed. Whoever has a token of the other one refreshes, there and back.
#[actix_web::test]
async fn another_algorithm_ends_access_tokens_and_no_session() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let first = shop.log_in(&mina).await;
    assert_eq!(part(&first.access, 0)["alg"], json!("HS256"));
    let shop = shop.reopen_with(|config| config.tokens.algorithm = JwtAlgorithm::EdDsa).await;
    shop.get("/v1/users/me").bearer(&first.access).send().await.problem(401, "unauthenticated");
    let second = Pair::of(&shop.try_refresh(&first.refresh).await);
    assert_eq!(part(&second.access, 0)["alg"], json!("EdDSA"));
    assert_ne!(part(&first.access, 0)["kid"], part(&second.access, 0)["kid"]);
    assert!(shop.admits(&second.access).await);
    let shop = shop.reopen().await;
    assert!(shop.admits(&first.access).await && !shop.admits(&second.access).await);
    let third = Pair::of(&shop.try_refresh(&second.refresh).await);
    assert!(shop.admits(&third.access).await);
    shop.close().await;
}
