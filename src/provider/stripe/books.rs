//! Everything that Stripe has of ours, a hundred at a time and the newest first.

use serde::de::DeserializeOwned;

use super::shapes::{Intent, List, RefundObject};
use super::{CLOCKS_APART_MS, PAGE, Stripe};
use crate::domain::stock::Millis;
use crate::provider::{Charged, KnownRefund, Leaf, ProviderError, RefundStatus};

/// A hundred intents, each with its charge.
const LEAF_BYTES_MAX: usize = 4 << 20;

impl Stripe {
    pub async fn charges(&self, since: Millis, from: Option<&str>) -> Result<Leaf<Charged>, ProviderError> {
        let expand = [("expand[]", "data.latest_charge")];
        let page: List<Intent> = self.page("/v1/payment_intents", since, from, &expand).await?;
        let next = page.data.last().filter(|_| page.has_more).map(|last| last.id.clone());
        let ours = page.data.iter().filter_map(|intent| Some((intent.payment()?, intent)));
        let charged = ours.filter_map(|(payment, intent)| {
            let Some(seen) = intent.seen() else {
                illegible(&intent.id);
                return None;
            };
            Some(Charged { payment, amount: seen.amount, captured: seen.captured, refunded: seen.refunded })
        });
        Ok(Leaf { entries: charged.collect(), next })
    }

    pub async fn refunds(
        &self,
        since: Millis,
        from: Option<&str>,
    ) -> Result<Leaf<KnownRefund>, ProviderError> {
        let page: List<RefundObject> = self.page("/v1/refunds", since, from, &[]).await?;
        let next = page.data.last().filter(|_| page.has_more).map(|last| last.id.clone());
        let mut entries = Vec::with_capacity(page.data.len());
        for (object, (refund, payment)) in page.data.iter().filter_map(|it| Some((it, it.names()?))) {
            let Some(seen) = object.seen() else {
                illegible(&object.id);
                continue;
            };
            // What has come back to them will never reach anybody.
            if !matches!(seen.status, RefundStatus::Failed { .. }) {
                entries.push(KnownRefund { refund, payment, amount: seen.amount });
            }
        }
        Ok(Leaf { entries, next })
    }

    async fn page<T: DeserializeOwned>(
        &self,
        path: &str,
        since: Millis,
        from: Option<&str>,
        besides: &[(&str, &str)],
    ) -> Result<List<T>, ProviderError> {
        let since = since.0.saturating_sub(CLOCKS_APART_MS).div_euclid(1_000).to_string();
        let mut query = vec![("created[gte]", since.as_str()), ("limit", PAGE)];
        query.extend(besides);
        query.extend(from.map(|from| ("starting_after", from)));
        self.wire.get(path, &query, LEAF_BYTES_MAX).await?.object()
    }
}

/// One of ours that no amount of ours says. It is left out, so that whoever compares misses it and looks, and does not stand before
/// all the others.
fn illegible(name: &str) {
    tracing::error!(
        name,
        "{name} stands in Stripe's books with an amount or a currency that is none of ours"
    );
}
