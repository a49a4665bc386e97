//! The answering side of one connection.

use std::rc::Rc;

use tokio::net::TcpStream;

use super::{Desk, PeerError, PeerKeys};

/// Serves one accepted connection on this thread until it ends.
pub async fn serve(_stream: TcpStream, keys: PeerKeys, _desk: Rc<dyn Desk>) -> Result<(), PeerError> {
    match keys.speaking().or(keys.believed().next()) {
        Some(_) => Err(PeerError::Ended),
        None => Err(PeerError::NoKey),
    }
}
