//! Threads that work beside the order path: each has a runtime of its own, so that nobody who buys waits for what it does.

use std::future::Future;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tracing::error;

/// Names that are looked up, and files that are read, at once.
const BLOCKING_MAX: usize = 128;

/// A thread that is yet to begin.
pub struct Background {
    /// What the system calls it: 15 letters are seen.
    pub name: &'static str,
    /// How much less important than the order path it is, in steps of the scheduler. An unprivileged process may always become less
    /// important.
    pub nice: i32,
    /// What is not done if it cannot begin.
    pub lost: &'static str,
}

/// Says `true`, or is left alone, when the thread has ended.
pub type Ended = watch::Receiver<bool>;

impl Background {
    /// Begins. What `work` leaves behind on its runtime is not waited for when it ends: a name server may take its time.
    pub fn begin<F>(self, work: impl FnOnce() -> F + Send + 'static) -> std::io::Result<Ended>
    where
        F: Future<Output = ()>,
    {
        let (end, ended) = watch::channel(false);
        let Background { name, nice, lost } = self;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if nice > 0 {
                let _ = rustix::process::nice(nice);
            }
            match Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_MAX).build() {
                Ok(runtime) => {
                    runtime.block_on(work());
                    runtime.shutdown_background();
                }
                Err(error) => error!(%error, "{name} has no runtime: {lost}"),
            }
            end.send_replace(true);
        })?;
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_end_is_heard_and_so_is_its_death() {
        let begin = |dies: bool| {
            let background = Background { name: "stockade-test", nice: 0, lost: "nothing is tested" };
            background.begin(move || async move { assert!(!dies, "as the test wants it") }).unwrap()
        };
        assert!(begin(false).wait_for(|ended| *ended).await.is_ok());
        assert!(begin(true).wait_for(|ended| *ended).await.is_err());
    }
}
