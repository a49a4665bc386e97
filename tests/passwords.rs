//! Passwords: which are taken, how they are kept, and what it costs to guess one.

mod support;

use std::cell::Cell;

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use stockade::actors::passwords::HASH_QUEUE_MAX;
use stockade::actors::user::Device;
use stockade::domain::user::Email;
use support::{Pair, Person, Shop, breached_list};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

async fn sign_up_with(shop: &Shop, number: u32, password: &str) -> support::Reply {
    let person = Person { password: password.to_owned(), ..Person::number(number) };
    shop.sign_up(&person).await
}

/// ASVS 6.2.1, 6.2.4, 6.2.5, 6.2.11, 6.2.12.
#[actix_web::test]
async fn a_password_is_long_enough_and_not_the_first_that_is_tried() {
    let shop = Shop::open().await;
    assert_eq!(sign_up_with(&shop, 1, "x7#kQ2p").await.invalid(), "/password");
    assert_eq!(sign_up_with(&shop, 1, "x7#kQ2p!").await.status, 202);
    let listed = include_str!("../src/domain/user/common_passwords.txt").lines();
    let listed: Vec<_> = listed.filter(|line| !line.starts_with('#') && line.len() >= 8).collect();
    assert!(listed.len() >= 3_000, "{}", listed.len());
    let known = listed.into_iter().step_by(50).chain([
        "password",
        "PassWord",
        "Stockade",
        "stockade1",
        "#stockade2026",
    ]);
    for known in known {
        assert_eq!(sign_up_with(&shop, 2, known).await.invalid(), "/password", "{known}");
    }
    assert_eq!(sign_up_with(&shop, 2, "mina.park.2@example.com").await.invalid(), "/password");
    // No rule of composition, and none that a password must be another after a while.
    let plain = Person { password: "gjwpqrvnzk".to_owned(), ..Person::number(3) };
    assert_eq!(shop.sign_up(&plain).await.status, 202);
    assert_eq!(shop.verify(&shop.letter(&plain.email, 1).await.token()).await.status, 204);
    shop.clock.advance(1_000 * DAY);
    shop.log_in(&plain).await;
    shop.close().await;
    let strict = Shop::open_with(|config| config.people.password_chars_min = 15).await;
    assert_eq!(sign_up_with(&strict, 1, "four foxes fly").await.invalid(), "/password");
    assert_eq!(sign_up_with(&strict, 1, "four foxes fly!").await.status, 202);
    strict.close().await;
}

/// ASVS 6.2.12: what is known from a breach is refused wherever a password is chosen, and held against nobody who has it.
#[actix_web::test]
async fn a_password_that_is_known_from_a_breach_is_not_taken() {
    let shop = Shop::open().await;
    let (mina, jun) = (shop.newcomer(1).await, Person::number(2));
    let (home, stolen) = (tempfile::tempdir().unwrap(), "seven swans swim south");
    let path = home.path().join("breached.txt");
    std::fs::write(&path, breached_list(&[stolen, &mina.password])).unwrap();
    let shop = shop.reopen_with(|config| config.people.breached_passwords = Some(path.clone())).await;
    // Hers stands on the list by now.
    let pair = shop.log_in(&mina).await;

    let users = shop.app().users();
    let told = async |person: &Person, password: &str| {
        let weak = Person { password: password.to_owned(), ..person.clone() };
        let reply = shop.sign_up(&weak).await;
        assert_eq!(reply.invalid(), "/password");
        let mut body = reply.json();
        body.as_object_mut().unwrap().remove("request_id");
        body
    };
    let hashes = users.hashes();
    let breached = told(&jun, stolen).await;
    assert!(breached["errors"][0]["detail"].as_str().unwrap().contains("breach"), "{breached}");
    assert_eq!(told(&mina, stolen).await, breached, "whether the address is known is told to nobody");
    let mut common = told(&jun, "password").await;
    common["errors"][0]["detail"] = breached["errors"][0]["detail"].clone();
    assert_eq!(common, breached, "but for the reason it is as weak as any other");
    // More often than a reader has letters.
    for _ in 0..3 {
        told(&jun, stolen).await;
    }
    assert_eq!(users.hashes(), hashes, "refused before it is hashed");
    assert_eq!(shop.sign_up(&jun).await.status, 202);

    let change = |password: &str| {
        let body = json!({ "current_password": mina.password, "new_password": password });
        shop.as_of(&pair, "PUT", "/v1/users/me/password").json(&body).send()
    };
    assert_eq!(change(stolen).await.invalid(), "/new_password");
    assert_eq!(change("five foxes fly far").await.status, 204);
    shop.letter(&mina.email, 2).await;
    assert_eq!(shop.post("/v1/password-resets", &json!({ "email": mina.email })).send().await.status, 202);
    let token = shop.letter(&mina.email, 3).await.token();
    let reset = |password: &str| {
        let body = json!({ "token": token, "new_password": password });
        shop.ask("PUT", "/v1/password-resets").json(&body).send()
    };
    assert_eq!(reset(stolen).await.invalid(), "/new_password");
    assert_eq!(reset("six foxes fly farther").await.status, 204, "the link is not used up");

    // What cannot be looked up is not taken; whoever has a password comes in.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    sign_up_with(&shop, 3, "eight owls over the hill").await.problem(503, "owner_unavailable");
    shop.log_in(&Person { password: "six foxes fly farther".to_owned(), ..mina }).await;
    shop.close().await;
}

