//! Who works in the shop: every actor, started in the order in which they need each other, and kept for as long as the shop runs.
//!
//! Always true: nobody here has taken up what was left undone before the owners are awake; whoever does that is started behind the doors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;

use super::mirror;
use super::owning::{Owning, house};
use super::secret::webhook_secret;
use super::store::Store;
use crate::actors::cart::{CartHouse, Carts};
use crate::actors::catalogue::Catalogue;
use crate::actors::delivery::Deliveries;
use crate::actors::flusher::{self, FlushHandle, LagLimits, UntilOpen};
use crate::actors::mirror::{Mirror, Tries};
use crate::actors::notices::{NoticeHouse, Notices};
use crate::actors::order::{Addresses, Orders};
use crate::actors::outbox::Outbox;
use crate::actors::passwords::Passwords;
use crate::actors::payment::{self, PaymentHouse, Payments};
use crate::actors::revocations::Revocations;
use crate::actors::scheduler::{JobHouse, Planned, Schedule, Scheduler};
use crate::actors::stock::{Directory, Routes};
use crate::actors::turns::Loop;
use crate::actors::user::{CLEARING_AT, Clearing, UserHouse, Users};
use crate::actors::webhooks::{WebhookHouse, Webhooks};
use crate::actors::wish::Wishes;
use crate::clock::Clock;
use crate::config::{Config, Profile};
use crate::domain::delivery::ReturnWindow;
use crate::domain::user::PasswordPolicy;
use crate::mail::{Mailer, Words};
use crate::persistence::breached::BreachedPasswords;
use crate::provider::Provider;
use crate::telemetry::Metrics;
use crate::vault::Vault;
use crate::webhook::{Caller, by_system};

/// Everybody who works in a shop.
pub(super) struct Cast {
    pub clock: Clock,
    pub directory: Directory,
    pub flush: FlushHandle,
    pub outbox: Outbox,
    pub notices: Notices,
    pub revocations: Revocations,
    /// How often somebody has ordered at the other nodes.
    pub tries: Option<Tries>,
    pub mirror: Option<Mirror>,
    pub orders: Orders,
    pub payments: Payments,
    pub deliveries: Deliveries,
    pub webhooks: Webhooks,
    pub users: Users,
    pub scheduler: Scheduler,
    pub catalogue: Catalogue,
    pub wishes: Wishes,
    pub carts: Carts,
    _following: Loop,
    _rekeying: Loop,
}

/// Where they work, and what they are given.
pub(super) struct Stage<'s> {
    pub config: &'s Config,
    pub store: &'s Store,
    /// At a node that is one of many.
    pub owning: Option<&'s Owning>,
    /// Where shoppers come in.
    pub addr: SocketAddr,
    pub vault: Vault,
    pub breached: Option<BreachedPasswords>,
    pub clock: Clock,
}

