//! How fast the journal groups and the flush writes. Ignored by default; run alone and in release:
//! `cargo test --release --lib persistence::flush::bench -- --ignored --nocapture --test-threads 1`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;

use super::*;
use crate::clock::Clock;
use crate::domain::stock::{Entry, Epoch, Event, Held, Key};
use crate::persistence::journal::{Append, AppendTo, Appended};
use crate::persistence::testing::*;

/// Where the benches work; a memory file system would say nothing.
fn on_disk() -> tempfile::TempDir {
    match std::env::var_os("STOCKADE_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

/// Writes holds of one unit as fast as they can be made: no ledger, only entries that chain.
struct Crowd {
    product: crate::domain::id::ProductId,
    clock: Clock,
    next: u64,
    sequence: Sequence,
    hash: crate::domain::stock::ChainHash,
}

impl Crowd {
    fn at(owner: &mut Owner) -> Crowd {
        let hash = owner.ledger.hash();
        Crowd {
            product: owner.product,
            clock: Clock::start(),
            next: 0,
            sequence: owner.ledger.sequence(),
            hash,
        }
    }

    fn entry(&mut self, events: u64) -> Entry {
        let mut blob = Vec::new();
        let now = self.clock.now();
        for _ in 0..events {
            self.next += 1;
            let chance = self.clock.chance();
            let order = OrderId::for_home(now, chance, self.product);
            let key = Some(Key { key: *order.as_bytes(), body: self.next });
            let buyer = buyer(chance);
            let unit_price = settings().price;
            let deadline = now.plus(600_000);
            let quantity = units(1);
            Event::Held(Held { order, line: 0, buyer, quantity, unit_price, deadline, key, placing: None })
                .encode(&mut blob);
        }
        let range = (self.sequence.next(), Sequence(self.sequence.0 + events));
        let entry = Entry::seal(self.product, range, Epoch(1), now, self.hash, blob);
        (self.sequence, self.hash) = (entry.last, entry.hash);
        entry
    }
}

/// What this process has used, all threads together: the machine may be busy with something else.
fn cpu_ns() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64
}

fn per_second(count: u64, took_ns: u64) -> u64 {
    count * 1_000_000_000 / took_ns.max(1)
}

#[test]
#[ignore = "a bench"]
fn journal_groups() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (products, events) in [(1, 1), (1, 16), (1, 128), (1, 512), (8, 16), (64, 1), (64, 16)] {
        let dir = on_disk();
        let journal = runtime.block_on(open(&dir));
        let clock = Clock::start();
        let mut owners: Vec<_> =
            (0..products).map(|number| Owner::stocked(number + 1, 1_000_000_000)).collect();
        let mut crowds: Vec<_> = owners
            .iter_mut()
            .map(|owner| {
                assert_eq!(append(&journal, owner.seal(T0)), Appended::Written);
                Crowd::at(owner)
            })
            .collect();
        let stats = journal.stats();
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let before = (now(&stats.groups), now(&stats.events), now(&stats.write_ns));
        let began = clock.nanos();
        let mut times = Vec::with_capacity(100_000);
        while clock.nanos() - began < 4_000_000_000 {
            let entries = crowds.iter_mut().map(|crowd| crowd.entry(events)).collect();
            let at = clock.nanos();
            assert!(append_all(&journal, entries).iter().all(|outcome| *outcome == Appended::Written));
            times.push(clock.nanos() - at);
        }
        let took = clock.nanos() - began;
        let groups = now(&stats.groups) - before.0;
        let write = (now(&stats.write_ns) - before.2) / groups / 1_000;
        let checkpoints = now(&stats.checkpoints);
        let each = now(&stats.checkpoint_ns) / checkpoints.max(1) / 1_000;
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 1_000] / 1_000;
        println!(
            "{products:>3} products × {events:>3} events: {:>6} groups/s of {write} µs, {:>8} events/s; \
             answer µs p50 {} p99 {} p99.9 {} max {}; {checkpoints} checkpoints of {each} µs",
            per_second(groups, took),
            per_second(now(&stats.events) - before.1, took),
            at(500),
            at(990),
            at(999),
            at(1_000),
        );
        runtime.block_on(journal.close());
    }
}

