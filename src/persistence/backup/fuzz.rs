//! Files of a backup, for `crate::fuzz`.

use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use super::manifest::Head;
use super::rows;
use super::sealed::Seal;
use crate::clock::Clock;
use crate::config::MasterKeys;
use crate::vault::Vault;

const NAME: &str = "orders.rows";

static SEAL: LazyLock<Option<(Vault, Seal)>> = LazyLock::new(|| {
    let vault = Vault::new(&MasterKeys::one([7; 32]), &Clock::start()).ok()?;
    let seal = Seal::new(&vault, &Clock::start()).ok()?;
    Some((vault, seal))
});

/// A file as it stands: rows of a table, and a head; what nobody has sealed does not open, and what was comes out as it went in, whole,
/// under its name and as it is alone.
pub fn read_files(bytes: &[u8]) {
    for columns in [1, 3, 13] {
        let _ = rows::read_all(bytes, columns);
    }
    let Some((vault, seal)) = &*SEAL else { return };
    if let Ok(head) = serde_json::from_slice::<Head>(bytes) {
        let opens = head.seal(Path::new("manifest.json"), Some(vault));
        assert!(!matches!(opens, Ok(Some(_))), "nobody has wrapped it");
    }
    assert!(opened(seal, NAME, bytes).is_none());
    let Some(mut file) = sealed(seal, bytes) else { return };
    assert_eq!(opened(seal, NAME, &file).as_deref(), Some(bytes));
    assert!(opened(seal, "stock.rows", &file).is_none());
    let at = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % file.len();
    assert!(opened(seal, NAME, &file[..at]).is_none(), "what is cut off is missed");
    file[at] ^= 1;
    assert!(opened(seal, NAME, &file).is_none(), "a changed bit is seen");
}

fn sealed(seal: &Seal, plain: &[u8]) -> Option<Vec<u8>> {
    let (mut sealing, mut file) = (seal.sealing(NAME, &Clock::start()), Vec::new());
    sealing.begin(&mut file).ok()?;
    sealing.put(plain, &mut file).ok()?;
    sealing.end(&mut file).ok()?;
    Some(file)
}

fn opened(seal: &Seal, name: &str, file: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    seal.opening(name, file, file.len() as u64).ok()?.read_to_end(&mut plain).ok()?;
    Some(plain)
}
