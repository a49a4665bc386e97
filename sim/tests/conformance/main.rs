//! The models that the simulator has of the servers, against the servers: the same seeded schedules are played by a model and by a real
//! MariaDB or Redis, or by the shop's own journal in files, and every answer is compared. A model that is wrong must be noticed, each in
//! its own way.

mod database;
mod journal;
mod mirror;
