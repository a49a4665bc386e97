//! The composition root: opens the store, starts the cast, opens the doors; and closes all of it in the right order.
//!
//! Always true: when [`App::build`] returns, orders can be acknowledged; when [`App::stop`] returns, everything that was
//! acknowledged is in the journal, the tables show it, and another process may open the store.

mod cast;
mod connections;
mod demo;
mod end;
mod fitness;
mod front;
mod listeners;
mod mirror;
mod owning;
mod patience;
mod secret;
mod server;
mod store;
mod strangers;
mod supervise;
mod vitals;

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;

use crate::actors::cart::Carts;
use crate::actors::delivery::Deliveries;
use crate::actors::history::History;
use crate::actors::keys::{Keeping, Keys, recall};
use crate::actors::mirror::Mirror;
use crate::actors::nodes::Nodes;
use crate::actors::order::Orders;
use crate::actors::payment::Payments;
use crate::actors::placement::{Placement, PlacementHouse};
use crate::actors::revive::revive;
use crate::actors::scheduler::Scheduler;
use crate::actors::stock::Directory;
use crate::actors::turns::Loop;
use crate::actors::user::Users;
use crate::clock::Clock;
use crate::config::{Config, Profile};
use crate::domain::id::ProductId;
use crate::http::health::{NotReady, Readiness};
use crate::http::{
    Abuse, AddressRate, AdminLogin, CartRate, Doors, OrderRate, Pages, Proxies, PublicUrl, Streams,
};
use crate::mail::Mailer;
use crate::persistence::StoreError;
use crate::persistence::breached::BreachedPasswords;
use crate::tokens::Tokens;
use crate::vault::Vault;
use cast::{Cast, Stage};
use front::NodeFront;
use listeners::Listeners;
use vitals::{Vitals, pulse, standstill};

pub use owning::Owning;
pub use secret::{breached, opens_accounts, tokens, vault, webhook_secret};
pub use server::Serving;
pub use store::Store;
pub use supervise::{Supervised, blocking, supervise};

/// Between saying that we are not ready and refusing connections: what is in flight needs milliseconds, and a load balancer
/// that asks often has heard of it.
const LEAVE_AFTER: Duration = Duration::from_millis(200);

/// A running shop.
pub struct App {
    store: Store,
    /// At a node that is one of many.
    owning: Option<Owning>,
    placement: Option<Placement>,
    cast: Cast,
    readiness: Readiness,
    streams: Streams,
    serving: Serving,
    tokens: Tokens,
    clock: Clock,
    /// What a developer may try to order.
    featured: Option<ProductId>,
    _vitals: Vitals,
    _standstill: Loop,
    _fitness: Option<Loop>,
    _pulse: Option<Loop>,
    _cart_chores: Loop,
    _lapsing: Loop,
    _keeping: Keeping,
    recovery: Loop,
}

/// How callers come in.
pub enum Entrance {
    /// By sockets of the shop's own.
    Own(Listeners),
    /// By the front of a node that is one of many.
    Shared(Arc<NodeFront>),
}

impl Entrance {
    /// Must be called inside an actix `System`.
    pub async fn of(config: &Config, clock: &Clock) -> Result<Entrance> {
        Ok(match config.store.database_url {
            None => Entrance::Own(Listeners::bind(&config.http)?),
            Some(_) => Entrance::Shared(NodeFront::start(config, clock).await?),
        })
    }

    /// Joins the other nodes, if there are to be any.
    pub async fn join(&self, config: &Config) -> Result<Option<Owning>> {
        Ok(match self {
            Entrance::Own(_) => None,
            Entrance::Shared(front) => Some(Owning::join(config, front).await?),
        })
    }

    /// Whether this node has become the lead, or is about to.
    fn has_joined(&self) -> bool {
        match self {
            Entrance::Own(_) => false,
            Entrance::Shared(front) => front.neighbours.joined.load(Ordering::Acquire),
        }
    }

    /// Whether it has tried to be the lead since the process began, whatever came of it.
    fn has_led(&self) -> bool {
        match self {
            Entrance::Own(_) => false,
            Entrance::Shared(front) => front.neighbours.has_led.load(Ordering::Acquire),
        }
    }

    /// The front, if there is one; sockets of the shop's own close.
    fn front(self) -> Option<Arc<NodeFront>> {
        match self {
            Entrance::Own(_) => None,
            Entrance::Shared(front) => Some(front),
        }
    }

    /// Where shoppers come in.
    fn addr(&self) -> Result<SocketAddr> {
        match self {
            Entrance::Own(listeners) => Ok(listeners.shop.local_addr()?),
            Entrance::Shared(front) => Ok(front.addr),
        }
    }
}

/// Why an app ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// Nobody knows what the journal's last write came to: all must be closed and read again from the disk.
    JournalLost,
    /// The same of a file of the tables.
    TablesLost,
    /// The flush has died. The journal has everything, and the tables go on from their checkpoint once all is opened again.
    FlushLost,
}

