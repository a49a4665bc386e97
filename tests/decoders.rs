//! Whatever stands in a damaged file: the decoders answer, they never panic.
//!
//! `STOCKADE_PROPTEST_CASES` says how many blobs are tried each way.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use stockade::actors::stock::{About, Answer, Ask, NotDone, Pace, Question, Said, View};
use stockade::domain::amount::{Currency, Money, Quantity};
use stockade::domain::id::{OrderId, ProductId, UserId};
use stockade::domain::stock::*;

const HERE: ProductId = ProductId::from_bytes([1; 16]);

fn cases() -> u32 {
    std::env::var("STOCKADE_PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000)
}

/// A ledger with an order in every state there is, and its one entry.
fn busy_day() -> (Ledger, Entry) {
    let (mut ledger, mut blob) = (Ledger::default(), Vec::new());
    let order = |n: u8| OrderId::from_bytes([n; 16]);
    let one = Quantity::of_line(1).unwrap();
    let price = Money { amount: 100, currency: Currency::KRW };
    let reserve = |n: u8, placing| {
        Command::Reserve(Reserve {
            order: order(n),
            line: 0,
            buyer: UserId::from_bytes([n; 16]),
            quantity: one,
            key: Some(KeyUse { key: [n; 16], body: 5 }),
            expected: None,
            placing,
        })
    };
    let line = PlacedLine { line: 0, product: HERE, quantity: one, unit_price: price, sequence: Sequence(2) };
    let settings = Settings {
        price,
        opens_at: None,
        closes_at: None,
        per_customer_limit: Some(2),
        hold_ms: HOLD_MS_DEFAULT,
    };
    let attempt = Attempt::FIRST;
    let mut commands = vec![Command::Create { settings, stock: 20 }];
    commands.extend((0..6).map(|n| reserve(n, None)));
    commands.extend((6..8).map(|n| reserve(n, Some(HERE))));
    commands.extend([
        Command::Place(Place { order: order(6), deadline: Millis(9), lines: vec![line] }),
        Command::Pin { order: order(0), attempt },
        Command::Pin { order: order(1), attempt },
        Command::Pin { order: order(2), attempt },
        Command::Pin { order: order(3), attempt },
        Command::Confirm { order: order(0), quantity: one, attempt },
        Command::Confirm { order: order(2), quantity: one, attempt },
        Command::Return {
            order: order(0),
            quantity: one,
            back: Back::ToStock,
            why: CameBack::Returned,
            by: 8,
        },
        Command::Unpin { order: order(3), attempt },
        Command::Release { order: order(4), cause: Cause::Cancelled, by: 4 },
        Command::Restock(Restock {
            delta: 5,
            reason: "lorry".into(),
            key: Some(KeyUse { key: [9; 16], body: 1 }),
        }),
    ]);
    for command in commands {
        let Ok(Decision::Event(event)) = ledger.decide(&command, Millis(0)) else { panic!("{command:?}") };
        event.encode(&mut blob);
        ledger.apply(&event);
    }
    let span = (Sequence(1), ledger.sequence());
    let entry = Entry::seal(HERE, span, Epoch(1), Millis(0), ChainHash::default(), blob);
    ledger.sealed(entry.hash, entry.at);
    (ledger, entry)
}

/// Replays events that were not written by us, behind a chain that fits.
fn replay_forged(events: Vec<u8>, count: u64) -> Result<(), ReplayError> {
    let span = (Sequence(1), Sequence(count));
    let entry = Entry::seal(HERE, span, Epoch(1), Millis(0), ChainHash::default(), events);
    Ledger::default().replay(&entry)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(events) = decode_events(&bytes) {
            let _ = replay_forged(bytes.clone(), events.len() as u64);
        }
        prop_assert!(Ledger::restore(&bytes).is_err());
    }

    #[test]
    fn an_event_kind_with_an_arbitrary_body_is_read_or_refused(
        kind in 0..20u8, version in 1..3u8, body in prop::collection::vec(any::<u8>(), 0..120)
    ) {
        let mut bytes = vec![kind, version];
        bytes.extend(body);
        if let Ok(events) = decode_events(&bytes) {
            let _ = replay_forged(bytes.clone(), events.len() as u64);
        }
    }

    #[test]
    fn a_flipped_bit_is_seen(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let (ledger, entry) = busy_day();
        let mut snapshot = ledger.snapshot();
        let flipped = at.index(snapshot.len());
        snapshot[flipped] ^= 1 << bit;
        prop_assert!(Ledger::restore(&snapshot).is_err());
        // Behind a checksum that fits, a ledger that can be read adds up.
        let body = snapshot.len() - 8;
        let sum = xxhash_rust::xxh3::xxh3_64(&snapshot[..body]);
        snapshot[body..].copy_from_slice(&sum.to_le_bytes());
        if let Ok(ledger) = Ledger::restore(&snapshot) {
            prop_assert!(ledger.counts().promised() <= ledger.counts().on_hand);
        }

        let mut damaged = entry.clone();
        damaged.events[at.index(entry.events.len())] ^= 1 << bit;
        let seen = matches!(Ledger::default().replay(&damaged), Err(ReplayError::Forked(Forked::Hash { .. })));
        prop_assert!(seen, "the chain hash still fits");
        // Behind a chain hash that fits, only the sense of the events is left to be checked.
        if let Ok(events) = decode_events(&damaged.events) {
            let _ = replay_forged(damaged.events, events.len() as u64);
        }
    }

    #[test]
    fn a_blob_cut_off_is_refused_or_shorter(at in any::<prop::sample::Index>()) {
        let (ledger, entry) = busy_day();
        let snapshot = ledger.snapshot();
        prop_assert!(Ledger::restore(&snapshot[..at.index(snapshot.len())]).is_err());
        let cut = &entry.events[..at.index(entry.events.len())];
        prop_assert!(decode_events(cut).is_ok_and(|events| (events.len() as u64) < entry.count()) || decode_events(cut).is_err());
    }

    #[test]
    fn events_out_of_order_halt_the_product_and_not_the_process(picks in prop::collection::vec(any::<prop::sample::Index>(), 1..40)) {
        let (_, entry) = busy_day();
        let events = decode_events(&entry.events).unwrap();
        let (mut blob, mut count) = (Vec::new(), 1);
        events[0].encode(&mut blob);
        for pick in &picks {
            pick.get(&events).encode(&mut blob);
            count += 1;
        }
        let _ = replay_forged(blob, count);
    }

    #[test]
    fn a_word_is_an_id_or_not(word in "(order|prod|user|)_?[0-9a-zA-Z\\PC]{0,30}") {
        for read in [word.parse::<OrderId>().map(|id| id.to_string()), word.parse::<ProductId>().map(|id| id.to_string())] {
            prop_assert!(read.is_err() || read == Ok(word.clone()));
        }
    }

    #[test]
    fn any_sixteen_bytes_are_an_id_and_back(bytes in any::<[u8; 16]>()) {
        let id = UserId::from_bytes(bytes);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        let _ = (id.made_at(), OrderId::from_bytes(bytes).shard(), ProductId::from_bytes(bytes).shard());
    }
}

