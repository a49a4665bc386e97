//! An owner without an actor: for tests that need histories which a real ledger has decided. And homes for tables.

mod home;
mod people;

pub use home::{Home, new_database};
pub use people::{somebody, tables_with};

use std::sync::mpsc;
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::amount::{Currency, Money, Quantity};
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::stock::{
    Command, Decision, Entry, Epoch, KeyUse, Ledger, Millis, PlacedLine, Reserve, Sequence, Settings,
};
use crate::persistence::journal::{Append, AppendTo, Appended, Journal, JournalConfig};
use crate::persistence::sql::{self, Connection};

/// The steps that SQLite takes for a statement.
pub async fn plan(connection: &mut Connection, sql: &str) -> Vec<String> {
    let explain: &'static str = format!("explain query plan {sql}").leak();
    let mut query = sql::query(explain);
    for _ in 0..sql.matches('?').count() {
        query = query.bind(1_i64);
    }
    query.fetch_all(connection).await.unwrap().iter().map(|row| row.get(3)).collect()
}

pub const T0: Millis = Millis(1_700_000_000_000);

/// One product's ledger and the events that are not sealed yet.
pub struct Owner {
    pub product: ProductId,
    pub ledger: Ledger,
    pub epoch: Epoch,
    first: Sequence,
    open: Vec<u8>,
}

pub fn product(number: u128) -> ProductId {
    ProductId::new(T0, number)
}

pub fn buyer(number: u128) -> UserId {
    UserId::new(T0, number)
}

pub fn order(number: u128, home: ProductId) -> OrderId {
    OrderId::for_home(T0.plus(number as i64), number << 10, home)
}

pub fn units(units: u32) -> Quantity {
    Quantity::of_line(units).unwrap()
}

pub fn settings() -> Settings {
    Settings {
        price: Money { amount: 1_000, currency: Currency::KRW },
        opens_at: None,
        closes_at: None,
        per_customer_limit: None,
        hold_ms: 600_000,
    }
}

impl Owner {
    pub fn new(number: u128) -> Owner {
        let product = product(number);
        Owner { product, ledger: Ledger::default(), epoch: Epoch(1), first: Sequence(1), open: Vec::new() }
    }

    pub fn stocked(number: u128, stock: u64) -> Owner {
        let mut owner = Owner::new(number);
        owner.does(&Command::Create { settings: settings(), stock }, T0);
        owner
    }

    /// Decides and applies a command that must not be refused.
    pub fn does(&mut self, command: &Command, now: Millis) -> &mut Owner {
        match self.ledger.decide(command, now) {
            Ok(Decision::Event(event)) => {
                event.encode(&mut self.open);
                self.ledger.apply(&event);
            }
            other => panic!("{command:?} came to {other:?}"),
        }
        self
    }

    pub fn hold(&mut self, order: OrderId, by: UserId, quantity: u32, now: Millis) -> &mut Owner {
        self.hold_for(order, 0, by, quantity, None, now)
    }

    pub fn hold_for(
        &mut self,
        order: OrderId,
        line: u8,
        buyer: UserId,
        quantity: u32,
        placing: Option<ProductId>,
        now: Millis,
    ) -> &mut Owner {
        let key = (line == 0).then(|| KeyUse { key: *order.as_bytes(), body: 7 });
        let (quantity, expected) = (units(quantity), None);
        self.does(&Command::Reserve(Reserve { order, line, buyer, quantity, key, expected, placing }), now)
    }

    /// A line of this product for an order of several lines, as its hold stands now.
    pub fn placed_line(&self, order: OrderId) -> PlacedLine {
        let view = self.ledger.order(self.product, order).unwrap();
        PlacedLine {
            line: view.line,
            product: self.product,
            quantity: view.quantity,
            unit_price: view.unit_price,
            sequence: view.sequence,
        }
    }

    /// Lapses everything that is due.
    pub fn lapse(&mut self, now: Millis) -> &mut Owner {
        while let Some(event) = self.ledger.due(now) {
            event.encode(&mut self.open);
            self.ledger.apply(&event);
        }
        self
    }

    /// Closes the group: everything since the last one.
    pub fn seal(&mut self, at: Millis) -> Entry {
        let range = (self.first, self.ledger.sequence());
        let entry = Entry::seal(
            self.product,
            range,
            self.epoch,
            at,
            self.ledger.hash(),
            std::mem::take(&mut self.open),
        );
        self.ledger.sealed(entry.hash, at);
        self.first = self.ledger.sequence().next();
        entry
    }
}

pub fn config(dir: &tempfile::TempDir) -> JournalConfig {
    JournalConfig::new(dir.path(), Clock::start())
}

pub async fn open(dir: &tempfile::TempDir) -> Journal {
    Journal::open(config(dir)).await.unwrap()
}

/// Submits and waits for the answer.
pub fn append(journal: &dyn AppendTo, entry: Entry) -> Appended {
    append_all(journal, vec![entry])[0]
}

/// Submits all at once, so that they share transactions; the answers in order.
pub fn append_all(journal: &dyn AppendTo, entries: Vec<Entry>) -> Vec<Appended> {
    let (answer, answers) = mpsc::channel();
    let many = entries.len();
    for (number, entry) in entries.into_iter().enumerate() {
        let answer = answer.clone();
        let reply = Box::new(move |outcome| answer.send((number, outcome)).unwrap());
        assert!(journal.submit(Append { entry, reply }).is_ok(), "the inbox is full");
    }
    let answered: Vec<_> =
        (0..many).map(|_| answers.recv_timeout(Duration::from_secs(10)).expect("an answer")).collect();
    assert!(answered.is_sorted_by_key(|(number, _)| *number), "answers out of order");
    answered.into_iter().map(|(_, outcome)| outcome).collect()
}

/// A file as it stands without its WAL, in a folder of its own.
pub fn without_wal(file: &std::path::Path) -> tempfile::TempDir {
    let alone = tempfile::tempdir().unwrap();
    std::fs::copy(file, alone.path().join(file.file_name().unwrap())).unwrap();
    alone
}

/// The files as they stand, as after a kill: without the memory that a WAL's index lives in.
pub fn killed(dir: &tempfile::TempDir) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    copy
}
