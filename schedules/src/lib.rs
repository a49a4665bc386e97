//! What several threads share in a stock owner's room, built over locks that a scheduler of ours hands out: the mailbox, the published view and
//! the registry of used keys, the very files of the shop. Around them stands as little as there can be: threads that ask, one that owns.
//!
//! Always true of a scene: it is over in every schedule, and panics if a promise is broken. Every operation on a lock or an atomic is a point
//! at which another thread may go on; memory is as on a machine without reordering.

// The files bring the shop's own tests, which belong there; those of this crate see it from outside.
#![cfg(not(test))]

mod clock {
    pub use stockade::clock::Clock;
}

mod domain {
    pub use stockade::domain::{id, stock};
}

mod sync {
    pub use shuttle::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

    pub mod atomic {
        pub use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    }
}

// What a scene does not ask of them is not used here.
#[allow(dead_code)]
mod stock {
    mod answer {
        pub use stockade::actors::stock::{Answer, NotDone, Reply, View};
    }

    mod protocol {
        pub use stockade::actors::stock::{Ask, GROUP_EVENTS_MAX, Outcome};
    }

    #[path = "../../../src/actors/stock/inbox.rs"]
    mod inbox;
    #[path = "../../../src/actors/stock/past_keys.rs"]
    mod past_keys;
    #[path = "../../../src/actors/stock/shared.rs"]
    mod shared;
    #[path = "../../../src/actors/stock/used_keys.rs"]
    mod used_keys;

    pub mod keys;
    pub mod owner;
    pub mod views;
}

pub use stock::{keys, owner::Without, views};
