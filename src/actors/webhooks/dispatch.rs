//! The dispatcher: gives each event to the endpoints that want it, and sends what is due, on a thread that yields to everybody.
//!
//! Each endpoint has a lane of its own with so many calls at once, so one that is slow holds up nobody else; and there is a bound
//! over all of them. Always true: a call begins with a claim and ends with a mark; an event that was not marked is sent again. Order
//! is not kept: what failed comes later than what followed it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::pace;
use super::{WebhookHouse, opened};
use crate::domain::id::{DeliveryId, EndpointId};
use crate::domain::stock::Millis;
use crate::domain::trail::{Deed, Record};
use crate::persistence::StoreError;
use crate::persistence::webhook::{Claimed, Delivery, DeliveryState, Endpoint, EndpointState, Reason, Told};
use crate::telemetry::{self, Metrics};
use crate::webhook::{Failure, Message, Secret, Target};

/// Events given to endpoints in one transaction.
const EVENTS_MAX: u32 = 256;
/// Calls at the same time, to one endpoint and to all.
const LANE_MAX: usize = 8;
const CALLS_MAX: usize = 32;
/// Threads that wait for a name server, which may take longer than a call.
const LOOKUPS_MAX: usize = 128;
/// How long a claimed delivery is ours: its call begins at once and takes five seconds at most.
const LEASE_MS: i64 = 20_000;
/// The longest without a look.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const LOOK_EVERY_MS: i64 = 30_000;
const SWEEP_EVERY_MS: i64 = 3_600_000;
/// Steps of a sweep before something else has its turn.
const SWEEPS_MAX: usize = 20;
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

pub(super) fn spawn(dispatch: Dispatch, end: watch::Sender<bool>) -> std::io::Result<()> {
    std::thread::Builder::new().name("stockade-webhooks".to_owned()).spawn(move || {
        // An unprivileged process may always become less important.
        let _ = rustix::process::nice(NICE);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        match builder.enable_all().max_blocking_threads(LOOKUPS_MAX).build() {
            Ok(runtime) => {
                runtime.block_on(dispatch.run());
                // A name server that takes its time is not waited for.
                runtime.shutdown_background();
            }
            Err(error) => error!(%error, "webhooks have no runtime: nothing is told"),
        }
        end.send_replace(true);
    })?;
    Ok(())
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

/// What a call came to.
enum Outcome {
    Taken,
    /// 410: nothing is to be sent there any more.
    Gone,
    NotTaken,
}

type Calls<'d> = FuturesUnordered<LocalBoxFuture<'d, (EndpointId, Outcome)>>;

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
                Some((endpoint, outcome)) = calls.next(), if !calls.is_empty() => round.ended(endpoint, outcome).await,
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

    /// Calls, and marks what came of it.
    async fn deliver(&self, endpoint: Endpoint, mut claimed: Claimed) -> (EndpointId, Outcome) {
        let called = self.call(&endpoint, &claimed.delivery).await;
        let now = self.house.clock.now();
        let outcome = settle(&mut claimed.delivery, called, now, self.house.clock.chance());
        let Delivery { id, state, tries, last_status, last_error, .. } = &claimed.delivery;
        let word = match (&outcome, state) {
            (Outcome::Taken, _) => {
                debug!(delivery = %id, endpoint = %endpoint.id, "delivery {id} was taken");
                "delivered"
            }
            (_, DeliveryState::Waiting | DeliveryState::Delivered) => {
                info!(delivery = %id, endpoint = %endpoint.id, tries, status = last_status, error = last_error, "delivery {id} was not taken and is tried again");
                "retried"
            }
            (_, DeliveryState::Dead) => {
                warn!(delivery = %id, endpoint = %endpoint.id, tries, status = last_status, error = last_error, "delivery {id} is given up");
                "given_up"
            }
        };
        telemetry::webhook_handled(word);
        match self.house.rows.mark(&claimed, now).await {
            Ok(true) => {}
            Ok(false) => {
                warn!(delivery = %id, "delivery {id} took longer than its lease, and may be sent twice")
            }
            Err(error) => {
                warn!(delivery = %id, %error, "delivery {id} could not be marked, and may be sent twice")
            }
        }
        (endpoint.id, outcome)
    }

    async fn call(&self, endpoint: &Endpoint, delivery: &Delivery) -> Result<u16, Failure> {
        let WebhookHouse { caller, clock, .. } = &*self.house;
        // It was good when it was registered; perhaps loopback was allowed then.
        let Ok(target) = Target::parse(&endpoint.url, caller.allows_loopback()) else {
            return Err(Failure::Unreachable);
        };
        let now = clock.now();
        let Some(secrets) = self.secrets(endpoint.id, now).await else { return Err(Failure::Unreachable) };
        let id = delivery.event.to_string();
        let message = Message { id: &id, timestamp_s: now.0.div_euclid(1_000), body: &delivery.body };
        caller.post(&target, &secrets, message).await
    }

    /// Those that are good now, the newest first.
    async fn secrets(&self, id: EndpointId, now: Millis) -> Option<Vec<Secret>> {
        let rows = self
            .house
            .rows
            .secrets(id)
            .await
            .inspect_err(|error| warn!(%error, "webhook secrets cannot be read"));
        let good = rows.ok()?.into_iter().filter(|row| row.expires_at.is_none_or(|at| at > now));
        let secrets: Result<Vec<Secret>, _> = good.map(|row| opened(&self.house.vault, &row)).collect();
        let secrets = secrets.inspect_err(|error| error!(endpoint = %id, %error, "the secrets of {id} cannot be opened: nothing is told to it"));
        secrets.ok().filter(|secrets| !secrets.is_empty())
    }
}

