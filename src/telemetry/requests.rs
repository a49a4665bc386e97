//! How requests were answered, and how long that took.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};

use super::lanes::{Lane, new_lane};
use super::recorder;

const REQUEST_SECONDS: &str = "stockade_http_request_seconds";
const FORWARD_SECONDS: &str = "stockade_forward_seconds";

/// Counts the answers of one route on one thread. `route` is the pattern, never the path that was asked for.
pub struct Answers {
    route: &'static str,
    ok: OnceCell<Arc<Lane>>,
    created: OnceCell<Arc<Lane>>,
    paying: OnceCell<Arc<Lane>>,
    refused: OnceCell<Arc<Lane>>,
    unavailable: OnceCell<Arc<Lane>>,
    failed: OnceCell<Arc<Lane>>,
    /// By method and status: a handful, the busiest usually first.
    requests: RefCell<Vec<(&'static str, u16, Counter)>>,
}

impl Answers {
    pub fn of(route: &'static str) -> Answers {
        let [ok, created, paying, refused, unavailable, failed] = [(); 6].map(|()| OnceCell::new());
        Answers { route, ok, created, paying, refused, unavailable, failed, requests: RefCell::default() }
    }

    /// Counts one answered request. `paying`: it was the payment provider that took its time.
    pub fn count(&self, method: &'static str, status: u16, took: Duration, paying: bool) {
        let (lane, outcome) = match status {
            ..400 if paying => (&self.paying, "paying"),
            201 => (&self.created, "created"),
            ..400 => (&self.ok, "ok"),
            400..500 => (&self.refused, "refused"),
            503 => (&self.unavailable, "unavailable"),
            _ => (&self.failed, "failed"),
        };
        let labels = [("route", self.route), ("outcome", outcome)];
        lane.get_or_init(|| new_lane(REQUEST_SECONDS, &labels)).record(took);
        let mut requests = self.requests.borrow_mut();
        if let Some((.., counter)) = requests.iter().find(|(m, s, _)| (*m, *s) == (method, status)) {
            return counter.increment(1);
        }
        recorder();
        let counter = counter!("stockade_http_requests_total", "route" => self.route, "method" => method, "status" => status.to_string());
        counter.increment(1);
        requests.push((method, status, counter));
    }
}

/// Counts what one thread has handed to the lead, or kept until there was one.
#[derive(Default)]
pub struct Forwards(RefCell<Vec<(&'static str, Arc<Lane>)>>);

impl Forwards {
    /// Counts one: `answered`, `mirrored`, or the code of the refusal.
    pub fn count(&self, outcome: &'static str, took: Duration) {
        let mut lanes = self.0.borrow_mut();
        if let Some((_, lane)) = lanes.iter().find(|(known, _)| *known == outcome) {
            return lane.record(took);
        }
        let lane = new_lane(FORWARD_SECONDS, &[("outcome", outcome)]);
        lane.record(took);
        lanes.push((outcome, lane));
    }
}
