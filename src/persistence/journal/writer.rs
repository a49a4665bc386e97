//! The journal's one writer: a thread of its own, one group at a time, every answer in order.
//!
//! A group is one write and one sync in the log, or one transaction in a database. Nothing definite is ever guessed: an entry is
//! *written* when the sync or the commit has returned, *not written* when no byte of it went out; anything else is doubt. Doubt
//! about a disk ends this opening; a database is asked until it says what it has.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::heads::Heads;
use super::inbox::Next;
use super::log::LogError;
use super::stats::Volume;
use super::{Append, Appended, Health, NotWritten, Shared};
use crate::clock::Clock;
use crate::domain::id::ProductId;
use crate::domain::stock::{Entry, Sequence};
use crate::persistence::StoreError;

/// The shortest and the longest rest after a group in which several had come together.
const REST_MIN: Duration = Duration::from_micros(500);
const REST_MAX: Duration = Duration::from_millis(1);
/// So many are several: somebody who buys alone is not kept waiting for a crowd, and a crowd has gathered already.
const REST_EVENTS: std::ops::Range<u64> = 4..256;
/// How much more the writer weighs than others: all buyers wait for it, and it hardly works. Under full cores it
/// is worth half as many groups again.
const NICE: i32 = -10;
/// From here on the writer waits for the archive; where it refuses is the journal's to say.
const TAIL_BYTES_SOFT: usize = 64 * 1024 * 1024;
const TAIL_REST: Duration = Duration::from_millis(20);

/// How often the writer looks around while nobody comes.
const IDLE: Duration = Duration::from_secs(3_600);
/// How often a database that was lost is asked whether it is there again.
const SETTLE_EVERY: Duration = Duration::from_millis(200);

/// Where groups are put down, and where histories are looked up that this opening has not written.
pub trait PutDown: Send + 'static {
    /// The place of the newest entry.
    fn last_pos(&self) -> i64;
    /// Where the histories of those products end that have one.
    fn heads(&mut self, products: &[ProductId]) -> Result<Vec<(ProductId, Sequence)>, StoreError>;
    /// Puts the entries down together, behind all others, and waits until nothing can undo that; says the place of the first.
    fn append<'e>(
        &mut self,
        entries: impl ExactSizeIterator<Item = &'e Entry> + Clone,
    ) -> Result<i64, LogError>;
    /// Whether it takes groups again that it did not take for a while, and what became of the last is known.
    fn settle(&mut self) -> Settled;
    /// So many bytes are kept in memory for those who read.
    fn tail_has(&mut self, shared: &Shared, bytes: usize);
    /// Nothing more comes.
    fn close(&mut self);
}

/// How it stands with what was not taken for a while.
pub enum Settled {
    Yes,
    NotYet,
    /// What it had said yes to is not there any more.
    Forgotten,
    /// Somebody else finds out.
    NotMine,
}

/// Starts the thread; it ends with the inbox, and then lets the archive end.
pub fn start<P: PutDown>(place: P, heads: Heads, shared: Arc<Shared>, clock: Clock) -> std::io::Result<()> {
    let mut writer = Writer { place, heads, shared, clock };
    let work = move || {
        // Most systems permit this only to an administrator; without it the journal competes like everybody.
        let _ = rustix::process::nice(NICE);
        writer.work();
    };
    std::thread::Builder::new().name("stockade-journal".to_owned()).spawn(work)?;
    Ok(())
}

struct Writer<P: PutDown> {
    place: P,
    heads: Heads,
    shared: Arc<Shared>,
    clock: Clock,
}

impl<P: PutDown> Writer<P> {
    fn work(&mut self) {
        loop {
            let away = matches!(self.shared.health(), Health::Refusing { .. });
            match self.shared.inbox.next(if away { SETTLE_EVERY } else { IDLE }) {
                Next::Group(group) => {
                    let events = Volume::of(group.iter().map(|append| &append.entry)).events;
                    self.group(group);
                    self.pace(events);
                }
                Next::Nothing => {}
                Next::End => return,
            }
            if away {
                self.settle();
            }
        }
    }

    fn settle(&mut self) {
        match self.place.settle() {
            Settled::Yes => {
                self.shared.settled(self.place.last_pos());
                self.heads.forget();
                self.shared.accept();
            }
            Settled::Forgotten => self.shared.fence(&LogError::Forgotten.to_string()),
            Settled::NotYet | Settled::NotMine => {}
        }
    }

