//! Sessions: how long one stays logged in, how one is logged out, and what a stolen token is worth.

#[path = "sessions/bound.rs"]
mod bound;
#[path = "sessions/elsewhere.rs"]
mod elsewhere;
#[path = "sessions/keys.rs"]
mod keys;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stockade::config::Config;
use stockade::domain::user::Role;
use stockade::persistence::Tables;
use support::{Pair, Person, Shop, forged, id, one_line, user, wait_for};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;

fn claims(token: &str) -> Value {
    part(token, 1)
}

/// A token of a year, as an operator signs it offline.
fn signed_for(shop: &Shop, who: &str) -> String {
    let (who, now, chance) = (who.parse().unwrap(), shop.clock.now(), shop.clock.chance());
    shop.app().tokens().sign(who, Role::Shopper, 365 * 86_400, now, chance).unwrap()
}

fn part(token: &str, at: usize) -> Value {
    use base64::Engine;
    let part = token.split('.').nth(at).unwrap();
    serde_json::from_slice(&base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// ASVS 9.1.2, 9.2.1 to 9.2.4.
#[actix_web::test]
async fn an_access_token_says_who_for_whom_and_for_how_long() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let reply = shop.try_log_in(&mina).await;
    let body = reply.ok(201);
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(900)));
    assert_eq!(body["refresh_expires_in"], json!(14 * DAY / 1_000));
    assert_eq!(reply.header("Cache-Control"), Some("no-store"));
    let pair = Pair::of(&reply);
    let (head, claims) = (part(&pair.access, 0), claims(&pair.access));
    assert_eq!((&head["alg"], &head["typ"]), (&json!("HS256"), &json!("JWT")));
    assert!(head["kid"].as_str().is_some_and(|kid| !kid.is_empty()));
    assert_eq!(claims["sub"], json!(shop.id_of(&pair).await));
    assert_eq!(
        (&claims["role"], &claims["iss"], &claims["aud"]),
        (&json!("shopper"), &json!("stockade"), &json!("stockade"))
    );
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 900);
    assert!(claims["nbf"].as_i64().unwrap() <= claims["iat"].as_i64().unwrap());
    assert!(claims["sid"].as_str().unwrap().starts_with("sess_") && claims["jti"].is_string());
    let again = shop.log_in(&mina).await;
    assert_ne!(self::claims(&again.access)["sid"], claims["sid"]);
    shop.clock.advance(15 * MINUTE);
    shop.get("/v1/users/me").bearer(&pair.access).send().await.problem(401, "token_expired");
    shop.close().await;
}

/// ASVS 9.1.2, 9.2.2: the shop's own secret does not make another algorithm or a token without a session good.
#[actix_web::test]
async fn a_token_of_another_kind_is_refused() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let good = claims(&pair.access);
    assert!(shop.admits(&forged(&Header::new(Algorithm::HS256), &good)).await);
    let mut without_session = good.clone();
    without_session.as_object_mut().unwrap().remove("sid");
    assert!(!shop.admits(&forged(&Header::new(Algorithm::HS256), &without_session)).await);
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        assert!(!shop.admits(&forged(&Header::new(algorithm), &good)).await);
    }
    shop.close().await;
}

/// RFC 9700 §4.14.2.
#[actix_web::test]
async fn a_refresh_token_is_good_once_and_used_twice_ends_its_session() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let (first, other) = (shop.log_in(&mina).await, shop.log_in(&mina).await);
    let refreshed = shop.try_refresh(&first.refresh).await;
    assert_eq!(refreshed.header("Cache-Control"), Some("no-store"));
    let second = Pair::of(&refreshed);
    assert_ne!(first.refresh, second.refresh);
    assert!(second.refresh.len() > 64, "{}", second.refresh.len());
    let third = Pair::of(&shop.try_refresh(&second.refresh).await);
    assert!(shop.admits(&third.access).await);

    // Two generations old, however soon: somebody has stolen it, or was stolen from.
    shop.try_refresh(&first.refresh).await.problem(401, "unauthenticated");
    for pair in [&first, &second, &third] {
        assert!(!shop.admits(&pair.access).await);
        shop.try_refresh(&pair.refresh).await.problem(401, "unauthenticated");
    }
    assert!(shop.admits(&other.access).await, "another log-in is another session");
    assert!(shop.try_refresh(&other.refresh).await.status.is_success());
    let told = Tables::read_only(shop.stop().await.path()).trail().before(i64::MAX, 9).await.unwrap();
    let session = claims(&first.access)["sid"].as_str().unwrap().to_owned();
    let reused: Vec<_> = told.iter().filter(|entry| entry.kind == "token_reused").collect();
    assert_eq!(reused.iter().map(|entry| &entry.detail).collect::<Vec<_>>(), [&format!("session={session}")]);
}

