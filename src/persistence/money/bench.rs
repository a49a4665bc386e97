//! Benches follow.
