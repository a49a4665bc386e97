//! What stands on the disk and in Redis, for `crate::fuzz`.

use super::backup;
use super::breached;
use super::journal;
use super::redis;

/// A file of the log as it stands, and a group of which the checksum fits.
pub fn groups(bytes: &[u8]) {
    journal::read_groups(bytes);
}

/// A list of breached passwords.
pub fn breached_lists(bytes: &[u8]) {
    breached::read_list(bytes);
}

/// A version, a newline and a view; and an answer of Redis.
pub fn mirror_views(bytes: &[u8]) {
    redis::read_views(bytes);
}

/// A file of a backup, as it stands and sealed.
pub fn backup_files(bytes: &[u8]) {
    backup::read_files(bytes);
}
