//! What can be told afterwards: every attempt with its answer, every event with how it came about.
//!
//! Checkers read a [`Story`] and nothing else. Facts are what only a simulation knows (true times, arrival numbers);
//! a layer that watches a real process leaves them out, and checkers that need them have nothing to say there.

use std::collections::BTreeMap;

use stockade::actors::order::Item;
use stockade::domain::id::{OrderId, ProductId, UserId};
use stockade::domain::payment::OwnerSaid;
use stockade::domain::stock::{Command, Entry, Event, Held, KeyUse, Millis, Refusal, Refused, Sequence};

use crate::time::Micros;

/// A request, as one client sent it once.
#[derive(Debug, Clone)]
pub enum What {
    Order { items: Vec<Item>, key: Option<KeyUse> },
    Command { product: usize, command: Command },
    Read { order: OrderId, home: usize },
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// 201: the order, and each line's product and place in its queue.
    Made {
        order: OrderId,
        lines: Vec<(usize, Sequence)>,
    },
    /// The order that this key had made before.
    Replayed(OrderId),
    Done,
    /// A read: whether the order is known.
    Known(bool),
    Refused {
        product: Option<usize>,
        refused: Refused,
    },
    /// 503, certainly not executed.
    NotExecuted,
    /// 503, perhaps executed.
    Unknown,
}

impl Heard {
    /// What a payment's worker makes of what he hears of an owner. `None`: he has waited in vain.
    pub fn of_owner(heard: Option<Heard>) -> OwnerSaid {
        match heard {
            Some(Heard::Refused { refused, .. }) => OwnerSaid::Refused(refused.why),
            None | Some(Heard::NotExecuted | Heard::Unknown) => OwnerSaid::NotNow,
            Some(_) => OwnerSaid::Done,
        }
    }

    /// Whoever hears it knows where he stands: what he asked for is so, or it is not, and why.
    pub fn is_certain(&self) -> bool {
        match self {
            Heard::Made { .. } | Heard::Replayed(_) | Heard::Done => true,
            Heard::Known(_) | Heard::Refused { .. } => true,
            Heard::NotExecuted | Heard::Unknown => false,
        }
    }

    /// What a door refuses by itself: no sequence has to do with it.
    pub fn of_no_product(why: Refusal) -> Heard {
        Heard::Refused { product: None, refused: Refused { at: Sequence(0), why } }
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Heard::Refused { refused, .. } => Some(&refused.why),
            _ => None,
        }
    }
}

/// An answer, from the moment it left the process.
#[derive(Debug, Clone)]
pub struct Said {
    pub at: Micros,
    pub heard: Heard,
    /// Answered by the door from the published view.
    pub from_view: bool,
}

#[derive(Debug, Clone)]
pub struct Attempt {
    pub who: UserId,
    pub what: What,
    pub sent: Micros,
    pub said: Option<Said>,
    /// When the answer reached the client, if it did.
    pub heard_at: Option<Micros>,
    /// Which start of the process took it.
    pub process: u64,
    /// The shop itself asks, for somebody who waits for something else.
    pub inside: bool,
}

impl Attempt {
    pub fn new(who: UserId, what: What, sent: Micros) -> Attempt {
        Attempt { who, what, sent, said: None, heard_at: None, process: 0, inside: false }
    }
}

/// Who brought an event about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Attempt(usize),
    /// Nobody: the time had come.
    Lapse,
    /// The shell, after a birth.
    Keep,
    /// The shell, after the home was asked.
    Word,
}

/// How an event came about.
#[derive(Debug, Clone, Copy)]
pub struct Fact {
    pub by: By,
    pub decided: Micros,
    /// When the question reached the owner, for what was asked.
    pub arrived: Micros,
    /// How far the process's clock was ahead of the truth.
    pub error_us: i64,
    /// Which start of the process decided it.
    pub process: u64,
    /// Which owner decided it; no two loads of a product share one.
    pub owner: u64,
    /// When the journal had it.
    pub durable: Micros,
}

/// What an owner said to a question, with the question's place in the mailbox.
#[derive(Debug, Clone)]
pub struct Ruling {
    pub product: usize,
    pub owner: u64,
    pub arrival: u64,
    pub arrived: Micros,
    pub arrived_ms: Millis,
    pub reserve: bool,
    pub at: Sequence,
    pub held: bool,
    /// For a refused pin: its order, and why.
    pub pin: Option<(OrderId, Refusal)>,
}

