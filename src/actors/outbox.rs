//! The outbox: sends what waits in it, again and again until it is taken, on a thread that yields to everybody.
//!
//! Whoever writes a mail's row says so, and it leaves at once; what is not taken is tried again later, each time after a longer
//! pause of random length, until it is given up. No more leave in an hour than the operator says: what has no room waits behind its
//! own class, and is looked at again when there is. The lead's outbox sends alone, so that is the whole shop's bound; it is counted in
//! memory, so whoever starts or takes over begins with nothing, and an hour with a restart in it may see twice as many.
//!
//! Always true: a mail is sent at least once, and again only when the server's *taken* did not come, or not in time, or could not be
//! marked: a connection was lost behind the letter, the server or the tables took too long, the process ended or was stopped. Address
//! and letter are in the clear only in memory, and only while they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future;
use futures_util::stream::{self, StreamExt};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::actors::background::{Background, Ended};
use crate::actors::user::VERIFY_MS;
use crate::clock::Clock;
use crate::domain::id::{MailId, UserId};
use crate::domain::postage::{LetterClass, Postage, PostageLimits};
use crate::domain::stock::Millis;
use crate::domain::user::{Email, Locale};
use crate::mail::{Letter, MailError, Mailer, Sent, Words};
use crate::persistence::StoreError;
use crate::persistence::outbox::{Claimed, Mail, Outbox as Rows};
use crate::telemetry::{self, Metrics};
use crate::vault::{Sealed, Vault};

/// Mails claimed at a time.
const BATCH_MAX: usize = 16;
/// Mails on their way to the server at a time: one for each of its connections.
const AT_ONCE_MAX: usize = crate::mail::CONNECTIONS_MAX as usize;
/// The longest that one mail may take.
const SEND_WITHIN: Duration = Duration::from_secs(30);
/// How long a claimed mail is ours: a batch in which each mail takes its longest.
const LEASE_MS: i64 = 180_000;
/// A mail is given up after so many tries: with the pauses below after six hours at the least, and twelve at the most. Some links
/// are good for longer, and whoever misses one asks for it again.
const TRIES_MAX: u32 = 23;
/// The pause after the first try is at most this long, and twice as long after each further one.
const BACK_OFF_MS: i64 = 2_000;
const BACK_OFF_MAX_MS: i64 = 3_600_000;
/// The longest without a look, in case a mail was added by somebody who could not say so.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// What waits is counted no more often than this: under a flood it is long, and every mail wakes us.
const COUNT_EVERY_MS: i64 = 5_000;
/// How long it is remembered that a mail was given up.
const REMEMBERED_MS: i64 = 30 * 24 * 3_600_000;
const SWEEP_EVERY_MS: i64 = 3_600_000;
/// Pause when the rows cannot be read.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// How long an end waits for the mails it is at. What is not taken by then is sent at the next start.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How much less important than the order path mails are, in steps of the scheduler.
const NICE: i32 = 10;

/// Seals a letter as a row, ready to be added to the transaction of what it tells about.
pub fn sealed(
    vault: &Vault,
    clock: &Clock,
    letter: &Letter,
    to: &Email,
    locale: Locale,
    subject: Option<UserId>,
) -> Result<Mail, Sealed> {
    let now = clock.now();
    sealed_as(MailId::new(now, clock.chance()), now, vault, letter, to, locale, subject)
}

/// The same for a letter whose name and date follow from what it tells.
pub(super) fn sealed_as(
    id: MailId,
    at: Millis,
    vault: &Vault,
    letter: &Letter,
    to: &Email,
    locale: Locale,
    subject: Option<UserId>,
) -> Result<Mail, Sealed> {
    let key = vault.new_key()?;
    let text = serde_json::to_vec(letter).map_err(|_| Sealed::Damaged)?;
    Ok(Mail {
        recipient: vault.seal(&key, &recipient_of(id), to.written().as_bytes())?,
        letter: vault.seal(&key, &letter_of(id), &text)?,
        id,
        kind: letter.kind().to_owned(),
        class: letter.class(),
        locale,
        subject,
        key,
        created_at: at,
    })
}

