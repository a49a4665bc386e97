//! Mailed links and the letters that carry them: how long one is good, for whom it speaks, and how many are sent.

use secrecy::SecretString;
use serde_json::json;

use crate::support::{Person, Shop, told_in_trail};
use crate::{HOUR, MINUTE};

/// ASVS 6.5.1: 24 hours, once, and not by looking.
#[actix_web::test]
async fn a_link_is_good_for_a_day_and_for_one_use() {
    let shop = Shop::open().await;
    let (mina, jun) = (Person::number(1), Person::number(2));
    shop.sign_up(&mina).await;
    let token = shop.letter(&mina.email, 1).await.token();
    assert!(token.len() >= 40, "{token}");
    for path in ["/verify", "/v1/users/verify"] {
        shop.get(&format!("{path}?token={token}")).send().await;
    }
    shop.clock.advance(24 * HOUR - MINUTE);
    assert_eq!(shop.verify(&token).await.status, 204);
    let unknown = shop.verify("verify_nonsense").await.problem(410, "link_expired");

    shop.sign_up(&jun).await;
    let late = shop.letter(&jun.email, 1).await.token();
    shop.clock.advance(24 * HOUR);
    let used = shop.verify(&token).await.problem(410, "link_expired");
    let expired = shop.verify(&late).await.problem(410, "link_expired");
    // One sentence for all of them, and for the used one no letter comes.
    for told in [&used, &unknown, &expired] {
        assert_eq!(told["detail"], used["detail"]);
        assert!(!told["detail"].as_str().unwrap().contains("on its way"), "{told}");
    }
    let anew = shop.letter(&jun.email, 2).await.token();
    shop.verify(&late).await.problem(410, "link_expired");
    assert_eq!(shop.verify(&anew).await.status, 204);
    assert_eq!(shop.letters_to(&jun.email).len(), 2, "a link that is known to be dead sends nothing");
    assert_eq!(shop.letters_to(&mina.email).len(), 1);
    shop.close().await;
}

/// Whoever presses twice, or has not heard the answer, hears it for as long as the link would have been good, and nothing is done
/// a second time.
#[actix_web::test]
async fn a_link_that_was_used_says_so_again_and_does_nothing() {
    let shop = Shop::open().await;
    let mina = Person::number(1);
    shop.sign_up(&mina).await;
    let link = shop.letter(&mina.email, 1).await.token();
    let first = shop.verify(&link).await;
    assert_eq!(first.status, 204, "{}", first.text);
    let pair = shop.log_in(&mina).await;
    let me = shop.as_of(&pair, "GET", "/v1/users/me").send().await.ok(200);
    shop.clock.advance(24 * HOUR - MINUTE);
    // The nights between take it as little as the lapse of others does.
    shop.app().users().clear_away(shop.clock.now()).await;
    let again = shop.verify(&link).await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    let pair = shop.log_in(&mina).await;
    assert_eq!(shop.as_of(&pair, "GET", "/v1/users/me").send().await.ok(200), me);
    // It opens nothing.
    let reset = json!({ "token": link, "new_password": "five foxes fly far" });
    shop.ask("PUT", "/v1/password-resets").json(&reset).send().await.problem(410, "link_expired");
    shop.clock.advance(MINUTE);
    shop.verify(&link).await.problem(410, "link_expired");
    shop.app().users().clear_away(shop.clock.now()).await;
    assert_eq!(shop.letters_to(&mina.email).len(), 1, "none is sent for it");
    let folder = shop.stop().await;
    assert_eq!(told_in_trail(folder.path(), "address_verified").await, 1);
}

/// It says so only while it is true: not of an address that is another's or nobody's by now, nor of an account that is kept out.
#[actix_web::test]
async fn a_used_link_does_not_speak_for_an_account_that_has_changed() {
    const NEW: &str = "mina@example.org";
    let shop = Shop::open().await;
    let mut links = Vec::new();
    for number in 1..=3 {
        let person = shop.newcomer(number).await;
        let link = shop.letter(&person.email, 1).await.token();
        assert_eq!(shop.verify(&link).await.status, 204);
        let pair = shop.log_in(&person).await;
        links.push((person, pair, link));
    }
    let [moves, kept_out, leaves] = <[_; 3]>::try_from(links).unwrap();

    let (mina, pair, link) = moves;
    let wish = json!({ "email": NEW, "password": mina.password });
    shop.as_of(&pair, "POST", "/v1/users/me/email").json(&wish).send().await.ok(202);
    assert_eq!(shop.verify(&link).await.status, 204, "the new one is not proved yet");
    let new = shop.letter(NEW, 1).await.token();
    assert_eq!(shop.verify(&new).await.status, 204);
    for used in [&link, &new] {
        shop.verify(used).await.problem(410, "link_expired");
    }

    let (_, pair, link) = kept_out;
    let switch = format!("/v1/admin/users/{}", shop.id_of(&pair).await);
    let suspended = shop.admin("POST", &format!("{switch}/suspend")).send().await;
    assert_eq!(suspended.status, 204, "{}", suspended.text);
    shop.verify(&link).await.problem(410, "link_expired");

    let (kim, pair, link) = leaves;
    let erase = json!({ "password": kim.password });
    let erased = shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await;
    assert_eq!(erased.status, 204, "{}", erased.text);
    shop.verify(&link).await.problem(410, "link_expired");
    shop.close().await;
}

