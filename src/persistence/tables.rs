//! What people query: `shop.db`, which the flush fills, and `people.db` and `money.db`, which exist nowhere else.
//!
//! The flush's transactions are not synced one by one (`synchronous=NORMAL`): the journal is the truth, and the
//! flush checkpoint rolls back together with the rows when the power goes. What is written directly is synced before
//! its answer; after a sync that failed nothing more is written to any of the three, and the next opening begins by writing that file
//! back (`doubt`). Accounts, sessions, mails and the audit trail have a file of their own for the sake of orders: to sync a
//! log-in in the flush's file would push everything the flush wrote meanwhile onto the disk, and the journal, whose syncs
//! wait for the same disk, would stand still for a tenth of a second. Payments have one for the same reason, and because a
//! buyer waits for them: nobody's mail stands before them in a queue.
//!
//! A database of MySQL's holds all three, for many nodes. Whoever owns stock writes the journal alone; these tables are the lead's, in
//! which the three have a writer of their own, and share the readers.
//!
//! # What rests on there being one process
//!
//! Of nodes it is the lead: each of these writers' transactions locks the lead's session, so none of a former one's ends beside it.
//!
//! What moves by a version, by a place that is compared, or by a unique key, is safe between processes: the flush by its checkpoint
//! (`flush_checkpoint`, `stock`), `products`, `users`, `carts`, `jobs`, claims of the `outbox` and of `webhook_deliveries`, the
//! refresh tokens of `sessions`, `one_time_tokens`, proved addresses and numbers, the second of `approvals`. These read, decide and
//! write without one; before several processes write them they need a lock, a lease or a version:
//!
//! * `payments`, `refunds`, `open_payments`, `webhooks_heard`: `money` remembers open payments between groups, and puts a row in the
//!   place of the one it knows; `release_all_leases` takes back what others may hold.
//! * `trail`: an entry is made upon the head that was read; who comes second fails.
//! * `buyer_runs`, `buyer_orders`: a merge takes it that nobody adds to a run that is full; the next run is the last and one.
//! * `notice_slices`, `webhook_events`: taken from the front, because rows come only behind all others; and by one dispatcher, as
//!   `letters_told`, `hold_reminders` and `notices`.
//! * `webhook_endpoints`, `webhook_secrets`: changed as they were read; what the flush is asked to tell is remembered.
//! * `revocations`: extended, or added when there was none.
//! * Whatever `Tables::begin_for` writes (`wishes`, `cart_lines`, `cart_additions`, `checkouts`, `order_addresses`) and `sessions`:
//!   their account was there when it was read; and lists have bounds that are counted before.

use std::path::Path;

use tokio::sync::watch;

use super::cart::CartReader;
use super::delivery::DeliveryReader;
use super::job::JobRows;
use super::money::MoneyBook;
use super::notice::{Bell, NoticeRows};
use super::order::OrderReader;
use super::order_address::OrderAddressReader;
use super::outbox::Outbox;
use super::payment::PaymentReader;
use super::product::{ProductReader, ProductWriter};
use super::refund::RefundReader;
use super::revocation::RevocationReader;
use super::session::SessionReader;
use super::sql::mysql::{self, Server};
use super::sql::{self, Connection, Pool, Query};
use super::stock::StockReader;
use super::store::{Shape, Store, Transaction, Writer};
use super::trail::Trail;
use super::user::UserReader;
use super::webhook::{Interest, WebhookRows};
use super::wish::WishReader;
use super::{StoreError, migrations};

/// Connections that read a file.
const READERS_MAX: u32 = 4;
/// Connections that read the one database, for all tables.
const SERVER_READERS_MAX: u32 = 12;

/// How much less a writer weighs than the path of an order, in steps of the scheduler …
pub const NICE: i32 = 4;
/// … and the one of people, whose log-ins may be a flood.
const NICE_TO_ALL: i32 = 10;
/// Pages in the WAL of `shop.db` at which they are copied while somebody waits for its writer: more would take longer than a
/// slice does.
const WAL_PAGES_WAITED_FOR: i64 = 1_000;

pub(super) const FLUSHED: &str = "select pos from flush_checkpoint where id = 1";

fn shop(dir: &Path) -> Shape {
    let shape = Shape {
        path: "shop.db".into(),
        // The index of the orders of a buyer, into which a rush writes at random, for a few million orders.
        writer_cache_kib: 128 * 1024,
        reader_cache_kib: 8 * 1024,
        readers_max: READERS_MAX,
        wal_pages_max: 8_000,
        // An order does not wait for it, but a payment does.
        nice: NICE,
        synced: false,
        erases: false,
    };
    shape.at(dir)
}

