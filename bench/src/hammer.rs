//! The same requests again and again, as fast as they are answered: how many answers a second a door can give.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, Instant, sleep};

use crate::client::connect;
use crate::process::cpu_us;
use crate::wire::Head;

/// How long an answer may take before the whole measurement is worth nothing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Hammer {
    pub target: SocketAddr,
    /// Each connection keeps to one of these.
    pub requests: Vec<Vec<u8>>,
    /// What each of them must be answered with.
    pub status: u16,
    pub connections: usize,
    pub threads: usize,
    pub warm_up: Duration,
    pub measured: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct Blows {
    pub per_s: f64,
    /// Server CPU, if its process is ours to look at.
    pub cpu_us_each: Option<f64>,
}

impl Hammer {
    pub async fn strike(self, pid: Option<u32>) -> Result<Blows> {
        let opens = Instant::now() + self.warm_up;
        let closes = opens + self.measured;
        let hammer = Arc::new(self);
        let hands: Vec<_> = (0..hammer.threads)
            .map(|hand| {
                let hammer = hammer.clone();
                thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                    runtime.block_on(hammer.hand(hand, opens, closes))
                })
            })
            .collect();
        let cpu = || pid.and_then(cpu_us);
        sleep(opens - Instant::now()).await;
        let before = cpu();
        sleep(closes - Instant::now()).await;
        let after = cpu();
        let mut answers = 0;
        for hand in hands {
            answers += hand.join().map_err(|_| anyhow!("a hand panicked"))??;
        }
        let cpu_us = before.zip(after).map(|(before, after)| after.saturating_sub(before) as f64);
        Ok(Blows {
            per_s: answers as f64 / hammer.measured.as_secs_f64(),
            cpu_us_each: cpu_us.map(|cpu_us| cpu_us / answers.max(1) as f64),
        })
    }

    async fn hand(&self, hand: usize, opens: Instant, closes: Instant) -> Result<u64> {
        let mine = (hand..self.connections).step_by(self.threads);
        let counts = try_join_all(mine.map(|connection| self.connection(connection, opens, closes))).await?;
        Ok(counts.into_iter().sum())
    }

    /// How many answers came within the window.
    async fn connection(&self, number: usize, opens: Instant, closes: Instant) -> Result<u64> {
        let request = &self.requests[number % self.requests.len()];
        let mut stream = connect(self.target).await?;
        let mut buffer = Vec::with_capacity(64 * 1024);
        let mut answers = 0;
        loop {
            stream.write_all(request).await?;
            buffer.clear();
            let reading = async {
                loop {
                    if let Some(head) = Head::parse(&buffer).map_err(|malformed| anyhow!(malformed.0))? {
                        return anyhow::Ok(head.status);
                    }
                    if stream.read_buf(&mut buffer).await? == 0 {
                        bail!("the connection ended before the answer");
                    }
                }
            };
            let status = tokio::time::timeout(ANSWER_TIMEOUT, reading).await.context("no answer came")??;
            if status != self.status {
                bail!("answered {status} instead of {}: {}", self.status, String::from_utf8_lossy(&buffer));
            }
            let now = Instant::now();
            answers += u64::from(now >= opens && now < closes);
            if now >= closes {
                return Ok(answers);
            }
        }
    }
}
