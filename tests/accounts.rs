//! Accounts from the first letter to the last: signing up, proving the address, changing what was said, leaving.

#[path = "accounts/links.rs"]
mod links;
mod support;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use stockade::domain::job::Tally;
use support::{Pair, Person, Process, Shop, id, one_line, told_in_trail};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// ASVS 6.3.2: there is no account to begin with, so none whose password stands in a manual.
#[actix_web::test]
async fn a_new_shop_knows_nobody() {
    let shop = Shop::open().await;
    assert_eq!(shop.admin("GET", "/v1/admin/users").send().await.ok(200)["data"], json!([]));
    for email in ["admin@localhost.localdomain", "admin@example.com", "root@example.com"] {
        for password in ["admin", "password", "changeme"] {
            let guess = json!({ "email": email, "password": password });
            shop.post("/v1/sessions", &guess).send().await.problem(401, "unauthenticated");
        }
    }
    shop.close().await;
}

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

/// Each step is one more of its count. In a process of its own, for all shops of one process are counted together.
#[actix_web::test]
async fn what_people_do_is_counted() {
    const COUNTS: [&str; 9] = [
        r#"stockade_sign_ups_total{outcome="new"}"#,
        r#"stockade_sign_ups_total{outcome="taken"}"#,
        "stockade_verifications_total",
        r#"stockade_log_ins_total{outcome="ok"}"#,
        r#"stockade_log_ins_total{outcome="wrong"}"#,
        r#"stockade_log_ins_total{outcome="unverified"}"#,
        r#"stockade_log_ins_total{outcome="suspended"}"#,
        "stockade_revocations_total",
        r#"stockade_mails_total{outcome="sent"}"#,
    ];
    let folder = tempfile::tempdir().unwrap();
    let shop = Process::start(folder.path(), &[]).await;
    let counts = async || join_all(COUNTS.map(|name| shop.count(name))).await;
    let before = counts().await;
    let mina = Person::number(1);
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    let letter = shop.letter(&mina.email, 1).await;
    shop.try_log_in(&mina).await.problem(403, "email_not_verified");
    assert_eq!(shop.verify(&letter.token()).await.status, 204);
    let wrong = Person { password: "not the password".to_owned(), ..mina.clone() };
    shop.try_log_in(&wrong).await.problem(401, "unauthenticated");
    let pair = shop.log_in(&mina).await;
    let user = id(&shop.as_of(&pair, "GET", "/v1/users/me").send().await.ok(200));
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/sessions/current").send().await.status, 204);
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    let suspended = shop.admin("POST", &format!("/v1/admin/users/{user}/suspend")).send().await;
    assert_eq!(suspended.status, 204, "{}", suspended.text);
    shop.try_log_in(&mina).await.problem(403, "forbidden");
    // A letter lies in its folder a moment before it is counted.
    shop.counts(COUNTS[8], before[8] + 2).await;
    let rose: Vec<u64> = counts().await.iter().zip(before).map(|(after, before)| after - before).collect();
    // Ended are the session, by its log-out, and all that are theirs, by the suspension.
    assert_eq!(rose, [1, 1, 1, 1, 1, 1, 1, 2, 2], "{COUNTS:?}");
    assert_eq!(shop.count("stockade_password_queue_length").await, 0, "nobody waits");
    shop.stop().await;
}

#[actix_web::test]
async fn a_number_that_is_taken_is_told_to_its_owner_alone() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let other = Person { phone: "+82 10 2345 1001".to_owned(), ..Person::number(2) };
    assert_eq!(shop.sign_up(&other).await.status, 202);
    shop.letter(&mina.email, 2).await;
    assert!(shop.letters_to(&other.email).is_empty());
    // A number is taken once somebody has proved an address with it, and not before.
    let (jun, kim) = (Person { phone: "010-9999-0000".to_owned(), ..Person::number(3) }, Person::number(4));
    let kim = Person { phone: jun.phone.clone(), ..kim };
    assert_eq!(shop.sign_up(&jun).await.status, 202);
    assert_eq!(shop.sign_up(&kim).await.status, 202);
    let (first, second) = (shop.letter(&jun.email, 1).await, shop.letter(&kim.email, 1).await);
    assert_eq!(shop.verify(&second.token()).await.status, 204);
    shop.verify(&first.token()).await.problem(409, "phone_taken");
    shop.close().await;
}

