//! The script the rules are told in: one command a line, what it led to behind the arrow.
//!
//! ```text
//! create 3 price 100 limit 2            -> created #1     available 3
//! reserve a x1 at 5 key k body 7        -> held #2        available 2
//! deadline a                            -> 605
//! ```
//!
//! `a` is a buyer and his order; `a/2` is his second order. Times are seconds, and the clock stands where the last
//! `at` put it; attempts to pay are the first where no `try` says otherwise. Every event is sealed at once, and every story is replayed at its end.

use std::fmt::Write as _;
use std::str::SplitWhitespace;

use crate::domain::amount::{Currency, Money, Quantity};
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::stock::*;

/// Runs `script` and compares its transcript with it, line by line; blanks do not count.
#[track_caller]
pub fn story(script: &str) {
    let mut teller = Teller::default();
    let (mut wanted, mut told) = (String::new(), String::new());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, _) = line.split_once("->").unwrap_or((line, ""));
        let _ = writeln!(wanted, "{}", line.split_whitespace().collect::<Vec<_>>().join(" "));
        let command = command.split_whitespace().collect::<Vec<_>>().join(" ");
        let answer = teller.tell(&command);
        let _ = writeln!(told, "{command} -> {answer}");
    }
    assert!(wanted == told, "the story goes otherwise:\n{}", marked(&wanted, &told));
    teller.replayed();
}

fn marked(wanted: &str, told: &str) -> String {
    let pairs = wanted.lines().zip(told.lines());
    pairs.map(|(w, t)| if w == t { format!("  {t}\n") } else { format!("- {w}\n+ {t}\n") }).collect()
}

/// The product whose story it is.
pub const HERE: ProductId = ProductId::from_bytes([b'h'; 16]);
/// The home of an order of several lines that was born at another product.
const ELSEWHERE: ProductId = ProductId::from_bytes([b'e'; 16]);

#[derive(Default)]
struct Teller {
    ledger: Ledger,
    entries: Vec<Entry>,
    now: Millis,
}

fn named(word: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..word.len()].copy_from_slice(word.as_bytes());
    bytes
}

fn order(word: &str) -> OrderId {
    OrderId::from_bytes(named(word))
}

fn buyer(word: &str) -> UserId {
    UserId::from_bytes(named(word.split('/').next().unwrap()))
}

fn name_of(order: OrderId) -> String {
    order.as_bytes().iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect()
}

fn won(amount: i64) -> Money {
    Money { amount, currency: Currency::KRW }
}

fn seconds(word: &str) -> Millis {
    Millis(word.parse::<i64>().unwrap() * 1_000)
}

fn units(word: &str) -> Quantity {
    Quantity::of_line(word.trim_start_matches('x').parse().unwrap()).unwrap()
}

/// What stands behind the first words of a line: `limit 2 price 100`, in any order.
struct Rest<'a>(SplitWhitespace<'a>);

impl<'a> Rest<'a> {
    fn word(&self, name: &str) -> Option<&'a str> {
        let mut words = self.0.clone();
        words.find(|word| *word == name)?;
        words.next()
    }

    fn has(&self, name: &str) -> bool {
        self.0.clone().any(|word| word == name)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.word(name).map(|word| word.parse().unwrap())
    }

    fn key(&self) -> Option<KeyUse> {
        let body = self.number("body").unwrap_or(0) as u64;
        self.word("key").map(|key| KeyUse { key: named(key), body })
    }

    fn settings(&self) -> Settings {
        Settings {
            price: won(self.number("price").unwrap_or(100)),
            opens_at: self.word("opens").map(seconds),
            closes_at: self.word("closes").map(seconds),
            per_customer_limit: self.number("limit").map(|limit| limit as u32),
            hold_ms: self.number("hold").map_or(HOLD_MS_DEFAULT, |s| s as u32 * 1_000),
        }
    }

    fn placing(&self) -> Option<ProductId> {
        let home = self.word("home")?;
        Some(if home == "here" { HERE } else { ELSEWHERE })
    }

    fn attempt(&self) -> Attempt {
        Attempt::new(self.number("try").unwrap_or(1) as u8).unwrap()
    }

    fn cause(&self) -> Cause {
        match (self.has("unplaced"), self.has("declined")) {
            (true, _) => Cause::NotPlaced,
            (_, true) => Cause::PaymentFailed,
            _ => Cause::Cancelled,
        }
    }

    fn until(&self) -> Millis {
        seconds(self.word("until").unwrap())
    }
}