fn recipient_of(id: MailId) -> String {
    format!("{id} recipient")
}

fn letter_of(id: MailId) -> String {
    format!("{id} letter")
}

#[derive(Default)]
struct Signals {
    wake: Notify,
    stop: AtomicBool,
}

impl Signals {
    fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// Ends the thread when the last handle has gone.
struct Alive(Arc<Signals>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Asks the outbox for haste, and for its end. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    alive: Arc<Alive>,
    ended: Ended,
}

impl Outbox {
    /// Starts sending.
    pub fn start(
        rows: Rows,
        vault: Vault,
        words: Words,
        mailer: Mailer,
        limits: PostageLimits,
        clock: &Clock,
        metrics: &Metrics,
    ) -> std::io::Result<Outbox> {
        let signals = Arc::<Signals>::default();
        let sending = Sending {
            rows,
            vault,
            words,
            mailer,
            clock: clock.clone(),
            metrics: metrics.clone(),
            signals: signals.clone(),
            postage: Postage::new(limits),
            held_back: Default::default(),
            count_at: clock.now(),
            uncounted: false,
        };
        let background = Background { name: "stockade-outbox", nice: NICE, lost: "no mail is sent" };
        let ended = background.begin(move || sending.run())?;
        Ok(Outbox { alive: Arc::new(Alive(signals)), ended })
    }

    /// A row was added: look now.
    pub fn wake(&self) {
        self.alive.0.wake.notify_one();
    }

    /// Ends after the mails it is at; what waits stays for the next start.
    pub async fn stop(&self) {
        self.alive.0.end();
        let mut ended = self.ended.clone();
        // A loop that is gone already has nothing more to say.
        if tokio::time::timeout(STOP_WITHIN, ended.wait_for(|ended| *ended)).await.is_err() {
            warn!("the mail server takes its time; what it has not taken is sent at the next start");
        }
    }
}

struct Sending {
    rows: Rows,
    vault: Vault,
    words: Words,
    mailer: Mailer,
    clock: Clock,
    metrics: Metrics,
    signals: Arc<Signals>,
    postage: Postage,
    /// How many of each class are due and have no room, when last counted.
    held_back: [u64; LetterClass::ALL.len()],
    /// When what waits is counted again.
    count_at: Millis,
    /// Something was sent since that was done.
    uncounted: bool,
}

/// What became of one try.
enum Outcome {
    Sent(Sent),
    /// It waited for so long that its link is good no more.
    TooLate,
    Later(MailError),
    Never(String),
}

impl Outcome {
    /// Whether it takes room: it has left, or nobody knows whether it has, for nothing was said in time. One whose connection was lost counts
    /// as one that has not: most often there was none, and a server that is away would use up the room of all hours in which it is.
    fn takes_room(&self) -> bool {
        match self {
            Outcome::Sent(_) => true,
            Outcome::Later(why) => *why == MailError::TIME_OUT,
            Outcome::TooLate | Outcome::Never(_) => false,
        }
    }
}

impl Sending {
    async fn run(mut self) {
        let mut sweep_at = self.clock.now();
        while !self.stopping() {
            if self.clock.now() >= sweep_at {
                sweep_at = self.clock.now().plus(SWEEP_EVERY_MS);
                self.sweep().await;
            }
            let pause = match self.batch().await {
                // Perhaps there are more.
                Ok(sent) if sent > 0 => continue,
                Ok(_) => self.until_next().await,
                Err(error) => {
                    warn!(%error, "the outbox cannot be read");
                    FAILED_PAUSE
                }
            };
            // Whichever comes first: somebody says so, or it is time.
            let _ = tokio::time::timeout(pause, self.signals.wake.notified()).await;
        }
    }

    async fn sweep(&self) {
        if let Err(error) = self.rows.sweep(self.clock.now().plus(-REMEMBERED_MS)).await {
            warn!(%error, "mails that were given up long ago could not be forgotten");
        }
    }

    fn stopping(&self) -> bool {
        self.signals.stop.load(Ordering::Acquire)
    }

