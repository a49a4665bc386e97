//! The secret channel: a handshake in which both sides prove that they share a key, then records that nobody else can read,
//! change, leave out, repeat or put elsewhere.
//!
//! Noise (<https://noiseprotocol.org/noise.html>, revision 34), pattern `NNpsk0`: fresh keys for every connection, so that one that
//! leaks later opens nothing of the past. Each record is a length (u16, big-endian) and that many encrypted bytes; of AES-GCM and
//! ChaCha20-Poly1305 the first is several times as fast where the processor knows AES. Always true: what has not been
//! authenticated goes no further than this file.

use snow::{Builder, HandshakeState, TransportState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::crypt::AwsLc;
use super::keys::KEY_BYTES;
use super::{PeerError, PeerKeys};

const NOISE: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";
/// Protocol and version: a side that means another one fails as with another key.
const PROLOGUE: &[u8] = b"stockade peer 2";
/// Both greetings are a public key and the tag of an empty message.
const GREETING_BYTES: usize = 32 + TAG_BYTES;
const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 2;
const RECORD_BYTES_MAX: usize = u16::MAX as usize;
/// What is said in one record.
const RECORD_PLAIN_BYTES_MAX: usize = 60 * 1024;
/// After so many records of one direction comes a new key: AES-GCM wants one long before 2³² of them.
const RECORDS_A_KEY: u64 = 1 << 20;

/// Both directions of one connection after the handshake.
pub(super) struct Channel {
    noise: TransportState,
    /// Records until the next key.
    sealing: u64,
    opening: u64,
}

/// Proves our key to whoever listens, and has him prove his.
pub(super) async fn speak(stream: &mut TcpStream, keys: &PeerKeys) -> Result<Channel, PeerError> {
    let mut greeting = [0; GREETING_BYTES];
    let mut noise =
        builder(keys.speaking().ok_or(PeerError::NoKey)?)?.build_initiator().map_err(|_| PeerError::NoKey)?;
    write(&mut noise, &mut greeting)?;
    stream.write_all(&greeting).await?;
    stream.read_exact(&mut greeting).await.map_err(|error| match error.kind() {
        // Whoever does not believe us closes without a word.
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => PeerError::WrongKey,
        _ => PeerError::Io(error),
    })?;
    read(&mut noise, &greeting)?;
    Channel::of(noise)
}

/// Hears a greeting, believes it if it was made with any of our keys, and answers with the same. Whoever greets may only repeat what
/// he has overheard; his first record shows that he does not.
pub(super) async fn listen(stream: &mut TcpStream, keys: &PeerKeys) -> Result<Channel, PeerError> {
    let mut greeting = [0; GREETING_BYTES];
    stream.read_exact(&mut greeting).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => PeerError::Ended,
        _ => PeerError::Io(error),
    })?;
    let mut noise = believed(keys, &greeting)?;
    write(&mut noise, &mut greeting)?;
    stream.write_all(&greeting).await?;
    Channel::of(noise)
}

fn believed(keys: &PeerKeys, greeting: &[u8]) -> Result<HandshakeState, PeerError> {
    for key in keys.believed() {
        let mut noise = builder(key)?.build_responder().map_err(|_| PeerError::NoKey)?;
        if read(&mut noise, greeting).is_ok() {
            return Ok(noise);
        }
    }
    Err(PeerError::WrongKey)
}

fn builder(key: &[u8; KEY_BYTES]) -> Result<Builder<'_>, PeerError> {
    let pattern = NOISE.parse().map_err(|_| PeerError::NoKey)?;
    let builder = Builder::with_resolver(pattern, Box::new(AwsLc));
    builder.psk(0, key).and_then(|builder| builder.prologue(PROLOGUE)).map_err(|_| PeerError::NoKey)
}

fn write(noise: &mut HandshakeState, greeting: &mut [u8; GREETING_BYTES]) -> Result<(), PeerError> {
    match noise.write_message(&[], greeting) {
        Ok(GREETING_BYTES) => Ok(()),
        _ => Err(PeerError::NoKey),
    }
}

fn read(noise: &mut HandshakeState, greeting: &[u8]) -> Result<(), PeerError> {
    match noise.read_message(greeting, &mut []) {
        Ok(0) => Ok(()),
        _ => Err(PeerError::WrongKey),
    }
}

