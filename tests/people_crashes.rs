//! An account survives whatever happens to the process: a crash at any step of signing up, proving the address or
//! refreshing a session leaves somebody who can go on, and whoever races for an address or a token, one wins.
//!
//! Two kinds of crashes. A *cut* is exact: the store is filmed before and after, and opened again as every commit in
//! between, and every half-written one, would have left it. A *kill* is real: SIGKILL at moments spread over a request.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use support::film::{Film, WAL, ends_of_commits};
use support::kill::{killed_after, moments, timed};
use support::{Pair, Person, Process, Shop, told_in_trail};
use tempfile::TempDir;

const SECOND: i64 = 1_000;
/// How long a letter that was being sent at a crash waits for its sender, and a bit.
const LEASE: i64 = 181 * SECOND;

// --- cuts -----------------------------------------------------------------------------------------------------------------------

/// The letters never left.
fn without_letters(image: TempDir) -> TempDir {
    std::fs::remove_dir_all(image.path().join("mail")).unwrap();
    image
}

async fn can_log_in(shop: &Shop, person: &Person) {
    let pair = shop.log_in(person).await;
    assert!(shop.admits(&pair.access).await);
}

async fn follows(shop: &Shop, person: &Person, letter: usize) {
    let letter = shop.letter(&person.email, letter).await;
    let verified = shop.verify(&letter.token()).await;
    assert_eq!(verified.status, 204, "{}", verified.text);
    can_log_in(shop, person).await;
}

fn commits(shop: &Shop) -> usize {
    ends_of_commits(&std::fs::read(shop.folder().join(WAL)).unwrap()).len()
}

