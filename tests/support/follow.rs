//! Tables that show what was acknowledged. Lists are read from them, and wait for them for half a second only: a test that
//! counts what stands in one waits here first.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Process, Shop};

const FOLLOWED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Shop {
    pub async fn tables_follow(&self) {
        let followed = async {
            while self.app().orders().all_listed().await.is_err() {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(FOLLOWED_WITHIN, followed).await.expect("the tables do not follow");
    }
}

impl Process {
    /// By whoever has this token. That there is no such order is said once the tables show everything, and not before.
    pub async fn tables_follow(&self, token: &str) {
        let nobodys = "/v1/orders/order_01h455vb4pex5vsknk084sn02q";
        let followed = async {
            loop {
                let told = self.ask("GET", nobodys).bearer(token).send_once().await;
                match told.status.as_u16() {
                    404 => return,
                    503 => sleep(LOOK_EVERY).await,
                    _ => panic!("{} {}", told.status, told.text),
                }
            }
        };
        timeout(FOLLOWED_WITHIN, followed).await.expect("the tables do not follow");
    }
}