/// ASVS 9.2: a refresh token is its session's and its user's, whoever else shows it and whatever is shown beside it.
#[actix_web::test]
async fn a_refresh_token_leads_to_its_own_session_only() {
    let shop = Shop::open().await;
    let (mina, jun) = (shop.newcomer(1).await, shop.newcomer(2).await);
    let (hers, his) = (shop.log_in(&mina).await, shop.log_in(&jun).await);
    let body = json!({ "refresh_token": hers.refresh });
    let next = shop.post("/v1/sessions/refresh", &body).bearer(&his.access).send().await;
    let next = Pair::of(&next);
    for claim in ["sub", "sid", "role"] {
        assert_eq!(claims(&next.access)[claim], claims(&hers.access)[claim]);
    }
    // Her secret under his session's name, with either's mark, is nobody's token and ends nothing.
    let (his_word, his_mark) = his.refresh.rsplit_once('.').unwrap();
    let (her_word, her_mark) = next.refresh.rsplit_once('.').unwrap();
    for mark in [his_mark, her_mark] {
        let spliced = format!("{}{}.{mark}", &his_word[..31], &her_word[31..]);
        shop.try_refresh(&spliced).await.problem(401, "unauthenticated");
    }
    for pair in [&next, &his] {
        assert!(shop.admits(&pair.access).await);
        Pair::of(&shop.try_refresh(&pair.refresh).await);
    }
    shop.close().await;
}

/// RFC 9700 §4.14.2: an answer that was lost on the way can be asked for again, for ten seconds.
#[actix_web::test]
async fn a_lost_answer_is_given_again_within_the_grace_and_not_later() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let first = shop.log_in(&mina).await;
    let second = Pair::of(&shop.try_refresh(&first.refresh).await);
    shop.clock.advance(5 * SECOND);
    let again = Pair::of(&shop.try_refresh(&first.refresh).await);
    assert_eq!(again.refresh, second.refresh);
    assert!(shop.admits(&again.access).await);
    shop.clock.advance(6 * SECOND);
    shop.try_refresh(&first.refresh).await.problem(401, "unauthenticated");
    shop.try_refresh(&second.refresh).await.problem(401, "unauthenticated");
    assert!(!shop.admits(&second.access).await);
    shop.close().await;
}

/// RFC 9700 §4.14.2.
#[actix_web::test]
async fn a_crowd_of_refreshes_gets_one_successor() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let first = shop.log_in(&mina).await;
    let answers = join_all((0..20).map(|_| shop.try_refresh(&first.refresh))).await;
    let successors: BTreeSet<String> = answers.iter().map(|answer| Pair::of(answer).refresh).collect();
    assert_eq!(successors.len(), 1);
    shop.close().await;
}

/// Who knows a session's id and nothing else cannot end it.
#[actix_web::test]
async fn nonsense_in_the_shape_of_a_refresh_token_ends_nothing() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let session = claims(&pair.access)["sid"].as_str().unwrap().to_owned();
    let (word, mark) = pair.refresh.rsplit_once('.').unwrap();
    for token in [
        String::new(),
        session.clone(),
        format!("{session}_{}.{mark}", "A".repeat(43)),
        format!("{word}."),
        format!("{word}.{}", "A".repeat(mark.len())),
        word.to_owned(),
        format!("{}é.{mark}", &word[..30]),
    ] {
        shop.try_refresh(&token).await.problem(401, "unauthenticated");
    }
    assert!(shop.admits(&pair.access).await);
    assert!(shop.try_refresh(&pair.refresh).await.status.is_success());
    shop.close().await;
}