/// Writes into the delivery what a call came to.
fn settle(delivery: &mut Delivery, called: Result<u16, Failure>, now: Millis, chance: u128) -> Outcome {
    (delivery.last_status, delivery.last_error) = match &called {
        Ok(status) => (Some(*status), None),
        Err(failure) => (None, Some(failure.as_str().to_owned())),
    };
    let outcome = match called {
        Ok(200..300) => Outcome::Taken,
        Ok(410) => Outcome::Gone,
        Ok(_) | Err(_) => Outcome::NotTaken,
    };
    let pause = match outcome {
        Outcome::NotTaken => pace::pause_ms(delivery.tries, chance),
        Outcome::Taken | Outcome::Gone => None,
    };
    delivery.next_at = now.plus(pause.unwrap_or(0));
    delivery.state = match (&outcome, pause) {
        (Outcome::Taken, _) => DeliveryState::Delivered,
        (_, Some(_)) => DeliveryState::Waiting,
        (_, None) => DeliveryState::Dead,
    };
    outcome
}

/// What an endpoint is sent of an event.
fn body(told: &Told) -> String {
    let at = jiff::Timestamp::from_millisecond(told.at.0).unwrap_or_default();
    let at = at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    format!(r#"{{"type":"{}","timestamp":"{at}","data":{}}}"#, told.kind.as_str(), told.data)
}

/// The loop's memory.
struct Round<'d> {
    dispatch: &'d Dispatch,
    lanes: HashMap<EndpointId, Lane>,
    /// Which edition of the endpoints `lanes` is; `None` before the first.
    edition: Option<u64>,
    chores_at: Millis,
    sweep_at: Millis,
}

