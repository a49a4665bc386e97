//! Owners that write into one journal in files, which is closed and opened again.

use std::collections::BTreeMap;
use std::path::Path;

use stockade::clock::Clock;
use stockade::domain::id::ProductId;
use stockade::domain::stock::{ChainHash, Entry, Event, Millis, Sequence};
use stockade::persistence::journal::{Append, AppendTo, Appended, Journal, JournalConfig, NotWritten};
use stockade_sim::chance::Chance;
use stockade_sim::journal::{Flaw, Journal as Model, Submission};
use stockade_sim::story::Chapter;
use tempfile::TempDir;
use tokio::sync::oneshot;

const STEPS: usize = 150;
const SEEDS: u64 = 4;
const HUNT_SEEDS: u64 = 8;
const PRODUCTS: usize = 3;
/// The most entries that are handed over before anybody waits for an answer.
const AT_ONCE: i64 = 3;
/// Of a snapshot that is put down in several parts.
const LONG: usize = 300 * 1024;

struct Play {
    chance: Chance,
    model: Model,
    dir: TempDir,
    journal: Journal,
}

async fn open(dir: &Path) -> Journal {
    Journal::open(JournalConfig::new(dir, Clock::start())).await.unwrap()
}

fn chapter(number: usize) -> Chapter {
    Chapter {
        product: ProductId::new(Millis(1), number as u128 + 1),
        entries: Vec::new(),
        events: Vec::new(),
        facts: Vec::new(),
        snapshots: Vec::new(),
    }
}

/// As good as a ledger's: nobody reads it here.
fn body(at: Sequence) -> Vec<u8> {
    vec![at.0 as u8; if at.0.is_multiple_of(5) { LONG } else { 20 }]
}