/// ASVS 7.3.1, 7.3.2.
#[actix_web::test]
async fn a_session_lasts_while_it_is_used_and_sixty_days_at_most() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let (mut used, unused) = (shop.log_in(&mina).await, shop.log_in(&mina).await);
    for _ in 0..5 {
        shop.clock.advance(12 * DAY - MINUTE);
        // The access token has long expired: that is what a refresh is for, also for a client that sends it along.
        shop.get("/v1/users/me").bearer(&used.access).send().await.problem(401, "token_expired");
        let body = json!({ "refresh_token": used.refresh });
        let reply = shop.post("/v1/sessions/refresh", &body).bearer(&used.access).send().await;
        let left = reply.ok(200)["refresh_expires_in"].as_i64().unwrap();
        assert!(left <= 14 * DAY / 1_000, "{left}");
        used = Pair::of(&reply);
    }
    shop.try_refresh(&unused.refresh).await.problem(401, "unauthenticated");
    shop.clock.advance(6 * MINUTE);
    shop.try_refresh(&used.refresh).await.problem(401, "unauthenticated");
    shop.close().await;
}

/// ASVS 7.4.1.
#[actix_web::test]
async fn a_log_out_here_ends_this_session_at_once_and_no_other() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let (here, there) = (shop.log_in(&mina).await, shop.log_in(&mina).await);
    // The thread that answers remembers the token as good.
    for _ in 0..8 {
        assert!(shop.admits(&here.access).await);
    }
    assert_eq!(shop.as_of(&here, "DELETE", "/v1/sessions/current").send().await.status, 204);
    for _ in 0..8 {
        assert!(!shop.admits(&here.access).await);
    }
    shop.try_refresh(&here.refresh).await.problem(401, "unauthenticated");
    assert!(shop.admits(&there.access).await);
    shop.close().await;
}

/// ASVS 7.4.1, 7.5.2.
#[actix_web::test]
async fn one_sees_where_one_is_logged_in_and_ends_what_one_likes() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let log_in = shop.post("/v1/sessions", &mina.credentials()).header("User-Agent", "Phone 7");
    let phone = Pair::of(&log_in.send().await);
    let laptop = shop.log_in(&mina).await;
    let listed = shop.as_of(&laptop, "GET", "/v1/sessions").send().await.ok(200);
    let sessions = listed["data"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions[1]["device"], "Phone 7");
    assert_eq!((&sessions[0]["current"], &sessions[1]["current"]), (&json!(true), &json!(false)));
    let end = format!("/v1/sessions/{}", id(&sessions[1]));
    assert_eq!(shop.as_of(&laptop, "DELETE", &end).send().await.status, 204);
    assert!(!shop.admits(&phone.access).await && shop.admits(&laptop.access).await);
    shop.as_of(&laptop, "DELETE", &end).send().await.problem(404, "not_found");

    let tablet = shop.log_in(&mina).await;
    assert_eq!(shop.as_of(&laptop, "DELETE", "/v1/sessions").send().await.status, 204);
    for pair in [&laptop, &tablet] {
        assert!(!shop.admits(&pair.access).await);
        shop.try_refresh(&pair.refresh).await.problem(401, "unauthenticated");
    }
    let anew = shop.log_in(&mina).await;
    assert!(shop.admits(&anew.access).await, "everywhere means everywhere until now");
    shop.close().await;
}

/// Clocks of machines differ: a session that began ahead of the clock that ends it is ended all the same.
#[actix_web::test]
async fn everywhere_includes_what_began_by_a_faster_clock() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let ahead = shop.log_in(&mina).await;
    shop.clock.advance(-3 * SECOND);
    let behind = shop.log_in(&mina).await;
    assert_eq!(shop.as_of(&behind, "DELETE", "/v1/sessions").send().await.status, 204);
    assert!(!shop.admits(&ahead.access).await && !shop.admits(&behind.access).await);
    let anew = shop.log_in(&mina).await;
    assert!(shop.admits(&anew.access).await);
    shop.close().await;
}

/// Fifty devices are enough; a further one takes the place of the oldest.
#[actix_web::test]
async fn the_oldest_session_makes_room() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let oldest = shop.log_in(&mina).await;
    let second = shop.log_in(&mina).await;
    for _ in 0..49 {
        shop.log_in(&mina).await;
    }
    assert!(!shop.admits(&oldest.access).await && shop.admits(&second.access).await);
    let page = async |query: String| shop.as_of(&second, "GET", &format!("/v1/sessions{query}")).send().await;
    let ids = |page: &Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let mut listed = page(String::new()).await.ok(200);
    let mut all = ids(&listed);
    assert_eq!(all.len(), 20, "unless another number is asked for");
    while let Some(next) = listed["next_cursor"].as_str() {
        listed = page(format!("?limit=7&cursor={next}")).await.ok(200);
        all.extend(ids(&listed));
    }
    let mut sorted = all.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    sorted.dedup();
    assert_eq!((all.len(), &all), (50, &sorted), "newest first, each once");
    page("?limit=0".to_owned()).await.problem(422, "validation_failed");
    shop.close().await;
}