/// A link that has expired brings another letter, which is one of the three an hour that its reader gets. Where there is none
/// left nothing is used up: the same link brings it later.
#[actix_web::test]
async fn a_letter_for_an_expired_link_is_one_of_those_that_its_reader_gets() {
    let shop = Shop::open().await;
    let jun = Person::number(2);
    let resend = || shop.post("/v1/users/verify/resend", &json!({ "email": jun.email })).send();
    shop.sign_up(&jun).await;
    let first = shop.letter(&jun.email, 1).await.token();
    assert_eq!(resend().await.status, 202);
    let second = shop.letter(&jun.email, 2).await.token();
    shop.clock.advance(24 * HOUR);
    shop.verify(&first).await.problem(410, "link_expired");
    for _ in 0..2 {
        assert_eq!(resend().await.status, 202);
    }
    resend().await.problem(429, "rate_limited");
    shop.letter(&jun.email, 5).await;

    let (users, late) = (shop.app().users(), SecretString::from(second.clone()));
    shop.verify(&second).await.problem(410, "link_expired");
    assert!(users.expired(&late).await.unwrap().is_some(), "it is still there");
    shop.clock.advance(HOUR);
    shop.verify(&second).await.problem(410, "link_expired");
    assert!(users.expired(&late).await.unwrap().is_none());
    let anew = shop.letter(&jun.email, 6).await.token();
    assert_eq!(shop.verify(&anew).await.status, 204);
    shop.close().await;
}

/// The link to a new address as well, as long as the wish stands and nobody else has proved that address; and whose account it is
/// hears of it again.
#[actix_web::test]
async fn an_expired_link_to_a_new_address_brings_another_to_the_same() {
    const NEW: &str = "mina@example.org";
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let wish = json!({ "email": NEW, "password": mina.password });
    shop.as_of(&pair, "POST", "/v1/users/me/email").json(&wish).send().await.ok(202);
    let late = shop.letter(NEW, 1).await.token();
    shop.clock.advance(24 * HOUR);
    shop.verify(&late).await.problem(410, "link_expired");
    let anew = shop.letter(NEW, 2).await.token();
    assert!(!shop.letter(&mina.email, 3).await.text.contains("#token="), "told again");
    shop.verify(&late).await.problem(410, "link_expired");
    assert_eq!(shop.verify(&anew).await.status, 204);
    let mina = Person { email: NEW.to_owned(), ..mina };

    // Somebody else has proved it by now; a new password takes the wish back.
    let jun = Person { email: "jun@example.org".to_owned(), ..Person::number(2) };
    let wish = json!({ "email": jun.email, "password": mina.password });
    let pair = shop.log_in(&mina).await;
    shop.as_of(&pair, "POST", "/v1/users/me/email").json(&wish).send().await.ok(202);
    let late = shop.letter(&jun.email, 1).await.token();
    shop.sign_up(&jun).await;
    assert_eq!(shop.verify(&shop.letter(&jun.email, 2).await.token()).await.status, 204);
    shop.clock.advance(24 * HOUR);
    let (users, link) = (shop.app().users(), SecretString::from(late.clone()));
    shop.verify(&late).await.problem(410, "link_expired");
    assert!(users.expired(&link).await.unwrap().is_some(), "no other was put in its place");
    let pair = shop.log_in(&mina).await;
    let change = json!({ "current_password": mina.password, "new_password": "five foxes fly far" });
    let changed = shop.as_of(&pair, "PUT", "/v1/users/me/password").json(&change).send().await;
    assert_eq!(changed.status, 204, "{}", changed.text);
    assert!(users.expired(&link).await.unwrap().is_none());
    shop.close().await;
}