/// ASVS 6.4.3: a reset link lasts half an hour, ends every session, and speaks for one account.
#[actix_web::test]
async fn a_forgotten_password_is_replaced_by_letter() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let forgot = async || shop.post("/v1/password-resets", &json!({ "email": mina.email })).send().await;
    let reset = async |token: &str, password: &str| {
        let body = json!({ "token": token, "new_password": password });
        shop.ask("PUT", "/v1/password-resets").json(&body).send().await
    };
    assert_eq!(forgot().await.status, 202);
    let stale = shop.letter(&mina.email, 2).await.token();
    shop.clock.advance(30 * MINUTE);
    reset(&stale, "five foxes fly far").await.problem(410, "link_expired");
    assert_eq!(forgot().await.status, 202);
    let token = shop.letter(&mina.email, 3).await.token();
    assert_eq!(reset(&token, "short").await.invalid(), "/new_password");
    shop.verify(&token).await.problem(410, "link_expired");
    let done = reset(&token, "five foxes fly far").await;
    assert_eq!(done.status, 204, "{}", done.text);
    reset(&token, "six foxes fly farther").await.problem(410, "link_expired");
    shop.letter(&mina.email, 4).await;
    assert!(!shop.admits(&pair.access).await);
    shop.try_log_in(&mina).await.problem(401, "unauthenticated");
    shop.log_in(&Person { password: "five foxes fly far".to_owned(), ..mina }).await;
    shop.close().await;
}

/// Whoever does not know the password causes no letter, and whoever has not proved an address orders nothing.
#[actix_web::test]
async fn an_unproved_account_gets_no_token_and_its_password_comes_first() {
    let shop = Shop::open().await;
    let product = shop.stocked(5).await;
    let mina = Person::number(1);
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    let link = shop.letter(&mina.email, 1).await.token();
    let wrong = Person { password: "not the password".to_owned(), ..mina.clone() };
    for _ in 0..4 {
        shop.try_log_in(&wrong).await.problem(401, "unauthenticated");
    }
    shop.try_log_in(&mina).await.problem(403, "email_not_verified");
    for token in ["", &link] {
        let order = shop.post("/v1/orders", &one_line(&product, 1)).bearer(token);
        order.send().await.problem(401, "unauthenticated");
    }
    assert_eq!(shop.counters(&product).await[..2], [5, 0]);
    // A letter asked for now comes after whatever else was on its way.
    shop.post("/v1/users/verify/resend", &json!({ "email": mina.email })).send().await;
    shop.letter(&mina.email, 2).await;
    assert_eq!(shop.letters().len(), 2, "one at the sign-up, one that was asked for");
    shop.close().await;
}

