//! A ledger at rest: the state at one sequence, and by what two ledgers with one history are known to have it.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

use super::ledger::Ledger;
use super::order_table::{HoldState, Many, Record};
use super::{Attempt, ChainHash, Counts, Millis, Sequence, Settings};
use crate::domain::amount::{Money, Quantity};
use crate::domain::id::{OrderId, UserId};

/// Bytes of a record, about: room for all of them is taken at once.
pub const RECORD_BYTES: usize = 96;

/// The shape below. A new shape gets the next number and a second arm in `take_record`, and raises `FORMAT`.
pub(super) const VERSION: u8 = 2;

/// The snapshot is damaged, or of a newer version. The journal still holds everything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot cannot be read")]
pub struct UnreadableSnapshot;

/// Where a ledger stands, all of whose events are sealed: what can be told of it without a look at its orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub sequence: Sequence,
    /// The chain hash of the entry that ends there.
    pub hash: ChainHash,
    pub counts: Counts,
    /// Orders that are remembered.
    pub remembered: usize,
}

#[derive(Serialize)]
struct Head<'a> {
    sequence: Sequence,
    hash: ChainHash,
    last_at: Millis,
    settings: &'a Option<Settings>,
    counts: Counts,
    paused: bool,
    archived: bool,
    restocks: Vec<([u8; 16], u64)>,
    records: u64,
}

#[derive(Deserialize)]
struct HeadBack {
    sequence: Sequence,
    hash: ChainHash,
    last_at: Millis,
    settings: Option<Settings>,
    counts: Counts,
    paused: bool,
    archived: bool,
    restocks: Vec<([u8; 16], u64)>,
    records: u64,
}

/// A record of when nobody could pay: nothing had been unpinned or returned.
#[derive(Deserialize)]
struct Record1 {
    order: OrderId,
    buyer: UserId,
    key: [u8; 16],
    body: u64,
    unit_price: Money,
    deadline: Millis,
    sequence: Sequence,
    ended_by: u64,
    quantity: Quantity,
    sold: u32,
    line: u8,
    state: HoldState,
    keyed: bool,
    many: Option<Box<Many>>,
}

impl From<Record1> for Record {
    fn from(was: Record1) -> Record {
        let Record1 { order, buyer, key, body, unit_price, deadline, sequence, ended_by, quantity, .. } = was;
        let Record1 { sold, line, state, keyed, many, .. } = was;
        let attempt = if state == HoldState::Pinned { Attempt::FIRST.get() } else { 0 };
        Record {
            order,
            buyer,
            key,
            body,
            unit_price,
            deadline,
            sequence,
            ended_by,
            quantity,
            sold,
            line,
            state,
            attempt,
            keyed,
            many,
            returns: None,
        }
    }
}

fn take_record(version: u8, bytes: &[u8]) -> Result<(Record, &[u8]), UnreadableSnapshot> {
    let taken = match version {
        1 => postcard::take_from_bytes::<Record1>(bytes).map(|(record, rest)| (record.into(), rest)),
        _ => postcard::take_from_bytes(bytes),
    };
    taken.map_err(|_| UnreadableSnapshot)
}

/// Whether what comes piece by piece is a snapshot as it was written: it is looked at by its checksum alone, and not kept.
#[derive(Default)]
pub struct Intact {
    sum: Xxh3,
    /// What may be the checksum.
    last: Vec<u8>,
}

impl Intact {
    pub fn add(&mut self, piece: &[u8]) {
        self.last.extend_from_slice(piece);
        let before = self.last.len().saturating_sub(size_of::<u64>());
        self.sum.update(&self.last[..before]);
        self.last.drain(..before);
    }

    pub fn is_it(&self) -> bool {
        self.last == self.sum.digest().to_le_bytes()
    }
}

impl Ledger {
    /// Where it stands, if everything is sealed.
    pub fn standing(&self) -> Standing {
        let Ledger { sequence, hash, counts, .. } = *self;
        Standing { sequence, hash, counts, remembered: self.orders.len() }
    }

