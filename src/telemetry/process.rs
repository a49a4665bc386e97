//! The process as the kernel sees it, under the names that Prometheus gives such numbers. What cannot be read is not served.

use std::fs;
use std::str::FromStr;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::text;

/// Where the fields of `/proc/self/stat` stand that follow the program's name, which may contain anything.
const STARTED_AT: usize = 19;

pub(super) fn render(out: &mut String) {
    let mut serve = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            text::describe(out, name);
            text::sample(out, name, "", value);
        }
    };
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    serve("process_cpu_seconds_total", Some(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9));
    serve("process_start_time_seconds", started_at());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    serve("process_resident_memory_bytes", number(&status, "VmRSS:").map(|kib: f64| kib * 1024.0));
    serve("process_virtual_memory_bytes", number(&status, "VmSize:").map(|kib: f64| kib * 1024.0));
    serve("process_threads", number(&status, "Threads:"));
    serve("process_open_fds", fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64));
    serve("process_max_fds", getrlimit(Resource::Nofile).current.map(|most| most as f64));
}

/// The number behind a word at the beginning of a line.
pub(super) fn number<T: FromStr>(text: &str, word: &str) -> Option<T> {
    text.lines().find_map(|line| line.strip_prefix(word))?.split_whitespace().next()?.parse().ok()
}

/// Seconds since 1970: when the machine began, and how many ticks later the process did.
fn started_at() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: f64 = fields.split(' ').nth(STARTED_AT)?.parse().ok()?;
    let booted: f64 = number(&fs::read_to_string("/proc/stat").ok()?, "btime ")?;
    Some(booted + ticks / rustix::param::clock_ticks_per_second() as f64)
}
