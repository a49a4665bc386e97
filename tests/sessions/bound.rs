//! Sessions that are bound to a key (RFC 9449): what a stolen refresh token is worth without it.

use futures_util::future::join_all;
use serde_json::{Value, json};
use stockade::persistence::Tables;
use stockade::telemetry;

use super::support::{Device, LOG_IN, Pair, REFRESH, Reply, Shop};
use super::{DAY, MINUTE, SECOND, claims};

/// What somebody is told, but for what is each request's own.
fn heard(reply: &Reply) -> (u16, Value, Option<String>) {
    let mut body = reply.problem(401, "unauthenticated");
    body.as_object_mut().unwrap().remove("request_id");
    (reply.status.as_u16(), body, reply.header("WWW-Authenticate").map(str::to_owned))
}

/// RFC 9449 §5, RFC 9700 §4.14.2: whoever has a token and not its key has nothing by it, and takes nothing from its owner.
#[actix_web::test]
async fn a_bound_session_is_refreshed_by_its_key_alone() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let (hers, his) = (Device::made(), Device::made());
    let unbound = shop.log_in(&mina).await;
    let first = shop.log_in_from(&mina, &hers).await;
    let nonsense = heard(&shop.try_refresh("nonsense").await);
    let steal = async |token: &str| {
        assert_eq!(heard(&shop.try_refresh(token).await), nonsense);
        assert_eq!(heard(&shop.try_refresh_from(token, &his).await), nonsense);
    };

    steal(&first.refresh).await;
    let reply = shop.try_refresh_from(&first.refresh, &hers).await;
    assert_eq!(reply.ok(200)["token_type"], "Bearer");
    let second = Pair::of(&reply);
    assert_ne!(first.refresh, second.refresh, "nothing had become of the first");
    let third = Pair::of(&shop.try_refresh_from(&second.refresh, &hers).await);
    // Nor does one that is old end the session for whoever has only that.
    for pair in [&first, &second, &third] {
        steal(&pair.refresh).await;
    }
    assert!(shop.admits(&third.access).await);
    let fourth = Pair::of(&shop.try_refresh_from(&third.refresh, &hers).await);
    // With the key it is somebody who has the whole device.
    shop.try_refresh_from(&first.refresh, &hers).await.problem(401, "unauthenticated");
    assert!(!shop.admits(&fourth.access).await);
    assert!(shop.admits(&unbound.access).await, "another log-in is another session");

    let told = Tables::read_only(shop.stop().await.path()).trail().before(i64::MAX, 99).await.unwrap();
    let session = claims(&first.access)["sid"].as_str().unwrap().to_owned();
    let of = |kind: &str| told.iter().filter(|entry| entry.kind == kind).collect::<Vec<_>>();
    let refused = of("refresh_refused");
    assert_eq!(refused.len(), 1, "once, however often he tries");
    assert!(refused[0].actor.is_empty() && refused[0].subject.starts_with("user_"));
    assert_eq!(refused[0].detail, format!("session={session} why=no_proof"));
    assert_eq!(of("token_reused").len(), 1);
}

/// Whoever tries on and on fills no trail, which stays for ever.
#[actix_web::test]
async fn who_has_not_the_key_is_told_of_once_in_ten_minutes() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let (hers, his) = (Device::made(), Device::made());
    let (one, other) = (shop.log_in_from(&mina, &hers).await, shop.log_in_from(&mina, &hers).await);
    // Other tests count beside this one.
    let counted = |why: &str| {
        let name = format!("stockade_refreshes_refused_total{{why=\"{why}\"}} ");
        let text = telemetry::render();
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse::<u64>().unwrap()
    };
    let before = ["no_proof", "another_key"].map(counted);
    for _ in 0..5 {
        shop.try_refresh(&one.refresh).await.problem(401, "unauthenticated");
    }
    shop.try_refresh_from(&other.refresh, &his).await.problem(401, "unauthenticated");
    shop.clock.advance(10 * MINUTE);
    for _ in 0..5 {
        shop.try_refresh_from(&one.refresh, &his).await.problem(401, "unauthenticated");
    }
    assert!(counted("no_proof") >= before[0] + 5 && counted("another_key") >= before[1] + 6);
    // Nothing can be had by what has expired.
    shop.clock.advance(15 * DAY);
    shop.try_refresh(&other.refresh).await.problem(401, "unauthenticated");

    let told = Tables::read_only(shop.stop().await.path()).trail().before(i64::MAX, 99).await.unwrap();
    let told = told.iter().rev().filter(|entry| entry.kind == "refresh_refused");
    let told: Vec<&str> = told.map(|entry| entry.detail.as_str()).collect();
    let said = |pair: &Pair, why: &str| {
        format!("session={} why={why}", claims(&pair.access)["sid"].as_str().unwrap())
    };
    assert_eq!(told, [said(&one, "no_proof"), said(&other, "another_key"), said(&one, "another_key")]);
}

/// A lost answer is given again to the key alone, and across a restart.
#[actix_web::test]
async fn a_lost_answer_of_a_bound_session_is_given_again_to_its_key_alone() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let (hers, his) = (Device::made(), Device::made());
    let first = shop.log_in_from(&mina, &hers).await;
    let shop = shop.reopen().await;
    let second = Pair::of(&shop.try_refresh_from(&first.refresh, &hers).await);
    shop.clock.advance(5 * SECOND);
    shop.try_refresh(&first.refresh).await.problem(401, "unauthenticated");
    shop.try_refresh_from(&first.refresh, &his).await.problem(401, "unauthenticated");
    let again = join_all((0..5).map(|_| shop.try_refresh_from(&first.refresh, &hers))).await;
    assert!(again.iter().all(|reply| Pair::of(reply).refresh == second.refresh));
    shop.clock.advance(6 * SECOND);
    shop.try_refresh(&first.refresh).await.problem(401, "unauthenticated");
    assert!(
        shop.admits(&second.access).await,
        "whoever has not the key ends nothing, also when the grace is over"
    );
    Pair::of(&shop.try_refresh_from(&second.refresh, &hers).await);
    shop.close().await;
}