/// ASVS 6.2.3, 7.4.3, 7.5.1.
#[actix_web::test]
async fn password_and_address_change_for_whoever_knows_the_password() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let (here, there) = (shop.log_in(&mina).await, shop.log_in(&mina).await);
    let change = |body: Value| shop.as_of(&here, "PUT", "/v1/users/me/password").json(&body).send();
    let wrong = json!({ "current_password": "not the password", "new_password": "five foxes fly far" });
    assert_eq!(change(wrong).await.invalid(), "/current_password");
    let move_to = |email: &str, password: &str| {
        let body = json!({ "email": email, "password": password });
        shop.as_of(&here, "POST", "/v1/users/me/email").json(&body).send()
    };
    assert_eq!(move_to("mina@example.org", "not the password").await.invalid(), "/password");
    assert_eq!(move_to("mina@example.org", &mina.password).await.status, 202);
    let told = shop.letter(&mina.email, 2).await;
    assert!(!told.text.contains("#token="), "the old address is told, and cannot agree");
    let token = shop.letter("mina@example.org", 1).await.token();
    shop.log_in(&mina).await;
    let moved = Person { email: "mina@example.org".to_owned(), ..mina.clone() };
    shop.try_log_in(&moved).await.problem(401, "unauthenticated");

    assert_eq!(shop.verify(&token).await.status, 204);
    for pair in [&here, &there] {
        assert!(!shop.admits(&pair.access).await);
    }
    shop.try_log_in(&mina).await.problem(401, "unauthenticated");
    let pair = shop.log_in(&moved).await;
    let me = shop.as_of(&pair, "GET", "/v1/users/me").send().await.ok(200);
    assert_eq!(me["email"], "mina@example.org");
    shop.letter(&mina.email, 3).await;
    shop.letter("mina@example.org", 2).await;
    // The old address is free.
    shop.sign_up(&Person { email: mina.email.clone(), ..Person::number(5) }).await;
    assert!(shop.letter(&mina.email, 4).await.text.contains("#token="));
    shop.close().await;
}

#[actix_web::test]
async fn a_profile_is_shown_and_changed() {
    let shop = Shop::open().await;
    let (mina, jun) = (shop.newcomer(1).await, shop.newcomer(2).await);
    let pair = shop.log_in(&mina).await;
    let me = shop.as_of(&pair, "GET", "/v1/users/me").send().await;
    assert_eq!(me.header("Cache-Control"), Some("no-store"));
    let me = me.ok(200);
    assert_eq!((&me["email"], &me["name"]), (&json!(mina.email), &json!(mina.name)));
    assert_eq!((&me["phone"], &me["role"]), (&json!("+821023451001"), &json!("shopper")));
    assert_eq!(me["address"]["line1"], mina.street);

    let patch = |body: Value| shop.as_of(&pair, "PATCH", "/v1/users/me").json(&body).send();
    let changed = patch(json!({ "name": "Mina Kim", "phone": "010-7777-7777" })).await.ok(200);
    assert_eq!((&changed["name"], &changed["phone"]), (&json!("Mina Kim"), &json!("+821077777777")));
    assert_eq!(changed["address"], me["address"]);
    patch(json!({ "phone": jun.phone })).await.problem(409, "phone_taken");
    patch(json!({ "phone": "010-7777-7777" })).await.ok(200);
    assert_eq!(patch(json!({ "phone": "12" })).await.invalid(), "/phone");
    assert_eq!(patch(json!({ "address": { "line1": "x" } })).await.invalid(), "/address");
    // The number that was given up is free again.
    let pair = shop.log_in(&jun).await;
    let taken = shop.as_of(&pair, "PATCH", "/v1/users/me").json(&json!({ "phone": mina.phone }));
    taken.send().await.ok(200);
    shop.close().await;
}

/// A change that changes nothing is answered like any other, and leaves nothing behind.
#[actix_web::test]
async fn a_profile_that_stays_as_it_is_is_written_nowhere() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let patch = |body: Value| shop.as_of(&pair, "PATCH", "/v1/users/me").json(&body).send();
    let changed = patch(json!({ "name": "Mina Kim" })).await.ok(200);
    shop.clock.advance(MINUTE);
    for same in [
        json!({}),
        json!({ "name": "Mina Kim" }),
        json!({ "name": "Mina Kim", "phone": mina.phone, "address": mina.words()["address"] }),
    ] {
        assert_eq!(patch(same).await.ok(200), changed, "the time of the last change as well");
    }
    let folder = shop.stop().await;
    assert_eq!(told_in_trail(folder.path(), "profile_changed").await, 1);
}