fn command(verb: &str, subject: &str, rest: &Rest) -> Option<Command> {
    Some(match verb {
        "create" => Command::Create { settings: rest.settings(), stock: subject.parse().unwrap() },
        "configure" => Command::Configure(rest.settings()),
        "restock" => Command::Restock(Restock {
            delta: subject.parse().unwrap(),
            reason: "a lorry came".to_owned(),
            key: rest.key(),
        }),
        "pause" => Command::Pause,
        "resume" => Command::Resume,
        "archive" => Command::Archive,
        "reserve" => Command::Reserve(Reserve {
            order: order(rest.word("as").unwrap_or(subject)),
            line: rest.number("line").unwrap_or(0) as u8,
            buyer: buyer(subject),
            quantity: units(rest.0.clone().find(|word| word.starts_with('x')).unwrap()),
            key: rest.key(),
            expected: rest.number("expected").map(won),
            placing: rest.placing(),
        }),
        "place" => {
            Command::Place(Place { order: order(subject), deadline: rest.until(), lines: two_lines() })
        }
        "keep" => Command::Keep { order: order(subject), deadline: rest.until() },
        "pin" => Command::Pin { order: order(subject), attempt: rest.attempt() },
        "unpin" => Command::Unpin { order: order(subject), attempt: rest.attempt() },
        "confirm" => Command::Confirm {
            order: order(subject),
            quantity: units(rest.0.clone().next().unwrap()),
            attempt: rest.attempt(),
        },
        "release" => Command::Release {
            order: order(subject),
            cause: rest.cause(),
            by: rest.number("by").unwrap_or(0) as u64,
        },
        "return" => Command::Return {
            order: order(subject),
            quantity: units(rest.0.clone().next().unwrap()),
            back: if rest.has("off") { Back::WrittenOff } else { Back::ToStock },
            why: if rest.has("sent") { CameBack::Returned } else { CameBack::Cancelled },
            by: rest.number("by").unwrap_or(0) as u64,
        },
        "forget" => Command::Forget {
            unkeyed_before: seconds(rest.word("unkeyed").unwrap()),
            keyed_before: seconds(rest.word("keyed").unwrap()),
        },
        _ => return None,
    })
}

fn two_lines() -> Vec<PlacedLine> {
    let line = |line, product, amount| PlacedLine {
        line,
        product,
        quantity: units("x1"),
        unit_price: won(amount),
        sequence: Sequence(9),
    };
    vec![line(0, HERE, 100), line(1, ELSEWHERE, 50)]
}

impl Teller {
    fn tell(&mut self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap();
        let rest = Rest(words.clone());
        if let Some(at) = rest.word("at") {
            self.now = seconds(at);
        }
        // A command without a subject has its details at once.
        let subject =
            if ["configure", "forget"].contains(&verb) { "" } else { words.next().unwrap_or_default() };
        let rest = Rest(words);
        match command(verb, subject, &rest) {
            Some(command) => {
                let answer = self.ask(&command);
                format!("{answer} available {}", self.ledger.counts().available())
            }
            None => self.look(verb, subject),
        }
    }

    fn ask(&mut self, command: &Command) -> String {
        let before = self.ledger.digest();
        let answer = match self.ledger.decide(command, self.now) {
            Ok(Decision::Event(event)) => return self.happen(&event),
            Ok(Decision::Replay(order)) => format!("already {}", name_of(order)),
            Ok(Decision::Done) => "done".to_owned(),
            Err(refused) => {
                assert_eq!(refused.at, self.ledger.sequence());
                words(&refused.why)
            }
        };
        assert_eq!(self.ledger.digest(), before, "an answer without an event changes nothing");
        answer
    }

    fn happen(&mut self, event: &Event) -> String {
        let mut blob = Vec::new();
        event.encode(&mut blob);
        self.ledger.apply(event);
        let (sequence, at) = (self.ledger.sequence(), self.ledger.time(self.now));
        let entry = Entry::seal(HERE, (sequence, sequence), Epoch(1), at, self.ledger.hash(), blob);
        self.ledger.sealed(entry.hash, at);
        self.entries.push(entry);
        format!("{} #{}", event.word(), sequence.0)
    }

