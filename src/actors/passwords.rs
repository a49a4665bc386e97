//! Passwords: hashed and compared, on threads of their own that step aside for everybody.
//!
//! A hash costs sixty milliseconds and nineteen mebibytes on purpose; so few do it, a bounded queue waits for them, and
//! who comes when it is full is told so at once. Each *clerk* takes one after the other from the queue and has it computed by a
//! [`press`]: he is awake when others want the queue, and the press, which may be kept from running for long, never touches it. Always true: a comparison costs the same whether or not there is a password to
//! compare with, and whoever no longer waits for an answer is not worked for. One that somebody chooses is looked for in the operator's
//! list of breached ones, if there is one, by the same threads and before it is hashed; one that somebody has is not.
//!
//! Argon2id with the least that OWASP asks for (19 MiB, two passes, one lane); what was hashed with less is hashed anew at the
//! next log-in.

mod press;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;
use tracing::error;

use self::press::{Presses, Work};
use crate::clock::Clock;
use crate::domain::user::{NewPassword, PASSWORD_BYTES_MAX, WeakPassword};
use crate::persistence::breached::BreachedPasswords;
use crate::telemetry::Metrics;

/// The most hashes that wait: six seconds of one thread. Who came later would have given up before his turn.
pub const HASH_QUEUE_MAX: usize = 100;
/// Who has waited this long has gone, or is better told to come back: his turn is given to the next.
const PATIENCE_NS: u64 = 10_000_000_000;
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;

/// Too many wait, it took too long, or the pool has ended. Certainly nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords wait to be hashed")]
pub struct Busy;

/// Why a password that somebody has chosen has no hash. Certainly nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unhashed {
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error(transparent)]
    Weak(#[from] WeakPassword),
    /// Nobody knows whether it is on the list, and that is no *no*.
    #[error("the list of breached passwords cannot be read")]
    Unread,
}

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Right {
        /// It was hashed with less than is asked today: hash it again, now that it is known.
        needs_rehash: bool,
    },
    /// Or there was nothing to compare with.
    Wrong,
}

enum Task {
    /// Somebody chooses it.
    Choose(oneshot::Sender<Result<String, Unhashed>>),
    Hash(oneshot::Sender<String>),
    Verify {
        stored: Option<String>,
        reply: oneshot::Sender<Verdict>,
    },
}

struct Job {
    password: SecretString,
    task: Task,
    asked_ns: u64,
}