/// ASVS 7.4.2, 7.4.3, 8.3.2: password, suspension and deletion end what is open.
#[actix_web::test]
async fn what_changes_an_account_ends_its_sessions() {
    let shop = Shop::open().await;
    let mut mina = shop.newcomer(1).await;
    let (here, there) = (shop.log_in(&mina).await, shop.log_in(&mina).await);
    let change = json!({ "current_password": mina.password, "new_password": "five foxes fly far" });
    let changed = shop.as_of(&here, "PUT", "/v1/users/me/password").json(&change).send().await;
    assert_eq!(changed.status, 204, "{}", changed.text);
    assert!(shop.admits(&here.access).await && !shop.admits(&there.access).await);
    shop.try_log_in(&mina).await.problem(401, "unauthenticated");
    mina.password = "five foxes fly far".to_owned();

    let user = shop.id_of(&here).await;
    let switch = async |what: &str| {
        let path = format!("/v1/admin/users/{user}/{what}");
        assert_eq!(shop.admin("POST", &path).send().await.status, 204);
    };
    switch("suspend").await;
    assert!(!shop.admits(&here.access).await);
    shop.try_refresh(&here.refresh).await.problem(401, "unauthenticated");
    shop.try_log_in(&mina).await.problem(403, "forbidden");
    switch("suspend").await;
    switch("reinstate").await;
    assert!(!shop.admits(&here.access).await, "what was ended stays ended");
    let again = shop.log_in(&mina).await;

    let erase = json!({ "password": mina.password });
    assert_eq!(shop.as_of(&again, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    assert!(!shop.admits(&again.access).await);
    shop.try_refresh(&again.refresh).await.problem(401, "unauthenticated");
    shop.try_log_in(&mina).await.problem(401, "unauthenticated");
    shop.admin("POST", &format!("/v1/admin/users/{user}/reinstate"))
        .send()
        .await
        .problem(409, "order_state_conflict");
    shop.close().await;
}

/// ASVS 7.4.1: a log-out outlives the process, and is forgotten when the last token it covers is dead.
#[actix_web::test]
async fn a_log_out_is_remembered_across_a_restart() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let (here, there) = (shop.log_in(&mina).await, shop.log_in(&mina).await);
    assert_eq!(shop.as_of(&here, "DELETE", "/v1/sessions/current").send().await.status, 204);
    let offline = shop.token(77, Role::Shopper);
    assert_eq!(shop.ask("DELETE", "/v1/sessions").bearer(&offline).send().await.status, 204);
    let shop = shop.reopen().await;
    assert!(!shop.admits(&here.access).await && shop.admits(&there.access).await);
    shop.get("/v1/orders").bearer(&offline).send().await.problem(401, "unauthenticated");
    shop.get("/v1/orders").bearer(&shop.token(77, Role::Shopper)).send().await.ok(200);
    shop.close().await;
}

/// ASVS 7.4.2, 8.3.2: who is kept out is kept out with whatever an operator ever signed for them, across a restart too.
#[actix_web::test]
async fn a_suspension_outlives_every_token() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let user = shop.id_of(&shop.log_in(&mina).await).await;
    let sign = |life_s| {
        let (now, chance) = (shop.clock.now(), shop.clock.chance());
        shop.app().tokens().sign(user.parse().unwrap(), Role::Shopper, life_s, now, chance).unwrap()
    };
    let (day, year) = (sign(86_400), sign(365 * 86_400));
    assert!(shop.admits(&day).await && shop.admits(&year).await);
    let suspend = format!("/v1/admin/users/{user}/suspend");
    assert_eq!(shop.admin("POST", &suspend).send().await.status, 204);
    shop.clock.advance(16 * MINUTE);
    assert!(!shop.admits(&day).await && !shop.admits(&year).await);
    let shop = shop.reopen().await;
    assert!(!shop.admits(&day).await && !shop.admits(&year).await);

    let options = SqliteConnectOptions::new().filename(shop.folder().join("people.db")).read_only(true);
    let mut people = options.connect().await.unwrap();
    let until: i64 =
        sqlx::query_scalar("select max(until_ms) from revocations").fetch_one(&mut people).await.unwrap();
    people.close().await.unwrap();
    assert!(
        until >= claims(&year)["exp"].as_i64().unwrap() * 1_000,
        "it is not forgotten before the last of them"
    );
    shop.close().await;
}

