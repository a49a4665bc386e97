//! How an endpoint and its deliveries are shown: without the secret, but to whoever has just had one made.

use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use crate::actors::webhooks::Keyed;
use crate::domain::id::{DeliveryId, EndpointId, EventId};
use crate::domain::webhook::EventKind;
use crate::http::time::Stamp;
use crate::persistence::webhook::{Delivery, DeliveryState, Endpoint, EndpointState};

/// A receiver of webhooks.
#[derive(Serialize, ToSchema)]
pub struct EndpointShown {
    #[schema(value_type = String)]
    id: EndpointId,
    url: String,
    #[schema(value_type = Vec<String>)]
    events: Vec<&'static str>,
    description: String,
    /// `enabled` or `disabled`.
    #[schema(value_type = String)]
    state: &'static str,
    /// Why it is disabled: `asked`, `gone` (it answered 410), `failing` (it took nothing for five days) or `backlog` (too much
    /// waits for it).
    #[schema(value_type = Option<String>)]
    disabled_reason: Option<&'static str>,
    /// Since when it has taken nothing.
    #[schema(value_type = Option<String>, format = DateTime)]
    failing_since: Option<Stamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Stamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Stamp,
    /// What its webhooks are signed with, after Standard Webhooks: only in the answer to whoever had it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]
    secret: Option<String>,
    /// Until then the secret before it signs as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    former_secret_until: Option<Stamp>,
}

impl From<&Endpoint> for EndpointShown {
    fn from(endpoint: &Endpoint) -> EndpointShown {
        let (state, disabled_reason) = match endpoint.state {
            EndpointState::Enabled => ("enabled", None),
            EndpointState::Disabled(reason) => ("disabled", Some(reason.as_str())),
        };
        EndpointShown {
            id: endpoint.id,
            url: endpoint.url.clone(),
            events: endpoint.kinds.iter().map(EventKind::as_str).collect(),
            description: endpoint.description.clone(),
            state,
            disabled_reason,
            failing_since: endpoint.failing_since.map(Stamp),
            created_at: Stamp(endpoint.created_at),
            updated_at: Stamp(endpoint.updated_at),
            secret: None,
            former_secret_until: None,
        }
    }
}

impl EndpointShown {
    /// With the secret that was just made.
    pub fn keyed(keyed: &Keyed) -> EndpointShown {
        EndpointShown {
            secret: Some(keyed.secret.expose_secret().to_owned()),
            former_secret_until: keyed.former_until.map(Stamp),
            ..EndpointShown::from(&keyed.endpoint)
        }
    }
}

/// One event on its way to one endpoint.
#[derive(Serialize, ToSchema)]
pub struct DeliveryShown {
    #[schema(value_type = String)]
    id: DeliveryId,
    #[schema(value_type = String)]
    endpoint_id: EndpointId,
    /// The `webhook-id` it is sent under.
    #[schema(value_type = String)]
    event_id: EventId,
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    kind: &'static str,
    /// `waiting`, `delivered` or `dead` (given up).
    #[schema(value_type = String)]
    state: &'static str,
    tries: u32,
    /// What was answered last.
    last_status: Option<u16>,
    /// Why nothing was answered: `time_out`, `unreachable` or `address_refused`.
    last_error: Option<String>,
    /// When it is sent next, while it waits.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_try_at: Option<Stamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Stamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Stamp,
}

impl From<&Delivery> for DeliveryShown {
    fn from(delivery: &Delivery) -> DeliveryShown {
        let waits = delivery.state == DeliveryState::Waiting;
        DeliveryShown {
            id: delivery.id,
            endpoint_id: delivery.endpoint,
            event_id: delivery.event,
            kind: delivery.kind.as_str(),
            state: delivery.state.as_str(),
            tries: delivery.tries,
            last_status: delivery.last_status,
            last_error: delivery.last_error.clone(),
            next_try_at: waits.then_some(Stamp(delivery.next_at)),
            created_at: Stamp(delivery.created_at),
            updated_at: Stamp(delivery.updated_at),
        }
    }
}