/// ASVS 6.5.1: a link speaks for the address it was sent to, and for no other that its person may have by now.
#[actix_web::test]
async fn a_link_is_bound_to_the_address_it_was_sent_to() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let move_to = async |email: &str| {
        let body = json!({ "email": email, "password": mina.password });
        assert_eq!(shop.as_of(&pair, "POST", "/v1/users/me/email").json(&body).send().await.status, 202);
        shop.letter(email, 1).await.token()
    };
    // Only the wish that came last can still come true.
    let first = move_to("mina@example.org").await;
    let second = move_to("mina@example.net").await;
    shop.verify(&first).await.problem(410, "link_expired");

    shop.post("/v1/password-resets", &json!({ "email": mina.email })).send().await;
    // Behind the first one, and one for each wish.
    let reset = shop.letter(&mina.email, 4).await.token();
    assert_eq!(shop.verify(&second).await.status, 204);
    let body = json!({ "token": reset, "new_password": "five foxes fly far" });
    let told = shop.ask("PUT", "/v1/password-resets").json(&body).send().await;
    told.problem(410, "link_expired");
    shop.log_in(&Person { email: "mina@example.net".to_owned(), ..mina.clone() }).await;
    shop.close().await;
}

/// Whoever has lost the answer asks again: within ten minutes it is the same wish, with one link.
#[actix_web::test]
async fn a_new_address_that_is_asked_for_again_keeps_its_link() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let ask = async |person: &Person, email: &str, password: &str| {
        let pair = shop.log_in(person).await;
        let wish = json!({ "email": email, "password": password });
        shop.as_of(&pair, "POST", "/v1/users/me/email").json(&wish).send().await
    };
    let (org, net) = ("mina@example.org", "mina@example.net");
    ask(&mina, org, &mina.password).await.ok(202);
    let link = shop.letter(org, 1).await.token();
    assert_eq!(ask(&mina, org, "not the password").await.invalid(), "/password");
    ask(&mina, "MINA@example.org", &mina.password).await.ok(202);
    assert_eq!(shop.verify(&link).await.status, 204);

    // Ten minutes later it is another wish, and only the one that came last can come true.
    let mina = Person { email: org.to_owned(), ..mina };
    ask(&mina, net, &mina.password).await.ok(202);
    let first = shop.letter(net, 1).await.token();
    shop.clock.advance(10 * MINUTE);
    ask(&mina, net, &mina.password).await.ok(202);
    let second = shop.letter(net, 2).await.token();
    shop.verify(&first).await.problem(410, "link_expired");
    assert_eq!(shop.verify(&second).await.status, 204);
    shop.close().await;
}

/// Three an hour to one reader and twenty from one place, and none before the password was looked at.
#[actix_web::test]
async fn letters_are_few_and_follow_a_good_password() {
    let shop =
        Shop::open_with(|config| config.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    let mina = Person::number(1);
    let weak = Person { password: "short".to_owned(), ..mina.clone() };
    assert_eq!(shop.sign_up(&weak).await.invalid(), "/password");
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    let resend = |email: &str, from: &str| {
        shop.post("/v1/users/verify/resend", &json!({ "email": email }))
            .header("X-Forwarded-For", from)
            .send()
    };
    let letter = shop.letter(&mina.email, 1).await;
    assert!(shop.letters_to(&mina.email).len() == 1, "none for the weak one");
    for _ in 0..2 {
        assert_eq!(resend(&mina.email, "203.0.113.1").await.status, 202);
    }
    let third = shop.letter(&mina.email, 3).await;
    resend(&mina.email, "203.0.113.2").await.problem(429, "rate_limited");
    assert_eq!(shop.verify(&third.token()).await.status, 204);
    shop.verify(&letter.token()).await.problem(410, "link_expired");

    for number in 0..20 {
        let email = format!("somebody.{number}@example.com");
        assert_eq!(resend(&email, "203.0.113.3").await.status, 202);
    }
    resend("somebody.99@example.com", "203.0.113.3").await.problem(429, "rate_limited");
    shop.clock.advance(HOUR);
    assert_eq!(resend("somebody.99@example.com", "203.0.113.3").await.status, 202);
    shop.close().await;
}

/// None was written for whoever did not know the password: it takes nothing of what its reader may get.
#[actix_web::test]
async fn a_wrong_password_uses_up_no_letters() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let ask = |password: &str| {
        let body = json!({ "email": "mina@example.org", "password": password });
        shop.as_of(&pair, "POST", "/v1/users/me/email").json(&body).send()
    };
    for _ in 0..4 {
        assert_eq!(ask("not the password").await.invalid(), "/password");
    }
    for _ in 0..3 {
        ask(&mina.password).await.ok(202);
    }
    ask(&mina.password).await.problem(429, "rate_limited");
    shop.close().await;
}