impl Job {
    /// Whoever asked has gone.
    fn is_void(&self) -> bool {
        match &self.task {
            Task::Choose(reply) => reply.is_closed(),
            Task::Hash(reply) => reply.is_closed(),
            Task::Verify { reply, .. } => reply.is_closed(),
        }
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Pool {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// Passwords that were hashed or compared, and of those the ones that had nothing to be compared with.
    worked: AtomicU64,
    dummies: AtomicU64,
    hasher: Argon2<'static>,
    breached: Option<BreachedPasswords>,
    clock: Clock,
    metrics: Metrics,
}

/// Ends the threads when the last handle has gone.
struct Alive(Arc<Pool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Asks the pool. Cheap to clone.
#[derive(Clone)]
pub struct Passwords {
    alive: Arc<Alive>,
}

impl Passwords {
    /// Starts so many clerks. What `breached` lists is not taken for a new password.
    pub fn start(
        threads: usize,
        breached: Option<BreachedPasswords>,
        clock: &Clock,
        metrics: &Metrics,
    ) -> std::io::Result<Passwords> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).unwrap_or_default();
        Passwords::start_with(params, threads, breached, clock, metrics)
    }

    fn start_with(
        params: Params,
        threads: usize,
        breached: Option<BreachedPasswords>,
        clock: &Clock,
        metrics: &Metrics,
    ) -> std::io::Result<Passwords> {
        let pool = Arc::new(Pool {
            queue: Mutex::default(),
            filled: Condvar::new(),
            worked: AtomicU64::new(0),
            dummies: AtomicU64::new(0),
            hasher: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            breached,
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        let passwords = Passwords { alive: Arc::new(Alive(pool.clone())) };
        for number in 0..threads {
            let (pool, mut presses) = (pool.clone(), Presses::start(pool.hasher.params().block_count())?);
            std::thread::Builder::new().name(format!("stockade-hash-{number}")).spawn(move || {
                while let Some(job) = pool.next() {
                    pool.work(job, &mut presses);
                }
            })?;
        }
        Ok(passwords)
    }

    /// The hash of a password that somebody has chosen, unless it is known from a breach.
    pub async fn hash_new(&self, password: NewPassword) -> Result<String, Unhashed> {
        let (reply, answer) = oneshot::channel();
        self.pool().push(password.into_secret(), Task::Choose(reply))?;
        answer.await.map_err(|_| Busy)?
    }

    /// The password's hash, as a PHC string with a salt of its own.
    pub async fn hash(&self, password: SecretString) -> Result<String, Busy> {
        let (reply, answer) = oneshot::channel();
        self.pool().push(password, Task::Hash(reply))?;
        answer.await.map_err(|_| Busy)
    }

    /// Whether it is the password whose hash is `stored`. `None` (nobody is called that) costs the same and is wrong.
    pub async fn verify(&self, password: SecretString, stored: Option<String>) -> Result<Verdict, Busy> {
        let (reply, answer) = oneshot::channel();
        self.pool().push(password, Task::Verify { stored, reply })?;
        answer.await.map_err(|_| Busy)
    }

    /// Is there room for one more? Asked before anything that would be for nothing; there may be none a moment later.
    pub fn has_room(&self) -> Result<(), Busy> {
        let mut queue = self.pool().lock();
        self.pool().make_room(&mut queue)
    }

    /// How many comparisons had nothing to compare with. Tests ask this instead of measuring time.
    pub fn dummies(&self) -> u64 {
        self.pool().dummies.load(Ordering::Relaxed)
    }

    /// How many passwords were hashed or compared, with something or with nothing.
    pub fn worked(&self) -> u64 {
        self.pool().worked.load(Ordering::Relaxed)
    }

    fn pool(&self) -> &Pool {
        &self.alive.0
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, password: SecretString, task: Task) -> Result<(), Busy> {
        let job = Job { password, task, asked_ns: self.clock.nanos() };
        let mut queue = self.lock();
        self.make_room(&mut queue)?;
        queue.jobs.push_back(job);
        self.metrics.hash_queue_length.set(queue.jobs.len() as f64);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Forgets who has gone, if that is needed for one more.
    fn make_room(&self, queue: &mut Queue) -> Result<(), Busy> {
        if queue.jobs.len() >= HASH_QUEUE_MAX {
            queue.jobs.retain(|job| !job.is_void());
        }
        if queue.closed || queue.jobs.len() >= HASH_QUEUE_MAX {
            self.metrics.hash_refusals.increment(1);
            return Err(Busy);
        }
        Ok(())
    }

    /// The next job that somebody still waits for; `None` at the end.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            match queue.jobs.pop_front() {
                Some(job) => {
                    self.metrics.hash_queue_length.set(queue.jobs.len() as f64);
                    let is_late = self.clock.nanos().saturating_sub(job.asked_ns) > PATIENCE_NS;
                    if is_late {
                        self.metrics.hash_refusals.increment(1);
                    } else if !job.is_void() {
                        return Some(job);
                    }
                }
                None => queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.jobs.clear();
        self.metrics.hash_queue_length.set(0.0);
        drop(queue);
        self.filled.notify_all();
    }

    fn work(&self, job: Job, presses: &mut Presses) {
        let waited_ns = self.clock.nanos().saturating_sub(job.asked_ns);
        self.metrics.hash_wait_seconds.record(waited_ns as f64 / 1e9);
        let password = Arc::new(job.password);
        match job.task {
            Task::Choose(reply) => match self.look_up(password.expose_secret().as_bytes()) {
                Ok(()) => tell(reply, self.hash(password, presses).map(Ok)),
                Err(why) => tell(reply, Some(Err(why))),
            },
            Task::Hash(reply) => tell(reply, self.hash(password, presses)),
            Task::Verify { stored, reply } => tell(reply, self.verify(password, stored.as_deref(), presses)),
        }
    }

    /// Refuses what the list holds.
    fn look_up(&self, password: &[u8]) -> Result<(), Unhashed> {
        let Some(breached) = &self.breached else { return Ok(()) };
        match breached.holds(password) {
            Ok(false) => Ok(()),
            Ok(true) => Err(WeakPassword::Breached.into()),
            Err(error) => {
                error!(%error, "the list of breached passwords cannot be read: nobody can choose a password");
                Err(Unhashed::Unread)
            }
        }
    }

    /// `None`, and a line in the log, where it cannot be done.
    fn hash(&self, password: Arc<SecretString>, presses: &mut Presses) -> Option<String> {
        self.worked.fetch_add(1, Ordering::Relaxed);
        let salt: [u8; SALT_BYTES] = self.clock.chance_bytes();
        let work = Work {
            hasher: self.hasher.clone(),
            password,
            salt: Arc::from(salt),
            length: self.hasher.params().output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN),
        };
        let output = self.pressed(&work, presses)?;
        let phc = ParamsString::try_from(self.hasher.params()).and_then(|params| {
            Ok(PasswordHash {
                algorithm: Algorithm::Argon2id.ident(),
                version: Some(Version::V0x13.into()),
                params,
                salt: Some(Salt::new(&salt)?),
                hash: Some(output),
            })
        });
        phc.inspect_err(|error| error!(%error, "a password could not be hashed"))
            .ok()
            .map(|phc| phc.to_string())
    }

    fn pressed(&self, work: &Work, presses: &mut Presses) -> Option<Output> {
        match presses.press(work, &self.clock) {
            Some(hashed) => hashed.inspect_err(|error| error!(%error, "a password could not be hashed")).ok(),
            None => {
                error!("a thread that hashes passwords has died, and another one takes its place: report it");
                None
            }
        }
    }

    /// `None` where it cannot be done, which is neither right nor wrong.
    fn verify(
        &self,
        password: Arc<SecretString>,
        stored: Option<&str>,
        presses: &mut Presses,
    ) -> Option<Verdict> {
        let stored = stored.filter(|_| password.expose_secret().len() <= PASSWORD_BYTES_MAX);
        let Some((stored, expected, work)) = stored.and_then(|stored| comparison(stored, &password)) else {
            self.dummies.fetch_add(1, Ordering::Relaxed);
            return self.hash(password, presses).map(|_| Verdict::Wrong);
        };
        self.worked.fetch_add(1, Ordering::Relaxed);
        // Which takes the same time wherever they differ.
        Some(match self.pressed(&work, presses)? == expected {
            true => Verdict::Right { needs_rehash: self.is_outdated(&stored) },
            false => Verdict::Wrong,
        })
    }

    fn is_outdated(&self, stored: &PasswordHash) -> bool {
        let ours = self.hasher.params();
        let theirs = Params::try_from(stored);
        stored.algorithm != Algorithm::Argon2id.ident()
            || stored.version != Some(Version::V0x13.into())
            || theirs.is_ok_and(|theirs| {
                (theirs.m_cost(), theirs.t_cost(), theirs.p_cost())
                    != (ours.m_cost(), ours.t_cost(), ours.p_cost())
            })
    }
}

/// A reply that nobody waits for any more is no loss; one that is never given says that nothing was done.
fn tell<T>(reply: oneshot::Sender<T>, what: Option<T>) {
    if let Some(what) = what {
        let _ = reply.send(what);
    }
}

/// What has to be computed to compare a password with what is stored: with the parameters that stand there.
fn comparison(stored: &str, password: &Arc<SecretString>) -> Option<(PasswordHash, Output, Work)> {
    parsed(stored)
        .inspect_err(|error| error!(%error, "a stored password hash is damaged: nobody logs in with it"))
        .ok()
        .map(|(stored, hasher, salt, expected)| {
            let length = expected.len();
            let work = Work { hasher, password: password.clone(), salt: Arc::from(&*salt), length };
            (stored, expected, work)
        })
}

fn parsed(stored: &str) -> argon2::password_hash::Result<(PasswordHash, Argon2<'static>, Salt, Output)> {
    let stored = PasswordHash::new(stored)?;
    let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else {
        return Err(argon2::password_hash::Error::EncodingInvalid);
    };
    let version = stored.version.map(Version::try_from).transpose()?.unwrap_or_default();
    let algorithm = Algorithm::try_from(stored.algorithm.as_str())?;
    let hasher = Argon2::new(algorithm, version, Params::try_from(&stored)?);
    Ok((stored, hasher, salt, expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::user::PasswordPolicy;
    use std::io::Write;
    use std::time::Duration;

    fn pool(memory_kib: u32, threads: usize) -> Passwords {
        pool_with(memory_kib, threads, None)
    }

    fn pool_with(memory_kib: u32, threads: usize, breached: Option<BreachedPasswords>) -> Passwords {
        let params = Params::new(memory_kib, PASSES, LANES, None).unwrap();
        Passwords::start_with(params, threads, breached, &Clock::start(), Metrics::global()).unwrap()
    }

    fn chosen(password: &str) -> NewPassword {
        PasswordPolicy::default().accept(password.into(), None).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_found_right_or_wrong() {
        let passwords = Passwords::start(1, None, &Clock::start(), Metrics::global()).unwrap();
        let phrase = "  four 🦊 foxes ";
        let stored = passwords.hash(phrase.into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let again = passwords.hash(phrase.into()).await.unwrap();
        assert_ne!(stored, again, "a salt each time");
        let right = Verdict::Right { needs_rehash: false };
        assert_eq!(passwords.verify(phrase.into(), Some(stored.clone())).await, Ok(right));
        assert_eq!(passwords.verify("four 🦊 foxes".into(), Some(stored)).await, Ok(Verdict::Wrong));
        assert_eq!(passwords.dummies(), 0);
    }

    #[tokio::test]
    async fn nothing_to_compare_with_costs_the_same_and_is_wrong() {
        let passwords = pool(64, 1);
        let stored = passwords.hash("right".into()).await.unwrap();
        assert_eq!(passwords.verify("x".into(), None).await, Ok(Verdict::Wrong));
        assert_eq!(passwords.verify("x".into(), Some("no hash".into())).await, Ok(Verdict::Wrong));
        assert_eq!(passwords.verify("x".repeat(129).into(), Some(stored.clone())).await, Ok(Verdict::Wrong));
        assert_eq!(passwords.dummies(), 3);
        assert_eq!(passwords.verify("wrong".into(), Some(stored)).await, Ok(Verdict::Wrong));
        assert_eq!(passwords.dummies(), 3);
    }

    #[tokio::test]
    async fn a_hash_of_yesterday_is_right_and_asks_to_be_made_anew() {
        let yesterday = pool(64, 1).hash("right".into()).await.unwrap();
        let today = pool(128, 1);
        let verdict = today.verify("right".into(), Some(yesterday)).await;
        assert_eq!(verdict, Ok(Verdict::Right { needs_rehash: true }));
    }

    #[tokio::test]
    async fn what_is_known_from_a_breach_is_not_hashed_for_whoever_chooses_it() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        // The SHA-1 of `correct horse battery staple`, in pieces: it is no key.
        let line = concat!("ABF7AAD6438836DBE526", "AA231ABDE2D0EEF74D42", ":216\n");
        file.write_all(line.as_bytes()).unwrap();
        let list = BreachedPasswords::open(file.path()).unwrap();
        let passwords = pool_with(64, 1, Some(list));
        let listed = "correct horse battery staple";
        let refused = passwords.hash_new(chosen(listed)).await;
        assert_eq!((refused, passwords.worked()), (Err(Unhashed::Weak(WeakPassword::Breached)), 0));
        let free = passwords.hash_new(chosen("four foxes fly far")).await.unwrap();
        let right = Verdict::Right { needs_rehash: false };
        assert_eq!(passwords.verify("four foxes fly far".into(), Some(free)).await, Ok(right));
        // Whoever has it already is hashed anew, and comes in.
        let kept = passwords.hash(listed.into()).await.unwrap();
        assert_eq!(passwords.verify(listed.into(), Some(kept.clone())).await, Ok(right));
        file.as_file().set_len(0).unwrap();
        let unread = passwords.hash_new(chosen("four foxes fly far")).await;
        assert_eq!(unread, Err(Unhashed::Unread), "what cannot be looked up is not taken");
        assert_eq!(passwords.verify(listed.into(), Some(kept)).await, Ok(right));
    }

    /// Without a thread nothing is ever done, so what waits can be counted.
    #[tokio::test]
    async fn a_full_queue_says_so_at_once_and_forgets_who_has_gone() {
        let passwords = pool(64, 0);
        let hurry = Duration::from_millis(1);
        let mut waiting = Vec::new();
        for _ in 0..HASH_QUEUE_MAX {
            let mut asked = Box::pin(passwords.verify("x".into(), None));
            assert!(tokio::time::timeout(hurry, &mut asked).await.is_err(), "it waits");
            waiting.push(asked);
        }
        assert_eq!(passwords.hash("x".into()).await, Err(Busy));
        waiting.pop();
        let room = passwords.hash("x".into());
        assert!(tokio::time::timeout(hurry, room).await.is_err(), "there was room again");
    }

    #[tokio::test]
    async fn who_no_longer_waits_is_not_worked_for() {
        let passwords = pool(64, 0);
        let asked = passwords.verify("x".into(), None);
        assert!(tokio::time::timeout(Duration::from_millis(1), asked).await.is_err());
        let mut queue = passwords.pool().lock();
        assert!(queue.jobs.pop_front().is_some_and(|job| job.is_void()));
    }

    #[tokio::test]
    async fn who_has_waited_too_long_is_told_to_come_back() {
        let passwords = pool(64, 0);
        let asked = passwords.clone();
        let asked = tokio::spawn(async move { asked.hash("x".into()).await });
        tokio::task::yield_now().await;
        passwords.pool().lock().jobs[0].asked_ns -= PATIENCE_NS + 1;
        let pool = passwords.alive.0.clone();
        let thread = std::thread::spawn(move || pool.next().is_none());
        assert_eq!(asked.await.unwrap(), Err(Busy));
        passwords.pool().close();
        assert!(thread.join().unwrap());
    }

    #[tokio::test]
    async fn the_end_of_the_pool_is_heard_by_those_who_wait() {
        let passwords = pool(64, 0);
        let asked = passwords.clone();
        let asked = tokio::spawn(async move { asked.hash("x".into()).await });
        tokio::task::yield_now().await;
        passwords.pool().close();
        assert_eq!(asked.await.unwrap(), Err(Busy));
        assert_eq!(passwords.hash("x".into()).await, Err(Busy));
    }
}