    fn continued_by(&mut self, group: &[Append]) -> Result<Vec<bool>, StoreError> {
        let unknown = self.heads.unknown(group);
        if !unknown.is_empty() {
            let written = self.heads.in_tail(&unknown);
            let found = self.place.heads(&unknown)?;
            self.heads.learn(group, &unknown, found.into_iter().chain(written));
        }
        Ok(self.heads.continued_by(group))
    }

    /// Writes one group and answers everyone in it.
    fn group(&mut self, group: Vec<Append>) {
        if let Err(why) = self.may_write() {
            return answer(group, Appended::NotWritten(why));
        }
        self.asks(self.clock.nanos());
        let fits = self.continued_by(&group);
        self.is_answered();
        let fits = match fits {
            Ok(fits) => fits,
            Err(error @ StoreError::InDoubt) => {
                self.shared.refuse(NotWritten::Away, &error.to_string());
                return answer(group, Appended::NotWritten(NotWritten::Away));
            }
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be read: a group was not written");
                return answer(group, Appended::NotWritten(NotWritten::Closed));
            }
        };
        if fits.iter().all(|fits| *fits) {
            return self.write(group);
        }
        // A gap or a fork is one product's fault: the others are written without it, and all answers keep their order.
        for (append, fits) in group.into_iter().zip(fits) {
            if let Err(why) = self.may_write() {
                answer(vec![append], Appended::NotWritten(why));
            } else if fits {
                self.write(vec![append]);
            } else {
                tracing::error!(product = %append.entry.product, first = append.entry.first.0, "an entry does not continue its product's history");
                self.shared.stats.not_written.fetch_add(1, Ordering::Relaxed);
                // Whatever was remembered of it, it is looked up before it is tried again.
                self.heads.doubt(append.entry.product);
                answer(vec![append], Appended::NotWritten(NotWritten::Failed));
            }
        }
    }

    /// Doors look whether it takes too long.
    fn asks(&self, now_ns: u64) {
        self.shared.unanswered_ns.store(now_ns.max(1), Ordering::Release);
    }

    fn is_answered(&self) {
        self.shared.unanswered_ns.store(0, Ordering::Release);
    }

    fn may_write(&self) -> Result<(), NotWritten> {
        match self.shared.health() {
            Health::Healthy if self.shared.tail.bytes() >= self.shared.tail_bytes_max => {
                // Everybody is to know, or each owner would decide, hear no and read its ledger again. The archive ends it.
                self.shared.refuse(NotWritten::Behind, "the archive does not follow");
                Err(NotWritten::Behind)
            }
            Health::Healthy => Ok(()),
            Health::Refusing { why } => Err(why),
            Health::Fenced => Err(NotWritten::Fenced),
        }
    }

    fn write(&mut self, group: Vec<Append>) {
        let began = self.clock.nanos();
        self.asks(began);
        let put_down = self.place.append(group.iter().map(|append| &append.entry));
        // Before anybody hears of it: he may come back at once.
        self.is_answered();
        match put_down {
            Ok(first_pos) => {
                let took_ns = self.clock.nanos().saturating_sub(began);
                self.written(first_pos, group, took_ns);
            }
            Err(error) => {
                let outcome = self.trouble(error);
                group.iter().for_each(|append| self.heads.doubt(append.entry.product));
                answer(group, outcome);
            }
        }
    }

    /// It is on the disk: whoever reads sees it, then the journal ends there, and then everyone hears.
    fn written(&mut self, first_pos: i64, group: Vec<Append>, took_ns: u64) {
        let (entries, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|a| (a.entry, a.reply)).unzip();
        let volume = Volume::of(entries.iter());
        entries.iter().for_each(|entry| self.heads.written(entry));
        let bytes = self.shared.tail.push(first_pos, entries.into_iter());
        self.shared.stats.written(volume, self.place.last_pos(), took_ns);
        replies.into_iter().for_each(|reply| reply(Appended::Written));
        self.place.tail_has(&self.shared, bytes);
    }

    fn trouble(&self, error: LogError) -> Appended {
        let why = match &error {
            LogError::NoFile(error) => NotWritten::without_file(error),
            LogError::NoRoom(_) => NotWritten::DiskFull,
            LogError::ReadOnly(_) => NotWritten::ReadOnly,
            LogError::TooBig { .. } | LogError::Refused(_) => NotWritten::Failed,
            LogError::Sealed | LogError::Forgotten => NotWritten::Fenced,
            LogError::Away(_) => NotWritten::Away,
            LogError::InDoubt(_) => {
                self.shared.stats.unknown.fetch_add(1, Ordering::Relaxed);
                self.shared.wonder(&error.to_string());
                return Appended::Unknown;
            }
            LogError::Unsure(_) => {
                self.shared.stats.unknown.fetch_add(1, Ordering::Relaxed);
                self.shared.doubt(&error.to_string());
                return Appended::Unknown;
            }
        };
        self.shared.stats.not_written.fetch_add(1, Ordering::Relaxed);
        match why {
            NotWritten::Fenced => self.shared.fence(&error.to_string()),
            NotWritten::Failed => tracing::error!(%error, "the journal refused a group"),
            _ => self.shared.refuse(why, &error.to_string()),
        }
        Appended::NotWritten(why)
    }

    /// Rests as long as the group took, so that more come together for the next: a sync costs about the same for ten
    /// orders as for a hundred, and whoever comes during the rest need not wake this thread. Longer when the brake says so,
    /// or the archive is behind.
    fn pace(&self, events: u64) {
        let brake = Duration::from_micros(self.shared.brake_us.load(Ordering::Relaxed));
        let took = Duration::from_nanos(self.shared.stats.last_write_ns.load(Ordering::Relaxed));
        let gather =
            if REST_EVENTS.contains(&events) { took.clamp(REST_MIN, REST_MAX) } else { Duration::ZERO };
        let wait = if self.shared.tail.bytes() < TAIL_BYTES_SOFT { Duration::ZERO } else { TAIL_REST };
        let rest = brake.max(gather).max(wait);
        if !rest.is_zero() {
            std::thread::sleep(rest);
        }
    }
}

