//! The composition root: opens the store, starts the cast, opens the doors; and closes all of it in the right order.
//!
//! Always true: when [`App::build`] returns, orders can be acknowledged; when [`App::stop`] returns, everything that was
//! acknowledged is in the journal, the tables show it, and another process may open the store.

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

use crate::actors::cart::{CartChores, CartHouse, Carts};
use crate::actors::catalogue::Catalogue;
use crate::actors::delivery::Deliveries;
use crate::actors::flusher::{self, FlushHandle, LagLimits, UntilOpen};
use crate::actors::history::History;
use crate::actors::mirror::Mirror;
use crate::actors::nodes::Nodes;
use crate::actors::notices::{NoticeHouse, Notices};
use crate::actors::order::{Addresses, Orders};
use crate::actors::outbox::Outbox;
use crate::actors::passwords::Passwords;
use crate::actors::payment::{self, PaymentHouse, Payments, Recovery};
use crate::actors::placement::{Placement, PlacementHouse};
use crate::actors::revive::{Keys, recall_keys, revive};
use crate::actors::revocations::{Following, Revocations};
use crate::actors::scheduler::{EACH_DAY, JobHouse, Planned, Schedule, Scheduler};
use crate::actors::stock::{Directory, Routes};
use crate::actors::user::{CLEARING_AT, Clearing, Rekeying, UserHouse, Users};
use crate::actors::webhooks::{WebhookHouse, Webhooks};
use crate::actors::wish::Wishes;
use crate::clock::Clock;
use crate::config::{Config, Profile};
use crate::domain::delivery::ReturnWindow;
use crate::domain::id::ProductId;
use crate::domain::user::PasswordPolicy;
use crate::http::health::{NotReady, Readiness};
use crate::http::{Abuse, AddressRate, AdminLogin, CartRate, Doors, OrderRate, Pages, Proxies, Streams};
use crate::mail::{Mailer, Words};
use crate::persistence::StoreError;
use crate::provider::Provider;
use crate::telemetry::Metrics;
use crate::tokens::Tokens;
use crate::vault::Vault;
use crate::webhook::{Caller, by_system};
use fitness::Fitness;
use front::NodeFront;
use listeners::Listeners;
use owning::house;
use vitals::{Pulse, Vitals};

pub use owning::Owning;
pub use secret::{opens_accounts, tokens, vault, webhook_secret};
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
    directory: Directory,
    flush: FlushHandle,
    outbox: Outbox,
    notices: Notices,
    payments: Payments,
    deliveries: Deliveries,
    webhooks: Webhooks,
    scheduler: Scheduler,
    readiness: Readiness,
    streams: Streams,
    serving: Serving,
    tokens: Tokens,
    clock: Clock,
    /// What a developer may try to order.
    featured: Option<ProductId>,
    mirror: Option<Mirror>,
    _vitals: Vitals,
    _fitness: Option<Fitness>,
    _pulse: Option<Pulse>,
    _following: Following,
    _rekeying: Rekeying,
    _cart_chores: CartChores,
    recovery: Recovery,
    users: Users,
    orders: Orders,
    carts: Carts,
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
}

impl App {
    /// Opens everything. Must be called inside an actix `System`.
    pub async fn build(config: &Config) -> Result<App> {
        let entrance = Entrance::of(config, &Clock::start()).await?;
        let owning = entrance.join(config).await?;
        App::build_behind(config, &entrance, owning.as_ref()).await
    }