impl App {
    /// Opens everything. Must be called inside an actix `System`.
    pub async fn build(config: &Config) -> Result<App> {
        let breached = breached(config)?;
        Mailer::check(&config.mail)?;
        let entrance = Entrance::of(config, &Clock::start()).await?;
        let owning = entrance.join(config).await?;
        App::build_behind(config, &entrance, owning.as_ref(), breached).await
    }

    /// The same behind an entrance that may be open already: an app that follows another on the same files keeps its callers waiting
    /// instead of turning them away, and at a node that is one of many they are answered elsewhere meanwhile: such a node has joined
    /// the others, and the shop opens here when it leads them.
    pub async fn build_behind(
        config: &Config,
        entrance: &Entrance,
        owning: Option<&Owning>,
        breached: Option<BreachedPasswords>,
    ) -> Result<App> {
        let clock = owning.map_or_else(Clock::start, |owning| owning.clock().clone());
        let (tokens, vault) = (tokens(config, &clock)?, vault(config, &clock)?);
        let store = match owning {
            None => Store::open(config, &clock).await?,
            Some(owning) => owning.lead().await?,
        };
        let given = (tokens, vault, breached);
        let assembled = App::assemble(config, entrance, owning, clock, given, &store).await;
        if assembled.is_err() {
            store.close().await;
        }
        assembled
    }

    async fn assemble(
        config: &Config,
        entrance: &Entrance,
        owning: Option<&Owning>,
        clock: Clock,
        (tokens, vault, breached): (Tokens, Vault, Option<BreachedPasswords>),
        store: &Store,
    ) -> Result<App> {
        let Store { journal, tables, .. } = store;
        opens_accounts(&vault, tables, config, &clock).await?;
        let featured = match config.profile {
            Profile::Development => demo::furnish(store, &clock).await?,
            Profile::Production => None,
        };
        let addr = entrance.addr()?;
        let stage = Stage { config, store, owning, addr, vault, breached, clock: clock.clone() };
        let (cast, until_open) = stage.cast().await?;
        let doors = doors(config, store, tokens.clone(), &cast);
        let (serving, Revived { placement, _keeping }) =
            match open(config, entrance, owning, store, &doors, &cast).await {
                Ok(opened) => opened,
                Err(error) => {
                    cast.flush.abandon().await;
                    return Err(error);
                }
            };
        // What is due needs its owners, and they are awake now.
        let recovery = match cast.payments.take_over().await {
            Ok(()) => cast.payments.recovery(),
            Err(error) => {
                serving.stop().await;
                cast.flush.abandon().await;
                return Err(error.into());
            }
        };
        cast.scheduler.open();
        // What it asks is known by now.
        let _cart_chores = cast.carts.chores();
        let _lapsing = cast.users.lapsing();
        let Doors { readiness, streams, nodes, revocations, .. } = doors;
        readiness.clear(NotReady::Starting);
        serving.open();
        let _pulse = if owning.is_none() { Some(pulse(journal, &cast.directory)) } else { None };
        let (directory, mirror) = (&cast.directory, cast.mirror.clone());
        let _vitals = Vitals::watch(journal, directory, &readiness, &streams, mirror, nodes, revocations);
        let _standstill = standstill(&cast.flush, &readiness);
        let _fitness = owning.map(|owning| fitness::watch(tables, owning.time(), &readiness));
        until_open.is_open();
        Ok(App {
            store: store.clone(),
            owning: owning.cloned(),
            placement,
            cast,
            readiness,
            streams,
            serving,
            tokens,
            clock,
            featured,
            _vitals,
            _standstill,
            _fitness,
            _pulse,
            _cart_chores,
            _lapsing,
            _keeping,
            recovery,
        })
    }

    /// Where the shop answers.
    pub fn addr(&self) -> SocketAddr {
        self.serving.addr
    }

    /// Where operators are answered, if not at the shop's door.
    pub fn ops_addr(&self) -> Option<SocketAddr> {
        self.serving.ops_addr
    }

    /// Signs and checks access tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The clock of everything in here: a test moves it.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The accounts' owner.
    pub fn users(&self) -> &Users {
        &self.cast.users
    }

    /// The way to the owners of products.
    pub fn directory(&self) -> &Directory {
        &self.cast.directory
    }

    /// The orders' owner.
    pub fn orders(&self) -> &Orders {
        &self.cast.orders
    }

    /// The carts' owner.
    pub fn carts(&self) -> &Carts {
        &self.cast.carts
    }

    /// The mirror in Redis, if there is one.
    pub fn mirror(&self) -> Option<&Mirror> {
        self.cast.mirror.as_ref()
    }

    /// The payments' owner.
    pub fn payments(&self) -> &Payments {
        &self.cast.payments
    }

    /// Who has jobs done.
    pub fn scheduler(&self) -> &Scheduler {
        &self.cast.scheduler
    }

    /// Who moves what is paid on its way.
    pub fn deliveries(&self) -> &Deliveries {
        &self.cast.deliveries
    }

    /// What a developer wants to read first.
    pub fn greeting(&self) -> Result<String> {
        demo::greeting(self.addr(), self.ops_addr(), &self.tokens, &self.clock, self.featured)
    }

