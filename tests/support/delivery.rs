//! Nights: the scheduled run, and what came of the lines.

use stockade::actors::delivery::{Due, Tally};
use stockade::domain::delivery::Delivery;
use stockade::domain::id::OrderId;

use super::{Ask, Shop};

pub const DAY_MS: i64 = 24 * 3_600_000;

impl Shop {
    /// A day goes by, and at its end is the run.
    pub async fn night(&self) -> Tally {
        self.clock.advance(DAY_MS);
        let tally = self.run().await;
        assert_eq!((tally.failed, &tally.problems), (0, &Vec::new()));
        tally
    }

    /// The run for this very moment.
    pub async fn run(&self) -> Tally {
        self.app().deliveries().advance(self.due()).await.unwrap()
    }

    /// An occurrence at this very moment.
    pub fn due(&self) -> Due {
        let now = self.clock.now();
        Due { scheduled: now, now, dry: false }
    }

    pub async fn deliveries(&self, order: &str) -> Vec<Delivery> {
        let rows = self.app().payments().rows().deliveries();
        rows.of_order(order.parse::<OrderId>().unwrap()).await.unwrap()
    }

    pub fn cancel_line(&self, who: u64, order: &str, line: u8) -> Ask {
        self.by(who, "POST", &format!("/v1/orders/{order}/lines/{line}/cancel"))
    }

    pub fn send_back(&self, who: u64, order: &str, line: u8) -> Ask {
        let path = format!("/v1/orders/{order}/lines/{line}/return");
        self.by(who, "POST", &path).json(&serde_json::json!({ "reason": "too small" }))
    }
}