    fn look(&mut self, verb: &str, subject: &str) -> String {
        let view = || self.ledger.order(HERE, order(subject));
        let clock = |time: Millis| (time.0 / 1_000).to_string();
        match verb {
            "deadline" => view().map_or("unknown".to_owned(), |v| clock(v.deadline)),
            "state" => view().map_or("unknown".to_owned(), |v| format!("{:?}", v.state).to_lowercase()),
            "returned" => view().map_or("unknown".to_owned(), |v| format!("{:?}", v.returned).to_lowercase()),
            "price" => view().map_or("unknown".to_owned(), |v| v.unit_price.amount.to_string()),
            "lines" => view().map_or("unknown".to_owned(), |v| v.lines.len().to_string()),
            "place-in-queue" => view().map_or("unknown".to_owned(), |v| format!("#{}", v.sequence.0)),
            "bought" => self.ledger.bought_by(buyer(subject)).to_string(),
            "next" => self.ledger.next_deadline().map_or("none".to_owned(), clock),
            "remembered" => self.ledger.remembered().to_string(),
            "counts" => {
                let Counts { on_hand, held, sold } = self.ledger.counts();
                format!("{on_hand} on hand, {held} held, {sold} sold")
            }
            "sale" => format!("{:?}", self.ledger.sale_state(self.now)).to_lowercase(),
            // The shell's habit: ask the home of a placing hold, let everything else lapse.
            "lapse" => match self.ledger.placing_due(HERE, self.now) {
                Some((order, _)) => format!("ask the home of {}", name_of(order)),
                None => match self.ledger.due(self.now) {
                    Some(event) => {
                        let told = self.happen(&event);
                        format!("{told} available {}", self.ledger.counts().available())
                    }
                    None => "nothing due".to_owned(),
                },
            },
            "ask-again" => {
                let later = self.ledger.time(self.now).plus(1_000);
                self.ledger.ask_again_at(order(subject), later);
                clock(later)
            }
            _ => panic!("no such line: {verb} {subject}"),
        }
    }

    fn replayed(&self) {
        let mut again = Ledger::default();
        for entry in &self.entries {
            again.replay(entry).unwrap();
        }
        assert_eq!(again.digest(), self.ledger.digest(), "replayed");
        let restored = Ledger::restore(&self.ledger.snapshot()).unwrap();
        assert_eq!(restored.digest(), self.ledger.digest(), "restored");
    }
}

fn words(why: &Refusal) -> String {
    match why {
        Refusal::NoProduct => "no product".to_owned(),
        Refusal::ProductExists => "exists".to_owned(),
        Refusal::Archived => "archived".to_owned(),
        Refusal::Paused => "paused".to_owned(),
        Refusal::NotOpen { opens_at } => format!("opens at {}", opens_at.0 / 1_000),
        Refusal::Closed { closed_at } => format!("closed at {}", closed_at.0 / 1_000),
        Refusal::LimitExceeded { limit, has, requested } => {
            format!("limit {limit}: has {has}, asked {requested}")
        }
        Refusal::SoldOut { available, requested } => {
            format!("sold out: {available} left, asked {requested},")
        }
        Refusal::PriceChanged { expected, actual } => {
            format!("price changed from {} to {}", expected.amount, actual.amount)
        }
        Refusal::AmountTooLarge => "amount too large".to_owned(),
        Refusal::TwoCurrencies => "two currencies".to_owned(),
        Refusal::KeyReused { order: None } => "key reused".to_owned(),
        Refusal::KeyReused { order: Some(order) } => format!("key reused: it made {}", name_of(*order)),
        Refusal::KeyInProgress => "key in progress".to_owned(),
        Refusal::OrderIdTaken => "order id taken".to_owned(),
        Refusal::NoSuchOrder => "no such order".to_owned(),
        Refusal::HoldExpired => "expired".to_owned(),
        Refusal::AlreadyReleased { cause } => format!("already released ({cause:?})").to_lowercase(),
        Refusal::AlreadySold => "already sold".to_owned(),
        Refusal::PaymentRunning => "payment running".to_owned(),
        Refusal::NotPinned => "not pinned".to_owned(),
        Refusal::AttemptOver => "attempt over".to_owned(),
        Refusal::StillPlacing => "still placing".to_owned(),
        Refusal::MoreThanHeld { confirmed, held } => format!("more than held: {confirmed} of {held},"),
        Refusal::MoreThanSold { returned, sold } => format!("more than sold: {returned} of {sold},"),
        Refusal::BelowPromised { promised, would_be } => format!("{promised} promised, would be {would_be},"),
        Refusal::TooMuchStock { limit } => format!("at most {limit},"),
        Refusal::NothingToDo => "nothing to do".to_owned(),
    }
}
