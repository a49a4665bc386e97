//! The ledger against a shop kept by hand (`ledger_model/naive.rs`), step by step, on random days.
//!
//! Few orders, few buyers, few keys, little stock and a clock that sometimes goes back: retries, collisions, limits,
//! deadlines and the last unit all meet. `STOCKADE_PROPTEST_CASES` says how many days (20,000 when it says nothing).
//! A failing day is printed and kept in `ledger_model.proptest-regressions`, which is replayed first.

#[path = "ledger_model/naive.rs"]
mod naive;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use naive::{Naive, Sale};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use stockade::domain::amount::{Currency, Money, Quantity};
use stockade::domain::id::{OrderId, ProductId, UserId};
use stockade::domain::stock::*;

const CASES: u32 = 20_000;
const STEPS_MAX: usize = 40;
const HERE: ProductId = ProductId::from_bytes([1; 16]);
const ELSEWHERE: ProductId = ProductId::from_bytes([2; 16]);
const ORDERS: u8 = 7;
const KNOWN: u8 = 100;
const BUYERS: u8 = 3;

fn cases() -> u32 {
    std::env::var("STOCKADE_PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES)
}

#[derive(Debug, Clone)]
enum Act {
    Ask(Command),
    /// What is due first lapses, or its home is asked again in so many milliseconds.
    Lapse {
        ask_again: Option<i64>,
    },
    /// The group is written; perhaps a snapshot is taken.
    Seal {
        snapshot: bool,
    },
}

#[derive(Debug, Clone)]
struct Step {
    /// How far the clock moves first.
    later_ms: i64,
    act: Act,
}

// --- random days --------------------------------------------------------------------------------------------------

/// An order's id; or, from `KNOWN` on, a word for one of the orders that stand at that moment.
fn order() -> impl Strategy<Value = OrderId> {
    prop_oneof![1 => 0..ORDERS, 9 => KNOWN..].prop_map(|n| OrderId::from_bytes([n; 16]))
}

fn new_order() -> impl Strategy<Value = OrderId> {
    (0..ORDERS).prop_map(|n| OrderId::from_bytes([n; 16]))
}

fn buyer() -> impl Strategy<Value = UserId> {
    (0..BUYERS).prop_map(|n| UserId::from_bytes([n; 16]))
}

fn units() -> impl Strategy<Value = Quantity> {
    (1..=4u32).prop_map(|n| Quantity::of_line(n).unwrap())
}

fn key() -> impl Strategy<Value = Option<KeyUse>> {
    prop::option::of(
        (0..3u8, 0..4u8).prop_map(|(key, body)| KeyUse { key: [key; 16], body: u64::from(body / 3) }),
    )
}

fn won(amount: i64) -> Money {
    Money { amount, currency: Currency::KRW }
}

fn time() -> impl Strategy<Value = Millis> {
    (90..260i64).prop_map(|s| Millis(s * 1_000))
}

fn settings() -> impl Strategy<Value = Settings> {
    let price = prop_oneof![20 => Just(10), 5 => Just(20), 1 => Just(i64::MAX / 2)];
    let now_and_then = || prop::option::weighted(0.08, time());
    let limit = prop::option::of(0..6u32);
    (price, now_and_then(), now_and_then(), limit, 1..20u32).prop_map(
        |(price, opens_at, closes_at, limit, hold)| Settings {
            price: won(price),
            opens_at,
            closes_at,
            per_customer_limit: limit,
            hold_ms: hold * 1_000,
        },
    )
}

fn reserve() -> impl Strategy<Value = Command> {
    let expected = prop::option::weighted(0.2, (1..5i64).prop_map(|n| won(n * 10)));
    let placing = prop_oneof![6 => Just(None), 2 => Just(Some(HERE)), 1 => Just(Some(ELSEWHERE))];
    let line = prop_oneof![9 => Just(0u8), 1 => Just(1)];
    (new_order(), line, buyer(), units(), key(), expected, placing).prop_map(
        |(order, line, buyer, quantity, key, expected, placing)| {
            Command::Reserve(Reserve { order, line, buyer, quantity, key, expected, placing })
        },
    )
}

fn restock() -> impl Strategy<Value = Command> {
    let delta =
        prop_oneof![10 => -4..6i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN), 1 => Just(2_000_000_000_000)];
    (delta, key())
        .prop_map(|(delta, key)| Command::Restock(Restock { delta, reason: "counted".to_owned(), key }))
}

