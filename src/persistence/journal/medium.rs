//! What a folder lies on, as the kernel names it: whether what is synced there is on a disk of this machine.
//!
//! Always true: no journal is opened for writing over a network, where a lock may hold for one machine alone and a sync may mean nothing. Whoever
//! sells from memory is told so by whoever opens the store.

use std::io;
use std::path::Path;

/// Where a folder lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// As far as anybody knows.
    Disk,
    /// Gone with the power.
    Memory,
    /// On another machine; by this name.
    Network(&'static str),
}

impl Medium {
    #[cfg(target_os = "linux")]
    pub fn of(dir: &Path) -> io::Result<Medium> {
        // The kernel's word for it is as wide as the machine likes; the number has four bytes.
        Ok(Medium::called(rustix::fs::statfs(dir)?.f_type as u32))
    }

    #[cfg(not(target_os = "linux"))]
    pub fn of(_: &Path) -> io::Result<Medium> {
        Ok(Medium::Disk)
    }

    /// By its number, as `statfs(2)` and `linux/magic.h` list them. What may be either (9P of a sandbox, FUSE) is believed to be a disk.
    #[cfg(any(target_os = "linux", test))]
    fn called(number: u32) -> Medium {
        match number {
            0x0102_1994 | 0x8584_58f6 => Medium::Memory,
            0x0000_6969 => Medium::Network("NFS"),
            0x0000_517b | 0xff53_4d42 | 0xfe53_4d42 => Medium::Network("SMB"),
            0x00c3_6400 => Medium::Network("Ceph"),
            0x5346_414f | 0x6b41_4653 => Medium::Network("AFS"),
            0x7375_7245 => Medium::Network("Coda"),
            0x0bd0_0bd0 => Medium::Network("Lustre"),
            _ => Medium::Disk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_elsewhere_is_no_disk() {
        for (number, medium) in [
            (0xef53, Medium::Disk),
            (0x5846_5342, Medium::Disk),
            (0x794c_7630, Medium::Disk),
            (0x0102_1994, Medium::Memory),
            (0x6969, Medium::Network("NFS")),
            (0xff53_4d42, Medium::Network("SMB")),
            (0xfe53_4d42, Medium::Network("SMB")),
        ] {
            assert_eq!(Medium::called(number), medium, "{number:x}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_is_asked() {
        assert_eq!(Medium::of(Path::new("/dev/shm")).unwrap(), Medium::Memory);
        assert!(Medium::of(Path::new("/nowhere")).is_err());
    }
}
