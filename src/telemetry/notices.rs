//! Letters about orders, and the notices of which none came, each by a word.

use metrics::counter;

use super::recorder;

/// Counts one letter about an order that stands in the outbox now.
pub fn order_letter(kind: &'static str) {
    recorder();
    counter!("stockade_order_letters_total", "kind" => kind).increment(1);
}

/// Counts notices of which no letter comes.
pub fn notice_dropped(why: &'static str, count: u64) {
    if count > 0 {
        recorder();
        counter!("stockade_notices_dropped_total", "why" => why).increment(count);
    }
}

/// Served from the first scrape on, also where nothing has happened yet.
pub(super) fn register() {
    for kind in [
        "order_placed",
        "order_hold_lapses",
        "order_payment_failed",
        "order_expired",
        "order_paid",
        "order_cancelled",
        "order_shipped",
        "order_delivered",
        "order_returned",
    ] {
        counter!("stockade_order_letters_total", "kind" => kind).increment(0);
    }
    for why in ["no_account", "idle", "told", "unreadable", "no_room"] {
        counter!("stockade_notices_dropped_total", "why" => why).increment(0);
    }
}
