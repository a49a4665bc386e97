//! How this program takes memory from the kernel.

/// Takes it in small pages from now on, and so do the programs that it starts.
///
/// A huge page is zeroed whole by whoever touches it first: two megabytes, in the middle of a rush, by the owner of a hot product,
/// whose tables grow with each order, while a buyer waits. In small pages the engine makes half as many reservations again.
///
/// To be called before anything else is done.
pub fn in_small_pages() {
    // A kernel that does not know them has none.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