    /// Until one is due that has room.
    async fn until_next(&self) -> Duration {
        let now = self.clock.now();
        let mut pause = if self.uncounted { self.clock.until(self.count_at) } else { LOOK_EVERY };
        for class in LetterClass::ALL {
            match self.rows.next_due(class).await {
                Ok(Some(at)) => pause = pause.min(self.clock.until(at.max(self.postage.room_at(class, now)))),
                Ok(None) => {}
                Err(_) => return FAILED_PAUSE,
            }
        }
        // Not at once even where one is due: it could not be claimed just now.
        pause.max(FAILED_PAUSE)
    }

    /// Claims what is due and has room, and sends it; how many that were. What waits is counted if it is time: nobody is to wait for a
    /// letter because that fails.
    async fn batch(&mut self) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let counts = now >= self.count_at;
        if counts {
            self.count_at = now.plus(COUNT_EVERY_MS);
        }
        let mut sent = 0;
        for class in LetterClass::ALL {
            if !self.stopping() {
                sent += self.batch_of(class, counts).await?;
            }
        }
        if counts && let Some(waiting) = counted(self.rows.waiting().await) {
            self.metrics.outbox_waiting.set(waiting as f64);
        }
        self.uncounted = !counts && (self.uncounted || sent > 0);
        Ok(sent)
    }