/// OWASP API4: one person who changes his profile without end, or has it exported, is told to wait for himself alone.
#[actix_web::test]
async fn one_person_drowns_nobody_by_his_own_account() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    for (method, path, own, most) in
        [("PATCH", "/v1/users/me", "changes of a profile", 60), ("GET", "/v1/users/me/export", "exports", 5)]
    {
        let ask = || {
            let ask = shop.as_of(&pair, method, path);
            if method == "PATCH" { ask.json(&json!({})).send() } else { ask.send() }
        };
        let told = join_all((0..500).map(|_| ask())).await;
        let (done, refused): (Vec<_>, Vec<_>) = told.iter().partition(|reply| reply.status == 200);
        assert!((1..=most).contains(&done.len()), "{path}: {}", done.len());
        for reply in refused {
            reply.problem(429, "rate_limited");
            let policy = reply.header("RateLimit-Policy").unwrap();
            assert!(policy.starts_with(&format!("\"{own}")), "{path}: {policy}");
        }
        shop.log_in(&mina).await;
    }
    shop.close().await;
}

/// The person goes, what was held is for others, and the name of the account means nobody.
#[actix_web::test]
async fn who_leaves_takes_everything_along_but_the_orders() {
    let shop = Shop::open().await;
    let product = shop.stocked(3).await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    shop.as_of(&pair, "POST", "/v1/orders").json(&one_line(&product, 2)).send().await.ok(201);
    assert_eq!(shop.counters(&product).await[..2], [1, 2]);

    let user = shop.id_of(&pair).await;
    let erase = |password: &str| {
        shop.as_of(&pair, "DELETE", "/v1/users/me").json(&json!({ "password": password })).send()
    };
    assert_eq!(erase("not the password").await.invalid(), "/password");
    let erased = erase(&mina.password).await;
    assert_eq!(erased.status, 204, "{}", erased.text);
    assert_eq!(shop.counters(&product).await[..2], [3, 0], "what was held is for others");
    let accounts = shop.admin("GET", "/v1/admin/users?state=deleted").send().await.ok(200);
    assert_eq!(accounts["data"][0]["id"], user);
    let by_address = shop.admin("GET", &format!("/v1/admin/users?email={}", mina.email)).send().await.ok(200);
    assert_eq!(by_address["data"], json!([]));
    // Address and number are free.
    shop.sign_up(&mina).await;
    let token = shop.letter(&mina.email, 2).await.token();
    assert_eq!(shop.verify(&token).await.status, 204);
    shop.log_in(&mina).await;
    shop.close().await;
}

#[actix_web::test]
async fn an_account_that_nobody_proves_lapses_a_day_after_its_link() {
    let shop = Shop::open().await;
    let mina = Person::number(1);
    shop.sign_up(&mina).await;
    let link = shop.letter(&mina.email, 1).await.token();
    shop.clock.advance(48 * HOUR - MINUTE);
    assert_eq!(shop.app().users().let_lapse(shop.clock.now()).await, Tally::default());
    shop.try_log_in(&mina).await.problem(403, "email_not_verified");
    shop.clock.advance(MINUTE);
    let lapsed = shop.app().users().let_lapse(shop.clock.now()).await;
    assert_eq!((lapsed.moved, lapsed.failed), (1, 0), "{lapsed:?}");
    shop.try_log_in(&mina).await.problem(401, "unauthenticated");
    shop.verify(&link).await.problem(410, "link_expired");
    // Whoever comes later signs up anew.
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    let anew = shop.letter(&mina.email, 2).await.token();
    assert_eq!(shop.verify(&anew).await.status, 204);
    shop.log_in(&mina).await;
    shop.close().await;
}

/// Whoever has asked for another letter has the day that it promises, and a day in which it brings another.
#[actix_web::test]
async fn an_account_stays_for_as_long_as_a_link_proves_it() {
    let shop = Shop::open().await;
    let (mina, jun) = (Person::number(1), Person::number(2));
    for person in [&mina, &jun] {
        shop.sign_up(person).await;
        shop.letter(&person.email, 1).await;
    }
    shop.clock.advance(23 * HOUR);
    let mut links = Vec::new();
    for person in [&mina, &jun] {
        let asked = shop.post("/v1/users/verify/resend", &json!({ "email": person.email })).send().await;
        assert_eq!(asked.status, 202);
        links.push(shop.letter(&person.email, 2).await.token());
    }
    for later in [HOUR, 23 * HOUR - MINUTE] {
        shop.clock.advance(later);
        // By night as by day.
        shop.app().users().clear_away(shop.clock.now()).await;
        shop.try_log_in(&jun).await.problem(403, "email_not_verified");
    }
    let proved = shop.verify(&links[0]).await;
    assert_eq!(proved.status, 204, "{}", proved.text);
    shop.clock.advance(24 * HOUR + MINUTE);
    shop.app().users().clear_away(shop.clock.now()).await;
    shop.log_in(&mina).await;
    shop.try_log_in(&jun).await.problem(401, "unauthenticated");
    shop.verify(&links[1]).await.problem(410, "link_expired");
    shop.close().await;
}