/// Whoever sent a proof hears whether it has arrived: a proxy may have taken it away.
#[actix_web::test]
async fn whether_a_session_is_bound_is_told() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let device = Device::made();
    let with = shop.try_log_in_with(&mina, &device.proof(&shop, LOG_IN)).await;
    let without = shop.try_log_in(&mina).await;
    assert_eq!(with.ok(201)["bound"], true);
    assert_eq!(without.ok(201)["bound"], false);
    let refreshed = shop.try_refresh_from(&Pair::of(&with).refresh, &device).await;
    assert_eq!(refreshed.ok(200)["bound"], true);
    // A proof that comes later binds nothing, and it says so.
    let refreshed = shop.try_refresh_from(&Pair::of(&without).refresh, &device).await;
    assert_eq!(refreshed.ok(200)["bound"], false);
    let sessions = shop.as_of(&Pair::of(&refreshed), "GET", "/v1/sessions").send().await.ok(200);
    let told = sessions["data"].as_array().unwrap().iter();
    let told: Vec<_> = told.map(|session| (&session["current"], &session["bound"])).collect();
    assert_eq!(told, [(&json!(true), &json!(false)), (&json!(false), &json!(true))], "newest first");
    shop.close().await;
}

/// A session is bound when it is opened, or never: a thief does not make one his own at its first refresh.
#[actix_web::test]
async fn a_session_without_a_key_gets_none_later() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let first = shop.log_in(&mina).await;
    let second = Pair::of(&shop.try_refresh_from(&first.refresh, &Device::made()).await);
    let third = Pair::of(&shop.try_refresh(&second.refresh).await);
    shop.try_refresh(&first.refresh).await.problem(401, "unauthenticated");
    assert!(!shop.admits(&third.access).await, "used twice it ends its session, as ever");
    shop.close().await;
}

/// RFC 9449 §4.3: a proof that is not valid is refused before anything is looked at, whatever stands beside it.
#[actix_web::test]
async fn a_proof_that_is_not_valid_is_refused_and_nothing_is_done() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let device = Device::made();
    let (bound, unbound) = (shop.log_in_from(&mina, &device).await, shop.log_in(&mina).await);
    let stale = [device.proof(&shop, LOG_IN), device.proof(&shop, REFRESH)];
    shop.clock.advance(2 * MINUTE);
    let iat = shop.clock.now().0 / 1_000;
    let get = json!({ "jti": "one", "htm": "GET", "htu": format!("http://127.0.0.1{REFRESH}"), "iat": iat });
    let good = device.proof(&shop, REFRESH);
    let damaged = format!("{}.AAAA", good.rsplit_once('.').unwrap().0);
    for (proof, reason) in [
        ("", "malformed"),
        ("a.b.c", "malformed"),
        (format!("{good}, {good}").as_str(), "malformed"),
        ("a".repeat(5_000).as_str(), "malformed"),
        (damaged.as_str(), "signature"),
        (device.proof(&shop, "/v1/orders").as_str(), "elsewhere"),
        (device.signed(&get).as_str(), "elsewhere"),
        (device.signed(&json!({ "jti": "one" })).as_str(), "claims"),
        (stale[1].as_str(), "stale"),
    ] {
        for token in [bound.refresh.as_str(), unbound.refresh.as_str(), "nonsense"] {
            let told = shop.try_refresh_with(token, proof).await.problem(400, "invalid_dpop_proof");
            assert_eq!(told["reason"], reason);
        }
    }
    let twice = shop.post(REFRESH, &json!({ "refresh_token": bound.refresh }));
    let twice = twice.header("DPoP", &good).header("DPoP", &good).send().await;
    assert_eq!(twice.problem(400, "invalid_dpop_proof")["reason"], "malformed");

    for proof in [&good, &stale[0]] {
        shop.try_log_in_with(&mina, proof).await.problem(400, "invalid_dpop_proof");
    }
    Pair::of(&shop.try_refresh_from(&bound.refresh, &device).await);
    let next = Pair::of(&shop.try_refresh(&unbound.refresh).await);
    let sessions = shop.as_of(&next, "GET", "/v1/sessions").send().await.ok(200);
    assert_eq!(sessions["data"].as_array().unwrap().len(), 2, "no log-in came of them");
    shop.close().await;
}

/// Where the shop knows under which address people reach it a proof names that, and no other.
#[actix_web::test]
async fn a_proof_names_the_address_under_which_the_shop_is_reached() {
    let public = "https://shop.example.com";
    let shop = Shop::open_with(|config| config.http.public_url = Some(public.to_owned())).await;
    let mina = shop.newcomer(1).await;
    let device = Device::made();
    let at = |host: &str, path: &str| device.proof_at(&shop, &format!("{host}{path}"));
    let elsewhere = shop.try_log_in_with(&mina, &at("https://evil.example", LOG_IN)).await;
    assert_eq!(elsewhere.problem(400, "invalid_dpop_proof")["reason"], "elsewhere");
    let pair = Pair::of(&shop.try_log_in_with(&mina, &at(public, LOG_IN)).await);
    let plain = shop.try_refresh_with(&pair.refresh, &at("http://shop.example.com", REFRESH)).await;
    plain.problem(400, "invalid_dpop_proof");
    Pair::of(&shop.try_refresh_with(&pair.refresh, &at(public, REFRESH)).await);
    shop.close().await;
}
