//! What stands in files of ours that somebody may have damaged, what operators write, and words that are ids or sums.

use std::str::FromStr;
use std::sync::LazyLock;

use jiff::tz::TimeZone;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use crate::actors::stock::{Question, Said, View};
use crate::config::{Config, Layers, SETTINGS};
use crate::domain::amount::{Currency, Money, Quantity};
use crate::domain::calendar::Calendar;
use crate::domain::id::{OrderId, PaymentId, ProductId, RefundId, SessionId, UserId};
use crate::domain::job::Schedule;
use crate::domain::stock::{ChainHash, Entry, Epoch, Ledger, Millis, Sequence, decode_events};
use crate::domain::webhook::Kinds;

const NOW: Millis = Millis(1_800_000_000_000);

/// What nodes ask each other about stock: what was read is written, and read again as the same.
pub fn questions(bytes: &[u8]) {
    same_again::<Question>(bytes);
    same_again::<Said>(bytes);
    same_again::<Vec<(ProductId, View)>>(bytes);
}

fn same_again<T: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) {
    if let Ok(said) = postcard::from_bytes::<T>(bytes) {
        let again = postcard::to_stdvec(&said).ok().and_then(|again| postcard::from_bytes(&again).ok());
        assert!(again == Some(said), "it arrives as it left");
    }
}

/// Events behind a chain that fits: a ledger that has read them adds up.
pub fn events(bytes: &[u8]) {
    let Ok(events) = decode_events(bytes) else { return };
    let mut again = Vec::new();
    events.iter().for_each(|event| event.encode(&mut again));
    let written = decode_events(&again).map(|events| events.len());
    assert_eq!(written, Ok(events.len()), "what was read is written and read again");
    let span = (Sequence(1), Sequence(events.len() as u64));
    let product = ProductId::from_bytes([1; 16]);
    let entry = Entry::seal(product, span, Epoch(1), Millis(0), ChainHash::default(), bytes.to_vec());
    let mut ledger = Ledger::default();
    if ledger.replay(&entry).is_ok() {
        adds_up(&ledger);
    }
}

fn adds_up(ledger: &Ledger) {
    let counts = ledger.counts();
    assert!(counts.held.checked_add(counts.sold).is_some_and(|promised| promised <= counts.on_hand));
}

/// A snapshot as it stands, and behind a checksum that fits.
pub fn snapshots(bytes: &[u8]) {
    let fitting = [bytes, &xxh3_64(bytes).to_le_bytes()].concat();
    for snapshot in [bytes, &fitting] {
        if let Ok(ledger) = Ledger::restore(snapshot) {
            adds_up(&ledger);
            let again = Ledger::restore(&ledger.snapshot()).map(|again| again.digest());
            assert_eq!(again.ok(), Some(ledger.digest()), "the snapshot of a ledger is that ledger");
        }
    }
}

/// Settings, one `key value` a line. One that is refused is named, and no secret is repeated.
pub fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let pairs: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    // Looking up a zone may look at the disk, which is the system's to guard; a name has no path in it.
    let is_path = |(key, value): &(&str, &str)| *key == "calendar_zone" && value.contains("..");
    let said = pairs.iter().filter(|pair| !is_path(pair));
    let variables =
        said.map(|(key, value)| (format!("STOCKADE_{}", key.to_uppercase()), (*value).to_owned()));
    let Ok(layers) = Layers::of(None, variables, []) else { return };
    let read = Config::read(&layers);
    let told = match &read {
        Ok(config) => format!("{config:?}"),
        Err(error) => error.to_string(),
    };
    let is_secret = |key: &str| SETTINGS.iter().any(|setting| setting.secret && setting.key == key);
    let (secrets, others): (Vec<_>, Vec<_>) = pairs.iter().partition(|(key, _)| is_secret(key));
    for (_, secret) in secrets.into_iter().filter(|(_, secret)| secret.trim().len() >= 24) {
        // What somebody writes in another place as well is no secret.
        let is_open =
            others.iter().any(|(key, value)| value.contains(secret.trim()) || key.contains(secret.trim()));
        assert!(is_open || !told.contains(secret.trim()), "a secret is told: {told}");
    }
}

static ZONES: LazyLock<[Calendar; 3]> = LazyLock::new(|| {
    let civil = |name| TimeZone::get(name).map(Calendar::civil).unwrap_or_else(|_| Calendar::utc());
    let short = Calendar::of(10_000, TimeZone::UTC).unwrap_or_else(|_| Calendar::utc());
    [civil("Europe/Berlin"), civil("America/Sao_Paulo"), short]
});

/// Cron expressions, each followed by the moments that it names; days of any length at any time.
pub fn schedules(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let calendar = ZONES[usize::from(first) % ZONES.len()].clone();
    let number = rest.first_chunk::<8>().map_or(0, |chunk| i64::from_le_bytes(*chunk));
    if let Ok(odd) = Calendar::of(number, TimeZone::UTC) {
        let _ = odd.next_after(NOW);
        assert!(odd.start_of(NOW) <= NOW);
    }
    let at = Millis(number);
    let next = calendar.next_after(at);
    assert!(next > at || next.0 == i64::MAX, "{number}");
    assert!(calendar.start_of(at) <= at || at.0 < 0, "{number}");
    if rest.len() > 100 {
        return;
    }
    let Ok(schedule) = Schedule::cron(&String::from_utf8_lossy(rest), calendar) else { return };
    let mut last = NOW;
    for _ in 0..3 {
        let Some(next) = schedule.next_after(last) else { return };
        assert!(next > last, "{}", schedule.words());
        last = next;
    }
}

/// A word that is read as an id is that id's own word, and a sum is what was said.
pub fn ids_and_money(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    fn own_word<T: FromStr + ToString>(text: &str) {
        if let Ok(id) = text.parse::<T>() {
            assert_eq!(id.to_string(), text);
        }
    }
    own_word::<OrderId>(&text);
    own_word::<ProductId>(&text);
    own_word::<UserId>(&text);
    own_word::<SessionId>(&text);
    own_word::<PaymentId>(&text);
    own_word::<RefundId>(&text);
    if let Some(bytes) = bytes.first_chunk::<16>() {
        let id = OrderId::from_bytes(*bytes);
        assert_eq!(id.to_string().parse(), Ok(id));
        let _ = (id.made_at(), id.shard());
    }
    let _ = text.parse::<Currency>();
    if let Ok(money) = serde_json::from_slice::<Money>(bytes) {
        let again = serde_json::to_vec(&money).ok().and_then(|json| serde_json::from_slice(&json).ok());
        assert_eq!(again, Some(money));
        let _ = money.figures();
        for units in [1, 1_000] {
            let whole = Quantity::of_line(units).and_then(|quantity| money.times(quantity));
            assert!(whole.is_none_or(|whole| whole.amount / i64::from(units) == money.amount));
        }
        let _ = money.plus(money);
    }
    if let Some(kinds) = Kinds::from_words(&text) {
        assert_eq!(Kinds::from_words(&kinds.words()), Some(kinds));
    }
}
