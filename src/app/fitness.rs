//! Whether the database still keeps its word, and whether this machine still tells its time. Settings may be changed while it runs, or
//! another may take its place, and no statement of ours would fail for that; a clock may go wrong later: what is looked at when a shop
//! opens is looked at again and again.
//!
//! Always true: what is told is what was seen last. A database that does not answer changes nothing here: others tell of that.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use actix_web::rt;
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use crate::actors::turns::Loop;
use crate::http::health::{Degraded, Readiness};
use crate::persistence::journal::{APART_MAX_MS, Journal};
use crate::persistence::{StoreError, Tables};
use crate::telemetry::Metrics;

/// One short statement each time.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks whether the database is set as it was.
pub fn watch(tables: &Tables, time: Rc<Punctuality>, readiness: &Readiness) -> Loop {
    let (tables, readiness) = (tables.clone(), readiness.clone());
    Loop::start(async move {
        let mut was_fit = true;
        loop {
            readiness.degrade(Degraded::ClockApart, time.is_apart());
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
    })
}

/// Whether the clock by which a node's holds lapse tells the time of the database's. Ends with its last owner.
pub struct Punctuality {
    is_apart: Rc<Cell<bool>>,
    watching: JoinHandle<()>,
}

impl Punctuality {
    /// `readiness` is told while no shop is open here.
    pub fn watch(journal: &Journal, readiness: &Readiness) -> Punctuality {
        let (journal, readiness, is_apart) = (journal.clone(), readiness.clone(), Rc::new(Cell::new(false)));
        let seen = is_apart.clone();
        let watching = rt::spawn(async move {
            loop {
                rt::time::sleep(LOOK_EVERY).await;
                let ahead_ms = match journal.ahead_ms().await {
                    Ok(Some(ahead_ms)) => ahead_ms,
                    Ok(None) => return,
                    Err(error) => {
                        debug!(%error, "the database was not asked for the time");
                        continue;
                    }
                };
                Metrics::global().clock_ahead_seconds.set(ahead_ms as f64 / 1_000.0);
                let is_apart = ahead_ms.abs() > APART_MAX_MS;
                match (seen.replace(is_apart), is_apart) {
                    (false, true) => warn!(
                        ahead_ms,
                        "this node's clock and the database's are too far apart: its holds lapse at another time than was promised"
                    ),
                    (true, false) => info!(ahead_ms, "this node's clock tells the database's time again"),
                    _ => {}
                }
                readiness.degrade(Degraded::ClockApart, is_apart);
            }
        });
        Punctuality { is_apart, watching }
    }

    /// As last seen.
    pub fn is_apart(&self) -> bool {
        self.is_apart.get()
    }
}

impl Drop for Punctuality {
    fn drop(&mut self) {
        self.watching.abort();
        Metrics::global().clock_ahead_seconds.set(0.0);
    }
}
