//! Those who hold connections beside the crowd and buy nothing: some ask once and then sit still, some send the head of a request a
//! byte at a time. They come from many addresses of this machine, and whoever is shown out comes back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Duration, sleep, timeout};

/// Addresses that they come from.
const ADDRESSES: usize = 50;
/// A slow sender's pause between two bytes.
const PAUSE: Duration = Duration::from_millis(500);
const BACK_AFTER: Duration = Duration::from_millis(200);
/// How long all of them may take to sit down before the crowd comes.
const SEATED_WITHIN: Duration = Duration::from_secs(30);
const SLOW_HEAD: &[u8] = b"POST /v1/orders HTTP/1.1\r\nHost: slow\r\nX-Slow: ";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bystanders {
    /// They ask once, and keep their connection.
    pub idle: usize,
    /// They never come to the end of their request's head.
    pub slow: usize,
}

/// They leave when it is dropped, or dispersed.
pub struct Gathering {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Bystanders {
    /// Returns when all of them are there.
    pub async fn gather(self, target: SocketAddr) -> Result<Gathering> {
        let (stop, stopped) = oneshot::channel();
        let (seated, mut seats) = watch::channel(0);
        let gathering = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut all = tokio::task::JoinSet::new();
                for place in 0..self.idle + self.slow {
                    let (seated, is_idle) = (seated.clone(), place < self.idle);
                    all.spawn(async move {
                        let mut first = Some(seated);
                        loop {
                            let sat = match is_idle {
                                true => sit(target, place, &mut first).await,
                                false => dawdle(target, place, &mut first).await,
                            };
                            // Shown out, or not let in: both are the server's right.
                            drop(sat);
                            sleep(BACK_AFTER).await;
                        }
                    });
                }
                let _ = stopped.await;
                all.shutdown().await;
            });
            Ok(())
        };
        let thread = std::thread::Builder::new().name("bystanders".into()).spawn(gathering)?;
        let everybody = self.idle + self.slow;
        let all = seats.wait_for(|seated| *seated >= everybody);
        timeout(SEATED_WITHIN, all).await.context("not all bystanders found a seat")??;
        Ok(Gathering { stop, thread })
    }
}

impl Gathering {
    pub fn disperse(self) -> Result<()> {
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| anyhow!("the bystanders panicked"))?
    }
}

type Seated = Option<watch::Sender<usize>>;

/// One question, and then nothing until the server has enough of it.
async fn sit(target: SocketAddr, place: usize, seated: &mut Seated) -> Result<()> {
    let mut stream = come(target, place).await?;
    stream.write_all(format!("GET /livez HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await?;
    let mut heard = [0; 512];
    ensure!(stream.read(&mut heard).await? > 0, "it closed the connection without an answer");
    count(seated);
    while stream.read(&mut heard).await? > 0 {}
    Ok(())
}

async fn dawdle(target: SocketAddr, place: usize, seated: &mut Seated) -> Result<()> {
    let mut stream = come(target, place).await?;
    count(seated);
    for byte in SLOW_HEAD.iter().chain(std::iter::repeat(&b'x')) {
        stream.write_all(&[*byte]).await?;
        sleep(PAUSE).await;
    }
    Ok(())
}

fn count(seated: &mut Seated) {
    if let Some(seated) = seated.take() {
        seated.send_modify(|seated| *seated += 1);
    }
}

async fn come(target: SocketAddr, place: usize) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let address = Ipv4Addr::new(127, 0, 1, (place % ADDRESSES) as u8 + 1);
    socket.bind(SocketAddr::new(IpAddr::V4(address), 0))?;
    Ok(socket.connect(target).await?)
}