impl Stage<'_> {
    /// Starts everybody. Unless the shop opens around them the flush ends with the other one.
    pub async fn cast(self) -> Result<(Cast, UntilOpen)> {
        let (config, clock, tables) = (self.config, &self.clock, &self.store.tables);
        let directory = match self.owning {
            None => Directory::new(house(config, clock, &self.store.journal)),
            Some(owning) => owning.directory().clone(),
        };
        let outbox = self.outbox()?;
        let provider = self.provider()?;
        let webhooks = self.webhooks()?;
        let flush = self.flush(&directory).await?;
        let until_open = UntilOpen::of(&flush);
        let notices = self.notices(&outbox, &flush)?;
        let revocations = Revocations::default();
        let _following = revocations.follow(tables.revocations(), clock.clone()).await?;
        let tries = mirror::tries(config, clock);
        let mirror = mirror::start(config, &directory, &revocations, tries.clone(), clock)?;
        let addresses = Addresses { tables: tables.clone(), vault: self.vault.clone(), clock: clock.clone() };
        let orders = Orders::new(directory.clone(), tables.orders(), flush.clone(), addresses);
        let payments = Payments::new(PaymentHouse {
            directory: directory.clone(),
            orders: orders.clone(),
            flush: flush.clone(),
            rows: tables.money(),
            trail: tables.trail(),
            provider,
            limits: payment::limits(config.payment.attempts, config.payment.give_up),
            four_eyes: config.payment.four_eyes.clone(),
            users: tables.users(),
            sessions: tables.sessions(),
            revocations: revocations.clone(),
            clock: clock.clone(),
            metrics: Metrics::global().clone(),
        });
        let deliveries =
            Deliveries::new(payments.clone(), ReturnWindow { ms: config.days.return_window_ms() });
        let users = Users::new(UserHouse {
            tables: tables.clone(),
            vault: self.vault.clone(),
            passwords: Passwords::start(
                config.people.hash_threads,
                self.breached.clone(),
                clock,
                Metrics::global(),
            )?,
            policy: PasswordPolicy { chars_min: config.people.password_chars_min },
            outbox: outbox.clone(),
            revocations: revocations.clone(),
            orders: orders.clone(),
            clock: clock.clone(),
        });
        let _rekeying = users.rekeying();
        let scheduler = self.scheduler(&users, &deliveries)?;
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
        let cast = Cast {
            clock: self.clock,
            directory,
            flush,
            outbox,
            notices,
            revocations,
            tries,
            mirror,
            orders,
            payments,
            deliveries,
            webhooks,
            users,
            scheduler,
            catalogue,
            wishes,
            carts,
            _following,
            _rekeying,
        };
        Ok((cast, until_open))
    }

    fn outbox(&self) -> Result<Outbox> {
        let mail = &self.config.mail;
        let words = Words::new(&mail.public_url)?;
        let mailer = Mailer::new(mail, self.store.dir())?;
        if self.config.profile == Profile::Production && mail.smtp_url.is_none() {
            tracing::warn!("no STOCKADE_SMTP_URL: mails go into a folder, and nobody receives them");
        }
        let rows = self.store.tables.outbox();
        let vault = self.vault.clone();
        Ok(Outbox::start(rows, vault, words, mailer, mail.letters, &self.clock, Metrics::global())?)
    }

    fn provider(&self) -> Result<Provider> {
        let secret = webhook_secret(self.config, &self.clock)?;
        Ok(Provider::open(&self.config.payment, self.store.dir(), &secret, self.addr, &self.clock)?)
    }

    fn webhooks(&self) -> Result<Webhooks> {
        let house = WebhookHouse {
            rows: self.store.tables.webhooks(),
            trail: self.store.tables.trail(),
            vault: self.vault.clone(),
            caller: Caller::new(self.config.webhooks.allow_loopback, by_system())?,
            clock: self.clock.clone(),
        };
        Ok(Webhooks::start(house, Metrics::global())?)
    }

    async fn flush(&self, directory: &Directory) -> Result<FlushHandle> {
        let Store { journal, tables, .. } = self.store;
        let limits = LagLimits::up_to(self.config.limits.flush_lag_bytes_max);
        let configured = || journal.brake().load(Ordering::Relaxed);
        let base_brake_us = directory.routes().map_or_else(configured, Routes::base_brake_us);
        Ok(flusher::start(directory.shared_house(), journal, tables, limits, base_brake_us).await?)
    }

    fn notices(&self, outbox: &Outbox, flush: &FlushHandle) -> Result<Notices> {
        let house = NoticeHouse {
            tables: self.store.tables.clone(),
            vault: self.vault.clone(),
            outbox: outbox.clone(),
            flush: flush.clone(),
            clock: self.clock.clone(),
            remind_before: self.config.mail.hold_reminder,
        };
        Ok(Notices::start(house, Metrics::global())?)
    }

    /// With what is done again and again, and when.
    fn scheduler(&self, users: &Users, deliveries: &Deliveries) -> Result<Scheduler> {
        let days = &self.config.days;
        let clearing = Schedule::cron(CLEARING_AT, days.calendar.clone())?;
        let jobs = vec![
            Planned { job: Arc::new(deliveries.clone()), schedule: days.deliveries()? },
            Planned { job: Arc::new(Clearing(users.clone())), schedule: clearing },
        ];
        let (rows, trail) = (self.store.tables.jobs(), self.store.tables.trail());
        let house = JobHouse { rows, trail, clock: self.clock.clone() };
        Ok(Scheduler::start(house, jobs)?)
    }
}
