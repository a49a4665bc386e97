//! What meets the outside, one target a parser: bytes go in, nothing panics, and what must always be true is asserted.
//!
//! Only tests and the feature `fuzz` have this room. `fuzz/` hands the targets to libFuzzer; `tests` replays `fuzz/corpus`, and changes it
//! by a seed where there is no fuzzer. A target takes whatever it is given, and reads of it what it can.

mod data;
mod people;
mod signed;
#[cfg(test)]
mod tests;

use crate::{http, peer, persistence, provider, webhook};

/// One parser, or a few that read the same kind of thing.
#[derive(Clone, Copy)]
pub struct Target {
    /// As its folder under `fuzz/corpus` and its file under `fuzz/fuzz_targets` are called.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($( $name:literal $run:path; )*) => {
        /// Every parser that reads what others have written.
        pub const TARGETS: &[Target] = &[$( Target { name: $name, run: $run } ),*];
    };
}

#[rustfmt::skip]
targets! {
    "http_bodies"       http::fuzz::bodies;
    "http_headers"      http::fuzz::headers;
    "http_addresses"    http::fuzz::addresses;
    "forwarded_for"     http::fuzz::forwarded_for;
    "times"             http::fuzz::times;
    "csv_cells"         http::fuzz::csv_cells;
    "access_tokens"     signed::access_tokens;
    "dpop_proofs"       signed::dpop_proofs;
    "sealed"            signed::sealed;
    "payment_webhooks"  provider::fuzz::webhooks;
    "provider_answers"  provider::fuzz::answers;
    "webhook_targets"   webhook::fuzz::targets;
    "peer_frames"       peer::fuzz::frames;
    "peer_greetings"    peer::fuzz::greetings;
    "stock_questions"   data::questions;
    "journal_groups"    persistence::fuzz::groups;
    "journal_events"    data::events;
    "snapshots"         data::snapshots;
    "mirror_views"      persistence::fuzz::mirror_views;
    "breached_lists"    persistence::fuzz::breached_lists;
    "backup_files"      persistence::fuzz::backup_files;
    "settings"          data::settings;
    "schedules"         data::schedules;
    "people"            people::people;
    "ids_and_money"     data::ids_and_money;
}

/// Runs the target of this name, if there is one.
pub fn run(name: &str, bytes: &[u8]) {
    if let Some(target) = TARGETS.iter().find(|target| target.name == name) {
        (target.run)(bytes);
    }
}
