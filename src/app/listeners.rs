//! The sockets we answer on. They outlive an app: while one is rebuilt, callers wait in the kernel's queue.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};
use tokio::net::TcpSocket;

use crate::config::Http;

/// Connections that may wait to be accepted, as many as the kernel allows.
const BACKLOG: u32 = 8_192;

/// The shop's door, and the operators' where they have one of their own.
#[derive(Debug)]
pub struct Listeners {
    pub shop: TcpListener,
    pub ops: Option<TcpListener>,
}

impl Listeners {
    /// Must be called inside a runtime.
    pub fn bind(http: &Http) -> Result<Listeners> {
        Ok(Listeners { shop: bind(http.addr)?, ops: http.ops_addr.map(bind).transpose()? })
    }

    /// The same sockets once more.
    pub fn again(&self) -> Result<Listeners> {
        let ops = self.ops.as_ref().map(TcpListener::try_clone).transpose()?;
        Ok(Listeners { shop: self.shop.try_clone()?, ops })
    }
}

pub fn bind(addr: SocketAddr) -> Result<TcpListener> {
    open(addr).with_context(|| format!("cannot listen on {addr}"))
}

fn open(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that was killed a moment ago leaves connections behind that would keep the port.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)?.into_std()
}