impl Channel {
    fn of(noise: HandshakeState) -> Result<Channel, PeerError> {
        let noise = noise.into_transport_mode().map_err(|_| PeerError::NoKey)?;
        Ok(Channel { noise, sealing: RECORDS_A_KEY, opening: RECORDS_A_KEY })
    }

    /// Appends `plain` to `out`, in as many records as it needs.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), PeerError> {
        for piece in plain.chunks(RECORD_PLAIN_BYTES_MAX) {
            let sealed = piece.len() + TAG_BYTES;
            let length = u16::try_from(sealed).map_err(|_| PeerError::Damaged)?;
            out.extend_from_slice(&length.to_be_bytes());
            let at = out.len();
            out.resize(at + sealed, 0);
            match self.noise.write_message(piece, &mut out[at..]) {
                Ok(written) if written == sealed => {}
                _ => return Err(PeerError::Damaged),
            }
            self.sealing -= 1;
            if self.sealing == 0 {
                self.noise.rekey_outgoing();
                self.sealing = RECORDS_A_KEY;
            }
        }
        Ok(())
    }

    /// Appends to `plain` what the whole records at the front of `sealed` say; how many bytes those were.
    pub(super) fn open(&mut self, sealed: &[u8], plain: &mut Vec<u8>) -> Result<usize, PeerError> {
        let mut rest = sealed;
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let Some((record, behind)) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))
            else {
                break;
            };
            let at = plain.len();
            plain.resize(at + record.len().saturating_sub(TAG_BYTES), 0);
            if self.noise.read_message(record, &mut plain[at..]).is_err() {
                // Nothing of what did not prove itself stays behind.
                plain.truncate(at);
                return Err(PeerError::Damaged);
            }
            self.opening -= 1;
            if self.opening == 0 {
                self.noise.rekey_incoming();
                self.opening = RECORDS_A_KEY;
            }
            rest = behind;
        }
        Ok(sealed.len() - rest.len())
    }
}

/// What a record is longer than what it says.
pub(super) const RECORD_EXTRA_BYTES: usize = LENGTH_BYTES + TAG_BYTES;
/// The longest record with its length.
pub(super) const RECORD_BYTES: usize = LENGTH_BYTES + RECORD_BYTES_MAX;

/// Both ends of a channel of its own.
#[cfg(any(test, feature = "fuzz"))]
pub(super) fn pair() -> Option<(Channel, Channel)> {
    let key = [7; KEY_BYTES];
    let (mut a, mut b) =
        (builder(&key).ok()?.build_initiator().ok()?, builder(&key).ok()?.build_responder().ok()?);
    let mut greeting = [0; GREETING_BYTES];
    write(&mut a, &mut greeting).and_then(|()| read(&mut b, &greeting)).ok()?;
    write(&mut b, &mut greeting).and_then(|()| read(&mut a, &greeting)).ok()?;
    Some((Channel::of(a).ok()?, Channel::of(b).ok()?))
}

