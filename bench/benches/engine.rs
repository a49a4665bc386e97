//! The engine without HTTP: from a question in the owner's mailbox to its durable answer.
//!
//! Everything is counted: encoding, chain hash, dedupe, deadlines, the used keys, the journal with its syncs, and
//! the flush that runs beside it. 1,024 questions are in flight all the time; a buyer who is told to come again, since the disk
//! has just stood still, comes again.
//!
//! `cargo bench -p stockade-bench --bench engine [-- --seconds 5]`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stockade::actors::flusher::{self, LagLimits};
use stockade::actors::stock::{
    Answer, Changes, Directory, Home, House, NoHome, NotDone, Snapshots, UsedKeys,
};
use stockade::clock::Clock;
use stockade::domain::amount::{Currency, Money, Quantity};
use stockade::domain::id::{OrderId, ProductId, UserId};
use stockade::domain::stock::{Command, Entry, Fingerprint, KeyUse, Millis, Reserve, Settings};
use stockade::memory;
use stockade::persistence::Tables;
use stockade::persistence::journal::{Append, AppendTo, Journal, JournalConfig};
use stockade::telemetry::Metrics;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IN_FLIGHT: usize = 1_024;
const BUYERS: u64 = 10_000;

fn main() {
    memory::in_small_pages();
    let seconds = std::env::args().skip_while(|word| word != "--seconds").nth(1).and_then(|s| s.parse().ok());
    let window = Duration::from_secs(seconds.unwrap_or(5));
    groups(window.min(Duration::from_secs(2)), 1);
    groups(window.min(Duration::from_secs(2)), 16);
    groups(window.min(Duration::from_secs(2)), 512);
    let system = actix::System::new();
    system.block_on(async {
        reserves("memory journal", Arc::new(NoHome), window.min(Duration::from_secs(2))).await;
        let store = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock::start();
        let journal = Journal::open(JournalConfig::new(store.path(), clock)).await.expect("a journal");
        let tables = Tables::open(store.path()).await.expect("tables");
        let house = house(Arc::new(journal.clone()));
        // A burst of some seconds: its lag has room, and the journal is not slowed down for it.
        let limits = LagLimits { soft_bytes: 1 << 29, cap_bytes: 1 << 30 };
        let flush = flusher::start(house.clone(), &journal, &tables, limits, 0).await.expect("a flush");
        drive("SQLite journal, flush beside it", house, window).await;
        let lag = flush.lag();
        println!("  flush lag at the end: {} events, {} MiB", lag.events, lag.bytes >> 20);
        flush.abandon().await;
    });
}

fn house(home: Arc<dyn Home>) -> Arc<House> {
    Arc::new(House {
        home,
        clock: Clock::start(),
        keys: UsedKeys::default(),
        metrics: Metrics::global().clone(),
        wait_ms_max: stockade::actors::stock::INBOX_WAIT_MAX_MS,
        lagging: AtomicBool::new(false),
        flushed_ns: AtomicU64::new(0),
        owners_max: stockade::actors::stock::OWNERS_MAX,
        changes: Changes::unheard(),
        snapshots: Snapshots::default(),
    })
}

async fn reserves(what: &str, home: Arc<dyn Home>, window: Duration) {
    drive(what, house(home), window).await;
}

/// Keeps 1,024 reservations of one product in flight for `window`.
async fn drive(what: &str, house: Arc<House>, window: Duration) {
    let directory = Directory::new(house);
    directory.add_arbiter(actix::Arbiter::current());
    let product = ProductId::new(Millis(1), 1);
    let settings = Settings {
        price: Money { amount: 19_900, currency: Currency::KRW },
        opens_at: None,
        closes_at: None,
        per_customer_limit: None,
        hold_ms: 600_000,
    };
    let create = Command::Create { settings, stock: 1_000_000_000 };
    directory.ask(product, create).await.expect("a product");
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let buyers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (directory, next) = (directory.clone(), next.clone());
            actix::spawn(async move {
                while began.elapsed() < window {
                    buy(&directory, product, next.fetch_add(1, Ordering::Relaxed)).await;
                }
            })
        })
        .collect();
    for buyer in buyers {
        buyer.await.expect("a buyer");
    }
    let took = began.elapsed().as_secs_f64();
    let done = next.load(Ordering::Relaxed) as f64;
    println!("{what}: {:.0} reservations/s, every answer durable ({done:.0} in {took:.2} s)", done / took);
}

async fn buy(directory: &Directory, product: ProductId, number: u64) {
    let clock = &directory.house().clock;
    let buyer = UserId::new(Millis(1), u128::from(number % BUYERS));
    let key = KeyUse { key: u128::from(number).to_le_bytes(), body: 1 };
    let fingerprint = Fingerprint::of(buyer, key.key);
    loop {
        let order = OrderId::for_home(clock.now(), clock.chance(), product);
        let claim = directory.house().keys.claim(fingerprint, product, order.made_at()).expect("a new key");
        let ask = Reserve {
            order,
            line: 1,
            buyer,
            quantity: Quantity::of_line(1).expect("one"),
            key: Some(key),
            expected: None,
            placing: None,
        };
        match directory.reserve(product, ask, Some(claim)).await {
            Ok(Answer::Reserved(_)) => return,
            Err(NotDone::Busy { retry_after_ms }) => {
                actix::clock::sleep(Duration::from_millis(retry_after_ms)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// How many groups of `events` events the journal syncs in a second, one after the other.
fn groups(window: Duration, events: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = tempfile::tempdir().expect("a temporary folder");
        let journal =
            Journal::open(JournalConfig::new(store.path(), Clock::start())).await.expect("a journal");
        let product = ProductId::new(Millis(1), 1);
        let (mut groups, began) = (0_u64, Instant::now());
        while began.elapsed() < window {
            let first = stockade::domain::stock::Sequence(groups * events + 1);
            let last = stockade::domain::stock::Sequence((groups + 1) * events);
            let blob = vec![7_u8; events as usize * 90];
            let entry =
                Entry::seal(product, (first, last), journal.epoch(), Millis(1), Default::default(), blob);
            let (sender, written) = tokio::sync::oneshot::channel();
            let reply = Box::new(move |outcome| {
                let _ = sender.send(outcome);
            });
            assert!(AppendTo::submit(&journal, Append { entry, reply }).is_ok());
            written.await.expect("an answer");
            groups += 1;
        }
        let rate = groups as f64 / began.elapsed().as_secs_f64();
        println!("journal groups of {events}: {rate:.0} syncs/s, {:.0} events/s", rate * events as f64);
    });
}
