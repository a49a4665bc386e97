//! A ledger at rest: the state at one sequence, and the digest that two ledgers with one history share.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::ledger::Ledger;
use super::order_table::Record;
use super::{ChainHash, Counts, Millis, Sequence, Settings};

/// The shape below. A new shape gets the next number and a second arm in `restore`.
const VERSION: u8 = 1;

/// The snapshot is damaged, or of a newer version. The journal still holds everything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot cannot be read")]
pub struct UnreadableSnapshot;

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

impl Ledger {
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
        let mut out = vec![VERSION];
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
        let [VERSION, rest @ ..] = bytes else { return Err(UnreadableSnapshot) };
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
            (record, rest) = postcard::take_from_bytes(rest).map_err(|_| UnreadableSnapshot)?;
            let live = record.state.is_live();
            let units = if live { record.quantity.get() } else { record.sold };
            *(if live { &mut counted.held } else { &mut counted.sold }) += u64::from(units);
            if units > 0 {
                let has = ledger.buyers.entry(record.buyer).or_insert(0);
                *has = has.checked_add(units).ok_or(UnreadableSnapshot)?;
            }
            ledger.orders.insert(record);
        }
        let conserved = counted == head.counts && counted.promised() <= counted.on_hand;
        if rest.is_empty() && conserved { Ok(ledger) } else { Err(UnreadableSnapshot) }
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

/// Appends `part` to what is written. Into memory, that has no way to fail.
fn write<T: Serialize>(part: &T, out: &mut Vec<u8>) {
    let written = postcard::to_io(part, out);
    debug_assert!(written.is_ok());
}
