//! How a shop ends: in order, handed over to another node, or left where it stands because nobody knows what the journal holds,
//! or nobody brings the tables up to date.
//!
//! Always true: what was acknowledged is in the journal before anybody else may open it, and nobody is waited for without end.

use std::future::Future;
use std::time::Duration;

use actix_web::rt;

use super::{App, Ended, LEAVE_AFTER};
use crate::http::health::NotReady;

/// How long each of those who work is waited for once the journal or the flush is lost.
const ABANDON_WITHIN: Duration = Duration::from_secs(3);

impl App {
    /// Ends in order; nothing that was promised is left undone.
    pub async fn stop(self) {
        tracing::info!("stopping: not ready, finishing what is in flight");
        self.readiness.raise(NotReady::ShuttingDown);
        // A database that is away tells nobody, and is not waited for.
        let heard_after = match rt::time::timeout(LEAVE_AFTER, self.store.journal.leaving()).await {
            Ok(Ok(heard_after)) => heard_after,
            _ => Duration::ZERO,
        };
        rt::time::sleep(LEAVE_AFTER.max(heard_after)).await;
        if self.store.is_shared() {
            return self.hand_over().await;
        }
        self.serving.pause().await;
        self.streams.end();
        // What is walked ends while its owners are still there; the rest is taken up at the next start.
        self.cast.scheduler.stop().await;
        drop(self.recovery);
        self.cast.payments.finish().await;
        // Owners live on the servers' threads: they rest before those end.
        self.cast.directory.drain().await;
        self.serving.stop().await;
        if let Some(mirror) = &self.cast.mirror {
            mirror.stop().await;
        }
        tokio::join!(self.cast.notices.stop(), self.cast.outbox.stop(), self.cast.webhooks.stop());
        self.cast.flush.stop().await;
        if self.store.close().await {
            tracing::info!("stopped; everything acknowledged is on disk, and the tables show it");
        } else {
            tracing::warn!("stopped; what the tables have on the disk is looked at first by the next start");
        }
    }

    /// The same where another node follows: what can end while callers are still answered ends first, so that they wait only for what
    /// cannot, at the front of a node.
    async fn hand_over(self) {
        if let Some(placement) = &self.placement {
            placement.stop().await;
        }
        self.cast.scheduler.stop().await;
        drop(self.recovery);
        tokio::join!(self.cast.notices.stop(), self.cast.outbox.stop(), self.cast.webhooks.stop());
        let began = self.clock.nanos();
        self.serving.pause().await;
        self.streams.end();
        self.cast.payments.finish().await;
        self.cast.directory.drain().await;
        if let Some(owning) = &self.owning {
            owning.close_desk();
        }
        self.cast.flush.stop().await;
        let clock = self.clock.clone();
        self.store.close().await;
        let ms = clock.nanos().saturating_sub(began) / 1_000_000;
        tracing::info!(ms, "stopped; everything acknowledged is in the database, and another node may go on");
        // What it still writes there is older than what the next one does, and loses.
        if let Some(mirror) = &self.cast.mirror {
            mirror.stop().await;
        }
    }

    /// Nobody knows what the last write came to: nothing more is written, everybody who waits hears *unknown*. Where it is the flush or the
    /// tables that are lost the journal still writes what was decided, and says so.
    pub(super) async fn abandon(self, why: Ended) {
        if why == Ended::FlushLost {
            tracing::error!(
                "nobody brings the tables up to date any more. Opening everything again now; if this comes again, report it"
            );
            self.readiness.raise(NotReady::FlushBehind);
        } else if why == Ended::TablesLost {
            tracing::error!(
                data_dir = %self.store.dir().display(),
                "the disk failed while the tables were written, and nobody knows whether all of them is on it. Those who wait hear \
                 outcome_unknown. Writing back what they show and reading everything again now; if this comes again, look at the disk",
            );
        } else if self.store.is_shared() {
            tracing::error!(
                "this node writes nothing more: another has taken over. Those who wait ask there; this one stands by now"
            );
        } else {
            tracing::error!(
                data_dir = %self.store.dir().display(),
                "the disk failed while the journal was written, and nobody knows whether the last group is on it. Those who wait \
                 hear outcome_unknown. Reading everything back from the disk now; if this comes again, look at the disk",
            );
        }
        if why != Ended::FlushLost {
            self.readiness.raise(NotReady::JournalUnavailable);
        }
        self.serving.shut();
        self.streams.end();
        if let Some(mirror) = &self.cast.mirror {
            left_after("the mirror", mirror.stop()).await;
        }
        left_after("jobs", self.cast.scheduler.abandon()).await;
        drop(self.recovery);
        self.cast.payments.abandon();
        drop(self.placement);
        if let Some(owning) = &self.owning {
            owning.close_desk();
        }
        left_after("owners", self.cast.directory.drain()).await;
        left_after("requests", self.serving.stop()).await;
        let telling = async {
            tokio::join!(self.cast.notices.stop(), self.cast.outbox.stop(), self.cast.webhooks.stop())
        };
        left_after("letters and webhooks", telling).await;
        left_after("the flush", self.cast.flush.abandon()).await;
        left_after("the tables and the journal", self.store.abandon()).await;
    }
}

