//! A process is killed while it does something.

use std::time::Duration;

use stockade::clock::Clock;

use super::{Ask, Process, Reply};

/// Kills for each kind of request.
const KILLS: u32 = 6;

/// How long it takes, by trying.
pub async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let clock = Clock::start();
    let began = clock.nanos();
    let done = work.await;
    (done, Duration::from_nanos(clock.nanos() - began))
}

/// Sends a request and kills the process after a while; what was heard of it.
pub async fn killed_after(process: &mut Process, while_: Duration, ask: Ask) -> Option<Reply> {
    // Over a connection that stands: a port that is free again may belong to another test's process by then.
    assert_eq!(process.ask("GET", "/livez").send().await.status, 200);
    let request = actix_web::rt::spawn(ask.try_send());
    tokio::time::sleep(while_).await;
    process.kill();
    request.await.unwrap()
}

/// The moments at which it is killed, from at once to a little after the answer.
pub fn moments(takes: Duration) -> impl Iterator<Item = (u32, Duration)> {
    (0..KILLS).map(move |n| (n, takes * n * 5 / (4 * (KILLS - 1))))
}
