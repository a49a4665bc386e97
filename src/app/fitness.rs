//! Whether the database still keeps its word. Its settings may be changed while it runs, or another may take its place, and no
//! statement of ours would fail for that: what is looked at when a shop opens is looked at again and again.
//!
//! Always true: what is told is what was seen last. A database that does not answer changes nothing here: others tell of that.

use std::time::Duration;

use actix_web::rt;
use tokio::task::JoinHandle;
use tracing::{debug, error, info};

use crate::http::health::{Degraded, Readiness};
use crate::persistence::{StoreError, Tables};

/// One short statement each time.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Ends with its app.
pub struct Fitness(JoinHandle<()>);

impl Fitness {
    pub fn watch(tables: &Tables, readiness: &Readiness) -> Fitness {
        let (tables, readiness) = (tables.clone(), readiness.clone());
        Fitness(rt::spawn(async move {
            let mut was_fit = true;
            loop {
                rt::time::sleep(LOOK_EVERY).await;
                let is_fit = match tables.check().await {
                    Ok(()) => true,
                    Err(StoreError::Unfit(why)) => {
                        if was_fit {
                            error!(%why, "the database has changed, and may lose what is acknowledged from now on");
                        }
                        false
                    }
                    Err(error) => {
                        debug!(%error, "the database was not asked how it is set");
                        continue;
                    }
                };
                if is_fit && !was_fit {
                    info!("the database keeps what it says yes to again");
                }
                was_fit = is_fit;
                readiness.degrade(Degraded::DatabaseUnfit, !is_fit);
            }
        }))
    }
}

impl Drop for Fitness {
    fn drop(&mut self) {
        self.0.abort();
    }
}