    /// The same behind an entrance that may be open already: an app that follows another on the same files keeps its callers waiting
    /// instead of turning them away, and at a node that is one of many they are answered elsewhere meanwhile: such a node has joined
    /// the others, and the shop opens here when it leads them.
    pub async fn build_behind(config: &Config, entrance: &Entrance, owning: Option<&Owning>) -> Result<App> {
        let clock = owning.map_or_else(Clock::start, |owning| owning.clock().clone());
        let (tokens, vault) = (tokens(config, &clock)?, vault(config, &clock)?);
        let store = match owning {
            None => Store::open(config, &clock).await?,
            Some(owning) => owning.lead().await?,
        };
        let assembled = App::assemble(config, entrance, owning, clock, (tokens, vault), &store).await;
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
        (tokens, vault): (Tokens, Vault),
        store: &Store,
    ) -> Result<App> {
        let Store { journal, tables, .. } = store;
        opens_accounts(&vault, tables, config).await?;
        let featured = match config.profile {
            Profile::Development => demo::furnish(store, &clock).await?,
            Profile::Production => None,
        };
        let directory = match owning {
            None => Directory::new(house(config, &clock, journal)),
            Some(owning) => owning.directory().clone(),
        };
        let limits = LagLimits::up_to(config.limits.flush_lag_bytes_max);
        let outbox = start_outbox(config, store, vault.clone(), &clock)?;
        let provider = start_provider(config, entrance.addr()?, store, &clock)?;
        let webhooks = start_webhooks(config, store, vault.clone(), &clock)?;
        let configured = || journal.brake().load(Ordering::Relaxed);
        let base_brake_us = directory.routes().map_or_else(configured, Routes::base_brake_us);
        let house = directory.shared_house();
        let flush = flusher::start(house, journal, tables, limits, base_brake_us).await?;
        let until_open = UntilOpen::of(&flush);
        let notices = start_notices(config, store, vault.clone(), &outbox, &flush, &clock)?;
        let revocations = Revocations::default();
        let _following = revocations.follow(tables.revocations(), clock.clone()).await?;
        let tries = mirror::tries(config, &clock);
        let mirror = mirror::start(config, &directory, &revocations, tries.clone(), &clock)?;
        let addresses = Addresses { tables: tables.clone(), vault: vault.clone(), clock: clock.clone() };
        let orders = Orders::new(directory.clone(), tables.orders(), flush.clone(), addresses);
        let payments = Payments::new(PaymentHouse {
            directory: directory.clone(),
            orders: orders.clone(),
            flush: flush.clone(),
            rows: tables.money(),
            trail: tables.trail(),
            provider,
            limits: payment::limits(config.payment.attempts, config.payment.give_up),
            clock: clock.clone(),
            metrics: Metrics::global().clone(),
        });
        let deliveries =
            Deliveries::new(payments.clone(), ReturnWindow { ms: config.days.return_window_ms() });
        let users = Users::new(UserHouse {
            tables: tables.clone(),
            vault,
            passwords: Passwords::start(config.people.hash_threads, &clock, Metrics::global())?,
            policy: PasswordPolicy { chars_min: config.people.password_chars_min },
            outbox: outbox.clone(),
            revocations: revocations.clone(),
            orders: orders.clone(),
            clock: clock.clone(),
        });
        let _rekeying = Rekeying::start(users.clone());
        let scheduler = start_scheduler(store, &clock, jobs(config, &users, &deliveries)?)?;
        let catalogue = Catalogue::new(
            tables.products(),
            tables.product_writer(),
            directory.clone(),
            tables.trail(),
            clock.clone(),
        );
        let wishes = Wishes::new(tables.clone(), catalogue.clone(), clock.clone());
        let carts = Carts::new(CartHouse {
            tables: tables.clone(),
            catalogue: catalogue.clone(),
            orders: orders.clone(),
            payments: payments.clone(),
            clock: clock.clone(),
        });
        let doors = Doors {
            wishes,
            carts: carts.clone(),
            cart_rate: CartRate::default(),
            address_rate: address_rate(config),
            admin_login: AdminLogin(config.people.admin_login),
            revocations,
            users: users.clone(),
            abuse: Abuse::new(clock.clone()),
            proxies: Proxies(config.http.trusted_proxies.clone().into()),
            clock: clock.clone(),
            tokens: tokens.clone(),
            directory: directory.clone(),
            orders: orders.clone(),
            payments: payments.clone(),
            deliveries: deliveries.clone(),
            catalogue,
            pages: Pages::default(),
            history: History::new(journal.reader().clone()),
            readiness: Readiness::starting(),
            streams: Streams::default(),
            order_rate: order_rate(config).shared(tries),
            webhooks: webhooks.clone(),
            scheduler: scheduler.clone(),
            nodes: Nodes::new(journal.clone(), directory.clone()),
        };
        let nodes = doors.nodes.clone();
        let (readiness, streams) = (doors.readiness.clone(), doors.streams.clone());
        let opening = async {
            let serving = match entrance {
                Entrance::Own(listeners) => {
                    Serving::start(&config.http, listeners, &doors, &directory).await?
                }
                Entrance::Shared(front) => {
                    Serving::behind(front, journal.epoch().0.cast_signed(), &doors, &directory)
                }
            };
            let reviving = async {
                let flushed = tables.flushed_pos().await?;
                let keys = Keys::behind(flushed, journal, &directory.house().keys);
                recall_keys(&directory, tables).await?;
                let placement = match owning {
                    None => None,
                    Some(owning) => Some(place(owning, store, &nodes, keys).await?),
                };
                revive(&directory, journal, tables, flushed).await?;
                Ok::<_, StoreError>(placement)
            };
            match reviving.await {
                Ok(placement) => Ok((serving, placement)),
                Err(error) => {
                    serving.stop().await;
                    Err(anyhow::Error::from(error))
                }
            }
        };
        let (serving, placement) = match opening.await {
            Ok(opened) => opened,
            Err(error) => {
                flush.abandon().await;
                return Err(error);
            }
        };
        // What is due needs its owners, and they are awake now.
        let recovery = match payments.take_over().await {
            Ok(()) => Recovery::start(payments.clone()),
            Err(error) => {
                serving.stop().await;
                flush.abandon().await;
                return Err(error.into());
            }
        };
        scheduler.open();
        // What it asks is known by now.
        let _cart_chores = CartChores::start(carts.clone());
        readiness.clear(NotReady::Starting);
        serving.open();
        let _pulse = if owning.is_none() { Some(Pulse::of(journal, &directory)) } else { None };
        let _vitals = Vitals::watch(journal, &directory, &readiness, mirror.clone(), nodes);
        let _fitness = owning.map(|_| Fitness::watch(tables, &readiness));
        until_open.is_open();
        let store = store.clone();
        Ok(App {
            store,
            owning: owning.cloned(),
            placement,
            directory,
            flush,
            outbox,
            notices,
            payments,
            deliveries,
            webhooks,
            scheduler,
            readiness,
            streams,
            serving,
            tokens,
            clock,
            featured,
            mirror,
            _vitals,
            _fitness,
            _pulse,
            _following,
            _rekeying,
            _cart_chores,
            recovery,
            users,
            orders,
            carts,
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
        &self.users
    }

    /// The orders' owner.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The shop's orders.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// The carts' owner.
    pub fn carts(&self) -> &Carts {
        &self.carts
    }

    /// The mirror in Redis, if there is one.
    pub fn mirror(&self) -> Option<&Mirror> {
        self.mirror.as_ref()
    }

    /// The payments' owner.
    pub fn payments(&self) -> &Payments {
        &self.payments
    }

    /// Who has jobs done.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Who moves what is paid on its way.
    pub fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// What a developer wants to read first.
    pub fn greeting(&self) -> Result<String> {
        demo::greeting(self.addr(), self.ops_addr(), &self.tokens, &self.clock, self.featured)
    }

    /// Serves until `stop` comes, or the journal is lost. `leaving` is called before anything else once it is clear that no
    /// app will follow.
    pub async fn run_until(self, stop: impl Future<Output = ()>, leaving: impl FnOnce()) -> Ended {
        let mut lost = self.store.journal.fatal();
        let ended = tokio::select! {
            () = stop => Ended::Stopped,
            _ = lost.wait_for(|lost| *lost) => Ended::JournalLost,
        };
        match ended {
            Ended::Stopped => {
                leaving();
                self.stop().await;
            }
            Ended::JournalLost => self.abandon().await,
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

fn start_outbox(config: &Config, store: &Store, vault: Vault, clock: &Clock) -> Result<Outbox> {
    let words = Words::new(&config.mail.public_url)?;
    let mailer = Mailer::new(&config.mail, store.dir())?;
    if config.profile == Profile::Production && config.mail.smtp_url.is_none() {
        tracing::warn!("no STOCKADE_SMTP_URL: mails go into a folder, and nobody receives them");
    }
    let rows = store.tables.outbox();
    Ok(Outbox::start(rows, vault, words, mailer, clock, Metrics::global())?)
}

fn start_notices(
    config: &Config,
    store: &Store,
    vault: Vault,
    outbox: &Outbox,
    flush: &FlushHandle,
    clock: &Clock,
) -> Result<Notices> {
    let house = NoticeHouse {
        tables: store.tables.clone(),
        vault,
        outbox: outbox.clone(),
        flush: flush.clone(),
        clock: clock.clone(),
        remind_before: config.mail.hold_reminder,
    };
    Ok(Notices::start(house, Metrics::global())?)
}

fn start_provider(config: &Config, shop: SocketAddr, store: &Store, clock: &Clock) -> Result<Provider> {
    let secret = webhook_secret(config, clock)?;
    Ok(Provider::open(&config.payment, store.dir(), &secret, shop, clock)?)
}

fn start_webhooks(config: &Config, store: &Store, vault: Vault, clock: &Clock) -> Result<Webhooks> {
    let house = WebhookHouse {
        rows: store.tables.webhooks(),
        trail: store.tables.trail(),
        vault,
        caller: Caller::new(config.webhooks.allow_loopback, by_system())?,
        clock: clock.clone(),
    };
    Ok(Webhooks::start(house, Metrics::global())?)
}

/// What is done again and again, and when.
fn jobs(config: &Config, users: &Users, deliveries: &Deliveries) -> Result<Vec<Planned>> {
    let at = |words, job| -> Result<Planned> {
        Ok(Planned { job, schedule: Schedule::cron(words, config.days.calendar.clone())? })
    };
    Ok(vec![at(EACH_DAY, Arc::new(deliveries.clone()))?, at(CLEARING_AT, Arc::new(Clearing(users.clone())))?])
}

fn start_scheduler(store: &Store, clock: &Clock, jobs: Vec<Planned>) -> Result<Scheduler> {
    let house = JobHouse { rows: store.tables.jobs(), trail: store.tables.trail(), clock: clock.clone() };
    Ok(Scheduler::start(house, jobs)?)
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
