//! A loop that others cannot do without: it outlives a panic in one of its turns, and not whoever keeps it.
//!
//! Whoever waited for that turn hears what a lost answer means to him: nobody knows. What it had begun stands in rows and in the journal,
//! and is found there by the next one.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use actix_web::rt;
use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// A loop, which ends with whoever keeps this.
pub struct Loop(JoinHandle<()>);

impl Loop {
    pub fn start(work: impl Future<Output = ()> + 'static) -> Loop {
        Loop(rt::spawn(work))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What one turn comes to; `None`: it has panicked, which the log tells of `whose`.
pub async fn turn<T>(whose: &'static str, turn: impl Future<Output = T>) -> Option<T> {
    let turned = AssertUnwindSafe(turn).catch_unwind().await.ok();
    if turned.is_none() {
        tracing::error!(
            "{whose} panicked, and goes on with the next turn: report it, with what was said before"
        );
    }
    turned
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[actix_web::test]
    async fn a_loop_ends_with_whoever_keeps_it() {
        let (held, ended) = oneshot::channel::<()>();
        let kept = Loop::start(async move {
            let _held = held;
            std::future::pending().await
        });
        drop(kept);
        assert!(ended.await.is_err());
    }

    #[tokio::test]
    async fn a_turn_that_panics_is_nothing_and_no_end() {
        let mut said = Vec::new();
        for number in 0..3 {
            said.push(turn("a test", async { assert_ne!(number, 1) }).await);
        }
        assert_eq!(said, [Some(()), None, Some(())]);
    }
}