/// How full the mailbox of a product was at most, as those found it who came to it from outside, themselves included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mailbox {
    pub product: usize,
    pub questions: usize,
    pub questions_max: usize,
    /// Of them, those that want to reserve.
    pub reserves: usize,
    pub reserves_max: usize,
}

/// One product's whole history.
#[derive(Debug, Clone)]
pub struct Chapter {
    pub product: ProductId,
    pub entries: Vec<Entry>,
    pub events: Vec<Event>,
    /// As many as events, or none.
    pub facts: Vec<Fact>,
    /// Every snapshot that was stored.
    pub snapshots: Vec<(Sequence, Vec<u8>)>,
}

impl Chapter {
    /// The hold of an order, as it began.
    pub fn held(&self, order: OrderId) -> Option<&Held> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Held(held) if held.order == order => Some(held),
            _ => None,
        })
    }

    /// What is said last of an order.
    pub fn last_word(&self, order: OrderId) -> Option<&Event> {
        self.events.iter().rev().find(|event| event.order() == Some(order))
    }

    /// The entries after a sequence.
    pub fn tail(&self, after: Sequence) -> &[Entry] {
        &self.entries[self.entries.partition_point(|entry| entry.last <= after)..]
    }

    /// Notes a snapshot that is stored; what is wrong with it, if it cannot be.
    pub fn keep_snapshot(&mut self, sequence: Sequence, body: Vec<u8>) -> Result<(), String> {
        let head = self.entries.last().map_or(Sequence(0), |entry| entry.last);
        if sequence > head {
            return Err(format!("a snapshot at {}, the journal ends at {}", sequence.0, head.0));
        }
        self.snapshots.push((sequence, body));
        Ok(())
    }

    pub fn fact(&self, index: usize) -> Option<&Fact> {
        self.facts.get(index)
    }

    /// Each event with its sequence and, where known, how it came about.
    pub fn told(&self) -> impl Iterator<Item = (Sequence, &Event, Option<&Fact>)> {
        self.events.iter().enumerate().map(|(n, event)| (Sequence(n as u64 + 1), event, self.fact(n)))
    }
}

/// How what people wanted has ended, in a history or in many. Whoever asks again with the same key wants one thing, however often he asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answers {
    pub requests: u64,
    /// Requests that were told something certain, whether or not it arrived.
    pub certain_requests: u64,
    pub wishes: u64,
    /// Wishes whose owner heard something certain in the end.
    pub certain_wishes: u64,
}

impl Answers {
    pub fn add(&mut self, other: Answers) {
        self.requests += other.requests;
        self.certain_requests += other.certain_requests;
        self.wishes += other.wishes;
        self.certain_wishes += other.certain_wishes;
    }
}

/// A whole history.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub chapters: Vec<Chapter>,
    pub attempts: Vec<Attempt>,
    pub rulings: Vec<Ruling>,
    /// None where mailboxes are not watched.
    pub mailboxes: Vec<Mailbox>,
    /// What orders were made of, by whom, as each attempt knew it.
    pub orders: BTreeMap<OrderId, usize>,
}

impl Story {
    pub fn answers(&self) -> Answers {
        let mut answers = Answers { requests: self.attempts.len() as u64, ..Answers::default() };
        let mut keyed: BTreeMap<(UserId, [u8; 16]), bool> = BTreeMap::new();
        for attempt in &self.attempts {
            let is_certain = attempt.said.as_ref().is_some_and(|said| said.heard.is_certain());
            let is_heard = is_certain && attempt.heard_at.is_some();
            answers.certain_requests += u64::from(is_certain);
            match &attempt.what {
                _ if attempt.inside => {}
                What::Order { key: Some(key), .. } => {
                    *keyed.entry((attempt.who, key.key)).or_default() |= is_heard;
                }
                What::Order { key: None, .. } | What::Command { .. } | What::Read { .. } => {
                    answers.wishes += 1;
                    answers.certain_wishes += u64::from(is_heard);
                }
            }
        }
        answers.wishes += keyed.len() as u64;
        answers.certain_wishes += keyed.values().filter(|is_heard| **is_heard).count() as u64;
        answers
    }
}
