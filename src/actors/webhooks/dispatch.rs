//! The dispatcher: gives each event to the endpoints that want it, and sends what is due, on a thread that yields to everybody.
//!
//! Each endpoint has a lane of its own with so many calls at once, so one that is slow holds up nobody else; and there is a bound
//! over all of them. A call is a task of its own: one that was only looked at now and then could be given the tables' writer and keep
//! it, while the loop waits for the same writer, and the flush behind both. Always true: a call begins with a claim and ends with a
//! mark; an event that was not marked is sent again. Order is not kept: what failed comes later than what followed it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::{self, JoinError, JoinSet};
use tracing::{error, warn};

use super::WebhookHouse;
use super::call::{Outcome, body, deliver};
use crate::actors::background::{Background, Ended};
use crate::domain::id::{DeliveryId, EndpointId};
use crate::domain::stock::Millis;
use crate::domain::trail::{Deed, Record};
use crate::persistence::StoreError;
use crate::persistence::webhook::{Delivery, Endpoint, EndpointState, Reason, Taken};
use crate::telemetry::Metrics;

/// Events given to endpoints in one transaction.
const EVENTS_MAX: u32 = 256;
/// Calls at the same time, to one endpoint and to all.
const LANE_MAX: usize = 8;
const CALLS_MAX: usize = 32;
/// How long a claimed delivery is ours: its call begins at once and takes five seconds at most.
const LEASE_MS: i64 = 20_000;
/// The longest without a look.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const LOOK_EVERY_MS: i64 = 30_000;
const SWEEP_EVERY_MS: i64 = 3_600_000;
/// Steps of a sweep before something else has its turn.
const SWEEPS_MAX: usize = 20;
/// The shortest without a look at an endpoint, if nobody rings.
const LOOK_AGAIN_MS: i64 = 1_000;
/// Pause when the rows cannot be read.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// How long it is kept that something arrived, and how long anything.
const ARRIVED_MS: i64 = 7 * 24 * 3_600_000;
const KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// An endpoint that has taken nothing for so long is disabled.
const FAILING_MS: i64 = 5 * 24 * 3_600_000;
/// More than this waits for an endpoint that will not catch up: it is disabled.
const BACKLOG_MAX: u64 = 1_000_000;
/// How much less important than the order path webhooks are, in steps of the scheduler.
const NICE: i32 = 10;

/// How the thread is told to end.
#[derive(Default)]
pub(super) struct Signals {
    stop: AtomicBool,
}

impl Signals {
    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

pub(super) fn begin(dispatch: Dispatch) -> std::io::Result<Ended> {
    Background { name: "stockade-webhooks", nice: NICE, lost: "nothing is told" }
        .begin(move || dispatch.run())
}

/// What is remembered of an endpoint between two looks at its rows.
struct Lane {
    endpoint: Endpoint,
    calls: usize,
    /// When it is worth a look.
    look_at: Millis,
}

const AT_ONCE: Millis = Millis(0);
/// When a call has ended.
const FULL: Millis = Millis(i64::MAX);
/// When somebody rings.
const EMPTY: Millis = Millis(i64::MAX - 1);

type Calls = JoinSet<Outcome>;
type Joined = Result<(task::Id, Outcome), JoinError>;

pub(super) struct Dispatch {
    house: Arc<WebhookHouse>,
    metrics: Metrics,
    signals: Arc<Signals>,
}

impl Dispatch {
    pub(super) fn new(house: Arc<WebhookHouse>, metrics: Metrics, signals: Arc<Signals>) -> Dispatch {
        Dispatch { house, metrics, signals }
    }

    fn stopping(&self) -> bool {
        self.signals.stop.load(Ordering::Acquire)
    }