impl<P: PutDown> Drop for Writer<P> {
    /// Nothing more comes into the tail: the archive puts away what is there, and ends. A panic on this thread leaves
    /// nobody who knows: then the opening is over.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.inbox.close();
            self.shared.doubt("the journal's writer panicked");
            // What was not taken yet was never tried.
            while let Next::Group(group) = self.shared.inbox.next(Duration::ZERO) {
                answer(group, Appended::NotWritten(NotWritten::Fenced));
            }
        }
        self.place.close();
        self.shared.archive.finish();
    }
}

fn answer(group: Vec<Append>, outcome: Appended) {
    for Append { reply, .. } in group {
        reply(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::persistence::journal::{GROUP_ENTRIES_MAX, TAIL_BYTES_MAX};
    use crate::persistence::testing::{Owner, T0};

    /// Dies of the first group.
    struct Dying;

    impl PutDown for Dying {
        fn last_pos(&self) -> i64 {
            0
        }

        fn heads(&mut self, _: &[ProductId]) -> Result<Vec<(ProductId, Sequence)>, StoreError> {
            Ok(Vec::new())
        }

        fn append<'e>(
            &mut self,
            _: impl ExactSizeIterator<Item = &'e Entry> + Clone,
        ) -> Result<i64, LogError> {
            panic!("as the test wants it")
        }

        fn settle(&mut self) -> Settled {
            Settled::NotMine
        }

        fn tail_has(&mut self, _: &Shared, _: usize) {}

        fn close(&mut self) {}
    }

    #[test]
    fn whoever_still_waits_when_it_dies_hears_that_nothing_was_tried() {
        let shared = Shared::new(2 * GROUP_ENTRIES_MAX, TAIL_BYTES_MAX, &Arc::default(), None);
        let (answer, answers) = mpsc::channel();
        for number in (1..).take(GROUP_ENTRIES_MAX + 1) {
            let answer = answer.clone();
            let reply = Box::new(move |outcome| answer.send(outcome).unwrap());
            let append = Append { entry: Owner::stocked(number, 10).seal(T0), reply };
            assert!(shared.inbox.put(append).is_ok());
        }
        start(Dying, Heads::new(shared.tail.clone()), shared.clone(), Clock::start()).unwrap();
        let heard = answers.recv_timeout(Duration::from_secs(10));
        assert_eq!(heard, Ok(Appended::NotWritten(NotWritten::Fenced)));
        assert_eq!(shared.health(), Health::Fenced);
        drop(answer);
        assert_eq!(answers.iter().count(), 0, "of the group that it died of nobody knows");
    }
}
