//! The ledger alone: decide and apply, one core, nothing written.

use divan::Bencher;
use divan::counter::ItemsCount;
use stockade::domain::amount::{Currency, Money, Quantity};
use stockade::domain::id::{OrderId, ProductId, UserId};
use stockade::domain::stock::{Command, Decision, KeyUse, Ledger, Millis, Reserve, Settings};

const RESERVES: u64 = 100_000;

fn main() {
    divan::main();
}

fn settings() -> Settings {
    Settings {
        price: Money { amount: 19_900, currency: Currency::KRW },
        opens_at: None,
        closes_at: None,
        per_customer_limit: None,
        hold_ms: 600_000,
    }
}

fn happen(ledger: &mut Ledger, command: &Command, now: Millis) {
    if let Ok(Decision::Event(event)) = ledger.decide(command, now) {
        ledger.apply(&event);
    }
}

/// A ledger with stock, and reservations of 10,000 buyers, each with its key.
fn rush() -> (Ledger, Vec<Command>) {
    let mut ledger = Ledger::default();
    happen(&mut ledger, &Command::Create { settings: settings(), stock: RESERVES * 2 }, Millis(1));
    let product = ProductId::new(Millis(1), 1);
    let commands = (0..u128::from(RESERVES))
        .map(|n| {
            Command::Reserve(Reserve {
                order: OrderId::for_home(
                    Millis(1_700_000_000_000 + (n / 400) as i64),
                    n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    product,
                ),
                line: 1,
                buyer: UserId::new(Millis(1_600_000_000_000), n % 10_000),
                quantity: Quantity::of_line(1).expect("one is a quantity"),
                key: Some(KeyUse { key: (n * 7 + 1).to_le_bytes(), body: 42 }),
                expected: None,
                placing: None,
            })
        })
        .collect();
    (ledger, commands)
}

#[divan::bench(sample_count = 20)]
fn reserve(bencher: Bencher) {
    bencher.counter(ItemsCount::new(RESERVES)).with_inputs(rush).bench_local_values(
        |(mut ledger, commands)| {
            for (n, command) in commands.iter().enumerate() {
                happen(&mut ledger, command, Millis(1_700_000_000_000 + n as i64 / 400));
            }
            (ledger, commands)
        },
    );
}

#[divan::bench(sample_count = 20)]
fn sold_out(bencher: Bencher) {
    let (mut ledger, commands) = rush();
    let available = ledger.counts().available() as i64;
    let restock = stockade::domain::stock::Restock { delta: -available, reason: String::new(), key: None };
    happen(&mut ledger, &Command::Restock(restock), Millis(2));
    bencher
        .counter(ItemsCount::new(RESERVES))
        .bench_local(|| commands.iter().filter(|command| ledger.decide(command, Millis(3)).is_err()).count());
}

#[divan::bench(sample_count = 20)]
fn encode_and_replay(bencher: Bencher) {
    let (mut ledger, commands) = rush();
    let mut blob = Vec::new();
    for command in &commands {
        if let Ok(Decision::Event(event)) = ledger.decide(command, Millis(3)) {
            ledger.apply(&event);
            event.encode(&mut blob);
        }
    }
    bencher.counter(ItemsCount::new(RESERVES)).bench_local(|| {
        let (mut ledger, _) = (Ledger::default(), ());
        happen(&mut ledger, &Command::Create { settings: settings(), stock: RESERVES * 2 }, Millis(1));
        for event in stockade::domain::stock::decode_events(&blob).expect("just encoded") {
            ledger.apply(&event);
        }
        ledger
    });
}
