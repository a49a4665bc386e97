//! A folder of data or of a backup: made for its owner alone.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes it, and what it lies in, if it is not there. One that is there stays as it is: somebody may have opened it on purpose.
pub fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, metadata, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_folder_is_its_owners_alone_and_an_old_one_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let (outer, inner) = (home.path().join("shop"), home.path().join("shop/data"));
        let mode = |dir: &Path| metadata(dir).unwrap().permissions().mode() & 0o777;
        make(&inner).unwrap();
        assert_eq!((mode(&outer), mode(&inner)), (0o700, 0o700));
        set_permissions(&inner, Permissions::from_mode(0o750)).unwrap();
        make(&inner).unwrap();
        assert_eq!(mode(&inner), 0o750);
    }
}
