//! Webhooks: which other systems are told what happens, and the hand that tells them.
//!
//! It owns the endpoints with their secrets, and the pace at which deliveries are sent. Always true: who asks for a change of an
//! endpoint stands in the trail before it is made; a secret is in the clear only for whoever made it and while something is signed;
//! and what was told once has the same id and the same bytes at every try.

mod call;
mod dispatch;
mod pace;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tracing::{error, warn};

use crate::actors::background::Ended;
use crate::clock::Clock;
use crate::domain::id::{DeliveryId, EndpointId, TypedId, UserId};
use crate::domain::stock::{KeyUse, Millis};
use crate::domain::trail::{Deed, Record};
use crate::domain::webhook::Kinds;
use crate::persistence::StoreError;
use crate::persistence::trail::Trail;
use crate::persistence::webhook::{
    Delivery, DeliveryState, Endpoint, EndpointError, EndpointState, Reason, SecretRow, WebhookRows,
};
use crate::telemetry::Metrics;
use crate::vault::{Sealed, Vault};
use crate::webhook::{BadTarget, Caller, Failure, Secret, Target};
use dispatch::{Dispatch, Signals};

/// Endpoints of a shop: every event may go to each of them.
pub const ENDPOINTS_MAX: usize = 32;
/// Secrets of an endpoint that are good at the same time: the newest, and those that were rotated out within a day.
pub const SECRETS_MAX: u32 = 5;
/// How long a secret is good after it was rotated out.
pub const FORMER_SECRET_MS: i64 = 24 * 3_600 * 1_000;
/// How long an end waits for the calls it is at: one that has just begun may take its time-out.
const STOP_WITHIN: Duration = Duration::from_secs(6);

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unable {
    #[error("there is no such endpoint")]
    NoEndpoint,
    #[error("there is no such delivery")]
    NoDelivery,
    #[error(transparent)]
    BadUrl(#[from] BadTarget),
    #[error("the address is not called: {0}")]
    NotCallable(Failure),
    #[error("there are {limit} endpoints already")]
    TooManyEndpoints { limit: usize },
    #[error("{limit} secrets are good already")]
    TooManySecrets { limit: u32 },
    #[error("the key belongs to another request")]
    KeyReused,
    #[error("the rows cannot be read; nothing was done")]
    Unavailable,
    #[error("the rows cannot be written; it may have been done")]
    Unknown,
    #[error("something that never happens")]
    Internal,
}

fn unread(error: StoreError) -> Unable {
    warn!(%error, "webhook rows could not be read");
    Unable::Unavailable
}

fn unwritten(error: impl std::fmt::Display) -> Unable {
    error!(%error, "webhook rows could not be written");
    Unable::Unknown
}

impl From<Sealed> for Unable {
    fn from(error: Sealed) -> Unable {
        error!(%error, "a webhook secret cannot be sealed or opened");
        Unable::Internal
    }
}

/// A receiver to be registered.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    pub url: String,
    pub kinds: Kinds,
    pub description: String,
}

/// What shall be otherwise about one.
#[derive(Debug, Clone, Default)]
pub struct EndpointChange {
    pub kinds: Option<Kinds>,
    pub description: Option<String>,
    pub enabled: Option<bool>,
}

/// An endpoint with the secret that was just made for it.
#[derive(Debug, Clone)]
pub struct Keyed {
    pub endpoint: Endpoint,
    pub secret: SecretString,
    /// Until when the secrets before it are good.
    pub former_until: Option<Millis>,
    /// The key had made it before.
    pub replayed: bool,
}

/// What the actor needs of the house.
#[derive(Clone)]
pub struct WebhookHouse {
    pub rows: WebhookRows,
    pub trail: Trail,
    pub vault: Vault,
    pub caller: Caller,
    pub clock: Clock,
}

/// Registers endpoints, and tells them. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    house: Arc<WebhookHouse>,
    alive: Arc<Alive>,
    ended: Ended,
}

/// Ends the thread when the last handle has gone.
struct Alive {
    signals: Arc<Signals>,
    rows: WebhookRows,
}

impl Alive {
    fn end(&self) {
        self.signals.end();
        self.rows.interest().ring();
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.end();
    }
}

impl Webhooks {
    /// Starts telling.
    pub fn start(house: WebhookHouse, metrics: &Metrics) -> std::io::Result<Webhooks> {
        let signals = Arc::<Signals>::default();
        let alive = Arc::new(Alive { signals: signals.clone(), rows: house.rows.clone() });
        let house = Arc::new(house);
        let ended = dispatch::begin(Dispatch::new(house.clone(), metrics.clone(), signals))?;
        Ok(Webhooks { house, alive, ended })
    }

