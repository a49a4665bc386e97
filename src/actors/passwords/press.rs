//! The press: the threads that compute Argon2id, and do nothing else.
//!
//! Always true: whoever computes holds no lock that somebody else may want, is waited for by nobody who only asks whether there is
//! something, and on an idle core asks the system for no memory in the middle of it, but where a stored hash wants more than ours do. It runs
//! only where a core has nothing better to do, so what it held would be held for as long as a crowd buys.
//!
//! A thread that is merely nice is not enough: on Linux it keeps a core for its whole slice, a millisecond or two, when
//! somebody more important wakes; one of the policy `SCHED_IDLE` steps aside at once (sched(7)). Where no core is idle for long
//! such a thread gets next to nothing, so after [`HURRY_AFTER_NS`] a second one, which is nice and no more, computes the same.

use std::hint::black_box;
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use argon2::password_hash::phc::Output;
use argon2::{Argon2, Block, Error};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::clock::Clock;

/// Who has waited for an idle core this long is computed for on a busy one.
const HURRY_AFTER_NS: u64 = 250_000_000;
/// How often it is looked whether that time has come, or a thread has died.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How much less important than the order path the second thread is, in steps of the scheduler.
const NICE: i32 = 15;

/// What is to be computed.
#[derive(Clone)]
pub struct Work {
    pub hasher: Argon2<'static>,
    pub password: Arc<SecretString>,
    pub salt: Arc<[u8]>,
    /// Bytes of the hash.
    pub length: usize,
}

/// A hash, or why there is none.
pub type Hashed = Result<Output, Error>;

/// How something is computed. Tests have others.
type Compute = fn(&Work, &mut Vec<Block>) -> Hashed;

impl Work {
    /// The blocks are kept for the next one: fresh ones would be mapped and unmapped by the system each time, for which it locks
    /// the memory of the whole process. They are overwritten afterwards, as they hold what was made of a password.
    fn compute(&self, blocks: &mut Vec<Block>) -> Hashed {
        let count = self.hasher.params().block_count();
        if blocks.len() < count {
            blocks.resize(count, Block::new());
        }
        let mut hash = [0; Output::MAX_LENGTH];
        let hash = hash.get_mut(..self.length).ok_or(Error::OutputTooLong)?;
        let password = self.password.expose_secret().as_bytes();
        let hashed =
            self.hasher.hash_password_into_with_memory(password, &self.salt, hash, &mut blocks[..count]);
        blocks[..count].fill(Block::new());
        hashed.and_then(|()| Output::new(hash).map_err(|_| Error::OutputTooShort))
    }
}

/// How much a thread is wanted to step aside.
#[derive(Clone, Copy)]
enum Standing {
    /// It runs where nobody else would.
    Idle,
    /// It has a share, however small.
    Nice,
}