#[test]
fn nonsense_is_named_with_its_place() {
    let (_, entry) = busy_day();
    let events = decode_events(&entry.events).unwrap();
    let mut blob = Vec::new();
    events[0].encode(&mut blob);
    events[1].encode(&mut blob);
    events[1].encode(&mut blob);
    let said = replay_forged(blob, 3).map_err(|error| error.to_string());
    assert_eq!(said, Err(format!("{HERE}: event 3 (held) cannot follow what is before it")));
    let Ok(()) = replay_forged(entry.events, entry.last.0) else { panic!("the day itself is sound") };
}

fn seed(target: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target).join(name)
}

/// The seeds that nobody could type: what this version writes, kept beside what earlier ones have written.
///
/// `cargo test --test decoders seeds_are_written -- --ignored`, when a shape has a new version.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn seeds_are_written() {
    let (ledger, entry) = busy_day();
    let put = |target: &str, name: &str, bytes: &[u8]| fs::write(seed(target, name), bytes).unwrap();
    let snapshot = ledger.snapshot();
    put("journal_events", "busy_day", &entry.events);
    put("snapshots", "busy_day", &snapshot);
    put("snapshots", "busy_day_without_its_sum", &snapshot[..snapshot.len() - 8]);
    put("snapshots", "nothing", &Ledger::default().snapshot());
    put("stock_questions", "question", &postcard::to_stdvec(&question()).unwrap());
    put("stock_questions", "said", &postcard::to_stdvec(&said(&ledger)).unwrap());
}

/// What one node asks another: something to change, something to look at, and by a key.
fn question() -> Question {
    let order = OrderId::from_bytes([3; 16]);
    let reserve = Reserve {
        order,
        line: 0,
        buyer: UserId::from_bytes([4; 16]),
        quantity: Quantity::of_line(1).unwrap(),
        key: Some(KeyUse { key: [5; 16], body: 6 }),
        expected: Some(Money { amount: 100, currency: Currency::KRW }),
        placing: Some(HERE),
    };
    let restock = Restock { delta: -1, reason: "lost".to_owned(), key: None };
    let asks = vec![
        Ask::Command(Command::Reserve(reserve)),
        Ask::Command(Command::Restock(restock)),
        Ask::Order(order),
        Ask::OrderOfKey { buyer: UserId::from_bytes([4; 16]), key: [5; 16] },
    ];
    let pace = Pace { brake_us: 300, lagging: false };
    Question { lead: 7, number: 7, pace, about: About::Product { product: HERE, asks } }
}

/// What the other says.
fn said(ledger: &Ledger) -> Said {
    let (sequence, counts) = (ledger.sequence(), ledger.counts());
    let why = Refusal::SoldOut { available: 0, requested: 1 };
    let settings = ledger.settings().unwrap().clone().into();
    let view = View { sequence, counts, settings, paused: false, archived: false, as_of: Millis(9) };
    let replies = vec![
        Ok(Answer::Done { sequence, counts, replayed: false }),
        Ok(Answer::Order(ledger.order(HERE, OrderId::from_bytes([0; 16])).map(Box::new))),
        Err(NotDone::Refused { product: HERE, refused: Refused { at: sequence, why } }),
        Err(NotDone::Unknown),
    ];
    Said::Product { replies, view: Some(view) }
}

/// Of what we write each seed is read: a corpus of a shape that has gone finds nothing.
#[test]
fn the_written_seeds_are_of_today() {
    let (ledger, entry) = busy_day();
    let kept = |target: &str, name: &str| fs::read(seed(target, name)).unwrap();
    assert_eq!(kept("journal_events", "busy_day"), entry.events);
    let again = Ledger::restore(&kept("snapshots", "busy_day")).map(|again| again.digest());
    assert_eq!(again, Ok(ledger.digest()));
    assert_eq!(postcard::from_bytes(&kept("stock_questions", "question")), Ok(question()));
    assert_eq!(postcard::from_bytes(&kept("stock_questions", "said")), Ok(said(&ledger)));
}
