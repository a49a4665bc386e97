//! A proxy on loopback in each way that can be cut. One that is cut neither reads nor writes and closes nothing, so what is on its way
//! stays on its way until it is mended.
//!
//! Always true: what came in goes out in its order and nothing is lost but with a connection; a connection that ends while the way is
//! cut ends on the other side when it is not any more. They have a thread of their own, so that nobody waits for whoever drives them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as Listener};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};

use super::{Cut, Site};
use crate::process::free_address;

const BUFFER_BYTES: usize = 64 * 1024;

pub struct Proxies {
    runtime: Handle,
    ways: Vec<Way>,
    /// The thread ends with it.
    _end: oneshot::Sender<()>,
}

struct Way {
    cut: Cut,
    is_cut: watch::Sender<bool>,
}

impl Proxies {
    pub fn open() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, (end, ended)) = (runtime.handle().clone(), oneshot::channel::<()>());
        let work = move || drop(runtime.block_on(ended));
        std::thread::Builder::new().name("proxies".to_owned()).spawn(work)?;
        Ok(Self { runtime: handle, ways: Vec::new(), _end: end })
    }

    pub fn site(&mut self, node: usize, database: SocketAddr, redis: Option<SocketAddr>) -> Result<Site> {
        let (http, peers) = (free_address()?, free_address()?);
        Ok(Site {
            namespace: None,
            http,
            peers,
            name: self.way(Cut::Nodes, peers)?,
            database: self.way(Cut::Database(node), database)?,
            redis: redis.map(|redis| self.way(Cut::Redis(node), redis)).transpose()?,
        })
    }

    pub fn set(&self, cut: Cut, is_cut: bool) {
        for way in self.ways.iter().filter(|way| way.cut == cut) {
            way.is_cut.send_replace(is_cut);
        }
    }

    /// Where one comes in who wants to get `to` that place.
    fn way(&mut self, cut: Cut, to: SocketAddr) -> Result<SocketAddr> {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0)).context("a proxy")?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (is_cut, seen) = watch::channel(false);
        self.runtime.spawn(listen(listener, to, seen));
        self.ways.push(Way { cut, is_cut });
        Ok(address)
    }
}

async fn listen(listener: Listener, to: SocketAddr, is_cut: watch::Receiver<bool>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(pass(stream, to, is_cut.clone()));
    }
}

/// Ends with whoever ends first, in either direction by itself.
async fn pass(from: TcpStream, to: SocketAddr, mut is_cut: watch::Receiver<bool>) -> io::Result<()> {
    whole(&mut is_cut).await?;
    let to = TcpStream::connect(to).await?;
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    let ((from_reads, from_writes), (to_reads, to_writes)) = (from.into_split(), to.into_split());
    tokio::spawn(carry(from_reads, to_writes, is_cut.clone()));
    carry(to_reads, from_writes, is_cut).await
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_cut: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await;
        // What has come in just before, an end too, waits like everything else.
        whole(&mut is_cut).await?;
        match read? {
            0 => return to.shutdown().await,
            length => to.write_all(&buffer[..length]).await?,
        }
    }
}

/// Waits until the way is not cut. Without an owner it is not needed any more.
async fn whole(is_cut: &mut watch::Receiver<bool>) -> io::Result<()> {
    is_cut.wait_for(|is_cut| !is_cut).await.map(drop).map_err(|_| io::ErrorKind::BrokenPipe.into())
}