/// The answers stay the same: only its reader sees that no letter comes any more.
#[actix_web::test]
async fn nobody_keeps_an_account_for_longer_than_seven_days_without_proving_it() {
    let shop = Shop::open().await;
    let (mina, jun) = (Person::number(1), Person::number(2));
    let resend = || shop.post("/v1/users/verify/resend", &json!({ "email": mina.email })).send();
    shop.sign_up(&mina).await;
    let mut links = vec![shop.letter(&mina.email, 1).await.token()];
    for letter in 2..=6 {
        shop.clock.advance(23 * HOUR);
        assert_eq!(resend().await.status, 202);
        links.push(shop.letter(&mina.email, letter).await.token());
        assert_eq!(shop.app().users().let_lapse(shop.clock.now()).await, Tally::default());
    }
    // Five days and 18 hours: the last link is good for an hour yet, and no other is sent, nor in the place of an expired one.
    shop.clock.advance(23 * HOUR);
    assert_eq!(resend().await.status, 202);
    shop.verify(&links[4]).await.problem(410, "link_expired");
    shop.sign_up(&jun).await;
    shop.letter(&jun.email, 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(shop.letters_to(&mina.email).len(), 6);
    shop.try_log_in(&mina).await.problem(403, "email_not_verified");
    shop.clock.advance(25 * HOUR);
    assert_eq!(shop.app().users().let_lapse(shop.clock.now()).await.moved, 1);
    shop.try_log_in(&mina).await.problem(401, "unauthenticated");
    shop.close().await;
}

/// For whoever looks for what has lapsed the link has expired, for whoever follows it it has not yet: one of them is first, and then
/// there is an account with its link used, or neither.
#[actix_web::test]
async fn a_link_that_is_used_as_its_account_lapses_counts_as_a_whole_or_not_at_all() {
    const PEOPLE: u32 = 12;
    let shop = Shop::open().await;
    let people: Vec<Person> = (0..PEOPLE).map(Person::number).collect();
    let mut links = Vec::new();
    for person in &people {
        shop.sign_up(person).await;
        links.push(shop.letter(&person.email, 1).await.token());
    }
    shop.clock.advance(24 * HOUR - MINUTE);
    let soon = shop.clock.now().plus(24 * HOUR + 2 * MINUTE);
    let following = async {
        let mut told = Vec::new();
        for link in &links {
            told.push(shop.verify(link).await.status.as_u16());
        }
        told
    };
    let lapsing = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        shop.app().users().let_lapse(soon).await
    };
    let (told, lapsed) = tokio::join!(following, lapsing);
    assert_eq!((lapsed.failed, lapsed.problems), (0, Vec::new()));
    let mut gone = 0;
    for (person, status) in people.iter().zip(&told) {
        match status {
            204 => {
                shop.log_in(person).await;
            }
            410 => {
                shop.try_log_in(person).await.problem(401, "unauthenticated");
                gone += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(gone, lapsed.moved);
    shop.close().await;
}

/// What was acknowledged is on the disk: the process may end at any moment after it.
#[actix_web::test]
async fn a_restart_forgets_no_step() {
    let shop = Shop::open().await;
    let mina = Person::number(1);
    shop.sign_up(&mina).await;
    let shop = shop.reopen().await;
    let token = shop.letter(&mina.email, 1).await.token();
    assert_eq!(shop.verify(&token).await.status, 204);
    let shop = shop.reopen().await;
    // Whoever opens the shop again is that much behind: the grace does not run out on a slow machine.
    shop.clock.advance(20_000);
    let first = shop.log_in(&mina).await;
    let second = Pair::of(&shop.try_refresh(&first.refresh).await);
    let shop = shop.reopen().await;
    // The answer was lost with the process: the grace is on the disk as well.
    let again = Pair::of(&shop.try_refresh(&first.refresh).await);
    assert_eq!(again.refresh, second.refresh);
    shop.close().await;
}

/// What the disk would hold if the power went now.
fn crash_image(shop: &Shop) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(shop.folder()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, image.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    image
}

/// A crash at any step leaves an account that can be used: each image is one moment, and each is led to its good end.
#[actix_web::test]
async fn a_crash_at_any_step_leaves_an_account_that_can_be_used() {
    let shop = Shop::open().await;
    let mina = Person::number(1);
    let before = crash_image(&shop);
    shop.sign_up(&mina).await;
    let signed_up = crash_image(&shop);
    let token = shop.letter(&mina.email, 1).await.token();
    shop.verify(&token).await;
    let verified = crash_image(&shop);
    // Whoever opens the shop again is that much behind: the grace does not run out on a slow machine.
    shop.clock.advance(20_000);
    let first = shop.log_in(&mina).await;
    let logged_in = crash_image(&shop);
    let second = Pair::of(&shop.try_refresh(&first.refresh).await);
    let refreshed = crash_image(&shop);
    shop.close().await;

    // Nothing had been said: whoever asks again is new.
    let shop = Shop::open_in(before).await;
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    let token_of_another = shop.letter(&mina.email, 1).await.token();
    assert_eq!(shop.verify(&token_of_another).await.status, 204);
    shop.log_in(&mina).await;
    shop.close().await;

    // The letter had perhaps not left: it leaves now, or the one that did is still good.
    let shop = Shop::open_in(signed_up).await;
    assert_eq!(shop.verify(&token).await.status, 204);
    shop.log_in(&mina).await;
    shop.close().await;

    let shop = Shop::open_in(verified).await;
    assert_eq!(shop.verify(&token).await.status, 204, "whoever has not heard it hears it now");
    shop.log_in(&mina).await;
    shop.close().await;

    // Before the refresh was written the first token is the current one.
    let shop = Shop::open_in(logged_in).await;
    let anew = Pair::of(&shop.try_refresh(&first.refresh).await);
    assert!(shop.admits(&anew.access).await);
    shop.close().await;

    // After it, the answer may be asked for again.
    let shop = Shop::open_in(refreshed).await;
    assert_eq!(Pair::of(&shop.try_refresh(&first.refresh).await).refresh, second.refresh);
    assert!(shop.try_refresh(&second.refresh).await.status.is_success());
    shop.close().await;
}

/// A client that goes away in the middle of its request leaves no half of anything, and blocks nobody.
#[actix_web::test]
async fn who_hangs_up_in_the_middle_leaves_nothing_open() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    for moment_ms in [0, 1, 2, 5, 10, 20, 40, 60, 65, 70, 75, 80] {
        let patience = Duration::from_millis(moment_ms);
        let _ = tokio::time::timeout(patience, shop.try_log_in(&mina)).await;
        let _ = tokio::time::timeout(patience, shop.sign_up(&Person::number(50 + moment_ms as u32))).await;
    }
    // Those that are still being judged hold their places, for a moment.
    let mut told = shop.try_log_in(&mina).await;
    for _ in 0..100 {
        if told.status != 429 {
            break;
        }
        assert!(
            matches!(told.header("Retry-After"), Some("1" | "2" | "3")),
            "nothing has failed: {}",
            told.text
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
        told = shop.try_log_in(&mina).await;
    }
    let pair = Pair::of(&told);
    assert!(shop.admits(&pair.access).await);
    shop.stocked(1).await;
    shop.close().await;
}