/// Behind what the start had committed: the account with its letter, the letter's claim, and its mark, which comes a moment
/// after the letter.
async fn all_is_committed(shop: &Shop, before: usize) {
    while commits(shop) < before + 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[actix_web::test]
async fn a_sign_up_that_was_cut_off_can_be_finished() {
    let (shop, mina) = (Shop::open().await, Person::number(1));
    let before = commits(&shop);
    let film = Film::of(&shop, async || {
        assert_eq!(shop.sign_up(&mina).await.status, 202);
        shop.letter(&mina.email, 1).await;
        all_is_committed(&shop, before).await;
    })
    .await;
    shop.close().await;
    assert_eq!(film.len(), 3, "the account with its letter, the letter's claim, its mark");

    // Before the account stood: nobody is here, and whoever tries again is welcome.
    for image in film.cuts(0) {
        let shop = Shop::open_in(without_letters(image)).await;
        shop.try_log_in(&mina).await.problem(401, "unauthenticated");
        assert_eq!(shop.sign_up(&mina).await.status, 202);
        follows(&shop, &mina, 1).await;
        shop.close().await;
    }
    // The account stood, the letter had not left: it leaves by itself.
    for image in film.cuts(1) {
        let shop = Shop::open_in(without_letters(image)).await;
        shop.try_log_in(&mina).await.problem(403, "email_not_verified");
        follows(&shop, &mina, 1).await;
        shop.close().await;
    }
    // The letter was about to leave: another one leaves when it is asked for, this one when its sender is given up.
    for image in film.cuts(2) {
        let shop = Shop::open_in(without_letters(image)).await;
        let resend = json!({ "email": mina.email });
        assert_eq!(shop.post("/v1/users/verify/resend", &resend).send().await.status, 202);
        follows(&shop, &mina, 1).await;
        shop.close().await;
    }
    for image in film.cuts(2) {
        let shop = Shop::open_in(without_letters(image)).await;
        shop.clock.advance(LEASE);
        assert_eq!(shop.sign_up(&Person::number(2)).await.status, 202);
        follows(&shop, &mina, 1).await;
        shop.close().await;
    }
    // The letter had left, and nobody knew: its link is good, and the same letter leaves again and is the same.
    for image in film.cuts(2) {
        let shop = Shop::open_in(image).await;
        follows(&shop, &mina, 1).await;
        shop.clock.advance(LEASE);
        shop.newcomer(2).await;
        assert_eq!(shop.letters_to(&mina.email).len(), 1);
        shop.close().await;
    }
    for image in film.cuts(3) {
        let shop = Shop::open_in(image).await;
        follows(&shop, &mina, 1).await;
        shop.close().await;
    }
}

#[actix_web::test]
async fn a_verification_that_was_cut_off_can_be_repeated_or_has_happened() {
    let (shop, mina) = (Shop::open().await, Person::number(1));
    let before = commits(&shop);
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    let token = shop.letter(&mina.email, 1).await.token();
    all_is_committed(&shop, before).await;
    let film = Film::of(&shop, async || assert_eq!(shop.verify(&token).await.status, 204)).await;
    shop.close().await;
    assert_eq!(film.len(), 1);

    for image in film.cuts(0) {
        let shop = Shop::open_in(image).await;
        shop.try_log_in(&mina).await.problem(403, "email_not_verified");
        follows(&shop, &mina, 1).await;
        shop.close().await;
    }
    for image in film.cuts(1) {
        let shop = Shop::open_in(image).await;
        assert_eq!(shop.verify(&token).await.status, 204);
        can_log_in(&shop, &mina).await;
        shop.close().await;
    }
}

#[actix_web::test]
async fn a_refresh_that_was_cut_off_gives_the_same_successor() {
    let shop = Shop::open().await;
    let before = commits(&shop);
    let mina = shop.newcomer(1).await;
    all_is_committed(&shop, before).await;
    // Whoever opens the store again is that much behind: the grace does not run out on a slow machine.
    shop.clock.advance(20 * SECOND);
    let first = shop.log_in(&mina).await;
    let mut second = None;
    let film = Film::of(&shop, async || {
        second = Some(Pair::of(&shop.try_refresh(&first.refresh).await));
    })
    .await;
    shop.close().await;
    assert_eq!(film.len(), 1);
    let heard = second.unwrap();

    for image in film.cuts(0) {
        let shop = Shop::open_in(image).await;
        let second = Pair::of(&shop.try_refresh(&first.refresh).await);
        assert!(shop.admits(&second.access).await);
        assert_ne!(second.refresh, heard.refresh, "that one never was");
        assert_eq!(Pair::of(&shop.try_refresh(&first.refresh).await).refresh, second.refresh);
        shop.try_refresh(&heard.refresh).await.problem(401, "unauthenticated");
        shop.close().await;
    }
    for image in film.cuts(1) {
        let shop = Shop::open_in(image).await;
        let second = Pair::of(&shop.try_refresh(&first.refresh).await);
        assert_eq!(second.refresh, heard.refresh);
        assert!(shop.admits(&second.access).await && shop.admits(&heard.access).await);
        let third = Pair::of(&shop.try_refresh(&second.refresh).await);
        assert!(shop.admits(&third.access).await);
        shop.close().await;
    }
}

// --- kills ----------------------------------------------------------------------------------------------------------------------

/// Follows the first of one's letters whose link is good.
async fn follows_any(process: &Process, person: &Person) {
    let mut tried = 0;
    loop {
        let letter = process.letter(&person.email, tried + 1).await;
        match process.verify(&letter.token()).await.status.as_u16() {
            204 => return,
            410 => tried += 1,
            other => panic!("{other}"),
        }
    }
}

#[actix_web::test]
async fn a_sign_up_survives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), &[]).await;
    let (_, takes) = timed(process.newcomer(&Person::number(99))).await;
    for (n, moment) in moments(takes) {
        let mina = Person::number(n);
        let asked = process.post("/v1/users", &mina.words());
        let heard = killed_after(&mut process, moment, asked).await;
        process = Process::start(folder.path(), &[]).await;
        match heard {
            // Whoever was told that a letter comes gets one without saying everything again.
            Some(reply) => {
                assert_eq!(reply.status, 202, "{}", reply.text);
                process.resend(&mina).await;
            }
            None => assert_eq!(process.sign_up(&mina).await.status, 202),
        }
        follows_any(&process, &mina).await;
        process.log_in(&mina).await;
    }
    process.stop().await;
}