    /// Serves until `stop` comes, or the journal, the tables or the flush are lost. `leaving` is called before anything else once it is
    /// clear that no app will follow.
    pub async fn run_until(self, stop: impl Future<Output = ()>, leaving: impl FnOnce()) -> Ended {
        let (mut lost, flush) = (self.store.journal.fatal(), self.cast.flush.clone());
        let mut tables_lost = self.store.tables.fatal();
        let ended = tokio::select! {
            () = stop => Ended::Stopped,
            _ = lost.wait_for(|lost| *lost) => Ended::JournalLost,
            _ = tables_lost.wait_for(|lost| *lost) => Ended::TablesLost,
            () = flush.lost() => Ended::FlushLost,
        };
        match ended {
            Ended::Stopped => {
                leaving();
                self.stop().await;
            }
            Ended::JournalLost | Ended::TablesLost | Ended::FlushLost => self.abandon(ended).await,
        }
        ended
    }
}

async fn place(owning: &Owning, store: &Store, nodes: &Nodes, keys: Keys) -> Result<Placement, StoreError> {
    let house = PlacementHouse {
        journal: store.journal.clone(),
        directory: owning.directory().clone(),
        tables: store.tables.clone(),
        nodes: owning.ways(),
        following: owning.following().clone(),
        hot: nodes.hot(),
        shares: nodes.shares(),
    };
    Placement::open(house, keys).await
}

/// What the doors may ask.
fn doors(config: &Config, store: &Store, tokens: Tokens, cast: &Cast) -> Doors {
    let journal = &store.journal;
    Doors {
        clock: cast.clock.clone(),
        tokens,
        revocations: cast.revocations.clone(),
        directory: cast.directory.clone(),
        orders: cast.orders.clone(),
        payments: cast.payments.clone(),
        deliveries: cast.deliveries.clone(),
        catalogue: cast.catalogue.clone(),
        pages: Pages::default(),
        history: History::new(journal.reader().clone()),
        readiness: Readiness::starting(),
        streams: Streams::default(),
        order_rate: order_rate(config).shared(cast.tries.clone()),
        users: cast.users.clone(),
        abuse: Abuse::new(cast.clock.clone()),
        proxies: Proxies(config.http.trusted_proxies.clone().into()),
        webhooks: cast.webhooks.clone(),
        scheduler: cast.scheduler.clone(),
        nodes: Nodes::new(journal.clone(), cast.directory.clone()),
        wishes: cast.wishes.clone(),
        carts: cast.carts.clone(),
        cart_rate: CartRate::default(),
        address_rate: address_rate(config),
        admin_login: AdminLogin(config.people.admin_login),
        public_url: PublicUrl(config.http.public_url.clone()),
    }
}

/// Opens the doors, behind which everybody waits until the shop is as it was.
async fn open(
    config: &Config,
    entrance: &Entrance,
    owning: Option<&Owning>,
    store: &Store,
    doors: &Doors,
    cast: &Cast,
) -> Result<(Serving, Revived)> {
    let directory = &cast.directory;
    let serving = match entrance {
        Entrance::Own(listeners) => Serving::start(&config.http, listeners, doors, directory).await?,
        Entrance::Shared(front) => {
            Serving::behind(front, store.journal.epoch().0.cast_signed(), doors, directory)
        }
    };
    match revived(owning, store, &doors.nodes, cast).await {
        Ok(revived) => Ok((serving, revived)),
        Err(error) => {
            serving.stop().await;
            Err(error.into())
        }
    }
}

/// Who sees to it that the shop stays as it was.
struct Revived {
    placement: Option<Placement>,
    _keeping: Keeping,
}

/// Every key is known, every owner that must not sleep is awake, here or where it is to be.
async fn revived(
    owning: Option<&Owning>,
    store: &Store,
    nodes: &Nodes,
    cast: &Cast,
) -> Result<Revived, StoreError> {
    let Store { journal, tables, .. } = store;
    let (directory, house) = (&cast.directory, cast.directory.house());
    let flushed = tables.flushed_pos().await?;
    let mut keys = Keys::behind(flushed, journal, &house.keys);
    let past = recall(&mut keys, tables, house.clock.now()).await?;
    let keeping = past.keep(house.keys.clone(), cast.flush.clone(), house.clock.clone());
    let placement = match owning {
        None => None,
        Some(owning) => Some(place(owning, store, nodes, keys).await?),
    };
    revive(directory, journal, tables, flushed).await?;
    keeping.has_read().await;
    Ok(Revived { placement, _keeping: keeping })
}

fn order_rate(config: &Config) -> OrderRate {
    let (per_second, burst) = order_quota(config);
    OrderRate::new(per_second, burst)
}

fn address_rate(config: &Config) -> AddressRate {
    let limits = &config.limits;
    AddressRate::new(at_least_one(limits.look_rate_per_address), at_least_one(limits.change_rate_per_address))
}

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

fn order_quota(config: &Config) -> (NonZeroU32, NonZeroU32) {
    let limits = &config.limits;
    (at_least_one(limits.order_rate_per_user), at_least_one(limits.order_burst_per_user))
}
