//! The token check as a door does it: header, signature or memory, times, revocations, role; no HTTP around it.
//!
//! What a thread remembers is cheap, what it sees for the first time costs a signature; and a log-out must not make
//! either dearer, however many there were. Exit code 3 if a request costs more than the door may spend on it;
//! what a first look at a token of EdDSA costs is told and not judged.
//!
//! `cargo bench -p stockade-bench --bench tokens`

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::test::TestRequest;
use actix_web::{FromRequest, HttpRequest, web};
use stockade::actors::revocations::Revocations;
use stockade::clock::Clock;
use stockade::config::JwtAlgorithm;
use stockade::domain::id::{SessionId, UserId};
use stockade::domain::user::Role;
use stockade::http::auth::Shopper;
use stockade::persistence::revocation::{Revocation, Subject};
use stockade::tokens::{LIFE_S_DEFAULT, Tokens};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LIMIT_NS: f64 = 5_000.0;
const REVOKED: u128 = 10_000;
/// The tokens of a rush, far more than a thread has places for, in turns: nearly every one is new to it.
const FRESH: u128 = 64 * 1024;
const CROWD: u128 = 10_000;
/// Requests between two looks at the clock.
const AT_ONCE: usize = 64;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(60);

fn main() -> ExitCode {
    let clock = Clock::start();
    let tokens = Tokens::new(b"a signing key for the bench, long enough", &[]).expect("a key");
    let (nobody, many) = (Revocations::default(), Revocations::default());
    revoke(&many, &clock);
    println!("{:<58} {:>10} {:>10}", "", "ns median", "ns worst");
    let mut all_met = true;
    for (who, people) in [
        ("one token, remembered", 1),
        ("10,000 tokens in turns, remembered as far as there is room", CROWD),
        ("65,536 tokens in turns, nearly all fresh", FRESH),
    ] {
        for (what, revocations) in [("", &nobody), ("  … and 10,000 sessions and users revoked", &many)] {
            let requests = requests(people, &tokens, revocations, &clock);
            let rounds = rounds(&requests);
            let (median, worst) = (rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
            let name = if what.is_empty() { who } else { what };
            println!("{name:<58} {median:>10.0} {worst:>10.0}");
            all_met &= median <= LIMIT_NS;
        }
    }
    // Without a limit: whoever chooses the other algorithm chooses this as well.
    let eddsa =
        Tokens::by(JwtAlgorithm::EdDsa, b"a signing key for the bench, long enough", &[]).expect("a key");
    let rounds = rounds(&requests(FRESH, &eddsa, &nobody, &clock));
    let name = "65,536 tokens of EdDSA in turns, nearly all fresh";
    println!("{name:<58} {:>10.0} {:>10.0}", rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
    let word = if all_met { "PASS" } else { "MISS" };
    println!("\n{word}  a token check costs at most {LIMIT_NS:.0} ns a request");
    if all_met { ExitCode::SUCCESS } else { ExitCode::from(3) }
}

/// Half of them sessions, half of them people; none of those who ask.
fn revoke(revocations: &Revocations, clock: &Clock) {
    let now = clock.now();
    for number in 0..REVOKED {
        let chance = clock.chance();
        let subject = match number % 2 {
            0 => Subject::Session(SessionId::new(now, chance)),
            _ => Subject::User(UserId::new(now, chance), now),
        };
        revocations.note(&Revocation { subject, until: now.plus(LIFE_S_DEFAULT * 1_000) });
    }
}

/// A request of each of so many people, with all that a door finds beside it; a few of them more than once where there
/// are few.
fn requests(people: u128, tokens: &Tokens, revocations: &Revocations, clock: &Clock) -> Vec<HttpRequest> {
    let now = clock.now();
    let sign = |number| {
        let user = UserId::new(now, number);
        tokens.sign(user, Role::Shopper, LIFE_S_DEFAULT, now, clock.chance()).expect("a token is signed")
    };
    let signed: Vec<String> = (0..people).map(sign).collect();
    let request = |token: &String| {
        TestRequest::default()
            .insert_header((AUTHORIZATION, format!("Bearer {token}")))
            .app_data(web::Data::new(tokens.clone()))
            .app_data(web::Data::new(revocations.clone()))
            .app_data(web::Data::new(clock.clone()))
            .to_http_request()
    };
    signed.iter().cycle().take(signed.len().max(AT_ONCE)).map(request).collect()
}

/// Nanoseconds a request, the quickest round first.
fn rounds(requests: &[HttpRequest]) -> Vec<f64> {
    let mut turns = requests.chunks(AT_ONCE).cycle();
    for batch in turns.by_ref().take(requests.len().div_ceil(AT_ONCE)) {
        check(batch);
    }
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (mut took, mut checked) = (Duration::ZERO, 0);
            while took < ROUND {
                let batch = turns.next().unwrap_or_default();
                batch.iter().for_each(read_headers);
                let began = Instant::now();
                check(batch);
                took += began.elapsed();
                checked += batch.len();
            }
            took.as_nanos() as f64 / checked as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds
}

fn check(batch: &[HttpRequest]) {
    for request in batch {
        let shopper = Shopper::from_request(black_box(request), &mut Payload::None).into_inner();
        assert!(black_box(shopper).is_ok());
    }
}

/// As somebody has done who has just parsed the request: what is measured is the check, not the memory it waited in.
fn read_headers(request: &HttpRequest) {
    let bytes = request.headers().iter().flat_map(|(_, value)| value.as_bytes());
    black_box(bytes.fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
}