    fn head(&self) -> Head<'_> {
        Head {
            sequence: self.sequence,
            hash: self.hash,
            last_at: self.last_at,
            settings: &self.settings,
            counts: self.counts,
            paused: self.paused,
            archived: self.archived,
            restocks: self.restocks.iter().map(|(key, body)| (*key, *body)).collect(),
            records: self.orders.len() as u64,
        }
    }

    /// The state as bytes, and their checksum. Only a ledger whose every event is sealed has one that fits its journal.
    pub fn snapshot(&self) -> Vec<u8> {
        #[cfg(test)]
        WRITTEN_HERE.set(WRITTEN_HERE.get() + 1);
        let mut out = Vec::with_capacity(RECORD_BYTES * (self.orders.len() + 4));
        out.push(VERSION);
        write(&self.head(), &mut out);
        for record in self.orders.iter() {
            write(record, &mut out);
        }
        let sum = xxh3_64(&out);
        out.extend(sum.to_le_bytes());
        out
    }

    /// The ledger a snapshot was taken of.
    pub fn restore(bytes: &[u8]) -> Result<Ledger, UnreadableSnapshot> {
        let (bytes, sum) = bytes.split_last_chunk().ok_or(UnreadableSnapshot)?;
        let [version @ (1 | VERSION), rest @ ..] = bytes else { return Err(UnreadableSnapshot) };
        if xxh3_64(bytes) != u64::from_le_bytes(*sum) {
            return Err(UnreadableSnapshot);
        }
        let (head, mut rest): (HeadBack, _) =
            postcard::take_from_bytes(rest).map_err(|_| UnreadableSnapshot)?;
        let mut ledger = Ledger {
            sequence: head.sequence,
            hash: head.hash,
            last_at: head.last_at,
            settings: head.settings,
            counts: head.counts,
            paused: head.paused,
            archived: head.archived,
            restocks: head.restocks.into_iter().collect(),
            ..Ledger::default()
        };
        let mut counted = Counts { on_hand: head.counts.on_hand, ..Counts::default() };
        for _ in 0..head.records {
            let record: Record;
            (record, rest) = take_record(*version, rest)?;
            let (held, sold) = record.units();
            counted.held += u64::from(held);
            counted.sold += u64::from(sold);
            if held + sold > 0 {
                let has = ledger.buyers.entry(record.buyer).or_insert(0);
                *has = has.checked_add(held + sold).ok_or(UnreadableSnapshot)?;
            }
            ledger.orders.insert(record);
        }
        let conserved = counted == head.counts && counted.promised() <= counted.on_hand;
        if rest.is_empty() && conserved { Ok(ledger) } else { Err(UnreadableSnapshot) }
    }

    /// Whether the counters are what the records add up to. Looks at each of them: for when all are written down anyway.
    pub fn adds_up(&self) -> bool {
        let mut counted = Counts { on_hand: self.counts.on_hand, ..Counts::default() };
        for (held, sold) in self.orders.iter().map(Record::units) {
            counted.held += u64::from(held);
            counted.sold += u64::from(sold);
        }
        counted == self.counts && counted.promised() <= counted.on_hand
    }

    /// A unit is held for nobody.
    #[cfg(test)]
    pub fn tamper(&mut self) {
        self.counts.held += 1;
    }

    /// Equal for two ledgers with equal state, however they came by it. Records are taken in order of id.
    pub fn digest(&self) -> [u8; 16] {
        let mut out = Vec::new();
        let mut head = self.head();
        // The ledger's clock is no part of what is promised to anyone.
        head.last_at = Millis(0);
        write(&head, &mut out);
        let mut records: Vec<&Record> = self.orders.iter().collect();
        records.sort_by_key(|record| record.order);
        for record in records {
            write(record, &mut out);
        }
        xxh3_128(&out).to_be_bytes()
    }
}

#[cfg(test)]
thread_local! {
    static WRITTEN_HERE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many snapshots were encoded on this thread.
#[cfg(test)]
pub fn written_here() -> usize {
    WRITTEN_HERE.get()
}

/// Appends `part` to what is written. Into memory, that has no way to fail.
fn write<T: Serialize>(part: &T, out: &mut Vec<u8>) {
    let written = postcard::to_io(part, out);
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::Currency;
    use crate::domain::id::ProductId;
    use crate::domain::stock::{Command, Decision, Reserve};

    /// The snapshot as it was written when nobody could pay.
    fn former(ledger: &Ledger) -> Vec<u8> {
        let mut out = vec![1];
        write(&ledger.head(), &mut out);
        for r in ledger.orders.iter() {
            let who = (r.order, r.buyer, r.key, r.body, r.unit_price);
            let what =
                (r.deadline, r.sequence, r.ended_by, r.quantity, r.sold, r.line, r.state, r.keyed, &r.many);
            write(&(who, what), &mut out);
        }
        let sum = xxh3_64(&out);
        out.extend(sum.to_le_bytes());
        out
    }

    #[test]
    fn a_snapshot_of_before_attempts_were_counted_is_the_same_ledger() {
        let price = Money { amount: 10, currency: Currency::KRW };
        let (opens_at, closes_at, per_customer_limit) = (None, None, None);
        let settings = Settings { price, opens_at, closes_at, per_customer_limit, hold_ms: 1_000 };
        let (order, home) = (|n| OrderId::from_bytes([n; 16]), ProductId::from_bytes([9; 16]));
        let quantity = Quantity::of_line(2).unwrap();
        let reserve = |n, placing| {
            let (buyer, key, expected) = (UserId::from_bytes([n; 16]), None, None);
            Command::Reserve(Reserve { order: order(n), line: 1, buyer, quantity, key, expected, placing })
        };
        let attempt = Attempt::FIRST;
        let mut ledger = Ledger::default();
        for command in [
            Command::Create { settings, stock: 20 },
            reserve(1, None),
            reserve(2, None),
            reserve(3, None),
            reserve(4, Some(home)),
            Command::Pin { order: order(2), attempt },
            Command::Pin { order: order(3), attempt },
            Command::Confirm { order: order(3), quantity, attempt },
        ] {
            let Ok(Decision::Event(event)) = ledger.decide(&command, Millis(1)) else {
                panic!("{command:?}")
            };
            ledger.apply(&event);
        }
        let (now, then) = (Ledger::restore(&ledger.snapshot()), Ledger::restore(&former(&ledger)));
        assert_eq!(now.unwrap().digest(), ledger.digest());
        assert!(ledger.adds_up());
        assert_eq!(then.unwrap().digest(), ledger.digest());
    }
}
