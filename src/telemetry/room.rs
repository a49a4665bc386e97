//! How much memory is left: on the machine, and within the bounds that the process was given on it.
//!
//! Always true: what files are remembered in counts as left, for the kernel gives that up first; and a bound that cannot be read is none.

use std::fs;
use std::path::Path;

use super::process::number;

/// Where control groups of version 2 stand.
const GROUPS: &str = "/sys/fs/cgroup";

/// Bytes that may yet be taken; `None` where the system does not say.
pub fn room_bytes() -> Option<u64> {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of_machine = number(&memory, "MemAvailable:").map(|kilobytes: u64| kilobytes * 1024);
    of_machine.into_iter().chain(of_groups()).min()
}

/// What is left in the narrowest of the groups that this process is in.
fn of_groups() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let all = Path::new(GROUPS);
    all.join(own).ancestors().take_while(|folder| folder.starts_with(all)).filter_map(of_group).min()
}

fn of_group(folder: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let bounds = ["memory.max", "memory.high"].into_iter().filter_map(read);
    let bound: u64 = bounds.filter_map(|bound| bound.trim().parse().ok()).min()?;
    let taken: u64 = read("memory.current")?.trim().parse().ok()?;
    Some(left(bound, taken, &read("memory.stat")?))
}

fn left(bound: u64, taken: u64, of_it: &str) -> u64 {
    let files = ["inactive_file ", "active_file "].into_iter().filter_map(|word| number::<u64>(of_it, word));
    bound.saturating_sub(taken.saturating_sub(files.sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_are_remembered_in_is_left() {
        let of_it = "anon 300\nfile 500\nshmem 100\ninactive_file 250\nactive_file 150\n";
        assert_eq!(left(1_000, 800, of_it), 600);
        assert_eq!(left(700, 1_200, of_it), 0);
        assert_eq!(left(700, 100, of_it), 700, "read a moment apart");
        assert_eq!(left(1_000, 800, ""), 200);
    }

    #[test]
    fn where_the_system_says_it_there_is_some() {
        if Path::new("/proc/meminfo").exists() {
            assert!(room_bytes().is_some());
        }
    }
}