fn place() -> impl Strategy<Value = Command> {
    (order(), time(), 0..3u8).prop_map(|(order, deadline, lines)| {
        let line = |line| PlacedLine {
            line,
            product: ELSEWHERE,
            quantity: Quantity::of_line(1).unwrap(),
            unit_price: won(10),
            sequence: Sequence(3),
        };
        Command::Place(Place { order, deadline, lines: (0..lines).map(line).collect() })
    })
}

fn release() -> impl Strategy<Value = Command> {
    let cause = prop_oneof![Just(Cause::Cancelled), Just(Cause::NotPlaced), Just(Cause::PaymentFailed)];
    (order(), cause, 0..4u64).prop_map(|(order, cause, by)| Command::Release { order, cause, by })
}

fn give_back() -> impl Strategy<Value = Command> {
    let why = prop_oneof![Just(CameBack::Cancelled), Just(CameBack::Returned)];
    (order(), 1..=2u32, any::<bool>(), why, 0..4u64).prop_map(|(order, units, off, why, by)| {
        Command::Return {
            order,
            quantity: Quantity::of_line(units).unwrap(),
            back: if off { Back::WrittenOff } else { Back::ToStock },
            why,
            by,
        }
    })
}

/// Mostly the first: those who pay meet more often than they miss each other.
fn attempt() -> impl Strategy<Value = Attempt> {
    prop_oneof![4 => Just(1), 2 => Just(2), 1 => Just(3)].prop_map(|n| Attempt::new(n).unwrap())
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        1 => (settings(), 0..12u64).prop_map(|(settings, stock)| Command::Create { settings, stock }),
        1 => settings().prop_map(Command::Configure),
        4 => restock(),
        1 => Just(Command::Pause),
        4 => Just(Command::Resume),
        24 => reserve(),
        5 => place(),
        3 => (order(), time()).prop_map(|(order, deadline)| Command::Keep { order, deadline }),
        12 => (order(), attempt()).prop_map(|(order, attempt)| Command::Pin { order, attempt }),
        4 => (order(), attempt()).prop_map(|(order, attempt)| Command::Unpin { order, attempt }),
        12 => (order(), units(), attempt())
            .prop_map(|(order, quantity, attempt)| Command::Confirm { order, quantity, attempt }),
        5 => release(),
        6 => give_back(),
        1 => (time(), time()).prop_map(|(a, b)| Command::Forget { unkeyed_before: a, keyed_before: b }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let later_ms = prop_oneof![8 => Just(0), 8 => 1..4_000i64, 1 => 4_000..70_000i64, 2 => -20_000..0i64];
    let act = prop_oneof![
        78 => command().prop_map(Act::Ask),
        8 => prop::option::weighted(0.5, 1..3_000i64).prop_map(|ask_again| Act::Lapse { ask_again }),
        14 => prop::bool::weighted(0.3).prop_map(|snapshot| Act::Seal { snapshot }),
    ];
    (later_ms, act).prop_map(|(later_ms, act)| Step { later_ms, act })
}

/// A day begins with the product's creation, mostly; a few end with its archive.
fn day() -> impl Strategy<Value = Vec<Step>> {
    let create = (settings(), prop_oneof![20 => 0..12u64, 1 => Just(2_000_000_000_000)])
        .prop_map(|(settings, stock)| Command::Create { settings, stock });
    let archive_at = prop::option::weighted(0.2, 5..STEPS_MAX);
    (create, prop::bool::weighted(0.99), archive_at, prop::collection::vec(step(), 1..STEPS_MAX)).prop_map(
        |(create, opens, archive_at, mut steps)| {
            let now = |act| Step { later_ms: 0, act };
            if let Some(at) = archive_at {
                steps.insert(at.min(steps.len()), now(Act::Ask(Command::Archive)));
            }
            if opens {
                steps.insert(0, now(Act::Ask(create)));
            }
            steps
        },
    )
}

// --- one day ------------------------------------------------------------------------------------------------------

/// How often each answer was heard. A day that never sells out proves nothing about selling out.
type Tally = BTreeMap<String, u64>;

struct Day {
    ledger: Ledger,
    naive: Naive,
    now: Millis,
    /// The digest after the last event.
    digest: [u8; 16],
    open: (Sequence, Vec<u8>),
    entries: Vec<Entry>,
    snapshot: Option<(usize, Vec<u8>)>,
    /// Holds that have ended, by the sequence that names them.
    ended: BTreeSet<Sequence>,
}

type Checked = Result<(), TestCaseError>;

impl Day {
    fn new() -> Day {
        let ledger = Ledger::default();
        let (digest, open) = (ledger.digest(), (Sequence(1), Vec::new()));
        let (naive, now, entries, snapshot) = (Naive::default(), Millis(100_000), Vec::new(), None);
        Day { ledger, naive, now, digest, open, entries, snapshot, ended: BTreeSet::new() }
    }

    fn step(&mut self, step: &Step, tally: &mut Tally) -> Checked {
        self.now = self.now.plus(step.later_ms);
        match &step.act {
            Act::Ask(command) => self.ask(command, tally)?,
            Act::Lapse { ask_again } => self.lapse(*ask_again, tally)?,
            Act::Seal { snapshot } => self.seal(*snapshot),
        }
        self.compare()
    }

    /// The command about the order that is meant; those that stand come before those that ended.
    fn meant(&self, command: &Command) -> Command {
        let mut command = command.clone();
        let order = match &mut command {
            Command::Place(place) => &mut place.order,
            Command::Keep { order, .. }
            | Command::Pin { order, .. }
            | Command::Unpin { order, .. }
            | Command::Confirm { order, .. }
            | Command::Release { order, .. }
            | Command::Return { order, .. } => order,
            _ => return command,
        };
        let (word, mut known) = (order.as_bytes()[0], self.naive.known().collect::<Vec<_>>());
        if word >= KNOWN && !known.is_empty() {
            known.sort_by_key(|sale| !sale.state.is_live());
            let wanted = usize::from(word - KNOWN);
            *order = known[wanted * wanted / 156 % known.len()].order;
        }
        command
    }

    fn ask(&mut self, command: &Command, tally: &mut Tally) -> Checked {
        let command = &self.meant(command);
        let expected = self.naive.ask(command, self.now);
        let answer = self.ledger.decide(command, self.now);
        if let Err(refused) = &answer {
            prop_assert_eq!(refused.at, self.ledger.sequence());
        }
        let answer = answer.map_err(|refused| refused.why);
        prop_assert_eq!(&answer, &expected);
        *tally.entry(class(&answer)).or_default() += 1;
        match answer {
            Ok(Decision::Event(event)) => {
                self.happen(&event)?;
                self.same_answer(command)
            }
            _ => {
                prop_assert_eq!(
                    self.ledger.digest(),
                    self.digest,
                    "an answer without an event changes nothing"
                );
                Ok(())
            }
        }
    }

    /// I8: asked again at once, a command makes no second event.
    fn same_answer(&self, command: &Command) -> Checked {
        let again = self.ledger.decide(command, self.now).map_err(|refused| refused.why);
        let expected = match command {
            Command::Reserve(reserve) => Ok(Decision::Replay(reserve.order)),
            Command::Restock(Restock { key: Some(_), .. })
            | Command::Configure(_)
            | Command::Pause
            | Command::Resume
            | Command::Archive
            | Command::Place(_)
            | Command::Keep { .. }
            | Command::Pin { .. }
            | Command::Unpin { .. }
            | Command::Confirm { .. } => Ok(Decision::Done),
            Command::Return { by, .. } if *by != 0 => Ok(Decision::Done),
            _ => return Ok(()),
        };
        prop_assert_eq!(again, expected);
        Ok(())
    }

    fn lapse(&mut self, ask_again: Option<i64>, tally: &mut Tally) -> Checked {
        let now = self.ledger.time(self.now);
        let waits = self.ledger.placing_due(HERE, now);
        if let (Some((order, home)), Some(ms)) = (waits, ask_again) {
            prop_assert_eq!(home, ELSEWHERE);
            *tally.entry("ask again".to_owned()).or_default() += 1;
            self.ledger.ask_again_at(order, now.plus(ms));
            self.naive.ask_again_at(order, now.plus(ms));
            prop_assert_eq!(self.ledger.digest(), self.digest, "asking again is no history");
            return Ok(());
        }
        match self.ledger.due(now) {
            None => {
                prop_assert!(self.naive.next_deadline().is_none_or(|deadline| deadline > now));
                Ok(())
            }
            Some(event) => {
                *tally.entry(format!("lapse {}", event.word())).or_default() += 1;
                prop_assert!(self.naive.lapse(&event, now), "not due first: {:?}", event);
                self.happen(&event)
            }
        }
    }

    fn happen(&mut self, event: &Event) -> Checked {
        let mut blob = Vec::new();
        event.encode(&mut blob);
        prop_assert_eq!(decode_events(&blob), Ok(vec![event.clone()]));
        self.ends_once(event)?;
        self.open.1.extend(&blob);
        self.ledger.apply(event);
        self.digest = self.ledger.digest();
        Ok(())
    }

    /// I4: no hold is both sold and released or expired; each ends at most once.
    fn ends_once(&mut self, event: &Event) -> Checked {
        let order = match event {
            Event::Confirmed(e) => e.order,
            Event::Released(e) => e.order,
            Event::Expired(e) => e.order,
            _ => return Ok(()),
        };
        let hold = self.ledger.order(HERE, order).map(|view| view.sequence);
        prop_assert!(hold.is_some_and(|hold| self.ended.insert(hold)), "a second end of {:?}", order);
        Ok(())
    }

    fn seal(&mut self, snapshot: bool) {
        let (first, last) = (self.open.0, self.ledger.sequence());
        if last >= first {
            let at = self.ledger.time(self.now);
            let blob = std::mem::take(&mut self.open.1);
            let entry = Entry::seal(HERE, (first, last), Epoch(1), at, self.ledger.hash(), blob);
            self.ledger.sealed(entry.hash, at);
            self.naive.clock = at;
            self.digest = self.ledger.digest();
            self.open.0 = last.next();
            self.entries.push(entry);
        }
        if snapshot {
            self.snapshot = Some((self.entries.len(), self.ledger.snapshot()));
        }
    }

    /// I1 and I7: the counters are what a recount says.
    fn compare(&self) -> Checked {
        let (counts, recount) = (self.ledger.counts(), self.naive.counts());
        prop_assert_eq!(counts, recount);
        prop_assert_eq!(counts.on_hand, counts.available() + counts.held + counts.sold);
        prop_assert_eq!(self.ledger.sequence().0, self.naive.happened);
        prop_assert_eq!(self.ledger.next_deadline(), self.naive.next_deadline());
        for n in 0..BUYERS {
            let buyer = UserId::from_bytes([n; 16]);
            prop_assert_eq!(self.ledger.bought_by(buyer), self.naive.bought_by(buyer));
        }
        for sale in self.naive.known() {
            let view = self.ledger.order(HERE, sale.order);
            prop_assert!(view.as_ref().is_some_and(|view| shown(view, sale)), "{:?} is not {:?}", view, sale);
        }
        prop_assert_eq!(self.ledger.remembered(), self.naive.known().count());
        Ok(())
    }

    /// I10: the same history gives the same ledger, whether read from the start or from a snapshot.
    fn close(mut self) -> Checked {
        self.seal(false);
        let keys: BTreeSet<_> = self.ledger.keys().map(|(_, buyer, key)| (buyer, key)).collect();
        let used = self.naive.known().filter_map(|sale| sale.key.map(|used| (sale.buyer, used.key)));
        prop_assert_eq!(keys, used.collect::<BTreeSet<_>>());
        let buyers: BTreeSet<_> = self.ledger.buyers().collect();
        prop_assert!(buyers.iter().all(|buyer| self.naive.bought_by(*buyer) > 0));

        let mut replayed = Ledger::default();
        for entry in &self.entries {
            prop_assert!(replayed.replay(entry).is_ok());
        }
        prop_assert_eq!(replayed.digest(), self.digest, "replayed from the start");
        prop_assert_eq!(replayed.time(Millis(0)), self.ledger.time(Millis(0)));
        if let Some((entries, bytes)) = &self.snapshot {
            let restored = Ledger::restore(bytes);
            prop_assert!(restored.is_ok());
            let mut restored = restored.unwrap_or_default();
            for entry in &self.entries[*entries..] {
                prop_assert!(restored.replay(entry).is_ok());
            }
            prop_assert_eq!(restored.digest(), self.digest, "replayed from a snapshot");
            for n in 0..BUYERS {
                let buyer = UserId::from_bytes([n; 16]);
                prop_assert_eq!(restored.bought_by(buyer), self.naive.bought_by(buyer));
            }
        }
        Ok(())
    }
}

fn shown(view: &OrderView, sale: &Sale) -> bool {
    view.order == sale.order
        && view.product == HERE
        && view.buyer == sale.buyer
        && view.line == sale.line
        && view.quantity.get() == sale.shown()
        && view.unit_price == sale.price
        && view.deadline == sale.deadline
        && view.sequence == sale.sequence
        && view.state == sale.state
        && view.returned == sale.returned()
        && view.lines == sale.lines
        && view.home == sale.home
}

/// The answer without its numbers.
fn class(answer: &Result<Decision, Refusal>) -> String {
    match answer {
        Ok(Decision::Event(event)) => event.word().to_owned(),
        Ok(Decision::Replay(_)) => "replay".to_owned(),
        Ok(Decision::Done) => "done".to_owned(),
        Err(why) => {
            let words = format!("{why:?}");
            words.split([' ', '{']).next().unwrap_or_default().to_owned()
        }
    }
}

/// Every answer there is; each must be heard at least once in a thousand days.
const SOMETIMES: &[&str] = &[
    "created",
    "configured",
    "restocked",
    "paused",
    "resumed",
    "archived",
    "held",
    "placed",
    "kept",
    "pinned",
    "unpinned",
    "confirmed",
    "released",
    "returned",
    "forgotten",
    "lapse expired",
    "lapse released",
    "ask again",
    "replay",
    "done",
    "NoProduct",
    "ProductExists",
    "Archived",
    "Paused",
    "NotOpen",
    "Closed",
    "LimitExceeded",
    "SoldOut",
    "PriceChanged",
    "AmountTooLarge",
    "KeyReused",
    "KeyInProgress",
    "OrderIdTaken",
    "NoSuchOrder",
    "HoldExpired",
    "AlreadyReleased",
    "AlreadySold",
    "PaymentRunning",
    "NotPinned",
    "AttemptOver",
    "StillPlacing",
    "MoreThanHeld",
    "MoreThanSold",
    "BelowPromised",
    "TooMuchStock",
    "NothingToDo",
];

#[test]
fn the_ledger_and_the_shop_kept_by_hand_agree() {
    let cases = cases();
    let persistence = FileFailurePersistence::WithSource("proptest-regressions");
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        source_file: Some(file!()),
        failure_persistence: Some(Box::new(persistence)),
        ..ProptestConfig::default()
    });
    let tally = RefCell::new(Tally::new());
    let ran = runner.run(&day(), |steps| {
        let mut day = Day::new();
        for step in &steps {
            day.step(step, &mut tally.borrow_mut())?;
        }
        day.close()
    });
    if let Err(failed) = ran {
        panic!("{failed}\nreplay: cargo test --test ledger_model");
    }
    let tally = tally.into_inner();
    let rare: Vec<_> = SOMETIMES
        .iter()
        .map(|word| (word, tally.get(*word).copied().unwrap_or(0)))
        .filter(|(_, heard)| *heard < u64::from(cases / 1_000))
        .collect();
    assert!(rare.is_empty(), "hardly ever heard: {rare:?} of {tally:?}");
}
