//! What both sides of a connection do alike: write everything that waits at once, read everything that is there at once, and notice
//! when the other side has gone without a word.
//!
//! Always true: whatever gathered while one batch was being written is the next; one batch is one encryption and one write; and whoever
//! sends without end has one read, and then everybody else on the thread has his turn.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::PeerError;
use super::channel::{Channel, RECORD_BYTES};
use super::frame::{FRAME_BYTES_MAX, Frame};

/// A batch takes no more frames once it is this long.
pub(super) const BATCH_BYTES: usize = 256 * 1024;
/// Room for what arrives in one read, behind the beginning of a record.
pub(super) const READ_BYTES: usize = 128 * 1024;
/// Whoever wrote nothing for so long says that he is there.
const IDLE: Duration = Duration::from_secs(1);
/// Whoever says nothing, or takes nothing, for so long is gone.
const SILENCE: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(250);

/// One side of a connection: what it says, and what it makes of what it hears.
pub(super) trait Side {
    /// Is told whenever there is something to write.
    fn waker(&self) -> &Notify;
    /// Appends frames that wait to `batch`, up to about [`BATCH_BYTES`].
    fn fill(&self, batch: &mut Vec<u8>) -> Result<(), PeerError>;
    /// Takes what was heard.
    fn take(&self, frame: Frame<'_>) -> Result<(), PeerError>;
    /// Until more may be read.
    async fn room(&self);
}

/// Carries frames in both directions until the connection ends; says why it did.
pub(super) async fn run<S: Side>(mut stream: TcpStream, channel: Channel, side: &S) -> PeerError {
    let (input, output) = stream.split();
    let (channel, pulse) = (RefCell::new(channel), Pulse::default());
    let ended: Result<Infallible, PeerError> = tokio::select! {
        biased;
        ended = read(input, &channel, &pulse, side) => ended,
        ended = write(output, &channel, &pulse, side) => ended,
        ended = pulse.watch(side) => ended,
    };
    match ended {
        Err(why) => why,
    }
}

async fn read<S: Side>(
    mut input: ReadHalf<'_>,
    channel: &RefCell<Channel>,
    pulse: &Pulse,
    side: &S,
) -> Result<Infallible, PeerError> {
    let mut sealed = Vec::with_capacity(READ_BYTES + RECORD_BYTES);
    let mut plain = Vec::with_capacity(READ_BYTES + FRAME_BYTES_MAX);
    loop {
        side.room().await;
        // What is left is less than a record, so there is always room for a long read.
        if input.read_buf(&mut sealed).await? == 0 {
            let whole = sealed.is_empty() && plain.is_empty();
            return Err(if whole { PeerError::Ended } else { PeerError::Damaged });
        }
        pulse.heard.set(true);
        let is_full = sealed.len() == sealed.capacity();
        let used = channel.borrow_mut().open(&sealed, &mut plain)?;
        sealed.drain(..used);
        let mut rest = plain.as_slice();
        while let Some((frame, behind)) = Frame::first(rest)? {
            side.take(frame)?;
            rest = behind;
        }
        let used = plain.len() - rest.len();
        plain.drain(..used);
        // There is more, so the next read would not wait for anything.
        if is_full {
            yield_now().await;
        }
    }
}

async fn write<S: Side>(
    mut output: WriteHalf<'_>,
    channel: &RefCell<Channel>,
    pulse: &Pulse,
    side: &S,
) -> Result<Infallible, PeerError> {
    let (mut batch, mut sealed) = (Vec::new(), Vec::new());
    loop {
        batch.clear();
        sealed.clear();
        side.fill(&mut batch)?;
        if pulse.due.take() && batch.is_empty() {
            Frame::Here.encode(&mut batch)?;
        }
        if batch.is_empty() {
            side.waker().notified().await;
            continue;
        }
        channel.borrow_mut().seal(&batch, &mut sealed)?;
        pulse.writing.set(true);
        output.write_all(&sealed).await?;
        pulse.writing.set(false);
        pulse.wrote.set(true);
    }
}

/// Whether both sides are alive, counted in ticks: a thread that stood still itself counts only one of them.
#[derive(Default)]
struct Pulse {
    heard: Cell<bool>,
    wrote: Cell<bool>,
    writing: Cell<bool>,
    /// It is time to say that we are here.
    due: Cell<bool>,
}

impl Pulse {
    async fn watch<S: Side>(&self, side: &S) -> Result<Infallible, PeerError> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut unheard, mut stuck, mut idle) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        loop {
            ticks.tick().await;
            let wrote = self.wrote.take();
            let grown = |since: Duration, again: bool| if again { Duration::ZERO } else { since + TICK };
            unheard = grown(unheard, self.heard.take());
            stuck = grown(stuck, wrote || !self.writing.get());
            idle = grown(idle, wrote);
            if unheard > SILENCE || stuck > SILENCE {
                return Err(PeerError::Silent);
            }
            if idle >= IDLE {
                self.due.set(true);
                side.waker().notify_one();
            }
        }
    }
}

/// What the runtime's timers go by.
pub(super) fn now() -> Instant {
    sleep(Duration::ZERO).deadline()
}