impl Play {
    async fn new(seed: u64, flaw: Option<Flaw>) -> Play {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path()).await;
        let mut model = Model::new((0..PRODUCTS).map(chapter).collect(), flaw);
        model.open();
        Play { chance: Chance::new(seed, 79), model, dir, journal }
    }

    /// Plays it to the end, or to the first answer that differs.
    async fn run(mut self) -> Result<usize, String> {
        let mut answers = 0;
        let mut outcome = Ok(());
        for step in 0..STEPS {
            outcome = match self.chance.below(100) {
                0..60 => self.append(&mut answers).await,
                60..72 => self.save_snapshot().await,
                72..95 => self.look().await,
                _ => self.open_again().await,
            };
            outcome = outcome.map_err(|what| format!("step {step}: {what}"));
            if outcome.is_err() {
                break;
            }
        }
        self.journal.close().await;
        outcome.map(|()| answers)
    }

    fn product(&self, number: usize) -> ProductId {
        self.model.chapters[number].product
    }

    /// An entry that continues a history, or leaves a gap, or stands there already.
    fn entry(&mut self, product: usize) -> Entry {
        let (end, hash): (Sequence, ChainHash) = self.model.head(product);
        let first = match self.chance.below(100) {
            0..8 => Sequence(end.0 + 2),
            8..16 => Sequence(end.0.max(1)),
            _ => end.next(),
        };
        let count = self.chance.between(1, 4) as u64;
        let mut events = Vec::new();
        for number in 0..count {
            let event = if number.is_multiple_of(2) { Event::Paused } else { Event::Resumed };
            event.encode(&mut events);
        }
        let range = (first, Sequence(first.0 + count - 1));
        Entry::seal(self.product(product), range, self.model.epoch, Millis(1), hash, events)
    }

    async fn append(&mut self, answers: &mut usize) -> Result<(), String> {
        let mut sent = Vec::new();
        for _ in 0..self.chance.between(1, AT_ONCE) {
            let product = self.chance.index(PRODUCTS);
            let entry = self.entry(product);
            let what = format!("product {product}, #{}..=#{}", entry.first.0, entry.last.0);
            let group = Submission { product, owner: 0, entry: entry.clone(), facts: Vec::new() };
            let expected = match self.model.install(group, 0) {
                Ok(()) => Appended::Written,
                Err(_) => Appended::NotWritten(NotWritten::Failed),
            };
            let (reply, outcome) = oneshot::channel();
            let reply = Box::new(move |appended: Appended| {
                let _ = reply.send(appended);
            });
            assert!(self.journal.submit(Append { entry, reply }).is_ok(), "{what}: nobody takes it");
            sent.push((what, expected, outcome));
        }
        for (what, expected, outcome) in sent {
            *answers += 1;
            let found = outcome.await.unwrap();
            if found != expected {
                return Err(format!("{what}: the model says {expected:?}, the journal {found:?}"));
            }
        }
        Ok(())
    }

    /// Of what stands there now, or of what stood there once.
    async fn save_snapshot(&mut self) -> Result<(), String> {
        let product = self.chance.index(PRODUCTS);
        let entries = self.model.chapters[product].entries.len();
        let at = if self.chance.percent(60) { entries.saturating_sub(1) } else { self.chance.index(entries) };
        let Some(sequence) = self.model.chapters[product].entries.get(at).map(|entry| entry.last) else {
            return Ok(());
        };
        let told = self.model.keep_snapshot(product, sequence, body(sequence)).is_ok();
        let found = self.journal.save_snapshot(self.product(product), sequence, body(sequence)).await;
        if told != found.is_ok() {
            return Err(format!("a snapshot at #{}: {told}, and {found:?}", sequence.0));
        }
        Ok(())
    }

    /// What an owner begins with, what has happened, and where histories end.
    async fn look(&mut self) -> Result<(), String> {
        let reader = self.journal.reader();
        for number in 0..PRODUCTS {
            let product = self.product(number);
            let snapshot = self.model.snapshots[number].as_ref();
            let after = snapshot.map_or(Sequence(0), |(sequence, _)| *sequence);
            let found = reader.load(product).await.unwrap();
            if found.snapshot.as_ref() != snapshot.map(|(_, body)| body) {
                return Err(format!("product {number}: another snapshot than that of #{}", after.0));
            }
            let firsts = |entries: &[Entry]| entries.iter().map(|entry| entry.first.0).collect::<Vec<_>>();
            let (tail, history) = (self.model.tail(number, after), &self.model.chapters[number].entries[..]);
            for (told, found) in [(tail, found.entries), (history, reader.history(product).await.unwrap())] {
                if told != found {
                    let (told, found) = (firsts(told), firsts(&found));
                    return Err(format!("product {number}: {told:?} in the model, {found:?} in the journal"));
                }
            }
        }
        let ends = (0..PRODUCTS).map(|number| (self.product(number), self.model.head(number).0));
        let ends: BTreeMap<_, _> = ends.filter(|(_, end)| *end > Sequence(0)).collect();
        let found = reader.heads().await.unwrap();
        if found != ends {
            return Err(format!("histories end at {ends:?} in the model, at {found:?} in the journal"));
        }
        Ok(())
    }

    async fn open_again(&mut self) -> Result<(), String> {
        self.journal.close().await;
        self.journal = open(self.dir.path()).await;
        self.model.open();
        let (told, found) = (self.model.epoch, self.journal.epoch());
        if told != found {
            return Err(format!("opened as {} in the model, and as {}", told.0, found.0));
        }
        self.look().await
    }
}

#[tokio::test]
async fn the_model_of_the_journal_answers_as_the_one_in_files() {
    let mut answers = 0;
    for seed in 1..=SEEDS {
        match Play::new(seed, None).await.run().await {
            Ok(met) => answers += met,
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    assert!(answers > 200, "{answers} answers compared");
    for flaw in Flaw::ALL {
        let mut seen = None;
        for seed in 1..=HUNT_SEEDS {
            if let Err(what) = Play::new(seed, Some(flaw)).await.run().await {
                seen = Some(what);
                break;
            }
        }
        assert!(seen.is_some(), "{flaw:?} is not noticed");
    }
}
