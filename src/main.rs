//! The program: what was asked for on the command line, done.

use std::process::ExitCode;

use clap::Parser;
use stockade::cli::Cli;
use stockade::memory;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::in_small_pages();
    Cli::parse().run()
}