    /// Ends after the calls it is at; what waits stays for the next start.
    pub async fn stop(&self) {
        self.alive.end();
        let mut ended = self.ended.clone();
        // A loop that is gone already has nothing more to say.
        if tokio::time::timeout(STOP_WITHIN, ended.wait_for(|ended| *ended)).await.is_err() {
            warn!("webhooks are still being sent; what was not taken is sent at the next start");
        }
    }

    /// Every endpoint, newest first.
    pub async fn endpoints(&self) -> Result<Vec<Endpoint>, Unable> {
        self.house.rows.endpoints().await.map_err(unread)
    }

    pub async fn endpoint(&self, id: EndpointId) -> Result<Endpoint, Unable> {
        self.house.rows.endpoint(id).await.map_err(unread)?.ok_or(Unable::NoEndpoint)
    }

    /// Registers a receiver, whose address is looked at now and again at each call.
    pub async fn register(
        &self,
        admin: UserId,
        new: NewEndpoint,
        key: Option<KeyUse>,
    ) -> Result<Keyed, Unable> {
        let WebhookHouse { rows, caller, clock, .. } = &*self.house;
        if let Some(made) = self.made_before(key).await? {
            return Ok(made);
        }
        let target = Target::parse(&new.url, caller.allows_loopback())?;
        caller.check(&target).await.map_err(Unable::NotCallable)?;
        if self.endpoints().await?.len() >= ENDPOINTS_MAX {
            // It may be this very key that made the last of them, while we looked at the address.
            let made = self.made_before(key).await?;
            return made.ok_or(Unable::TooManyEndpoints { limit: ENDPOINTS_MAX });
        }
        let now = clock.now();
        let endpoint = Endpoint {
            id: EndpointId::new(now, clock.chance()),
            url: target.as_str().to_owned(),
            description: new.description,
            kinds: new.kinds,
            state: EndpointState::Enabled,
            failing_since: None,
            created_at: now,
            updated_at: now,
        };
        let (secret, row) = self.new_secret(endpoint.id, key)?;
        self.record(Deed::WebhookRegistered, admin, endpoint.id, now).await?;
        match rows.register(&endpoint, &row, key, ENDPOINTS_MAX).await {
            Ok(()) => Ok(Keyed { endpoint, secret: secret.word(), former_until: None, replayed: false }),
            // Another request with this key was faster.
            Err(EndpointError::KeyTaken) => self.made_before(key).await?.ok_or(Unable::Unknown),
            Err(EndpointError::TooMany) => Err(Unable::TooManyEndpoints { limit: ENDPOINTS_MAX }),
            Err(error) => Err(unwritten(error)),
        }
    }

    /// A new secret; those before it sign beside it for a day.
    pub async fn rotate(&self, admin: UserId, id: EndpointId, key: Option<KeyUse>) -> Result<Keyed, Unable> {
        let WebhookHouse { rows, clock, .. } = &*self.house;
        if let Some(made) = self.made_before(key).await? {
            return Ok(made);
        }
        let endpoint = self.endpoint(id).await?;
        let (secret, row) = self.new_secret(id, key)?;
        let now = clock.now();
        let until = now.plus(FORMER_SECRET_MS);
        self.record(Deed::WebhookRotated, admin, id, now).await?;
        match rows.rotate(&row, key, now, until, SECRETS_MAX).await {
            Ok(()) => {
                Ok(Keyed { endpoint, secret: secret.word(), former_until: Some(until), replayed: false })
            }
            Err(EndpointError::KeyTaken) => self.made_before(key).await?.ok_or(Unable::Unknown),
            Err(EndpointError::NoEndpoint) => Err(Unable::NoEndpoint),
            Err(EndpointError::TooMany) => Err(Unable::TooManySecrets { limit: SECRETS_MAX }),
            Err(EndpointError::Store(error)) => Err(unwritten(error)),
        }
    }

