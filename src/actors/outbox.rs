//! The outbox: sends what waits in it, again and again until it is taken, on a thread that yields to everybody.
//!
//! Whoever writes a mail's row says so, and it leaves at once; what is not taken is tried again later, each time after a longer
//! pause of random length, until it is given up. Always true: a mail is sent at least once, and again only when the server's *taken* did not
//! come, or not in time, or could not be marked: a connection was lost behind the letter, the server or the tables took too long, the process
//! ended or was stopped. Address and letter are in the clear only in memory, and only while they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::actors::background::{Background, Ended};
use crate::clock::Clock;
use crate::domain::id::{MailId, UserId};
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
}

/// What became of one try.
enum Outcome {
    Sent(Sent),
    Later(MailError),
    Never(String),
}

impl Sending {
    async fn run(self) {
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

    async fn until_next(&self) -> Duration {
        match self.rows.next_due().await {
            // Not at once even where one is due: it could not be claimed just now.
            Ok(next) => next.map_or(LOOK_EVERY, |at| self.clock.until(at).clamp(FAILED_PAUSE, LOOK_EVERY)),
            Err(_) => FAILED_PAUSE,
        }
    }

    /// Claims what is due and sends it; how many that were.
    async fn batch(&self) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let until = now.plus(LEASE_MS);
        let claimed = self.rows.claim(now, until, BATCH_MAX).await?;
        let count = claimed.len();
        stream::iter(&claimed).for_each_concurrent(AT_ONCE_MAX, |mail| self.deliver(mail, until)).await;
        self.metrics.outbox_waiting.set(self.rows.waiting().await? as f64);
        Ok(count)
    }

    /// Whoever was stopped for longer than his claim sends nothing: it is somebody else's to do.
    async fn deliver(&self, claimed: &Claimed, until: Millis) {
        if self.clock.now() >= until {
            warn!(mail = %claimed.mail.id, "mail {} was ours for too short a time", claimed.mail.id);
            return;
        }
        let outcome = self.tried(claimed).await;
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
    }

