//! The sockets of one load thread: a task for each connection, which reads answers and connects again when it was cut,
//! and one for the clock, which ticks every half millisecond (tokio's own timers are no finer than one).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Barrier};

use anyhow::{Context, Result, bail};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::task::LocalSet;
use tokio::time::{Duration, sleep, timeout};

use super::worker::Worker;
use super::{ClientEffort, Harvest, Live, Plan, agreed_start};
use crate::client::connect;
use crate::clock::{Nanos, now_ns, thread_cpu_ns};
use crate::wire::Head;

const TICK_NS: i64 = 500_000;
const RECONNECT_DELAY: Duration = Duration::from_millis(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// One thread from its first connection to its last answer.
pub fn run_thread(plan: Arc<Plan>, live: &Live, index: usize, ready: &Barrier) -> Result<Harvest> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let numbers = numbers_of(index, plan.threads, plan.connections);
    let share = numbers.len();
    let worker = Rc::new(RefCell::new(Worker::new(plan.clone(), index, share)?));
    let local = LocalSet::new();
    for (place, number) in numbers.enumerate() {
        local.spawn_local(converse(worker.clone(), place, plan.targets.clone(), number));
    }
    let client = local.block_on(&runtime, async {
        let connected = timeout(CONNECT_TIMEOUT, until_connected(&worker)).await;
        // Every thread must come to the barrier, or the others wait for ever.
        let start_ns = agreed_start(live, ready);
        connected.with_context(|| format!("{share} connections do not stand after {CONNECT_TIMEOUT:?}"))?;
        worker.borrow_mut().begin(start_ns);
        let (wall_ns, cpu_ns) = (now_ns(), thread_cpu_ns());
        keep_time(&worker, live).await?;
        let (wall_ns, cpu_ns) = (now_ns() - wall_ns, thread_cpu_ns() - cpu_ns);
        let busiest_thread = cpu_ns as f64 / wall_ns as f64;
        anyhow::Ok(ClientEffort { cpu_ns, wall_ns, busiest_thread, ..ClientEffort::default() })
    })?;
    drop(local);
    let Some(worker) = Rc::into_inner(worker) else { bail!("a connection outlived its thread") };
    let worker = worker.into_inner();
    let client =
        ClientEffort { noticed_late: worker.noticed_late, longest_backlog: worker.longest_backlog, ..client };
    Ok(Harvest { tally: worker.tally, history: worker.history, client })
}

/// The connections of a thread. They follow each other, so that every thread asks every node: who asks one node would otherwise be
/// the work of one thread, and waiting for it all that the thread does.
fn numbers_of(index: usize, threads: usize, connections: usize) -> Range<usize> {
    let before = |index: usize| connections / threads * index + index.min(connections % threads);
    before(index)..before(index + 1)
}

async fn until_connected(worker: &RefCell<Worker>) {
    while !worker.borrow().is_connected() {
        sleep(Duration::from_millis(2)).await;
    }
}

/// Ticks until the run is over.
async fn keep_time(worker: &RefCell<Worker>, live: &Live) -> Result<()> {
    let timer = ticking_timer().context("no timer")?;
    loop {
        let mut guard = timer.readable().await?;
        // How many ticks were missed does not matter: what is due is counted from the clock.
        let _ = rustix::io::read(guard.get_inner(), &mut [0u8; 8]);
        guard.clear_ready();
        let now = now_ns();
        let mut worker = worker.borrow_mut();
        worker.tick(now);
        worker.publish(live);
        if worker.is_finished(now) {
            worker.give_up();
            return Ok(());
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, and this timer owns its descriptor for as long as it is registered"
)]
fn ticking_timer() -> Result<AsyncFd<OwnedFd>> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let every = Timespec { tv_sec: 0, tv_nsec: TICK_NS };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: every, it_value: every })?;
    Ok(AsyncFd::new(timer)?)
}

/// One connection of the crowd, for the whole run. Where it is refused or cut it tries the next place, as a proxy would.
async fn converse(worker: Rc<RefCell<Worker>>, place: usize, targets: Vec<SocketAddr>, number: usize) {
    let mut buffer = vec![0; 8 * 1024];
    for turn in number.. {
        let Ok(stream) = connect(targets[turn % targets.len()]).await else {
            sleep(RECONNECT_DELAY).await;
            continue;
        };
        let (mut reader, writer) = stream.into_split();
        worker.borrow_mut().connected(place, writer, now_ns());
        let mut filled = 0;
        // A failed read ends the connection just as a finished one does.
        while let Ok(length @ 1..) = reader.read(&mut buffer[filled..]).await {
            filled += length;
            let Some(rest) = hear(&worker, place, &mut buffer, filled, now_ns()) else { break };
            filled = rest;
            if filled == buffer.len() {
                buffer.resize(2 * filled, 0);
            }
        }
        worker.borrow_mut().cut(place, now_ns());
    }
}

/// Hands over every complete answer; how many bytes are left of an incomplete one, or nothing if the peer talks nonsense.
fn hear(
    worker: &RefCell<Worker>,
    place: usize,
    buffer: &mut [u8],
    filled: usize,
    now: Nanos,
) -> Option<usize> {
    let mut start = 0;
    while start < filled {
        let Some(head) = Head::parse(&buffer[start..filled]).ok()? else { break };
        let body = &buffer[start + head.head_len..start + head.len()];
        if !worker.borrow_mut().answered(place, head.status, body, now) {
            return None;
        }
        start += head.len();
    }
    buffer.copy_within(start..filled, 0);
    Some(filled - start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_of_one_thread_and_every_thread_asks_every_node() {
        let numbers = [0, 1, 2].map(|index| numbers_of(index, 3, 11));
        assert_eq!(numbers, [0..4, 4..8, 8..11]);
        for nodes in 1..=3 {
            let asked = numbers.clone().map(|numbers| numbers.map(|number| number % nodes).max());
            assert_eq!(asked, [Some(nodes - 1); 3]);
        }
    }
}
