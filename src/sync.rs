//! The locks and atomics of what several threads share, in one place: `schedules/` builds the same files over others, which try one
//! schedule after the other.

pub use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub mod atomic {
    pub use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
}