/// ASVS 7.4.2, 8.3.2: a token that was signed offline, for an id that has no account, is ended by that id all the same: here at
/// once, and wherever the table is read.
#[actix_web::test]
async fn a_suspension_ends_tokens_of_somebody_without_an_account() {
    let with_log_in = |config: &mut Config| config.people.admin_login = Some(Duration::from_secs(15 * 60));
    let shop = Shop::open_with(with_log_in).await;
    let path = format!("/v1/admin/products/{}/restock", shop.stocked(1).await);
    let who = user(7);
    let sign = |shop: &Shop| {
        let (now, chance) = (shop.clock.now(), shop.clock.chance());
        shop.app().tokens().sign(who, Role::Admin, 365 * 86_400, now, chance).unwrap()
    };
    let heard = async |shop: &Shop, token: &str| {
        let body = json!({ "delta": 1, "reason": "found" });
        let key = format!("{:x}", shop.clock.chance());
        let looked = shop.get("/v1/admin/users").bearer(token).send().await;
        let restocked = shop.ask("POST", &path).key(&key).bearer(token).json(&body).send().await;
        [looked.status.as_u16(), restocked.status.as_u16()]
    };
    let switch = async |shop: &Shop, what: &str| {
        let done = shop.admin("POST", &format!("/v1/admin/users/{who}/{what}")).send().await.ok(200);
        assert_eq!(done["account"], Value::Null, "{what}");
        assert!(done["detail"].as_str().unwrap().starts_with("No account has this id."), "{what}");
    };
    let lost = sign(&shop);
    assert_eq!(heard(&shop, &lost).await, [200, 200]);
    switch(&shop, "suspend").await;
    assert_eq!(heard(&shop, &lost).await, [401, 401]);
    switch(&shop, "suspend").await;
    switch(&shop, "reinstate").await;
    assert_eq!(heard(&shop, &lost).await, [401, 401], "what was ended stays ended");
    let shop = shop.reopen_with(with_log_in).await;
    assert_eq!(heard(&shop, &lost).await, [401, 401]);
    shop.clock.advance(SECOND);
    assert_eq!(heard(&shop, &sign(&shop)).await, [200, 200], "what is signed from now on is good");

    let told = Tables::read_only(shop.stop().await.path()).trail().before(i64::MAX, 9).await.unwrap();
    let about: Vec<_> = told.iter().rev().filter(|entry| entry.subject == who.to_string()).collect();
    let deeds: Vec<_> = about.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(deeds, ["suspended", "suspended", "reinstated"]);
    assert!(about.iter().all(|entry| entry.detail == "account=none"));
}

