//! What a payment costs at its rows. Ignored by default; run alone and in release:
//! `cargo test --release --lib persistence::money::bench -- --ignored --nocapture --test-threads 1`.

use super::*;
use crate::clock::Clock;
use crate::domain::amount::{Currency, Money};
use crate::domain::id::OrderId;
use crate::domain::payment::{Method, PaymentState};
use crate::domain::stock::{Attempt, KeyUse};
use crate::persistence::Tables;
use crate::persistence::testing::{buyer, product};

/// A memory file system would say nothing.
fn on_disk() -> tempfile::TempDir {
    match std::env::var_os("STOCKADE_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

/// What this process has used, all threads together: the machine may be busy with something else.
fn cpu_ns() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64
}

fn payment(clock: &Clock) -> Payment {
    let (now, chance) = (clock.now(), clock.chance());
    let order = OrderId::for_home(now, chance, product(1));
    Payment {
        id: PaymentId::of(order, Attempt::FIRST),
        order,
        attempt: Attempt::FIRST,
        buyer: buyer(chance),
        amount: Money { amount: 1_000, currency: Currency::KRW },
        method: Some(Method::card("tok_visa").unwrap()),
        state: PaymentState::Started,
        reason: None,
        provider_ref: None,
        captured: 0,
        captured_in: Currency::KRW,
        refunded: 0,
        key: Some(KeyUse { key: chance.to_be_bytes(), body: 7 }),
        told_open: false,
        tries: 0,
        due_at: Some(now.plus(30_000)),
        version: 1,
        created_at: now,
        updated_at: now,
    }
}

#[derive(Default)]
struct Cost {
    wall_ns: u64,
    cpu_ns: u64,
    writes: u64,
    slowest_ns: u64,
}

impl Cost {
    async fn of(&mut self, book: &MoneyBook, clock: &Clock, writes: &[Write]) {
        let (began, cpu) = (clock.nanos(), cpu_ns());
        let answers = book.write_group(writes, clock.now()).await.unwrap();
        let took = clock.nanos() - began;
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Written::Row(_)))));
        self.wall_ns += took;
        self.cpu_ns += cpu_ns() - cpu;
        self.writes += writes.len() as u64;
        self.slowest_ns = self.slowest_ns.max(took);
    }

    fn told(&self) -> String {
        let each = |ns: u64| ns as f64 / self.writes as f64 / 1_000.0;
        let (wall, cpu, slowest) = (each(self.wall_ns), each(self.cpu_ns), self.slowest_ns / 1_000_000);
        format!("{wall:.1} µs each ({cpu:.1} of CPU, slowest group {slowest} ms)")
    }
}

#[test]
#[ignore = "a bench"]
fn groups_of_payments() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for size in [1, 15, 63, 64, 200, 256] {
        runtime.block_on(async {
            let dir = on_disk();
            let tables = Tables::open(dir.path()).await.unwrap();
            let (book, clock) = (tables.money(), Clock::start());
            let (mut begins, mut captures, mut ends) = (Cost::default(), Cost::default(), Cost::default());
            for _ in 0..(100_000 / size).min(2_000) {
                let payments: Vec<Payment> = (0..size).map(|_| payment(&clock)).collect();
                let begin = payments.iter().map(|payment| Write::Begin(Box::new(payment.clone())));
                begins.of(&book, &clock, &begin.collect::<Vec<_>>()).await;
                let step = |version, step: Move| {
                    let step = move |payment: &Payment| Write::Move {
                        payment: payment.id,
                        version,
                        step: step.clone(),
                        due_at: None,
                    };
                    payments.iter().map(step).collect::<Vec<_>>()
                };
                let provider_ref = Some("pi_3MtwBwLkdIwHu7ix28a3tqPa".to_owned());
                let captured = Move {
                    provider_ref,
                    captured: Some(Money { amount: 1_000, currency: Currency::KRW }),
                    ..Move::to(PaymentState::Captured)
                };
                captures.of(&book, &clock, &step(1, captured)).await;
                ends.of(&book, &clock, &step(2, Move::to(PaymentState::Paid))).await;
                book.checkpoint_if_due().await;
            }
            println!("groups of {size:>3}: begin {}", begins.told());
            println!("             captured {}", captures.told());
            println!("                 paid {}", ends.told());
            tables.close().await.unwrap();
        });
    }
}