/// Whether somebody who greets so is believed to know a key.
#[cfg(any(test, feature = "fuzz"))]
pub(super) fn believes(greeting: &[u8]) -> bool {
    let keys = crate::config::MasterKeys::one([7; crate::config::MASTER_KEY_BYTES]);
    PeerKeys::of(&keys).is_ok_and(|keys| believed(&keys, greeting).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Channel, Channel) {
        super::pair().unwrap()
    }

    fn hex(text: &str) -> Vec<u8> {
        let text = text.replace(' ', "");
        let digits = text.as_bytes().chunks_exact(2);
        digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    /// The vector of this pattern that other implementations of Noise check themselves by (cacophony's).
    #[test]
    fn others_who_speak_noise_would_understand_us() {
        let psk: [u8; 32] = *b"This is my Austrian perspective!";
        let side = |ephemeral: &str| (hex(ephemeral), NOISE.parse().unwrap());
        let (a_key, a) = side("893e28b9dc6ca8d6 11ab664754b8ceb7 bac5117349a4439a 6b0569da977c464a");
        let (b_key, b) = side("bbdb4cdbd309f1a1 f2e1456967fe288c add6f712d65dc7b7 793d5e63da6b375b");
        let builder = |pattern, key| {
            let builder = Builder::with_resolver(pattern, Box::new(AwsLc)).psk(0, &psk).unwrap();
            builder.prologue(b"John Galt").unwrap().fixed_ephemeral_key_for_testing_only(key)
        };
        let mut a = builder(a, &a_key).build_initiator().unwrap();
        let mut b = builder(b, &b_key).build_responder().unwrap();
        let (mut sent, mut heard) = ([0; 100], [0; 100]);
        let n = a.write_message(b"Ludwig von Mises", &mut sent).unwrap();
        let first = "ca35def5ae56cec3 3dc2036731ab1489 6bc4c75dbb07a61f 879f8e3afa4c7944 7c37a89fc1781378 8d30df2d59501d60 66f5f8aecc3406bb d9829f2d24a531b1";
        assert_eq!(sent[..n], hex(first));
        b.read_message(&sent[..n], &mut heard).unwrap();
        let n = b.write_message(b"Murray Rothbard", &mut sent).unwrap();
        let second = "95ebc60d2b1fa672 c1f46a8aa265ef51 bfe38e7ccb39ec5b e34069f144808843 2f29d79368ef9de4 e1ae7a362fb05bf0 ad668e026bf57145 54497b3a720461";
        assert_eq!(sent[..n], hex(second));
        a.read_message(&sent[..n], &mut heard).unwrap();
        let mut a = a.into_transport_mode().unwrap();
        let n = a.write_message(b"F. A. Hayek", &mut sent).unwrap();
        assert_eq!(sent[..n], hex("7c01e898a6201f36 aecee532e29cd0b7 f8ffa29d3366ad0d ce39a6"));
    }

    #[test]
    fn what_is_said_is_heard_however_it_arrives() {
        let (mut a, mut b) = pair();
        let said: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let mut sealed = Vec::new();
        a.seal(&said, &mut sealed).unwrap();
        assert!(!sealed.windows(16).any(|piece| piece == &said[..16]));
        let (mut heard, mut waiting) = (Vec::new(), Vec::new());
        for piece in sealed.chunks(1_777) {
            waiting.extend_from_slice(piece);
            let used = b.open(&waiting, &mut heard).unwrap();
            waiting.drain(..used);
        }
        assert!(waiting.is_empty() && heard == said);
    }

    #[test]
    fn a_record_changed_repeated_reordered_or_returned_ends_it() {
        let mut sealed = Vec::new();
        let (mut a, _) = pair();
        a.seal(b"one", &mut sealed).unwrap();
        for at in LENGTH_BYTES..sealed.len() {
            let (mut a, mut b) = pair();
            let (mut sealed, mut plain) = (Vec::new(), Vec::new());
            a.seal(b"one", &mut sealed).unwrap();
            sealed[at] ^= 1;
            assert!(matches!(b.open(&sealed, &mut plain), Err(PeerError::Damaged)), "byte {at}");
            assert!(plain.is_empty());
        }
        let (mut a, mut b) = pair();
        let (mut first, mut second, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        a.seal(b"one", &mut first).unwrap();
        a.seal(b"two", &mut second).unwrap();
        assert!(b.open(&second, &mut plain).is_err(), "out of order");
        b.open(&first, &mut plain).unwrap();
        assert!(b.open(&first, &mut plain).is_err(), "repeated");
        assert!(a.open(&first, &mut plain).is_err(), "sent back to whoever said it");
        let (_, mut stranger) = pair();
        assert!(stranger.open(&first, &mut plain).is_err(), "of another connection");
        for length in [0_u16, 1, 15, 16] {
            let (_, mut b) = pair();
            let record = [length.to_be_bytes().as_slice(), &vec![0; usize::from(length)]].concat();
            assert!(b.open(&record, &mut plain).is_err(), "{length} bytes");
        }
        assert_eq!(plain, b"one");
    }

    #[test]
    fn a_key_is_replaced_before_it_is_worn() {
        let (mut a, mut b) = pair();
        (a.sealing, b.opening) = (2, 2);
        let (mut sealed, mut plain) = (Vec::new(), Vec::new());
        for said in [b"1", b"2", b"3"] {
            a.seal(said, &mut sealed).unwrap();
        }
        b.open(&sealed, &mut plain).unwrap();
        assert_eq!((plain.as_slice(), b.opening), (b"123".as_slice(), RECORDS_A_KEY - 1));
        b.opening = 1;
        sealed.clear();
        a.seal(b"4", &mut sealed).unwrap();
        a.seal(b"5", &mut sealed).unwrap();
        assert!(b.open(&sealed, &mut plain).is_err(), "keys change on both sides at once or not at all");
    }
}