impl<'d> Round<'d> {
    /// Does what is to be done now; how long until there is more, if nobody rings.
    async fn go(&mut self, calls: &mut Calls<'d>) -> Result<Duration, StoreError> {
        self.refresh().await?;
        let more = self.fan_out().await?;
        let now = self.house().clock.now();
        if now >= self.chores_at {
            self.chores_at = now.plus(LOOK_EVERY_MS);
            self.chores(now).await?;
        }
        self.claim(calls, now).await?;
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
    async fn fan_out(&mut self) -> Result<bool, StoreError> {
        let WebhookHouse { rows, clock, .. } = self.house();
        let Some(taken) = rows.events(EVENTS_MAX).await? else { return Ok(false) };
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
        rows.fan_out(&taken, &deliveries).await?;
        Ok(taken.events.len() >= EVENTS_MAX as usize)
    }

    /// Begins as many calls as there is room for.
    async fn claim(&mut self, calls: &mut Calls<'d>, now: Millis) -> Result<(), StoreError> {
        let dispatch = self.dispatch;
        let rows = &self.house().rows;
        // Nobody is first for ever: whoever has the fewest calls open comes first.
        let mut open: Vec<&mut Lane> = self.lanes.values_mut().filter(|lane| lane.is_open()).collect();
        open.sort_by_key(|lane| lane.calls);
        for lane in open {
            let room = (LANE_MAX - lane.calls.min(LANE_MAX)).min(CALLS_MAX - calls.len().min(CALLS_MAX));
            if lane.look_at > now {
                continue;
            }
            if room == 0 {
                lane.look_at = FULL;
                continue;
            }
            let id = lane.endpoint.id;
            let claimed = rows.claim(id, now, now.plus(LEASE_MS), room).await?;
            lane.look_at = match claimed.len() {
                full if full == room => FULL,
                _ => rows.next_due(id).await?.unwrap_or(EMPTY),
            };
            lane.calls += claimed.len();
            for claimed in claimed {
                calls.push(Box::pin(dispatch.deliver(lane.endpoint.clone(), claimed)));
            }
        }
        Ok(())
    }

    /// A call to an endpoint has ended.
    async fn ended(&mut self, id: EndpointId, outcome: Outcome) {
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
            (Outcome::Taken, None) | (Outcome::NotTaken, Some(_)) => return,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::webhooks::pace::TRIES_MAX;
    use crate::domain::id::EventId;
    use crate::domain::webhook::EventKind;

    fn told() -> Told {
        let data = r#"{"product_id":"prod_1"}"#.to_owned();
        Told {
            id: EventId::new(Millis(1), 2),
            kind: EventKind::StockBack,
            at: Millis(1_700_000_000_050),
            data,
        }
    }

    #[test]
    fn a_body_has_a_type_a_time_and_its_data() {
        assert_eq!(
            body(&told()),
            r#"{"type":"stock.back","timestamp":"2023-11-14T22:13:20.050Z","data":{"product_id":"prod_1"}}"#
        );
    }

    #[test]
    fn what_is_not_taken_is_tried_again_until_it_is_given_up() {
        let (id, now) = (DeliveryId::new(Millis(1), 2), Millis(1_000_000));
        let made = || Delivery::new(id, EndpointId::new(Millis(1), 3), told().id, told().kind, body(&told()));
        let settled = |called, tries| {
            let mut delivery = Delivery { tries, ..made() };
            settle(&mut delivery, called, now, 0);
            (delivery.state, delivery.next_at.0 - now.0, delivery.last_status, delivery.last_error)
        };
        assert_eq!(settled(Ok(204), 1), (DeliveryState::Delivered, 0, Some(204), None));
        for status in [199, 301, 308, 400, 404, 429, 500] {
            assert_eq!(settled(Ok(status), 1), (DeliveryState::Waiting, 5_000, Some(status), None));
        }
        let late = Some("time_out".to_owned());
        assert_eq!(settled(Err(Failure::TimeOut), 2), (DeliveryState::Waiting, 300_000, None, late.clone()));
        assert_eq!(settled(Err(Failure::TimeOut), TRIES_MAX), (DeliveryState::Dead, 0, None, late));
        assert_eq!(settled(Ok(410), 1), (DeliveryState::Dead, 0, Some(410), None));
    }
}