fn people(dir: &Path) -> Shape {
    let shape = Shape {
        path: "people.db".into(),
        writer_cache_kib: 16 * 1024,
        reader_cache_kib: 4 * 1024,
        readers_max: READERS_MAX,
        // As small as the journal's: it is soon written from its start again, and a file that does not grow syncs without
        // the file system's own log, in which the journal would wait.
        wal_pages_max: 256,
        nice: NICE_TO_ALL,
        synced: false,
        // Whoever leaves takes their key along, out of the pages as well.
        erases: true,
    };
    shape.at(dir)
}

fn money(dir: &Path) -> Shape {
    let shape = Shape {
        path: "money.db".into(),
        writer_cache_kib: 32 * 1024,
        reader_cache_kib: 4 * 1024,
        readers_max: READERS_MAX,
        // For a rush: so many pages are copied between two groups without anybody noticing.
        wal_pages_max: 1_000,
        // A purchase waits for it.
        nice: 0,
        synced: true,
        // What was paid with is forgotten when the payment has ended.
        erases: true,
    };
    shape.at(dir)
}

/// The shop's tables. Cheap to clone.
#[derive(Clone)]
pub struct Tables {
    shop: Store,
    people: Store,
    money: Store,
    book: MoneyBook,
    interest: Interest,
    bell: Bell,
    /// A disk has failed. A database looks after its own.
    lost: watch::Sender<bool>,
}

/// A transaction on people's tables as the actors hold it: what may be written in it stands beside each table. Dropped
/// before its end it leaves nothing.
pub struct Writing<'t>(Transaction<'t>);

impl Writing<'_> {
    pub(super) fn on(&mut self) -> &mut Connection {
        &mut self.0
    }

    /// All of it, or nothing. It is on the disk when this returns.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.0.end(Ok(())).await
    }
}

impl Tables {
    /// Opens the files in `dir` and brings them up to date. The journal's lock covers them: open the journal first.
    pub async fn open(dir: &Path) -> Result<Tables, StoreError> {
        let lost = watch::Sender::new(false);
        let shop = Store::open(&shop(dir), migrations::tables(), &lost).await?;
        let people = Store::open(&people(dir), migrations::people(), &lost).await?;
        let money = Store::open(&money(dir), migrations::money(), &lost).await?;
        Ok(Tables { lost, ..Tables::of(Interest::of(&shop).await?, shop, people, money) })
    }

    /// The same in the one database that an address names: `mysql://USER:PASSWORD@HOST:PORT/DATABASE`. Several nodes may do so at once.
    pub async fn connect(url: &str) -> Result<Tables, StoreError> {
        let server = Server::at(url)?;
        let mut session = server.connect().await?;
        mysql::check(&mut session).await?;
        mysql::migrate(&mut session, &migrations::on_mysql()).await?;
        session.close().await?;
        Tables::on(&server).await
    }

    /// The same in a database that is up to date.
    pub async fn on(server: &Server) -> Result<Tables, StoreError> {
        let readers = Pool::MySql(server.readers(SERVER_READERS_MAX));
        let store = |writer| Store::on(server, writer, readers.clone());
        let shop = store(server.connect().await?);
        let (people, money) = (store(server.connect().await?), store(server.connect().await?));
        Ok(Tables::of(Interest::of(&shop).await?, shop, people, money))
    }

    /// Files without writers: for looking at the store of a stopped server.
    pub fn read_only(dir: &Path) -> Tables {
        let (shop, people, money) = (shop(dir), people(dir), money(dir));
        let interest = Interest::default();
        Tables::of(interest, Store::read_only(&shop), Store::read_only(&people), Store::read_only(&money))
    }

    fn of(interest: Interest, shop: Store, people: Store, money: Store) -> Tables {
        let bell = Bell::default();
        let (book, lost) = (MoneyBook::new(money.clone(), bell.clone()), watch::Sender::new(false));
        Tables { shop, people, book, money, interest, bell, lost }
    }

    /// Whether the database still keeps what it says yes to: [`StoreError::Unfit`] says why not. Files do.
    pub async fn check(&self) -> Result<(), StoreError> {
        match self.shop.readers() {
            Pool::Sqlite(_) => Ok(()),
            Pool::MySql(pool) => mysql::check_again(&pool).await,
        }
    }

    /// Turns true when nobody knows what the disk has of a commit: nothing more is written, and all is to be opened again.
    pub fn fatal(&self) -> watch::Receiver<bool> {
        self.lost.subscribe()
    }

    pub fn orders(&self) -> OrderReader {
        OrderReader { pool: self.shop.readers() }
    }

    pub fn products(&self) -> ProductReader {
        ProductReader { pool: self.shop.readers() }
    }

