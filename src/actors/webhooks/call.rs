//! One call: an event sent to an endpoint, and what came of it written down.
//!
//! Always true: every try has the same id and the same bytes, and a time and signatures of its own.

use std::sync::Arc;

use tracing::{debug, error, info, warn};

use super::{WebhookHouse, opened, pace};
use crate::domain::id::EndpointId;
use crate::domain::stock::Millis;
use crate::persistence::webhook::{Claimed, Delivery, DeliveryState, Endpoint, Told};
use crate::telemetry;
use crate::webhook::{Failure, Message, Secret, Target};

/// What a call came to.
pub(super) enum Outcome {
    Taken,
    /// 410: nothing is to be sent there any more.
    Gone,
    NotTaken,
    /// Nobody was called: by now it is somebody else's to do.
    TooLate,
}

/// Calls, and marks what came of it. Whoever was stopped for longer than his claim does not call.
pub(super) async fn deliver(
    house: Arc<WebhookHouse>,
    endpoint: Endpoint,
    mut claimed: Claimed,
    until: Millis,
) -> Outcome {
    if house.clock.now() >= until {
        warn!(delivery = %claimed.delivery.id, "delivery {} was ours for too short a time", claimed.delivery.id);
        return Outcome::TooLate;
    }
    let called = call(&house, &endpoint, &claimed.delivery).await;
    let now = house.clock.now();
    let outcome = settle(&mut claimed.delivery, called, now, house.clock.chance());
    let Delivery { id, state, tries, last_status, last_error, .. } = &claimed.delivery;
    let word = match (&outcome, state) {
        (Outcome::Taken, _) => {
            debug!(delivery = %id, endpoint = %endpoint.id, "delivery {id} was taken");
            "delivered"
        }
        (_, DeliveryState::Waiting | DeliveryState::Delivered) => {
            info!(
                delivery = %id, endpoint = %endpoint.id, tries, status = last_status, error = last_error,
                "delivery {id} was not taken and is tried again"
            );
            "retried"
        }
        (_, DeliveryState::Dead) => {
            warn!(
                delivery = %id, endpoint = %endpoint.id, tries, status = last_status, error = last_error,
                "delivery {id} is given up"
            );
            "given_up"
        }
    };
    telemetry::webhook_handled(word);
    match house.rows.mark(&claimed, now).await {
        Ok(true) => {}
        Ok(false) => {
            warn!(delivery = %id, "delivery {id} took longer than its lease, and may be sent twice")
        }
        Err(error) => {
            warn!(delivery = %id, %error, "delivery {id} could not be marked, and may be sent twice")
        }
    }
    outcome
}

async fn call(house: &WebhookHouse, endpoint: &Endpoint, delivery: &Delivery) -> Result<u16, Failure> {
    let WebhookHouse { caller, clock, .. } = house;
    // It was good when it was registered; perhaps loopback was allowed then.
    let Ok(target) = Target::parse(&endpoint.url, caller.allows_loopback()) else {
        return Err(Failure::Unreachable);
    };
    let now = clock.now();
    let Some(secrets) = secrets(house, endpoint.id, now).await else { return Err(Failure::Unreachable) };
    let id = delivery.event.to_string();
    let message = Message { id: &id, timestamp_s: now.0.div_euclid(1_000), body: &delivery.body };
    caller.post(&target, &secrets, message).await
}

/// Those that are good now, the newest first.
async fn secrets(house: &WebhookHouse, id: EndpointId, now: Millis) -> Option<Vec<Secret>> {
    let rows =
        house.rows.secrets(id).await.inspect_err(|error| warn!(%error, "webhook secrets cannot be read"));
    let good = rows.ok()?.into_iter().filter(|row| row.expires_at.is_none_or(|at| at > now));
    let secrets: Result<Vec<Secret>, _> = good.map(|row| opened(&house.vault, &row)).collect();
    let secrets = secrets.inspect_err(
        |error| error!(endpoint = %id, %error, "the secrets of {id} cannot be opened: nothing is told to it"),
    );
    secrets.ok().filter(|secrets| !secrets.is_empty())
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
        Outcome::Taken | Outcome::Gone | Outcome::TooLate => None,
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
pub(super) fn body(told: &Told) -> String {
    let at = jiff::Timestamp::from_millisecond(told.at.0).unwrap_or_default();
    let at = at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    format!(r#"{{"type":"{}","timestamp":"{at}","data":{}}}"#, told.kind.as_str(), told.data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::webhooks::pace::TRIES_MAX;
    use crate::clock::Clock;
    use crate::config::MasterKeys;
    use crate::domain::id::{DeliveryId, EventId};
    use crate::domain::webhook::{EventKind, Kinds};
    use crate::persistence::Tables;
    use crate::persistence::webhook::{EndpointState, Taken};
    use crate::vault::Vault;
    use crate::webhook::{Caller, by_system};

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

    /// Somebody else has called meanwhile, or will: it is as it was.
    #[tokio::test]
    async fn who_was_stopped_for_longer_than_his_claim_calls_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (tables, clock) = (Tables::open(folder.path()).await.unwrap(), Clock::start());
        let house = WebhookHouse {
            rows: tables.webhooks(),
            trail: tables.trail(),
            vault: Vault::new(&MasterKeys::one([9; 32]), &clock).unwrap(),
            caller: Caller::new(false, by_system()).unwrap(),
            clock: clock.clone(),
        };
        let now = clock.now();
        let endpoint = Endpoint {
            id: EndpointId::new(now, 1),
            url: "https://hooks.example.com/".to_owned(),
            description: String::new(),
            kinds: Kinds::default(),
            state: EndpointState::Enabled,
            failing_since: None,
            created_at: now,
            updated_at: now,
        };
        let id = DeliveryId::new(now, 2);
        let made = Delivery::new(id, endpoint.id, told().id, told().kind, body(&told()));
        house.rows.fan_out(&Taken::default(), &[made]).await.unwrap();
        let until = now.plus(20_000);
        let claimed = house.rows.claim(endpoint.id, now, until, 1).await.unwrap().remove(0);
        clock.advance(20_000);
        let outcome = deliver(Arc::new(house.clone()), endpoint, claimed, until).await;
        assert!(matches!(outcome, Outcome::TooLate));
        let row = house.rows.delivery(id).await.unwrap().unwrap();
        assert_eq!((row.state, row.tries, row.last_error), (DeliveryState::Waiting, 1, None));
        tables.close().await.unwrap();
    }
}