    async fn tried(&self, claimed: &Claimed) -> Outcome {
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

/// Anything from half of a bound to the bound, which doubles with each try ("equal jitter"): a server that comes back is not
/// overrun, and one that is away is waited for as long as we say.
fn pause_ms(tries: u32, chance: u128) -> i64 {
    let doubled = BACK_OFF_MS.saturating_mul(1 << tries.saturating_sub(1).min(20));
    let half = doubled.min(BACK_OFF_MAX_MS) / 2;
    half + i64::try_from(chance % (half.unsigned_abs() as u128 + 1)).unwrap_or(half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, MasterKeys};
    use crate::mail::LinkToken;
    use crate::persistence::Tables;

    struct House {
        dir: tempfile::TempDir,
        tables: Tables,
        vault: Vault,
        clock: Clock,
    }

    impl House {
        async fn new() -> House {
            let dir = tempfile::tempdir().unwrap();
            let tables = Tables::open(dir.path()).await.unwrap();
            let clock = Clock::start();
            let vault = Vault::new(&MasterKeys::one([9; 32]), &clock).unwrap();
            House { dir, tables, vault, clock }
        }

        /// Whoever sends, without his thread.
        fn sending(&self) -> Sending {
            let config = self.config();
            Sending {
                rows: self.tables.outbox(),
                vault: self.vault.clone(),
                words: Words::new(&config.mail.public_url).unwrap(),
                mailer: Mailer::new(&config.mail, self.dir.path()).unwrap(),
                clock: self.clock.clone(),
                metrics: Metrics::global().clone(),
                signals: Arc::default(),
            }
        }

        fn start(&self, config: &Config) -> Outbox {
            let words = Words::new(&config.mail.public_url).unwrap();
            let mailer = Mailer::new(&config.mail, self.dir.path()).unwrap();
            let (rows, vault) = (self.tables.outbox(), self.vault.clone());
            Outbox::start(rows, vault, words, mailer, &self.clock, Metrics::global()).unwrap()
        }

        fn config(&self) -> Config {
            Config::development(self.dir.path())
        }

        fn mail(&self) -> Mail {
            let letter = Letter::VerifyAddress { token: LinkToken::new("verify_4f-_x") };
            let to = Email::parse("mina@example.com").unwrap();
            sealed(&self.vault, &self.clock, &letter, &to, Locale::En, None).unwrap()
        }

        async fn add(&self, mail: &Mail) {
            self.tables.outbox().add(std::slice::from_ref(mail)).await.unwrap();
        }

        /// Waits until nothing waits.
        async fn emptied(&self) {
            let emptied = async {
                while self.tables.outbox().waiting().await.unwrap() > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), emptied).await.expect("the mail is sent");
        }
    }

    #[tokio::test]
    async fn a_mail_leaves_as_soon_as_it_is_told() {
        let house = House::new().await;
        let outbox = house.start(&house.config());
        let mail = house.mail();
        house.add(&mail).await;
        outbox.wake();
        house.emptied().await;
        outbox.stop().await;
        let file = std::fs::read_to_string(house.dir.path().join(format!("mail/{}.eml", mail.id))).unwrap();
        assert!(
            file.contains("To: mina@example.com") && file.contains("Subject: Confirm your e-mail address"),
            "{file}"
        );
    }

    /// Somebody else has sent it meanwhile, or will.
    #[tokio::test]
    async fn who_was_stopped_for_longer_than_his_claim_sends_nothing() {
        let house = House::new().await;
        let mail = house.mail();
        house.add(&mail).await;
        let (sending, now) = (house.sending(), house.clock.now());
        let until = now.plus(LEASE_MS);
        let claimed = sending.rows.claim(now, until, 1).await.unwrap().remove(0);
        house.clock.advance(LEASE_MS);
        sending.deliver(&claimed, until).await;
        let file = house.dir.path().join(format!("mail/{}.eml", mail.id));
        assert!(!file.exists());
        // Whoever claims it now sends it.
        assert_eq!(sending.batch().await.unwrap(), 1);
        assert!(file.exists() && sending.rows.waiting().await.unwrap() == 0);
    }

    #[tokio::test]
    async fn what_was_left_behind_is_sent_at_the_next_start() {
        let house = House::new().await;
        house.add(&house.mail()).await;
        let outbox = house.start(&house.config());
        house.emptied().await;
        outbox.stop().await;
    }

    #[tokio::test]
    async fn a_row_tells_neither_address_nor_token() {
        let house = House::new().await;
        let mail = house.mail();
        for sealed in [&mail.recipient, &mail.letter] {
            for secret in ["mina", "example", "verify", "4f-_x"] {
                assert!(!sealed.windows(secret.len()).any(|piece| piece == secret.as_bytes()), "{secret}");
            }
        }
        assert_eq!(mail.kind, "verify_address");
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_tried_again_later() {
        let house = House::new().await;
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = house.config();
        config.mail.smtp_url = Some(format!("smtp://{nobody}").into());
        house.add(&house.mail()).await;
        let outbox = house.start(&config);
        let rows = house.tables.outbox();
        let tried = async {
            // Until it was tried the lease stands, which is longer than the first pause.
            while rows.next_due().await.unwrap().is_none_or(|at| at > house.clock.now().plus(BACK_OFF_MS)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), tried).await.expect("it is tried");
        outbox.stop().await;
        assert_eq!(rows.waiting().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_mail_that_cannot_be_opened_is_given_up_and_holds_up_nobody() {
        let house = House::new().await;
        let (mut bad, good) = (house.mail(), house.mail());
        bad.letter = good.letter.clone();
        house.add(&bad).await;
        house.add(&good).await;
        let outbox = house.start(&house.config());
        house.emptied().await;
        outbox.stop().await;
        assert!(house.dir.path().join(format!("mail/{}.eml", good.id)).exists());
        assert!(!house.dir.path().join(format!("mail/{}.eml", bad.id)).exists());
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_are_random() {
        assert_eq!((pause_ms(1, 0), pause_ms(1, 1_000), pause_ms(1, 1_001)), (1_000, 2_000, 1_000));
        assert_eq!((pause_ms(2, 0), pause_ms(2, 2_000)), (2_000, 4_000));
        assert_eq!(pause_ms(11, 1_024_000), 2_048_000);
        for tries in [12, TRIES_MAX, u32::MAX] {
            assert_eq!(pause_ms(tries, 0), BACK_OFF_MAX_MS / 2);
            assert_eq!(pause_ms(tries, 1_800_000), BACK_OFF_MAX_MS);
        }
    }

    #[test]
    fn a_mail_is_given_up_after_six_hours_at_the_least_and_twelve_or_so_at_the_most() {
        let all = |chance_of: fn(u32) -> u128| -> i64 {
            (1..TRIES_MAX).map(|tries| pause_ms(tries, chance_of(tries))).sum()
        };
        let (shortest, longest) = (all(|_| 0), all(|tries| (1_000_u128 << (tries - 1)).min(1_800_000)));
        let hour = 3_600_000;
        assert!((6 * hour..7 * hour).contains(&shortest), "{shortest}");
        assert!((12 * hour..13 * hour).contains(&longest), "{longest}");
    }
}