    pub fn product_writer(&self) -> ProductWriter {
        ProductWriter { tables: self.clone() }
    }

    pub fn stock(&self) -> StockReader {
        StockReader { pool: self.shop.readers() }
    }

    pub fn users(&self) -> UserReader {
        UserReader { pool: self.people.readers() }
    }

    pub fn sessions(&self) -> SessionReader {
        SessionReader { pool: self.people.readers() }
    }

    pub fn revocations(&self) -> RevocationReader {
        RevocationReader { pool: self.people.readers() }
    }

    pub fn wishes(&self) -> WishReader {
        WishReader { pool: self.people.readers() }
    }

    pub fn carts(&self) -> CartReader {
        CartReader { pool: self.people.readers() }
    }

    pub fn order_addresses(&self) -> OrderAddressReader {
        OrderAddressReader { pool: self.people.readers() }
    }

    /// Mails on their way.
    pub fn outbox(&self) -> Outbox {
        Outbox { store: self.people.clone() }
    }

    /// Who did what.
    pub fn trail(&self) -> Trail {
        Trail { store: self.people.clone() }
    }

    /// Payments and refunds: whoever walks them writes through it.
    pub fn money(&self) -> MoneyBook {
        self.book.clone()
    }

    pub fn payments(&self) -> PaymentReader {
        self.book.payments()
    }

    pub fn refunds(&self) -> RefundReader {
        self.book.refunds()
    }

    pub fn deliveries(&self) -> DeliveryReader {
        self.book.deliveries()
    }

    /// What buyers are to be written about their orders.
    pub fn notices(&self) -> NoticeRows {
        NoticeRows {
            shop: self.shop.clone(),
            people: self.people.clone(),
            money: self.money.clone(),
            bell: self.bell.clone(),
        }
    }

    /// Rung by whoever leaves a notice.
    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Who is told what happens, and what is on its way there.
    pub fn webhooks(&self) -> WebhookRows {
        WebhookRows { store: self.shop.clone(), interest: self.interest.clone() }
    }

    /// How far the jobs have come.
    pub fn jobs(&self) -> JobRows {
        JobRows { store: self.shop.clone() }
    }

    /// What anybody is told of at all.
    pub(super) fn interest(&self) -> &Interest {
        &self.interest
    }

    /// The journal's place up to which the tables are true.
    pub async fn flushed_pos(&self) -> Result<i64, StoreError> {
        Ok(sql::query_scalar(FLUSHED).fetch_one(&self.shop.readers()).await?)
    }

    /// How many products have a stock row.
    pub(super) async fn stock_rows(&self) -> Result<i64, StoreError> {
        Ok(sql::query_scalar("select count(*) from stock").fetch_one(&self.shop.readers()).await?)
    }

    /// The writer of what the flush fills, for as long as the guard is held.
    pub(super) async fn writer(&self) -> Result<Writer, StoreError> {
        self.shop.writer().await
    }

    /// One statement on the products, synced before it returns; how many rows it matched.
    pub(super) async fn write_synced(&self, query: Query<'_>) -> Result<u64, StoreError> {
        self.shop.write_synced(query).await
    }

    /// Begins a transaction of whoever owns people's rows. Nobody else writes them until it ends: keep it short, and
    /// wait for nothing inside.
    pub async fn begin(&self) -> Result<Writing<'_>, StoreError> {
        Ok(Writing(self.people.begin_synced().await?))
    }

    /// Somebody's data was erased, and that is committed: a moment later no file has it any more. A database sees to that in its own time.
    pub fn forget_soon(&self) {
        self.people.forget_soon();
    }

    /// Copies the WALs into their files when they have grown, and in smaller pieces while somebody waits for the flush, or may at any
    /// moment; but not that of money, whose writer nobody may hold whose thread yields to others: a purchase waits for it.
    pub(super) async fn checkpoint_if_due(&self, somebody_may_come: bool) {
        let pages = if somebody_may_come { WAL_PAGES_WAITED_FOR } else { i64::MAX };
        self.shop.checkpoint_beyond(pages).await;
        self.people.checkpoint_if_due().await;
    }

    /// Empties the WALs and closes all connections. [`StoreError::DiskFailed`] where a disk has failed: then none is emptied.
    pub async fn close(&self) -> Result<(), StoreError> {
        let (shop, people) = (self.shop.close().await, self.people.close().await);
        let money = self.money.close().await;
        shop.and(people).and(money)
    }

    /// The same for an opening that is over: who reads a WAL is not waited for, and it stays behind.
    pub async fn abandon(&self) -> Result<(), StoreError> {
        let (shop, people, money) =
            tokio::join!(self.shop.abandon(), self.people.abandon(), self.money.abandon());
        shop.and(people).and(money)
    }
}
