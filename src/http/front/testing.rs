//! A node's front for tests: nothing is owned behind it, and no mirror tells of anything.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Front, Standing};
use crate::clock::Clock;
use crate::config::MasterKeys;
use crate::http::Proxies;
use crate::http::health::Readiness;
use crate::peer::PeerKeys;

pub fn keys() -> PeerKeys {
    PeerKeys::of(&MasterKeys::one([7; 32])).unwrap()
}

pub fn front(standing: Standing, clock: Clock) -> Front {
    Front {
        standing: Arc::new(watch::Sender::new(standing)),
        keys: keys(),
        owners: Arc::default(),
        look: Arc::default(),
        closing: Arc::new(watch::Sender::new(false)),
        mirror: None,
        readiness: Readiness::without_active_node(),
        clock,
        proxies: Proxies(Arc::new([])),
        with_ops: true,
    }
}
