//! Tables that show what was acknowledged. Lists are read from them, and wait for them for half a second only: a test that
//! counts what stands in one waits here first.

use std::time::Duration;

use super::{Process, Shop};

impl Shop {
    pub async fn tables_follow(&self) {
        while self.app().orders().all_listed().await.is_err() {
            println!("the tables are seconds behind");
        }
    }
}

impl Process {
    /// By whoever has this token. That there is no such order is said once the tables show everything, and not before.
    pub async fn tables_follow(&self, token: &str) {
        let nobodys = "/v1/orders/order_01h455vb4pex5vsknk084sn02q";
        while self.ask("GET", nobodys).bearer(token).send_once().await.status != 404 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
