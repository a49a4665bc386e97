//! The bus: what one node says and the others hear. A message may be lost; whoever hears one again, or none, is none the worse.
//!
//! Always true: nothing is believed because it was heard here. Of stock it is the mirror's copy, with its version; of revocations it
//! is a hint to look into the table.

use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use futures_util::Stream;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::time::timeout;

use super::mirror::channel;
use super::{ANSWER_WITHIN, CONNECT_WITHIN, Link, Mirrored, NoRedis, Redis};
use crate::domain::id::ProductId;

const REVOKED: &str = "stockade:revoked";

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Stock(ProductId, Mirrored),
    /// Somebody has written a revocation: who, as it calls itself.
    Revoked(String),
    /// Not from us.
    Noise,
}

/// Chooses what is heard.
pub struct Ear(PubSubSink);

/// What is heard, until the connection ends.
pub struct Sounds(PubSubStream);

impl Redis {
    /// A connection of its own, that hears of revocations, and of products once they are asked for.
    pub async fn listen(&self) -> Result<(Ear, Sounds), NoRedis> {
        let opening = async {
            let (mut sink, stream) = self.0.door.listen().await?.split();
            sink.subscribe(REVOKED).await?;
            Ok::<_, redis::RedisError>((Ear(sink), Sounds(stream)))
        };
        Ok(timeout(CONNECT_WITHIN, opening).await.map_err(|_| NoRedis::Late)??)
    }
}

impl Link {
    /// Tells every node that a revocation is in its table.
    pub async fn tell_revoked(&self, by: &str) -> Result<(), NoRedis> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(REVOKED).arg(by);
        self.wire.ask(&command).await.map(drop)
    }
}

impl Ear {
    pub async fn open_for(&mut self, products: &[ProductId]) -> Result<(), NoRedis> {
        let channels: Vec<String> = products.iter().copied().map(channel).collect();
        if channels.is_empty() {
            return Ok(());
        }
        Ok(timeout(ANSWER_WITHIN, self.0.subscribe(channels)).await.map_err(|_| NoRedis::Late)??)
    }

    pub async fn close_for(&mut self, products: &[ProductId]) -> Result<(), NoRedis> {
        let channels: Vec<String> = products.iter().copied().map(channel).collect();
        if channels.is_empty() {
            return Ok(());
        }
        Ok(timeout(ANSWER_WITHIN, self.0.unsubscribe(channels)).await.map_err(|_| NoRedis::Late)??)
    }

    /// Whether anybody is at the other end: silence alone does not say.
    pub async fn check(&mut self) -> Result<(), NoRedis> {
        let asked = self.0.ping::<redis::Value>();
        timeout(ANSWER_WITHIN, asked).await.map_err(|_| NoRedis::Late)?.map(drop).map_err(NoRedis::from)
    }
}

impl Stream for Sounds {
    type Item = Heard;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        Pin::new(&mut self.0).poll_next(cx).map(|message| message.map(|message| understood(&message)))
    }
}

fn understood(message: &redis::Msg) -> Heard {
    let payload = std::str::from_utf8(message.get_payload_bytes()).unwrap_or_default();
    if message.get_channel_name() == REVOKED {
        return Heard::Revoked(payload.to_owned());
    }
    match (of_channel(message.get_channel_name()), Mirrored::heard(payload)) {
        (Some(product), Some(view)) => Heard::Stock(product, view),
        _ => Heard::Noise,
    }
}

fn of_channel(name: &str) -> Option<ProductId> {
    let word = name.strip_prefix("stockade:{")?.strip_suffix("}:stock")?;
    ProductId::from_str(word).ok()
}