impl Standing {
    fn name(self) -> &'static str {
        match self {
            Standing::Idle => "stockade-press",
            Standing::Nice => "stockade-hurry",
        }
    }

    /// An unprivileged process may always become less important.
    fn take(self) {
        match self {
            Standing::Idle if is_idle_from_now_on() => {}
            Standing::Idle | Standing::Nice => {
                let _ = rustix::process::nice(NICE);
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn is_idle_from_now_on() -> bool {
    use thread_priority::unix::{
        NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
        thread_schedule_policy,
    };
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    // It may say no to a part that does not matter: what counts is what it is afterwards.
    let _ = set_thread_priority_and_policy(thread_native_id(), thread_priority::ThreadPriority::Min, idle);
    thread_schedule_policy().is_ok_and(|policy| policy == idle)
}

#[cfg(not(target_os = "linux"))]
fn is_idle_from_now_on() -> bool {
    false
}

/// Work on its way to a thread. What comes back has a channel of its own, which whoever asks finds full or empty, wherever the thread was
/// stopped; a queue's reader waits for a writer who was stopped half-way.
struct Ordered {
    work: Work,
    done: oneshot::Sender<Hashed>,
    /// Where the next one comes.
    next: oneshot::Receiver<Ordered>,
    /// Who waits.
    clerk: Thread,
}

fn serve(mut orders: oneshot::Receiver<Ordered>, compute: Compute, mut blocks: Vec<Block>) {
    loop {
        match orders.try_recv() {
            Ok(Ordered { work, done, next, clerk }) => {
                orders = next;
                // Nobody may want it any more.
                let _ = done.send(compute(&work, &mut blocks));
                clerk.unpark();
            }
            Err(TryRecvError::Empty) => thread::park(),
            Err(TryRecvError::Closed) => return,
        }
    }
}

/// One thread.
struct Press {
    /// Until it is to end.
    orders: Option<oneshot::Sender<Ordered>>,
    /// What it is at.
    ordered: Option<oneshot::Receiver<Hashed>>,
    thread: JoinHandle<()>,
}

impl Press {
    /// One for idle cores has so many blocks before it is idle: while the system gives it memory others of the process may wait for theirs.
    fn start(standing: Standing, compute: Compute, blocks: usize) -> std::io::Result<Press> {
        let (orders, served) = oneshot::channel();
        let blocks = if let Standing::Idle = standing { blocks } else { 0 };
        let thread = thread::Builder::new().name(standing.name().to_owned()).spawn(move || {
            let mut blocks = vec![Block::new(); blocks];
            // Zeroes alone may be promised by the system, and given when they are written to.
            black_box(&mut blocks).fill(Block::new());
            standing.take();
            serve(served, compute, blocks);
        })?;
        Ok(Press { orders: Some(orders), ordered: None, thread })
    }

    fn is_free(&self) -> bool {
        self.ordered.is_none()
    }

    fn give(&mut self, work: &Work) {
        let ((orders, next), (done, ordered)) = (oneshot::channel(), oneshot::channel());
        let work = Ordered { work: work.clone(), done, next, clerk: thread::current() };
        self.ordered = Some(ordered);
        if let Some(before) = self.orders.replace(orders) {
            // Whether it has died is looked at by whoever waits.
            let _ = before.send(work);
        }
        self.thread.thread().unpark();
    }

    /// What it was at, once that is computed: it is free then.
    fn take(&mut self) -> Option<Hashed> {
        let hashed = self.ordered.as_mut()?.try_recv().ok()?;
        self.ordered = None;
        Some(hashed)
    }
}

impl Drop for Press {
    fn drop(&mut self) {
        self.orders = None;
        self.thread.thread().unpark();
    }
}

/// The two threads of one clerk, who gives them one password at a time.
pub struct Presses {
    idle: Press,
    nice: Press,
    compute: Compute,
    /// What one of our hashes takes.
    blocks: usize,
}

impl Presses {
    /// For hashes that take so many blocks.
    pub fn start(blocks: usize) -> std::io::Result<Presses> {
        Presses::start_with(Work::compute, blocks)
    }

    fn start_with(compute: Compute, blocks: usize) -> std::io::Result<Presses> {
        let idle = Press::start(Standing::Idle, compute, blocks)?;
        let nice = Press::start(Standing::Nice, compute, blocks)?;
        Ok(Presses { idle, nice, compute, blocks })
    }

    /// Waits until it is computed. `None` if whoever computed it has died; the next one finds somebody else.
    pub fn press(&mut self, work: &Work, clock: &Clock) -> Option<Hashed> {
        let began = clock.nanos();
        for standing in [Standing::Idle, Standing::Nice] {
            let press = self.place(standing);
            // Of what the other one was quicker with nobody wants to know.
            press.take();
            if press.thread.is_finished() {
                self.replace(standing);
            }
        }
        // The idle thread may still be at something that the other one was quicker with.
        let (mut waits_for_idle, mut waits_for_nice) = (self.idle.is_free(), false);
        if waits_for_idle {
            self.idle.give(work);
        }
        loop {
            if let Some(hashed) = self.idle.take()
                && waits_for_idle
            {
                return Some(hashed);
            }
            if let Some(hashed) = self.nice.take()
                && waits_for_nice
            {
                return Some(hashed);
            }
            if waits_for_idle && self.idle.thread.is_finished() {
                self.replace(Standing::Idle);
                waits_for_idle = false;
                if !waits_for_nice {
                    return None;
                }
            }
            if waits_for_nice && self.nice.thread.is_finished() {
                self.replace(Standing::Nice);
                return None;
            }
            let hurries = !waits_for_idle || clock.nanos().saturating_sub(began) >= HURRY_AFTER_NS;
            if hurries && !waits_for_nice && self.nice.is_free() {
                self.nice.give(work);
                waits_for_nice = true;
            }
            thread::park_timeout(LOOK_EVERY);
        }
    }

    fn place(&mut self, standing: Standing) -> &mut Press {
        match standing {
            Standing::Idle => &mut self.idle,
            Standing::Nice => &mut self.nice,
        }
    }

    /// Somebody else in the place of one who has died. Where none is to be had the place stays as it is, and is looked at again.
    fn replace(&mut self, standing: Standing) {
        match Press::start(standing, self.compute, self.blocks) {
            Ok(press) => *self.place(standing) = press,
            Err(error) => tracing::error!(%error, "a thread that hashes passwords cannot be started again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::{Algorithm, Params, Version};

    fn work(password: &str) -> Work {
        let params = Params::new(64, 1, 1, None).unwrap();
        Work {
            hasher: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            password: Arc::new(password.to_owned().into()),
            salt: Arc::from(*b"sixteen letters."),
            length: 32,
        }
    }

    #[test]
    fn it_computes_what_the_library_does_and_leaves_nothing_behind() {
        let (work, mut blocks, mut expected) = (work("password"), Vec::new(), [0; 32]);
        work.hasher.hash_password_into(b"password", &work.salt, &mut expected).unwrap();
        let hashed = work.compute(&mut blocks).unwrap();
        assert_eq!(hashed.as_bytes(), expected);
        assert!(blocks.iter().all(|block| block.as_ref().iter().all(|word| *word == 0)));
        assert_eq!(work.compute(&mut blocks).unwrap(), hashed, "and with memory that was used");
        assert!(Work { length: 65, ..work }.compute(&mut blocks).is_err());
    }

    #[test]
    fn one_after_the_other_is_computed() {
        let (mut presses, clock) = (Presses::start(64).unwrap(), Clock::start());
        for password in ["one", "two", "three"] {
            let hashed = presses.press(&work(password), &clock).unwrap().unwrap();
            assert_eq!(hashed, work(password).compute(&mut Vec::new()).unwrap());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_first_thread_runs_where_nobody_else_would() {
        use thread_priority::unix::{
            NormalThreadSchedulePolicy, ThreadSchedulePolicy, thread_schedule_policy,
        };
        fn tells(work: &Work, _: &mut Vec<Block>) -> Hashed {
            let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            match thread_schedule_policy() {
                Ok(policy) if policy == idle => work.compute(&mut Vec::new()),
                _ => Err(Error::ThreadsTooFew),
            }
        }
        let mut presses = Presses::start_with(tells, 0).unwrap();
        assert!(presses.press(&work("x"), &Clock::start()).unwrap().is_ok());
    }

    #[test]
    fn the_first_thread_has_its_memory_before_it_is_idle_and_the_second_when_it_is_needed() {
        fn looks(work: &Work, blocks: &mut Vec<Block>) -> Hashed {
            let has = if thread::current().name() == Some(Standing::Idle.name()) { 64 } else { 0 };
            if blocks.len() == has { work.compute(blocks) } else { Err(Error::MemoryTooLittle) }
        }
        let mut presses = Presses::start_with(looks, 64).unwrap();
        assert!(presses.press(&work("x"), &Clock::start()).unwrap().is_ok());
    }

    #[test]
    fn who_waits_too_long_for_an_idle_core_is_computed_for_on_a_busy_one() {
        fn only_in_a_hurry(work: &Work, _: &mut Vec<Block>) -> Hashed {
            if thread::current().name() == Some(Standing::Idle.name()) {
                thread::sleep(Duration::from_secs(1));
                return Err(Error::OutOfMemory);
            }
            work.compute(&mut Vec::new())
        }
        let (mut presses, clock) = (Presses::start_with(only_in_a_hurry, 0).unwrap(), Clock::start());
        assert!(presses.press(&work("one"), &clock).unwrap().is_ok());
        // The idle thread is still at the first one: the next does not wait for it, and does not hear of it.
        assert!(presses.press(&work("two"), &clock).unwrap().is_ok());
        thread::sleep(Duration::from_secs(1));
        assert!(presses.press(&work("three"), &clock).unwrap().is_ok());
    }

    #[test]
    fn one_that_has_died_is_replaced() {
        fn dies_of_one(work: &Work, _: &mut Vec<Block>) -> Hashed {
            assert_ne!(work.password.expose_secret(), "poison", "as the test wants it");
            work.compute(&mut Vec::new())
        }
        let (mut presses, clock) = (Presses::start_with(dies_of_one, 0).unwrap(), Clock::start());
        assert!(presses.press(&work("poison"), &clock).is_none());
        assert!(presses.press(&work("one"), &clock).unwrap().is_ok());
    }
}
