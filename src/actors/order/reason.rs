//! Why a buyer sends a line back: his own words, sealed under his key beside the line.
//!
//! It owns nothing: the rows are `money`'s. Always true: nobody but the buyer is told them; and of a buyer without an account, who has
//! no key, nothing is kept.

use super::Orders;
use crate::actors::stock::NotDone;
use crate::domain::delivery::{Delivery, Reason};
use crate::domain::id::{OrderId, UserId};
use crate::persistence::StoreError;
use crate::vault::{Sealed, WrappedKey};

fn context(order: OrderId, line: u8) -> String {
    format!("{order} line {line} reason")
}

impl Orders {
    /// What is kept of `words`.
    pub async fn sealed_reason(
        &self,
        buyer: UserId,
        order: OrderId,
        line: u8,
        words: &str,
    ) -> Result<Option<Reason>, NotDone> {
        let Some(key) = self.key_of_buyer(buyer).await? else { return Ok(None) };
        let sealed = self.0.addresses.vault.seal(&key, &context(order, line), words.as_bytes());
        Ok(Some(Reason::Sealed(sealed.map_err(unsealed)?)))
    }

    /// A buyer's lines, each with what he has said of it.
    pub async fn with_reasons(
        &self,
        buyer: UserId,
        rows: Vec<Delivery>,
    ) -> Result<Vec<(Delivery, Option<String>)>, NotDone> {
        let is_sealed = |row: &Delivery| matches!(row.reason, Some(Reason::Sealed(_)));
        let key = if rows.iter().any(is_sealed) { self.key_of_buyer(buyer).await? } else { None };
        let told = rows.into_iter().map(|row| {
            let words = match (&row.reason, &key) {
                (Some(Reason::Plain(words)), _) => Some(words.clone()),
                (Some(Reason::Sealed(sealed)), Some(key)) => Some(self.opened(key, &row, sealed)?),
                // Whoever said so has left.
                (Some(Reason::Sealed(_)), None) | (None, _) => None,
            };
            Ok((row, words))
        });
        told.collect()
    }

    fn opened(&self, key: &WrappedKey, row: &Delivery, sealed: &[u8]) -> Result<String, NotDone> {
        let plain = self.0.addresses.vault.open(key, &context(row.order, row.line), sealed);
        String::from_utf8(plain.map_err(unsealed)?).map_err(|_| unsealed(Sealed::Damaged))
    }

    async fn key_of_buyer(&self, buyer: UserId) -> Result<Option<WrappedKey>, NotDone> {
        let user = self.0.addresses.tables.users().find(buyer).await.map_err(unread)?;
        user.map_or(Ok(None), |user| user.key()).map_err(unsealed)
    }
}

fn unread(error: StoreError) -> NotDone {
    tracing::error!(%error, "whose line it is cannot be looked up");
    NotDone::Unavailable
}

fn unsealed(error: Sealed) -> NotDone {
    tracing::error!(%error, "why a line is sent back cannot be opened, or sealed");
    NotDone::Internal
}