    async fn run(self) {
        if let Err(error) = self.rewrap().await {
            warn!(%error, "not every webhook secret is under the current master key; the next start tries again");
        }
        let mut round = Round {
            dispatch: &self,
            lanes: HashMap::new(),
            flying: HashMap::new(),
            edition: None,
            chores_at: AT_ONCE,
            sweep_at: AT_ONCE,
        };
        let mut calls = Calls::new();
        loop {
            let stopping = self.stopping();
            if stopping && calls.is_empty() {
                return;
            }
            let mut pause = LOOK_EVERY;
            if !stopping {
                pause = round.go(&mut calls).await.unwrap_or_else(|error| {
                    warn!(%error, "webhook rows cannot be read or written");
                    FAILED_PAUSE
                });
            }
            // Whichever comes first: a call ends, somebody rings, or it is time.
            tokio::select! {
                Some(ended) = calls.join_next_with_id() => round.ended(ended).await,
                () = self.house.rows.interest().rung() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Brings every secret under the current master key, so that the former ones can go.
    async fn rewrap(&self) -> Result<(), StoreError> {
        for row in self.house.rows.all_secrets().await? {
            match self.house.vault.rewrapped(&row.key) {
                Ok(Some(key)) => self.house.rows.rewrap(&row, &key).await?,
                Ok(None) => {}
                Err(error) => {
                    error!(endpoint = %row.endpoint, %error, "a webhook secret of {} cannot be opened", row.endpoint)
                }
            }
        }
        Ok(())
    }
}

/// The loop's memory.
struct Round<'d> {
    dispatch: &'d Dispatch,
    lanes: HashMap<EndpointId, Lane>,
    /// Whom each call is to.
    flying: HashMap<task::Id, EndpointId>,
    /// Which edition of the endpoints `lanes` is; `None` before the first.
    edition: Option<u64>,
    chores_at: Millis,
    sweep_at: Millis,
}

impl<'d> Round<'d> {
    /// Does what is to be done now; how long until there is more, if nobody rings.
    async fn go(&mut self, calls: &mut Calls) -> Result<Duration, StoreError> {
        // Events first: whoever was registered before one of them happened is among the endpoints that are read after it.
        let taken = self.house().rows.events(EVENTS_MAX).await?;
        self.refresh().await?;
        let more = match taken {
            Some(taken) => self.fan_out(&taken).await?,
            None => false,
        };
        let now = self.house().clock.now();
        if now >= self.chores_at {
            self.chores_at = now.plus(LOOK_EVERY_MS);
            self.chores(now).await?;
        }
        self.claim(calls).await?;
        if more {
            return Ok(Duration::ZERO);
        }
        let next = self.lanes.values().filter(|lane| lane.is_open()).map(|lane| lane.look_at).min();
        let pause = next.map_or(LOOK_EVERY, |at| self.house().clock.until(at));
        Ok(pause.min(LOOK_EVERY))
    }

    fn house(&self) -> &'d WebhookHouse {
        &self.dispatch.house
    }

    /// Reads the endpoints again if one was changed.
    async fn refresh(&mut self) -> Result<(), StoreError> {
        let rows = &self.house().rows;
        let edition = rows.interest().edition();
        if self.edition == Some(edition) {
            return Ok(());
        }
        let mut before = std::mem::take(&mut self.lanes);
        for endpoint in rows.endpoints().await? {
            let calls = before.remove(&endpoint.id).map_or(0, |lane| lane.calls);
            self.lanes.insert(endpoint.id, Lane { endpoint, calls, look_at: AT_ONCE });
        }
        self.edition = Some(edition);
        Ok(())
    }

    /// Makes deliveries of the oldest events; whether there may be more.
    async fn fan_out(&mut self, taken: &Taken) -> Result<bool, StoreError> {
        let WebhookHouse { rows, clock, .. } = self.house();
        let now = clock.now();
        let mut deliveries = Vec::new();
        for told in &taken.events {
            for lane in self.lanes.values_mut() {
                let Endpoint { id, kinds, .. } = lane.endpoint;
                if lane.is_open() && kinds.has(told.kind) {
                    let delivery = DeliveryId::new(now, clock.chance());
                    deliveries.push(Delivery::new(delivery, id, told.id, told.kind, body(told)));
                    lane.look_at = AT_ONCE;
                }
            }
        }
        rows.fan_out(taken, &deliveries).await?;
        Ok(taken.events.len() >= EVENTS_MAX as usize)
    }

    /// Begins as many calls as there is room for.
    async fn claim(&mut self, calls: &mut Calls) -> Result<(), StoreError> {
        let house = self.house();
        let rows = &house.rows;
        // Nobody is first for ever: whoever has the fewest calls open comes first.
        let mut open: Vec<&mut Lane> = self.lanes.values_mut().filter(|lane| lane.is_open()).collect();
        open.sort_by_key(|lane| lane.calls);
        for lane in open {
            // Of this moment: chores and the lanes before it may have waited long for the disk.
            let now = house.clock.now();
            let room = (LANE_MAX - lane.calls.min(LANE_MAX)).min(CALLS_MAX - calls.len().min(CALLS_MAX));
            if lane.look_at > now {
                continue;
            }
            if room == 0 {
                lane.look_at = FULL;
                continue;
            }
            let id = lane.endpoint.id;
            let until = now.plus(LEASE_MS);
            let claimed = rows.claim(id, now, until, room).await?;
            lane.look_at = match claimed.len() {
                full if full == room => FULL,
                // Not at once even where one is due: it could not be claimed just now.
                _ => rows.next_due(id).await?.map_or(EMPTY, |at| at.max(now.plus(LOOK_AGAIN_MS))),
            };
            lane.calls += claimed.len();
            for claimed in claimed {
                let endpoint = lane.endpoint.clone();
                let call = calls.spawn(deliver(self.dispatch.house.clone(), endpoint, claimed, until));
                self.flying.insert(call.id(), id);
            }
        }
        Ok(())
    }

    /// A call to an endpoint has ended.
    async fn ended(&mut self, ended: Joined) {
        let (call, outcome) = ended.unwrap_or_else(|error| {
            error!(%error, "a call to an endpoint did not come to its end");
            (error.id(), Outcome::NotTaken)
        });
        let Some(id) = self.flying.remove(&call) else { return };
        // Where the room for all was used up, others wait for it.
        for lane in self.lanes.values_mut().filter(|lane| lane.look_at == FULL) {
            lane.look_at = AT_ONCE;
        }
        let now = self.house().clock.now();
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.calls = lane.calls.saturating_sub(1);
        lane.look_at = AT_ONCE;
        let since = lane.endpoint.failing_since;
        let (rows, failing) = (&self.dispatch.house.rows, &mut lane.endpoint.failing_since);
        let noted = match (outcome, since) {
            (Outcome::Gone, _) => return self.disable(id, Reason::Gone).await,
            (Outcome::NotTaken, Some(since)) if since.plus(FAILING_MS) <= now => {
                return self.disable(id, Reason::Failing).await;
            }
            (Outcome::Taken, None) | (Outcome::NotTaken, Some(_)) | (Outcome::TooLate, _) => return,
            (Outcome::Taken, Some(_)) => {
                *failing = None;
                rows.failing(id, None).await
            }
            (Outcome::NotTaken, None) => {
                *failing = Some(now);
                rows.failing(id, Some(now)).await
            }
        };
        if let Err(error) = noted {
            warn!(endpoint = %id, %error, "it could not be written down whether {id} takes what it is sent");
        }
    }

    /// Nothing more is told to it. As with everything else that is changed, the trail says so first.
    async fn disable(&mut self, id: EndpointId, reason: Reason) {
        let WebhookHouse { rows, trail, clock, .. } = self.house();
        let (now, why) = (clock.now(), reason.as_str());
        let record = Record::new(Deed::WebhookDisabled, now).on(id).word("why", why);
        if let Err(error) = trail.append(&record).await {
            warn!(endpoint = %id, %error, "that {id} is disabled could not be written into the trail");
        }
        match rows.disable(id, reason, now).await {
            Ok(_) => error!(
                endpoint = %id,
                why,
                "endpoint {id} is disabled ({why}): nothing is told to it until an administrator enables it"
            ),
            Err(error) => warn!(endpoint = %id, %error, "endpoint {id} could not be disabled"),
        }
    }

    /// Counts what waits, and clears away what is old.
    async fn chores(&mut self, now: Millis) -> Result<(), StoreError> {
        let rows = &self.house().rows;
        rows.look_again().await?;
        let (mut waiting, mut dead, mut disabled, mut oldest) = (0, 0, 0, None::<Millis>);
        let mut over = Vec::new();
        for lane in self.lanes.values() {
            let seen = rows.waiting(lane.endpoint.id, BACKLOG_MAX + 1).await?;
            dead += seen.dead;
            if !lane.is_open() {
                disabled += 1;
                continue;
            }
            waiting += seen.waiting;
            oldest = [oldest, seen.oldest].into_iter().flatten().min();
            if seen.waiting > BACKLOG_MAX {
                over.push(lane.endpoint.id);
            }
        }
        self.dispatch.metrics.webhooks_waiting.set(waiting as f64);
        self.dispatch.metrics.webhooks_dead.set(dead as f64);
        self.dispatch.metrics.webhook_endpoints_disabled.set(f64::from(disabled));
        let age_ms = oldest.map_or(0, |oldest| (now.0 - oldest.0).max(0));
        self.dispatch.metrics.webhooks_oldest_seconds.set(age_ms as f64 / 1e3);
        for id in over {
            self.disable(id, Reason::Backlog).await;
        }
        if now >= self.sweep_at {
            let mut more = true;
            for _ in 0..SWEEPS_MAX {
                more = more && rows.sweep(now.plus(-ARRIVED_MS), now.plus(-KEPT_MS)).await?;
            }
            if !more {
                self.sweep_at = now.plus(SWEEP_EVERY_MS);
            }
        }
        Ok(())
    }
}

impl Lane {
    /// Is anything told to it?
    fn is_open(&self) -> bool {
        self.endpoint.state == EndpointState::Enabled
    }
}