#[test]
#[ignore = "a bench"]
fn flush_rates() {
    let orders: u64 =
        std::env::var("STOCKADE_BENCH_ORDERS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = on_disk();
        let journal = open(&dir).await;
        let tables = Tables::open(dir.path()).await.unwrap();
        let clock = Clock::start();
        let mut owner = Owner::stocked(1, 1_000_000_000);
        append(&journal, owner.seal(T0));
        let mut crowd = Crowd::at(&mut owner);
        for _ in 0..orders / 500 {
            let entry = crowd.entry(500);
            assert_eq!(append(&journal, entry), Appended::Written);
        }
        let mut flusher = Flusher::open(&journal, &tables).await.unwrap();
        println!("behind: {:?}", flusher.gauge().lag());
        let (mut done, mut window, mut began, mut cpu) = (0, 0, clock.nanos(), cpu_ns());
        let mut slowest = 0;
        loop {
            let at = clock.nanos();
            let flushed = flusher.run_slice().await.unwrap();
            slowest = slowest.max(clock.nanos() - at);
            if flushed.events == 0 {
                break;
            }
            (done, window) = (done + flushed.orders, window + flushed.orders);
            if window >= 100_000 {
                let took = clock.nanos() - began;
                println!(
                    "{done:>8} orders: {:>7} orders/s, {:>2} µs CPU an order, slowest slice {} ms",
                    per_second(window, took),
                    (cpu_ns() - cpu) / window / 1_000,
                    slowest / 1_000_000
                );
                (window, began, slowest, cpu) = (0, clock.nanos(), 0, cpu_ns());
            }
        }
        let (began, mut steps, mut slowest) = (clock.nanos(), 0, 0);
        loop {
            let at = clock.nanos();
            if !flusher.tidy(false).await.unwrap() {
                break;
            }
            (steps, slowest) = (steps + 1, slowest.max(clock.nanos() - at));
        }
        let took = (clock.nanos() - began) / 1_000_000;
        println!("tidied in {took} ms, {steps} steps, the slowest {} ms", slowest / 1_000_000);
        let began = clock.nanos();
        let keys: u64 = tables.orders().all_keys().try_fold(0, async |sum, _| Ok(sum + 1)).await.unwrap();
        println!("{keys} keys in {} ms", (clock.nanos() - began) / 1_000_000);
        let began = clock.nanos();
        let stored = journal.reader().load(owner.product).await.unwrap();
        println!("{} entries loaded in {} ms", stored.entries.len(), (clock.nanos() - began) / 1_000_000);
        journal.close().await;
        tables.close().await.unwrap();
        let report = crate::persistence::audit::audit(dir.path()).await.unwrap();
        println!("audit of {} orders: {} differences", report.orders, report.differences.len());
    });
}

/// What a closed loop of many owners sees: everybody submits again as soon as he is answered.
#[test]
#[ignore = "a bench"]
fn journal_closed_loop() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = on_disk();
    let journal = runtime.block_on(open(&dir));
    let mut owner = Owner::stocked(1, 1_000_000_000);
    append(&journal, owner.seal(T0));
    let answered = Arc::new(AtomicU64::new(0));
    for number in 0..32 {
        let owner = Owner::stocked(number + 2, 1_000_000_000);
        again(journal.clone(), owner, Arc::clone(&answered));
    }
    std::thread::sleep(Duration::from_secs(4));
    let stats = journal.stats();
    println!(
        "32 owners: {} answers/s in {} groups/s",
        answered.load(Ordering::Relaxed) / 4,
        stats.groups.load(Ordering::Relaxed) / 4
    );
    runtime.block_on(journal.close());
}

fn again(journal: crate::persistence::journal::Journal, mut owner: Owner, answered: Arc<AtomicU64>) {
    if owner.ledger.sequence().0.is_multiple_of(2) {
        owner.does(&crate::domain::stock::Command::Resume, T0);
    } else {
        owner.does(&crate::domain::stock::Command::Pause, T0);
    }
    let entry = owner.seal(T0);
    let to = journal.clone();
    let reply = Box::new(move |outcome| {
        if outcome == Appended::Written {
            answered.fetch_add(1, Ordering::Relaxed);
            again(to, owner, answered);
        }
    });
    let _ = journal.submit(Append { entry, reply });
}