/// ASVS 7.4.2: who has left has left with whatever an operator ever signed for them, across a restart too.
#[actix_web::test]
async fn a_deletion_outlives_every_token() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let year = signed_for(&shop, &shop.id_of(&pair).await);
    let erase = json!({ "password": mina.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    shop.get("/v1/orders").bearer(&year).send().await.problem(401, "unauthenticated");
    shop.clock.advance(364 * DAY);
    shop.get("/v1/orders").bearer(&year).send().await.problem(401, "unauthenticated");
    let shop = shop.reopen().await;
    shop.get("/v1/orders").bearer(&year).send().await.problem(401, "unauthenticated");
    shop.close().await;
}

/// ASVS 7.4.2, 8.3.2: whatever the account, a suspension ends the tokens that were signed offline for it; that nobody is kept out by
/// it is told.
#[actix_web::test]
async fn a_suspension_ends_tokens_whatever_the_account() {
    let shop = Shop::open().await;
    let (gone, new) = (shop.newcomer(1).await, Person::number(2));
    let pair = shop.log_in(&gone).await;
    let erase = json!({ "password": gone.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    shop.sign_up(&new).await.ok(202);
    for state in ["deleted", "unverified"] {
        let path = format!("/v1/admin/users?state={state}");
        let who = id(&shop.admin("GET", &path).send().await.ok(200)["data"][0]);
        // Behind the deletion, and behind whatever a suspension has ended.
        shop.clock.advance(SECOND);
        let year = signed_for(&shop, &who);
        shop.get("/v1/orders").bearer(&year).send().await.ok(200);
        let suspend = || shop.admin("POST", &format!("/v1/admin/users/{who}/suspend")).send();
        for _again in 0..2 {
            assert_eq!(suspend().await.ok(200)["account"], state);
        }
        shop.get("/v1/orders").bearer(&year).send().await.problem(401, "unauthenticated");
        shop.clock.advance(16 * MINUTE);
        shop.get("/v1/orders").bearer(&year).send().await.problem(401, "unauthenticated");
        let reinstate = shop.admin("POST", &format!("/v1/admin/users/{who}/reinstate")).send().await;
        reinstate.problem(409, "order_state_conflict");
        assert_eq!(id(&shop.admin("GET", &path).send().await.ok(200)["data"][0]), who, "as it was");
    }
    // And once it is proved it is an account like any other.
    let letter = shop.letter(&new.email, 1).await;
    assert_eq!(shop.verify(&letter.token()).await.status, 204);
    let pair = shop.log_in(&new).await;
    assert!(shop.admits(&pair.access).await);
    shop.close().await;
}

/// Tokens that were signed offline belong to people without a row; they order as ever.
#[actix_web::test]
async fn a_token_that_was_signed_offline_opens_the_shop() {
    let shop = Shop::open().await;
    let product = shop.stocked(3).await;
    let token = shop.token(5, Role::Shopper);
    shop.ask("POST", "/v1/orders").bearer(&token).json(&one_line(&product, 1)).send().await.ok(201);
    shop.get("/v1/users/me").bearer(&token).send().await.problem(404, "not_found");
    assert_eq!(shop.get("/v1/sessions").bearer(&token).send().await.ok(200)["data"], json!([]));
    shop.close().await;
}

/// Somebody who knew the password has asked for another address. Whatever the owner does against him takes that back.
#[actix_web::test]
async fn a_change_of_address_is_taken_back_with_the_sessions() {
    const NEW: &str = "thief@example.com";
    let shop = Shop::open().await;
    let mut mina = shop.newcomer(1).await;
    let id = shop.id_of(&shop.log_in(&mina).await).await;
    for (round, against) in ["password", "reset", "everywhere", "suspended"].into_iter().enumerate() {
        let pair = shop.log_in(&mina).await;
        let ask = json!({ "email": NEW, "password": mina.password });
        shop.as_of(&pair, "POST", "/v1/users/me/email").json(&ask).send().await.ok(202);
        let link = shop.letter(NEW, round + 1).await.token();
        let next = format!("four foxes fly {round} times");
        match against {
            "password" => {
                let change = json!({ "current_password": mina.password, "new_password": next });
                let done = shop.as_of(&pair, "PUT", "/v1/users/me/password").json(&change).send().await;
                assert_eq!(done.status, 204);
                mina.password = next;
            }
            "reset" => {
                // Word of the change that was asked for, which has no link, may come before or behind it.
                let links = || {
                    shop.letters_to(&mina.email).into_iter().filter(|letter| letter.text.contains("#token="))
                };
                let before = links().count();
                shop.post("/v1/password-resets", &json!({ "email": mina.email })).send().await;
                let reset = wait_for(|| links().nth(before)).await.token();
                let body = json!({ "token": reset, "new_password": next });
                assert_eq!(shop.ask("PUT", "/v1/password-resets").json(&body).send().await.status, 204);
                mina.password = next;
            }
            "everywhere" => {
                assert_eq!(shop.as_of(&pair, "DELETE", "/v1/sessions").send().await.status, 204);
            }
            _ => {
                for what in ["suspend", "reinstate"] {
                    let done = shop.admin("POST", &format!("/v1/admin/users/{id}/{what}")).send().await;
                    assert_eq!(done.status, 204, "{what}");
                }
            }
        }
        shop.verify(&link).await.problem(410, "link_expired");
        assert_eq!(shop.id_of(&shop.log_in(&mina).await).await, id, "{against}");
        shop.clock.advance(3_600_000);
    }
    shop.close().await;
}
