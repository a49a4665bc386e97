//! What is left to do when nobody asks: checkouts that a crash has left behind, addresses of orders that were never born, and keys
//! that are too old to come again.

use std::time::Duration;

use actix_web::rt;

use super::{Carts, NotCarted, commit};
use crate::actors::turns::Loop;
use crate::domain::id::UserId;

/// How often somebody looks. A cart that is touched is looked at by whoever touches it.
const EVERY: Duration = Duration::from_secs(60);
/// People whose checkouts are looked at in one page.
const PAGE: u32 = 100;
/// How long the key with which something was put into a cart is remembered.
const ADDITIONS_MS: i64 = 24 * 3_600 * 1_000;

impl Carts {
    /// Begins at once: what a crash has left behind is ended before most people come back.
    pub fn chores(&self) -> Loop {
        let carts = self.clone();
        Loop::start(async move {
            loop {
                if let Err(error) = carts.clear_away().await {
                    tracing::warn!(%error, "what checkouts have left behind could not be cleared away; trying again later");
                }
                rt::time::sleep(EVERY).await;
            }
        })
    }

    /// Clears away what can be cleared away by now.
    pub async fn clear_away(&self) -> Result<(), NotCarted> {
        let house = &self.0.house;
        let mut after = UserId::from_bytes([0; 16]);
        loop {
            let page = house.tables.carts().who_checks_out(after, PAGE).await?;
            for user in &page {
                self.touch(*user).await;
            }
            match page.last() {
                Some(user) if page.len() == PAGE as usize => after = *user,
                _ => break,
            }
        }
        house.orders.sweep_addresses().await?;
        let mut writing = house.tables.begin().await?;
        writing.forget_additions(house.clock.now().plus(-ADDITIONS_MS)).await?;
        commit(writing).await
    }
}
