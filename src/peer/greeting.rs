//! How a connection begins: both sides prove that they know a key, whoever connected says the first word, and hears one as soon as the
//! other side has a place for him.
//!
//! Always true: a greeting that was overheard and is sent again comes no further than here, because only whoever made it can say
//! the word that follows; and nobody believes in a connection before the other side has said that it reads what comes.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::channel::{self, Channel, RECORD_EXTRA_BYTES};
use super::frame::{Frame, HERE_BYTES};
use super::{PeerError, PeerKeys};

/// Who has not proved his key by then, and said a word, is nobody.
const GREETING_WITHIN: Duration = Duration::from_secs(2);
/// The record of [`Frame::Here`].
const WORD_BYTES: usize = RECORD_EXTRA_BYTES + HERE_BYTES;

/// Connects with whoever listens: afterwards he reads what he is sent.
pub(super) async fn speak(stream: &mut TcpStream, keys: &PeerKeys) -> Result<Channel, PeerError> {
    within(async {
        let mut channel = channel::speak(stream, keys).await?;
        say(stream, &mut channel).await?;
        hear(stream, &mut channel).await.map_err(|why| match why {
            PeerError::Ended => PeerError::NoPlace,
            why => why,
        })?;
        Ok(channel)
    })
    .await
}

/// Hears who has connected, up to his first word.
pub(super) async fn listen(stream: &mut TcpStream, keys: &PeerKeys) -> Result<Channel, PeerError> {
    within(async {
        let mut channel = channel::listen(stream, keys).await?;
        hear(stream, &mut channel).await?;
        Ok(channel)
    })
    .await
}

/// Tells him that there is a place for him.
pub(super) async fn welcome(stream: &mut TcpStream, channel: &mut Channel) -> Result<(), PeerError> {
    within(say(stream, channel)).await
}

async fn within<T>(greeting: impl Future<Output = Result<T, PeerError>>) -> Result<T, PeerError> {
    timeout(GREETING_WITHIN, greeting).await.map_err(|_| PeerError::NoGreeting)?
}

async fn say(stream: &mut TcpStream, channel: &mut Channel) -> Result<(), PeerError> {
    let (mut word, mut sealed) = (Vec::new(), Vec::new());
    Frame::Here.encode(&mut word)?;
    channel.seal(&word, &mut sealed)?;
    Ok(stream.write_all(&sealed).await?)
}

/// Reads this word and not a byte more: what follows is for whoever reads from then on.
async fn hear(stream: &mut TcpStream, channel: &mut Channel) -> Result<(), PeerError> {
    let (mut sealed, mut word) = ([0; WORD_BYTES], Vec::new());
    stream.read_exact(&mut sealed).await.map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => PeerError::Ended,
        _ => PeerError::Io(error),
    })?;
    channel.open(&sealed, &mut word)?;
    match Frame::first(&word)? {
        Some((Frame::Here, [])) => Ok(()),
        _ => Err(PeerError::Malformed("it is not the first word")),
    }
}