    async fn batch_of(&mut self, class: LetterClass, counts: bool) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let until = now.plus(LEASE_MS);
        let most = self.postage.room(class, now).min(BATCH_MAX as u64) as usize;
        let claimed = match (most, class) {
            // What is too late takes no room, and does not wait for any.
            (0, LetterClass::Unproved) => {
                self.rows.claim(class, now.plus(-VERIFY_MS), until, BATCH_MAX).await?
            }
            (0, LetterClass::Account | LetterClass::Order) => Vec::new(),
            _ => self.rows.claim(class, now, until, most).await?,
        };
        let left = self.deliver_all(&claimed, until).await;
        // Counted when they have gone, and before the next are looked at: an hour sees no more than it may.
        self.postage.leave(class, left, self.clock.now());
        self.count_held_back(class, left, claimed.len() == most, counts).await;
        Ok(claimed.len())
    }

    /// How many have left, or may have.
    async fn deliver_all(&self, claimed: &[Claimed], until: Millis) -> u64 {
        let tries = stream::iter(claimed).map(|mail| self.deliver(mail, until)).buffer_unordered(AT_ONCE_MAX);
        tries.fold(0, |left, takes_room| future::ready(left + u64::from(takes_room))).await
    }

    /// Tells how many of a class wait for room, and how many of these are new. Where none is counted it is as many as before.
    async fn count_held_back(&mut self, class: LetterClass, left: u64, may_be_more: bool, counts: bool) {
        let now = self.clock.now();
        let before = self.held_back[class as usize];
        let of_before = before.saturating_sub(left);
        let held_back = match (self.postage.room(class, now), may_be_more) {
            (0, _) if counts => counted(self.rows.overdue(class, now).await).unwrap_or(of_before),
            (0, _) => of_before,
            // The next batch will show.
            (_, true) => of_before,
            (_, false) => 0,
        };
        let word = class.as_str();
        if before == 0 && held_back > 0 {
            warn!(
                class = word,
                held_back, "letters wait: no more of the class {word} may leave in this hour"
            );
        } else if before > 0 && held_back == 0 {
            info!(class = word, "no letter of the class {word} waits for room any more");
        }
        telemetry::letters_held_back(word, held_back, held_back.saturating_sub(of_before));
        self.held_back[class as usize] = held_back;
    }

    /// Whether it takes room: what was not taken costs nothing. Whoever was stopped for longer than his claim sends nothing: it is
    /// somebody else's to do.
    async fn deliver(&self, claimed: &Claimed, until: Millis) -> bool {
        if self.clock.now() >= until {
            warn!(mail = %claimed.mail.id, "mail {} was ours for too short a time", claimed.mail.id);
            return false;
        }
        let outcome = self.tried(claimed).await;
        let takes_room = outcome.takes_room();
        let Mail { id, kind, .. } = &claimed.mail;
        let (word, marked) = match outcome {
            Outcome::Sent(Sent::Accepted) => {
                info!(mail = %id, kind, "mail {id} was taken by the server");
                ("sent", self.rows.done(claimed).await)
            }
            Outcome::Sent(Sent::Written(path)) => {
                info!(mail = %id, kind, path = %path.display(), "mail {id} was written to {}", path.display());
                ("sent", self.rows.done(claimed).await)
            }
            Outcome::TooLate => {
                info!(mail = %id, kind, "mail {id} is not sent: it waited for longer than its link is good");
                ("too_late", self.rows.bury(claimed).await)
            }
            Outcome::Later(error) if claimed.tries < TRIES_MAX => {
                let at = self.clock.now().plus(pause_ms(claimed.tries, self.clock.chance()));
                warn!(mail = %id, kind, tries = claimed.tries, %error, "mail {id} was not taken and is tried again");
                ("retried", self.rows.later(claimed, at).await)
            }
            Outcome::Later(error) => {
                error!(mail = %id, kind, tries = claimed.tries, %error, "mail {id} is given up");
                ("given_up", self.rows.bury(claimed).await)
            }
            Outcome::Never(why) => {
                error!(mail = %id, kind, why, "mail {id} cannot be sent");
                ("refused", self.rows.bury(claimed).await)
            }
        };
        telemetry::mail_handled(word);
        match marked {
            Ok(true) => {}
            Ok(false) => warn!(mail = %id, "mail {id} took longer than its lease, and may be sent twice"),
            Err(error) => warn!(mail = %id, %error, "mail {id} could not be marked, and may be sent twice"),
        }
        takes_room
    }

    async fn tried(&self, claimed: &Claimed) -> Outcome {
        let Mail { class, created_at, .. } = claimed.mail;
        if class == LetterClass::Unproved && created_at.plus(VERIFY_MS) <= self.clock.now() {
            return Outcome::TooLate;
        }
        let (to, letter) = match self.opened(&claimed.mail) {
            Ok(opened) => opened,
            Err(why) => return Outcome::Never(why),
        };
        let message = match self.words.message(&letter, claimed.mail.locale) {
            Ok(message) => message,
            Err(why) => return Outcome::Never(why.to_string()),
        };
        let sending = self.mailer.send(claimed.mail.id, &to, message, claimed.mail.created_at);
        match tokio::time::timeout(SEND_WITHIN, sending).await {
            Ok(Ok(sent)) => Outcome::Sent(sent),
            Ok(Err(error @ MailError::Unavailable(_))) => Outcome::Later(error),
            Ok(Err(error @ (MailError::Refused(_) | MailError::Config(_)))) => {
                Outcome::Never(error.to_string())
            }
            Err(_) => Outcome::Later(MailError::TIME_OUT),
        }
    }

    /// The words of an error never hold what was sealed.
    fn opened(&self, mail: &Mail) -> Result<(Email, Letter), String> {
        let open = |context: &str, sealed: &[u8]| {
            self.vault.open(&mail.key, context, sealed).map_err(|error| error.to_string())
        };
        let to = String::from_utf8(open(&recipient_of(mail.id), &mail.recipient)?)
            .ok()
            .and_then(|to| Email::parse(&to).ok())
            .ok_or("what was sealed is no address")?;
        let letter = serde_json::from_slice(&open(&letter_of(mail.id), &mail.letter)?)
            .map_err(|_| "what was sealed is no letter of this version")?;
        Ok((to, letter))
    }
}

/// What was counted, if it could be.
fn counted(count: Result<u64, StoreError>) -> Option<u64> {
    count.inspect_err(|error| warn!(%error, "what waits in the outbox cannot be counted")).ok()
}

/// Anything from half of a bound to the bound, which doubles with each try ("equal jitter"): a server that comes back is not
/// overrun, and one that is away is waited for as long as we say.
fn pause_ms(tries: u32, chance: u128) -> i64 {
    let doubled = BACK_OFF_MS.saturating_mul(1 << tries.saturating_sub(1).min(20));
    let half = doubled.min(BACK_OFF_MAX_MS) / 2;
    half + i64::try_from(chance % (half.unsigned_abs() as u128 + 1)).unwrap_or(half)
}

#[cfg(test)]
mod tests;
