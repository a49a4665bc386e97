//! Real servers for tests and the bench: child processes on temporary folders, on free ports of the loopback interface. Each
//! is ended by its own process id, at the latest when it is dropped, and what it kept goes with it.
//!
//! MariaDB and Redis are whatever the machine has installed; each has a password of its own, so that nobody else on the
//! machine gets in. Both keep their folder, their port and their password across kills, and acknowledge nothing that is not
//! on disk. HAProxy is what stands in front of nodes, and keeps nothing; Prometheus watches them, and forgets.
//! A [`Network`] lies between all of them where it shall be cut.

mod haproxy;
mod mariadb;
mod network;
mod process;
mod program;
mod prometheus;
mod redis;

pub use haproxy::HaProxy;
pub use mariadb::MariaDb;
pub use network::{Cut, Network, Site};
pub use process::{Process, free_address, run_to_end};
pub use prometheus::{Prometheus, check_metrics, promtool};
pub use redis::{Redis, Sentinel};

fn password() -> String {
    format!("{:032x}", rand::random::<u128>())
}