/// Whoever waits for what cannot be written any more is not waited for: the shop opens again, here or elsewhere, when this has ended.
async fn left_after<T>(who: &str, ending: impl Future<Output = T>) {
    if tokio::time::timeout(ABANDON_WITHIN, ending).await.is_err() {
        tracing::warn!("{who} did not end in time, and are left where they are");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::actors::stock::testing::{one_for, product, settings, until};
    use crate::actors::stock::{Answer, NotDone};
    use crate::clock::Clock;
    use crate::config::Config;
    use crate::domain::stock::{ChainHash, Command, Entry, Millis, Sequence};
    use crate::http::health::Degraded;
    use crate::persistence::audit::audit;
    use crate::persistence::journal::{Appended, Journal, JournalConfig};
    use crate::persistence::testing::append;

    /// Long enough for one slice on a busy machine.
    const SOON: Duration = Duration::from_secs(20);

    #[actix_web::test]
    async fn without_a_flush_no_hold_is_taken_until_the_shop_has_been_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::development(dir.path());
        let app = App::build(&config).await.unwrap();
        let (owners, readiness) = (app.directory().clone(), app.readiness.clone());
        let create = Command::Create { settings: settings(), stock: 10 };
        assert!(matches!(owners.ask(product(1), create).await, Ok(Answer::Done { .. })));
        let first = owners.reserve(product(1), one_for(1, product(1), true), None).await;
        assert!(matches!(first, Ok(Answer::Reserved(_))), "{first:?}");

        app.cast.flush.dies();
        until("it dies", || owners.house().lagging.load(Ordering::Relaxed)).await;
        let refused = owners.reserve(product(1), one_for(2, product(1), true), None).await;
        assert!(matches!(refused, Err(NotDone::Busy { .. })), "{refused:?}");
        until("it is told", || readiness.reasons().contains(&NotReady::FlushBehind)).await;
        let ended = app.run_until(std::future::pending(), || panic!("another one follows")).await;
        assert_eq!(ended, Ended::FlushLost);

        let app = App::build(&config).await.unwrap();
        let owners = app.directory();
        let again = owners.reserve(product(1), one_for(1, product(1), true), None).await;
        assert!(matches!(again, Ok(Answer::Replayed(_))), "{again:?}");
        let second = owners.reserve(product(1), one_for(2, product(1), true), None).await;
        assert!(matches!(second, Ok(Answer::Reserved(_))), "{second:?}");
        assert!(app.cast.flush.caught_up(SOON).await);
        assert_eq!(app.readiness.reasons(), []);
        app.stop().await;
    }

    /// What is done about it is a person's: a newer version, or whoever mends it.
    #[actix_web::test]
    async fn an_entry_that_cannot_be_read_is_told_for_as_long_as_the_tables_stand_still_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::development(dir.path());
        App::build(&config).await.unwrap().stop().await;
        let journal = Journal::open(JournalConfig::new(dir.path(), Clock::start())).await.unwrap();
        let only = (Sequence(1), Sequence(1));
        // No kind has that number.
        let events = vec![200, 1];
        let entry = Entry::seal(product(7), only, journal.epoch(), Millis(1), ChainHash::default(), events);
        assert_eq!(append(&journal, entry), Appended::Written);
        journal.close().await;

        let app = App::build(&config).await.unwrap();
        let (owners, readiness) = (app.directory().clone(), app.readiness.clone());
        until("it is told", || readiness.degraded() == [Degraded::TablesHalted]).await;
        let create = Command::Create { settings: settings(), stock: 10 };
        assert!(matches!(owners.ask(product(1), create).await, Ok(Answer::Done { .. })));
        let held = owners.reserve(product(1), one_for(1, product(1), true), None).await;
        assert!(matches!(held, Ok(Answer::Reserved(_))), "{held:?}");
        assert!(!app.cast.flush.caught_up(Duration::from_millis(500)).await);
        assert_eq!(readiness.reasons(), [], "others are sold");
        app.stop().await;
        let found = audit(dir.path()).await.unwrap().differences;
        let named = product(7).to_string();
        assert!(found.iter().any(|difference| difference.contains(&named)), "{found:?}");
    }
}