    /// Kinds, description, and whether it is told anything.
    pub async fn change(
        &self,
        admin: UserId,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<Endpoint, Unable> {
        self.endpoint(id).await?;
        let now = self.house.clock.now();
        self.record(Deed::WebhookChanged, admin, id, now).await?;
        let EndpointChange { kinds, description, enabled } = change;
        let changed = self.house.rows.change(id, |endpoint| {
            endpoint.kinds = kinds.unwrap_or(endpoint.kinds);
            if let Some(description) = description {
                endpoint.description = description;
            }
            match (enabled, endpoint.state) {
                (Some(true), EndpointState::Disabled(_)) => {
                    (endpoint.state, endpoint.failing_since) = (EndpointState::Enabled, None);
                }
                (Some(false), EndpointState::Enabled) => {
                    endpoint.state = EndpointState::Disabled(Reason::Asked);
                }
                _ => {}
            }
            endpoint.updated_at = now;
        });
        changed.await.map_err(gone_or_unwritten)
    }

    /// Nothing more is told to it.
    pub async fn remove(&self, admin: UserId, id: EndpointId) -> Result<(), Unable> {
        self.endpoint(id).await?;
        let now = self.house.clock.now();
        self.record(Deed::WebhookRemoved, admin, id, now).await?;
        self.house.rows.remove(id, now).await.map_err(gone_or_unwritten)
    }

    /// An endpoint's deliveries, newest first.
    pub async fn deliveries(
        &self,
        id: EndpointId,
        state: Option<DeliveryState>,
        before: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Vec<Delivery>, Unable> {
        self.endpoint(id).await?;
        self.house.rows.deliveries(id, state, before, limit).await.map_err(unread)
    }

    /// Has a delivery sent once more, as if for the first time; and whether this key had asked for it before. One that waits anyway
    /// is left as it is.
    pub async fn replay(
        &self,
        admin: UserId,
        id: DeliveryId,
        key: Option<KeyUse>,
    ) -> Result<(Delivery, bool), Unable> {
        let delivery = self.delivery(id).await?;
        let (rows, key) = (&self.house.rows, key.map(|used| used.key));
        if let Some(key) = key
            && rows.was_again_by(id, key).await.map_err(unread)?
        {
            return Ok((delivery, true));
        }
        if delivery.state == DeliveryState::Waiting {
            return Ok((delivery, false));
        }
        let now = self.house.clock.now();
        self.record(Deed::WebhookReplayed, admin, id, now).await?;
        rows.again(id, key, now).await.map_err(unwritten)?;
        Ok((self.delivery(id).await?, false))
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Delivery, Unable> {
        let delivery = self.house.rows.delivery(id).await.map_err(unread)?.ok_or(Unable::NoDelivery)?;
        match self.endpoint(delivery.endpoint).await {
            Ok(_) => Ok(delivery),
            Err(Unable::NoEndpoint) => Err(Unable::NoDelivery),
            Err(why) => Err(why),
        }
    }

    /// What this key made: the answer that was lost is given again, the secret in it, for nobody else has the key.
    async fn made_before(&self, key: Option<KeyUse>) -> Result<Option<Keyed>, Unable> {
        let Some(KeyUse { key, body }) = key else { return Ok(None) };
        let Some(row) = self.house.rows.secret_by_key(key).await.map_err(unread)? else { return Ok(None) };
        if row.made_of != body {
            return Err(Unable::KeyReused);
        }
        let endpoint = self.endpoint(row.endpoint).await?;
        let secret = opened(&self.house.vault, &row)?.word();
        let before = self.house.rows.secrets(row.endpoint).await.map_err(unread)?;
        let former = before.iter().find(|other| other.number < row.number);
        let former_until = former.and_then(|former| former.expires_at);
        Ok(Some(Keyed { endpoint, secret, former_until, replayed: true }))
    }

    fn new_secret(&self, id: EndpointId, made_by: Option<KeyUse>) -> Result<(Secret, SecretRow), Unable> {
        let WebhookHouse { vault, clock, .. } = &*self.house;
        let (secret, key) = (Secret::new(clock.chance_bytes()), vault.new_key()?);
        let row = SecretRow {
            endpoint: id,
            number: 1,
            secret: vault.seal(&key, &context(id), secret.expose())?,
            key,
            expires_at: None,
            made_of: made_by.map_or(0, |key| key.body),
        };
        Ok((secret, row))
    }

    async fn record(
        &self,
        deed: Deed,
        admin: UserId,
        subject: impl TypedId,
        now: Millis,
    ) -> Result<(), Unable> {
        let record = Record::new(deed, now).by(admin).on(subject);
        self.house.trail.append(&record).await.map_err(unwritten)
    }
}

fn gone_or_unwritten(error: EndpointError) -> Unable {
    match error {
        EndpointError::NoEndpoint => Unable::NoEndpoint,
        EndpointError::KeyTaken | EndpointError::TooMany | EndpointError::Store(_) => unwritten(error),
    }
}

fn context(endpoint: EndpointId) -> String {
    format!("{endpoint} webhook secret")
}

fn opened(vault: &Vault, row: &SecretRow) -> Result<Secret, Sealed> {
    let bytes = vault.open(&row.key, &context(row.endpoint), &row.secret)?;
    Secret::from_bytes(bytes).map_err(|_| Sealed::Damaged)
}
