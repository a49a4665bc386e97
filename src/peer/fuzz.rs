//! What arrives at the nodes' door, for `crate::fuzz`.

use super::channel;
use super::frame::Frame;

/// Frames as they follow each other; each is written as it was read.
pub fn frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((frame, behind))) = Frame::first(rest) {
        let mut out = Vec::new();
        if frame.encode(&mut out).is_ok() {
            let again = Frame::first(&out);
            assert!(matches!(again, Ok(Some((again, []))) if again == frame), "{frame:?}");
        }
        rest = behind;
    }
}

/// A greeting, and records behind a handshake: nobody without the key is believed, and nothing that he sends is read.
pub fn greetings(bytes: &[u8]) {
    assert!(!channel::believes(bytes), "nobody has made this greeting");
    let Some((mut near, mut far)) = channel::pair() else { return };
    let mut plain = Vec::new();
    match near.open(bytes, &mut plain) {
        Ok(read) => assert!(read == 0 && plain.is_empty(), "only what is not whole is waited for"),
        Err(_) => assert!(plain.is_empty()),
    }
    let (mut sealed, mut heard) = (Vec::new(), Vec::new());
    let Some((mut near, _)) = channel::pair().filter(|_| far.seal(bytes, &mut sealed).is_ok()) else {
        return;
    };
    assert!(
        sealed.is_empty() || near.open(&sealed, &mut heard).is_err() && heard.is_empty(),
        "another channel"
    );
}