#[actix_web::test]
async fn a_verification_survives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), &[]).await;
    let token_of = async |process: &Process, person: &Person| {
        assert_eq!(process.sign_up(person).await.status, 202);
        process.letter(&person.email, 1).await.token()
    };
    let token = token_of(&process, &Person::number(99)).await;
    let (verified, takes) = timed(process.verify(&token)).await;
    assert_eq!(verified.status, 204, "{token}: {}", verified.text);
    for (n, moment) in moments(takes) {
        let mina = Person::number(n);
        let token = token_of(&process, &mina).await;
        let asked = process.post("/v1/users/verify", &json!({ "token": token }));
        let heard = killed_after(&mut process, moment, asked).await;
        process = Process::start(folder.path(), &[]).await;
        // Whether or not it had been done, and whether or not that was heard.
        assert!(heard.is_none_or(|reply| reply.status == 204));
        assert_eq!(process.verify(&token).await.status, 204);
        process.log_in(&mina).await;
    }
    process.stop().await;
}

#[actix_web::test]
async fn a_refresh_survives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), &[]).await;
    let mina = Person::number(1);
    process.newcomer(&mina).await;
    let mut last = process.log_in(&mina).await;
    let (refreshed, takes) = timed(process.try_refresh(&last.refresh)).await;
    last = Pair::of(&refreshed);
    for (_, moment) in moments(takes) {
        let asked = process.post("/v1/sessions/refresh", &json!({ "refresh_token": last.refresh }));
        let (heard, lost_for) = timed(async {
            let heard = killed_after(&mut process, moment, asked).await;
            process = Process::start(folder.path(), &[]).await;
            heard
        })
        .await;
        if lost_for > Duration::from_secs(9) {
            // A machine that is this busy has used the grace up.
            last = process.log_in(&mina).await;
            continue;
        }
        let again = Pair::of(&process.try_refresh(&last.refresh).await);
        if let Some(heard) = heard {
            assert_eq!(Pair::of(&heard).refresh, again.refresh);
        }
        last = Pair::of(&process.try_refresh(&again.refresh).await);
    }
    process.as_of(&last, "GET", "/v1/users/me").send().await.ok(200);
    process.stop().await;
}

// --- races ----------------------------------------------------------------------------------------------------------------------

#[actix_web::test]
async fn of_those_who_sign_up_with_one_address_one_proves_it() {
    const RACERS: u32 = 3;
    let shop = Shop::open().await;
    let people: Vec<Person> =
        (0..RACERS).map(|n| Person { email: "wanted@example.com".to_owned(), ..Person::number(n) }).collect();
    for reply in join_all(people.iter().map(|person| shop.sign_up(person))).await {
        assert_eq!(reply.status, 202, "{}", reply.text);
    }
    shop.letter("wanted@example.com", RACERS as usize).await;
    let letters = shop.letters_to("wanted@example.com");
    let tokens: BTreeSet<String> = letters.iter().map(support::Letter::token).collect();
    assert_eq!(tokens.len(), RACERS as usize);
    let mut answers: Vec<u16> = join_all(tokens.iter().map(|token| shop.verify(token)))
        .await
        .iter()
        .map(|r| r.status.as_u16())
        .collect();
    answers.sort_unstable();
    assert_eq!(answers, [204, 410, 410]);
    let tries = join_all(people.iter().map(|person| shop.try_log_in(person))).await;
    assert_eq!(tries.iter().filter(|reply| reply.status == 201).count(), 1, "one owner");
    shop.close().await;
}

#[actix_web::test]
async fn a_link_that_is_followed_twice_at_once_counts_once() {
    let (shop, mina) = (Shop::open().await, Person::number(1));
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    let token = shop.letter(&mina.email, 1).await.token();
    for reply in join_all((0..8).map(|_| shop.verify(&token))).await {
        assert_eq!(reply.status, 204, "whoever comes second hears what the first one did: {}", reply.text);
    }
    can_log_in(&shop, &mina).await;
    let folder = shop.stop().await;
    assert_eq!(told_in_trail(folder.path(), "address_verified").await, 1);
}

#[actix_web::test]
async fn two_refreshes_at_once_get_one_successor_and_both_go_on() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let first = shop.log_in(&mina).await;
    let (a, b) = tokio::join!(shop.try_refresh(&first.refresh), shop.try_refresh(&first.refresh));
    let (a, b) = (Pair::of(&a), Pair::of(&b));
    assert_eq!(a.refresh, b.refresh);
    assert!(shop.admits(&a.access).await && shop.admits(&b.access).await);
    let (a, b) = tokio::join!(shop.try_refresh(&a.refresh), shop.try_refresh(&b.refresh));
    assert_eq!(Pair::of(&a).refresh, Pair::of(&b).refresh);
    shop.close().await;
}
