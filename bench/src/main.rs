//! The load harness of Stockade: it sends a crowd, measures from the moment each buyer meant to ask, and then judges
//! whether what was sold is what was there.

mod answer;
mod bystanders;
mod carts;
mod catalogue;
mod chance;
mod client;
mod clock;
mod cluster;
mod command;
mod compare;
mod counters;
mod crashes;
mod crowd;
mod disk;
mod drive;
mod engine;
mod faults;
mod groups;
mod hammer;
mod judge;
mod logins;
mod overload;
mod process;
mod purchases;
mod ratios;
mod reference;
mod report;
mod rivals;
mod rounds;
mod run;
mod sampler;
mod shim;
mod shop;
mod spread;
mod stage;
mod thresholds;
mod wire;
mod workload;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // As the shop takes its memory: what it is compared with must not be slower for that.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match command::Command::parse().perform() {
        Ok(ruling) => ruling.into(),
        Err(error) => {
            eprintln!("stockade-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
