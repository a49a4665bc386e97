//! The program: what was asked for on the command line, done.

use std::process::ExitCode;

use clap::Parser;
use rustix::fs::Mode;
use stockade::cli::Cli;
use stockade::memory;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::in_small_pages();
    // Whatever is written is its owner's alone: accounts, the journal, letters, backups.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    Cli::parse().run()
}