/// ASVS 2.4.1: a password that is refused costs nobody a letter, and whoever asked with it a place of his own.
#[actix_web::test]
async fn an_address_has_so_many_breached_passwords_refused() {
    let (home, stolen) = (tempfile::tempdir().unwrap(), "seven swans swim south");
    let path = home.path().join("breached.txt");
    std::fs::write(&path, breached_list(&[stolen])).unwrap();
    let shop = Shop::open_with(|config| {
        config.people.breached_passwords = Some(path.clone());
        config.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    let mina = Person::number(1);
    let sign_up = |password: &str, from: &str| {
        let person = Person { password: password.to_owned(), ..mina.clone() };
        shop.post("/v1/users", &person.words()).header("X-Forwarded-For", from).send()
    };
    for _ in 0..60 {
        assert_eq!(sign_up(stolen, "203.0.113.7").await.invalid(), "/password");
    }
    let limited = sign_up(stolen, "203.0.113.7").await;
    limited.problem(429, "rate_limited");
    assert!(limited.header("RateLimit-Policy").unwrap().ends_with("q=60;w=3600"));
    assert_eq!(sign_up(stolen, "203.0.113.8").await.invalid(), "/password");
    assert_eq!(sign_up(&mina.password, "203.0.113.8").await.status, 202, "her letters are not used up");
    shop.clock.advance(60 * MINUTE);
    assert_eq!(sign_up(&mina.password, "203.0.113.7").await.status, 202);
    shop.close().await;
}

/// ASVS 6.2.8, 6.2.9.
#[actix_web::test]
async fn a_password_may_be_long_and_of_any_letters_and_is_taken_as_it_is() {
    let shop = Shop::open().await;
    assert_eq!(sign_up_with(&shop, 9, &"xy".repeat(65)).await.invalid(), "/password");
    let long = Person { password: "xy".repeat(65), ..Person::number(9) };
    assert_eq!(shop.app().users().hashes(), 0, "refused before it is hashed");
    shop.try_log_in(&long).await.problem(401, "unauthenticated");
    let odd = format!("  four 🦊 foxes {} ", "und so weiter ".repeat(5));
    assert!(odd.len() > 64 && odd.len() <= 128);
    let mina = Person { password: odd.clone(), ..Person::number(1) };
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    assert_eq!(shop.verify(&shop.letter(&mina.email, 1).await.token()).await.status, 204);
    shop.log_in(&mina).await;
    let trimmed = Person { password: odd.trim().to_owned(), ..mina };
    shop.try_log_in(&trimmed).await.problem(401, "unauthenticated");
    shop.close().await;
}

/// ASVS 6.3.8: whether an address is known is told to nobody, at log-in, sign-up, reset and resend, neither in words nor by
/// the work that is done.
#[actix_web::test]
async fn an_unknown_address_is_answered_like_a_known_one() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let (unproved, free) = (Person::number(2), Person::number(3));
    assert_eq!(shop.sign_up(&unproved).await.status, 202);
    let nobody = Person { email: "nobody@example.com".to_owned(), ..Person::number(4) };
    let users = shop.app().users();
    // Status, words, and how many passwords were hashed or compared meanwhile.
    let told = async |ask: support::Ask| {
        let before = users.hashes();
        let reply = ask.send().await;
        let mut body: Value = reply.json();
        body.as_object_mut().unwrap().remove("request_id");
        (reply.status.as_u16(), body, users.hashes() - before)
    };
    let log_in = |person: &Person| {
        told(shop.post("/v1/sessions", &json!({ "email": person.email, "password": "not the password" })))
    };
    let dummies = users.dummies();
    let wrong = log_in(&mina).await;
    assert_eq!((wrong.0, &wrong.1["code"], wrong.2), (401, &json!("unauthenticated"), 1));
    assert_eq!(log_in(&unproved).await, wrong);
    assert_eq!(users.dummies(), dummies);
    assert_eq!(log_in(&nobody).await, wrong);
    assert_eq!(users.dummies(), dummies + 1, "compared with nothing, at the same price");

    let sign_up = |person: Person| told(shop.post("/v1/users", &person.words()));
    let new = sign_up(free.clone()).await;
    assert_eq!((new.0, new.2), (202, 1));
    assert_eq!(sign_up(Person { email: mina.email.to_uppercase(), ..Person::number(5) }).await, new);
    assert_eq!(sign_up(Person { phone: mina.phone.clone(), ..Person::number(6) }).await, new);
    for number in [2, 3] {
        let told = shop.letter(&mina.email, number).await;
        assert!(!told.text.contains("#token="), "its owner is told, and nothing else happens");
    }
    shop.log_in(&mina).await;

    for door in ["/v1/password-resets", "/v1/users/verify/resend"] {
        let ask = |person: &Person| told(shop.post(door, &json!({ "email": person.email })));
        let unknown = ask(&nobody).await;
        assert_eq!((unknown.0, unknown.2), (202, 0), "{door}");
        for known in [&mina, &unproved] {
            assert_eq!(ask(known).await, unknown, "{door}");
        }
    }
    shop.close().await;
}

/// ASVS 6.1.1, 6.3.1.
#[actix_web::test]
async fn failures_are_limited_where_they_come_from_and_lock_nobody_out() {
    let shop =
        Shop::open_with(|config| config.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    let mina = shop.newcomer(1).await;
    let wrong = Person { password: "not the password".to_owned(), ..mina.clone() };
    let from = |person: &Person, address: &str| {
        shop.post("/v1/sessions", &person.credentials()).header("X-Forwarded-For", address).send()
    };
    for _ in 0..5 {
        from(&wrong, "203.0.113.7").await.problem(401, "unauthenticated");
    }
    let limited = from(&mina, "203.0.113.7").await;
    limited.problem(429, "rate_limited");
    let wait: i64 = limited.header("Retry-After").unwrap().parse().unwrap();
    assert!((14 * 60..=16 * 60).contains(&wait), "{wait}");
    assert!(limited.header("RateLimit-Policy").unwrap().ends_with("q=5;w=900"));
    assert!(limited.header("RateLimit").unwrap().contains("r=0"));
    Pair::of(&from(&mina, "203.0.113.8").await);
    // Said by somebody who is no proxy of ours, it would not be believed; said by the left end of the list neither.
    from(&mina, "203.0.113.99, 203.0.113.7").await.problem(429, "rate_limited");
    shop.clock.advance(15 * MINUTE);
    Pair::of(&from(&mina, "203.0.113.7").await);

    for number in 0..20 {
        let stranger = Person::number(100 + number);
        from(&stranger, "2001:db8:7:7::1").await.problem(401, "unauthenticated");
    }
    from(&mina, "2001:db8:7:7:ffff::2").await.problem(429, "rate_limited");
    Pair::of(&from(&mina, "2001:db8:7:8::1").await);
    shop.close().await;
}

/// ASVS 4.1.3: whoever is no proxy of ours does not choose where he comes from.
#[actix_web::test]
async fn a_stranger_does_not_choose_where_he_comes_from() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let wrong = Person { password: "not the password".to_owned(), ..mina };
    let mut heard = Vec::new();
    for number in 0..7 {
        let from = format!("203.0.113.{number}");
        let ask = shop.post("/v1/sessions", &wrong.credentials()).header("X-Forwarded-For", &from);
        heard.push(
            ask.header("X-Real-IP", &from).header("Forwarded", &format!("for={from}")).send().await.status,
        );
    }
    assert_eq!(
        heard.iter().map(|status| status.as_u16()).collect::<Vec<_>>(),
        [401, 401, 401, 401, 401, 429, 429]
    );
    shop.close().await;
}

/// A flood of log-ins is told to come back, and the shop goes on selling as if nothing were.
#[actix_web::test]
async fn a_flood_of_log_ins_is_told_to_come_back() {
    let shop = Shop::open().await;
    let product = shop.stocked(1_000_000).await;
    let users = shop.app().users();
    let before = users.hashes();
    // What somebody is told, and how many passwords had been looked at by then.
    let ask = async |stranger: Person| {
        let told = shop.post("/v1/sessions", &stranger.credentials()).send().await;
        (told, users.hashes() - before)
    };
    let flooded = Cell::new(false);
    let flood = async {
        let heard = join_all((0..500).map(|number| ask(Person::number(1_000 + number)))).await;
        flooded.set(true);
        heard
    };
    // How long each order took, and how many there were before the flood was over.
    let orders = async {
        let (mut took_ms, mut meanwhile) = (Vec::new(), 0);
        while !flooded.get() || took_ms.len() < 200 {
            let began = shop.clock.nanos();
            shop.order(took_ms.len() as u64 % 100, &product, 1).send().await.ok(201);
            took_ms.push((shop.clock.nanos() - began) / 1_000_000);
            meanwhile += u64::from(!flooded.get());
        }
        (took_ms, meanwhile)
    };
    let (heard, (mut took_ms, meanwhile)) = tokio::join!(flood, orders);
    let hashed = users.hashes() - before;
    let (mut judged, mut at_once) = (0, 0);
    for (told, hashed_by_then) in &heard {
        if told.status == 401 {
            judged += 1;
            continue;
        }
        told.problem(503, "overloaded");
        assert!(told.header("Retry-After").is_some());
        // Whoever had stood in line behind a hundred others would have seen them all come first.
        at_once += u64::from(*hashed_by_then < HASH_QUEUE_MAX as u64);
    }
    assert!(at_once >= 300, "{at_once} of 500 were told to come back without waiting, {judged} were judged");
    assert_eq!(hashed, judged, "nothing was hashed for whoever was told to come back");
    // Had orders stood behind hashes, there would have been one or two.
    assert!(meanwhile * 10 >= hashed, "{meanwhile} orders, and {hashed} passwords were looked at meanwhile");
    took_ms.sort_unstable();
    let p99 = took_ms[took_ms.len() * 99 / 100];
    // The bench judges times.
    assert!(p99 < 5_000, "p99 of {} orders: {p99} ms, the worst {:?}", took_ms.len(), took_ms.last());
    shop.close().await;
}

/// Does something while so many log in that there is no room, or hardly any.
async fn in_a_crowd<T>(shop: &Shop, work: impl Future<Output = T>) -> T {
    let users = shop.app().users();
    let nobody: Email = "nobody@example.com".parse().unwrap();
    let crowd = join_all((0..2 * HASH_QUEUE_MAX).map(|_| async {
        let log_in = || users.log_in(&nobody, "not the password".into(), Device::named("one of many"));
        while log_in().await.is_err() {
            tokio::task::yield_now().await;
        }
    }));
    tokio::select! {
        told = work => told,
        _ = crowd => unreachable!("nobody has this password"),
    }
}

/// Asks until it was turned away more often than `most`, or was done so often: how often it was done.
async fn turned_away(most: u32, room: u32, ask: impl Fn() -> support::Ask) -> u32 {
    let (mut away, mut done) = (0, 0);
    while away <= most && done < room {
        let told = ask().send().await;
        if told.status.is_success() {
            done += 1;
        } else {
            told.problem(503, "overloaded");
            away += 1;
        }
    }
    done
}

/// Whoever hears that nothing was done, because too many are at it, has used up nothing of what is his.
#[actix_web::test]
async fn who_finds_no_room_has_used_up_nothing() {
    let shop =
        Shop::open_with(|config| config.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    let (mina, jun) = (shop.newcomer(1).await, Person::number(2));
    let pair = shop.log_in(&mina).await;
    let new_email = json!({ "email": "mina@example.org", "password": mina.password });
    let there = |ask: support::Ask| ask.header("X-Forwarded-For", "203.0.113.7");
    let sign_up = || there(shop.post("/v1/users", &jun.words()));
    let move_to = || there(shop.as_of(&pair, "POST", "/v1/users/me/email").json(&new_email));
    let log_in = || there(shop.post("/v1/sessions", &mina.credentials()));
    // More often than a reader has letters, and an address log-ins; a few may find room all the same.
    let (signed_up, moved) = in_a_crowd(&shop, async {
        let letters = (turned_away(3, 3, &sign_up).await, turned_away(3, 3, &move_to).await);
        turned_away(300, 40, &log_in).await;
        letters
    })
    .await;
    Pair::of(&log_in().send().await);
    for _ in signed_up..3 {
        sign_up().send().await.ok(202);
    }
    for _ in moved..3 {
        move_to().send().await.ok(202);
    }
    for ask in [sign_up(), move_to()] {
        ask.send().await.problem(429, "rate_limited");
    }
    shop.close().await;
}

async fn connect(folder: &std::path::Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(folder.join("people.db")).connect().await.unwrap()
}

async fn kept(folder: &std::path::Path) -> Vec<String> {
    let mut people = connect(folder).await;
    let kept =
        sqlx::query_scalar("select password from users order by id").fetch_all(&mut people).await.unwrap();
    people.close().await.unwrap();
    kept
}

/// ASVS 11.4.2: as Argon2id with 19 MiB, two passes and one lane, each with a salt of its own.
#[actix_web::test]
async fn a_password_is_kept_as_argon2id_with_a_salt_of_its_own() {
    let shop = Shop::open().await;
    for number in [1, 2] {
        assert_eq!(sign_up_with(&shop, number, "four foxes fly far").await.status, 202);
    }
    let folder = shop.stop().await;
    let kept = kept(folder.path()).await;
    let salts: std::collections::BTreeSet<_> =
        kept.iter().map(|hash| hash.split('$').nth(4).unwrap()).collect();
    assert_eq!((kept.len(), salts.len()), (2, 2));
    assert!(kept.iter().all(|hash| hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$")), "{kept:?}");
}

/// ASVS 11.4.2: a hash of weaker times is replaced when its password comes by.
#[actix_web::test]
async fn a_weaker_hash_is_made_anew_at_the_next_log_in() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let folder = shop.stop().await;
    let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(4_096, 1, 1, None).unwrap());
    let weak =
        weak.hash_password_with_salt(mina.password.as_bytes(), b"sixteen letters.").unwrap().to_string();
    let mut people = connect(folder.path()).await;
    sqlx::query("update users set password = ?").bind(&weak).execute(&mut people).await.unwrap();
    people.close().await.unwrap();
    let shop = Shop::open_in(folder).await;
    let wrong = Person { password: "not the password".to_owned(), ..mina.clone() };
    shop.try_log_in(&wrong).await.problem(401, "unauthenticated");
    // Several devices at once: whichever makes it anew, the password is right for all of them.
    for told in join_all((0..3).map(|_| shop.try_log_in(&mina))).await {
        Pair::of(&told);
    }
    let folder = shop.stop().await;
    assert!(kept(folder.path()).await[0].starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    let shop = Shop::open_in(folder).await;
    shop.log_in(&mina).await;
    shop.close().await;
}
