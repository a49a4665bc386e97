//! The simulated provider's webhooks: signed, sent to the shop itself, twice or late if it is told to.
//!
//! They are hints, and may be lost: when too many are on their way, further ones are not sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, header};
use serde_json::json;
use tokio::sync::Semaphore;
use xxhash_rust::xxh3::xxh3_128;

use crate::clock::Clock;
use crate::config::{SimulatedPayment, reached_here};
use crate::domain::id::{OrderId, PaymentId, RefundId};
use crate::provider::webhook::{ORDER_KEY, PAYMENT_KEY, REFUND_KEY, SIGNATURE_HEADER, Signatures};
use crate::provider::{NoProvider, WEBHOOK_PATH, client};

/// Webhooks that are on their way at once, those that are to come late included.
const ON_THEIR_WAY_MAX: usize = 1_000;
const WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Post(Arc<Sender>);

struct Sender {
    client: Client,
    url: String,
    signatures: Signatures,
    clock: Clock,
    late_by: Duration,
    room: Arc<Semaphore>,
}

impl Post {
    pub fn to(
        shop: SocketAddr,
        faults: &SimulatedPayment,
        signatures: &Signatures,
        clock: &Clock,
    ) -> Result<Post, NoProvider> {
        let client = client().no_proxy().timeout(WITHIN).build();
        let client = client.map_err(|error| NoProvider::Client(error.to_string()))?;
        Ok(Post(Arc::new(Sender {
            client,
            url: format!("http://{}{WEBHOOK_PATH}", reached_here(shop)),
            signatures: signatures.clone(),
            clock: clock.clone(),
            late_by: faults.late_by,
            room: Arc::new(Semaphore::new(ON_THEIR_WAY_MAX)),
        })))
    }

    /// Sends one event on its way.
    pub fn send(
        &self,
        kind: &'static str,
        payment: PaymentId,
        order: OrderId,
        refund: Option<RefundId>,
        twice: bool,
        late: bool,
    ) {
        let Ok(place) = self.0.room.clone().try_acquire_owned() else {
            tracing::debug!(%payment, kind, "too many webhooks on their way: this one is not sent");
            return;
        };
        let body = self.event(kind, payment, order, refund);
        let sender = self.0.clone();
        tokio::spawn(async move {
            if late {
                tokio::time::sleep(sender.late_by).await;
            }
            for _ in 0..=u8::from(twice) {
                sender.post(&body).await;
            }
            drop(place);
        });
    }

    fn event(&self, kind: &str, payment: PaymentId, order: OrderId, refund: Option<RefundId>) -> Vec<u8> {
        // The same event has the same id, whenever it is told.
        let id = xxh3_128(format!("{kind} {payment} {refund:?}").as_bytes());
        let mut metadata = json!({ PAYMENT_KEY: payment, ORDER_KEY: order });
        if let Some(refund) = refund {
            metadata[REFUND_KEY] = json!(refund);
        }
        let created = self.0.clock.now().0.div_euclid(1_000);
        let (object, name) = match refund {
            Some(refund) => ("refund", super::name(&refund)),
            None => ("payment_intent", super::name(&payment)),
        };
        let event = json!({
            "id": format!("evt_{id:032x}"), "object": "event", "type": kind, "created": created,
            "data": { "object": { "id": name, "object": object, "metadata": metadata } },
        });
        event.to_string().into_bytes()
    }
}

impl Sender {
    async fn post(&self, body: &[u8]) {
        let signature = self.signatures.sign(body, self.clock.now());
        let request = self
            .client
            .post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE_HEADER, signature)
            .body(body.to_vec());
        match request.send().await {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => {
                tracing::debug!(status = answer.status().as_u16(), "the shop does not take a webhook")
            }
            Err(error) => tracing::debug!(%error, "a webhook did not reach the shop"),
        }
    }
}
