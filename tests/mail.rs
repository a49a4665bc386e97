//! Mails through a real server: what it hears, and what becomes of a mail when it says *not now*, *never*, or nothing.

mod support;

use std::time::Duration;

use stockade::actors::outbox::{self, Outbox};
use stockade::clock::Clock;
use stockade::config::{Config, MasterKeys};
use stockade::domain::id::MailId;
use stockade::domain::postage::{LetterClass, PostageLimits};
use stockade::domain::user::{Email, Locale};
use stockade::mail::{Letter, LinkToken, MailError, Mailer, Sent, Why, Words};
use stockade::persistence::Tables;
use stockade::telemetry::Metrics;
use stockade::vault::Vault;
use support::{Person, Process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Instead of a word: it takes the mail, and is gone.
const GONE: &str = "gone";

/// A mail server that says to each mail what it was told to say; the last word counts for all that follow. It is said at the
/// mail's end, or where it begins so: `RCPT: 550 nobody`.
struct PostOffice {
    url: String,
    heard: mpsc::UnboundedReceiver<String>,
}

impl PostOffice {
    async fn open(answers: &'static [&'static str]) -> PostOffice {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let (tell, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut mails = 0;
            while let Ok((caller, _)) = listener.accept().await {
                // One caller at a time: their order is the test's.
                talk(caller, answers, &mut mails, &tell).await;
            }
        });
        PostOffice { url, heard }
    }

    /// It takes whatever comes, from several callers at once.
    async fn open_to_all() -> PostOffice {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let (tell, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move { talk(caller, &["250 taken"], &mut 0, &tell).await });
            }
        });
        PostOffice { url, heard }
    }

    /// The next mail, as it came, whatever was said to it.
    async fn next(&mut self) -> String {
        let heard = tokio::time::timeout(Duration::from_secs(20), self.heard.recv()).await;
        heard.expect("a mail in time").expect("the post office is open")
    }
}

/// One conversation after RFC 5321, as far as a well-behaved client goes.
async fn talk(
    caller: TcpStream,
    answers: &[&str],
    mails: &mut usize,
    tell: &mpsc::UnboundedSender<String>,
) -> Option<()> {
    let mut caller = BufReader::new(caller);
    let told = |mails: usize| {
        let said = answers[mails.min(answers.len() - 1)];
        said.split_once(": ").filter(|(at, _)| at.chars().all(char::is_alphabetic)).unwrap_or(("DATA", said))
    };
    if let ("GREET", said) = told(*mails) {
        *mails += 1;
        return caller.write_all(format!("{said}\r\n").as_bytes()).await.ok();
    }
    caller.write_all(b"220 post.example.com\r\n").await.ok()?;
    loop {
        let mut line = String::new();
        if caller.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let (at, said) = told(*mails);
        let reply = match line.split([' ', ':', '\r']).next()?.to_uppercase().as_str() {
            verb if verb == at && at != "DATA" => {
                *mails += 1;
                said.to_owned()
            }
            "EHLO" => "250-post.example.com\r\n250-AUTH PLAIN\r\n250 8BITMIME".to_owned(),
            "DATA" => {
                caller.write_all(b"354 go on\r\n").await.ok()?;
                let mut mail = String::new();
                while !mail.ends_with("\r\n.\r\n") {
                    caller.read_line(&mut mail).await.ok()?;
                }
                tell.send(mail).ok()?;
                *mails += 1;
                if said == GONE {
                    return None;
                }
                said.to_owned()
            }
            "QUIT" => return caller.write_all(b"221 bye\r\n").await.ok(),
            "AUTH" => "235 come in".to_owned(),
            _ => "250 yes".to_owned(),
        };
        caller.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
    }
}

/// A sender with its rows.
struct House {
    folder: TempDir,
    tables: Tables,
    vault: Vault,
    clock: Clock,
    config: Config,
}

impl House {
    async fn with(office: &PostOffice) -> House {
        let folder = tempfile::tempdir().unwrap();
        let tables = Tables::open(folder.path()).await.unwrap();
        let clock = Clock::start();
        let vault = Vault::new(&MasterKeys::one([9; 32]), &clock).unwrap();
        let mut config = Config::development(folder.path());
        config.mail.smtp_url = Some(office.url.as_str().into());
        config.mail.from = "Stockade <shop@example.com>".parse().unwrap();
        config.mail.public_url = "https://shop.example.com".to_owned();
        House { folder, tables, vault, clock, config }
    }

    fn words(&self) -> Words {
        Words::new(&self.config.mail.public_url).unwrap()
    }

    fn mailer(&self) -> Mailer {
        Mailer::new(&self.config.mail, self.folder.path()).unwrap()
    }

    fn start(&self) -> Outbox {
        let (rows, vault, limits) = (self.tables.outbox(), self.vault.clone(), self.config.mail.letters);
        let (words, mailer) = (self.words(), self.mailer());
        Outbox::start(rows, vault, words, mailer, limits, &self.clock, Metrics::global()).unwrap()
    }

    async fn write(&self) -> MailId {
        self.write_this(&letter()).await
    }

    async fn write_this(&self, letter: &Letter) -> MailId {
        let mail = outbox::sealed(&self.vault, &self.clock, letter, &mina(), Locale::Ko, None).unwrap();
        self.tables.outbox().add(std::slice::from_ref(&mail)).await.unwrap();
        mail.id
    }

    async fn waiting(&self) -> u64 {
        self.tables.outbox().waiting().await.unwrap()
    }
}

fn mina() -> Email {
    Email::parse("Mina@example.com").unwrap()
}

fn letter() -> Letter {
    Letter::VerifyAddress { token: LinkToken::new("verify_4f-_x") }
}

#[tokio::test]
async fn a_server_hears_a_letter_in_two_forms_and_the_row_goes() {
    let mut office = PostOffice::open(&["250 taken"]).await;
    let house = House::with(&office).await;
    let outbox = house.start();
    let id = house.write().await;
    outbox.wake();
    let mail = office.next().await;
    for line in [
        "From: Stockade <shop@example.com>\r\n",
        "To: Mina@example.com\r\n",
        "Subject: =?utf-8?b?",
        &format!("Message-ID: <{id}@example.com>\r\n"),
        "multipart/alternative",
        "text/plain",
        "text/html",
    ] {
        assert!(mail.contains(line), "{line}\n{mail}");
    }
    outbox.stop().await;
    assert_eq!(house.waiting().await, 0);
}

/// It is not taken at first: then the same mail comes again.
async fn comes_again(answers: &'static [&'static str; 2]) {
    let mut office = PostOffice::open(answers).await;
    let house = House::with(&office).await;
    let id = house.write().await;
    let outbox = house.start();
    let line = format!("Message-ID: <{id}@example.com>\r\n");
    assert!(office.next().await.contains(&line));
    assert!(office.next().await.contains(&line));
    outbox.stop().await;
    assert_eq!(house.waiting().await, 0);
}

#[tokio::test]
async fn not_now_is_tried_again_as_the_same_mail() {
    comes_again(&["451 not now, <Mina@example.com>", "250 taken"]).await;
}

#[tokio::test]
async fn never_is_not_tried_again_and_the_servers_words_stay_with_it() {
    let mut office = PostOffice::open(&["550 nobody is called <Mina@example.com>"]).await;
    let house = House::with(&office).await;
    let message = house.words().message(&letter(), Locale::En).unwrap();
    let now = house.clock.now();
    let error = house.mailer().send(MailId::new(now, 1), &mina(), message, now).await.unwrap_err();
    assert_eq!(error, MailError::Refused(Why::Status(550)));
    assert!(!format!("{error} {error:?}").contains("Mina"));
    office.next().await;

    house.write().await;
    let outbox = house.start();
    office.next().await;
    outbox.stop().await;
    assert_eq!(house.waiting().await, 0);
}

/// RFC 5321, 4.2.3, RFC 4954, RFC 3463: what is said about us, our password or our address says nothing about a letter.
#[tokio::test]
async fn what_is_said_about_us_is_not_held_against_the_letter() {
    const ABOUT_US: &[&[&str]] = &[
        &["GREET: 554 no service here"],
        &["GREET: 521 no mail is taken here"],
        &["EHLO: 550 go away"],
        &["AUTH: 535 5.7.8 the password is wrong"],
        &["AUTH: 534 5.7.9 too weak"],
        &["AUTH: 538 5.7.11 encryption is needed"],
        &["AUTH: 454 4.7.0 later"],
        &["AUTH: 550 no"],
        &["MAIL: 530 5.7.0 authentication required"],
        &["MAIL: 553 5.7.1 <shop@example.com>: Sender address rejected: not owned by user"],
        &["MAIL: 550 5.1.8 your domain is not known"],
        &["MAIL: 553 5.1.7 no such address"],
        &["MAIL: 550 shop@example.com is nobody"],
        &["MAIL: 550 sender verify failed"],
        &["MAIL: 503 5.5.1 bad sequence"],
        &["RCPT: 554 5.7.1 <Mina@example.com>: Relay access denied"],
        &["RCPT: 550 relay not permitted"],
        &["RCPT: 550 client host blocked"],
        &["DATA: 550 5.7.26 unauthenticated mail is not taken"],
        &["DATA: 451 4.3.0 later"],
    ];
    const ABOUT_IT: &[&[&str]] = &[
        &["RCPT: 550 nobody is called so"],
        &["RCPT: 550 5.1.1 <Mina@example.com>: Recipient address rejected, says the sender's host"],
        &["RCPT: 551 not local"],
        &["RCPT: 552 5.2.2 the box is full"],
        &["RCPT: 553 no such name"],
        &["RCPT: 556 5.1.10 the domain takes no mail"],
        &["DATA: 552 5.3.4 too large"],
        &["DATA: 554 5.6.0 it cannot be read"],
        &["DATA: 554 failed"],
    ];
    for (answers, refused) in
        ABOUT_US.iter().map(|said| (*said, false)).chain(ABOUT_IT.iter().map(|said| (*said, true)))
    {
        let office = PostOffice::open(answers).await;
        let mut house = House::with(&office).await;
        house.config.mail.smtp_url = Some(office.url.replace("//", "//shop:hush@").into());
        let message = house.words().message(&letter(), Locale::En).unwrap();
        let now = house.clock.now();
        let error = house.mailer().send(MailId::new(now, 1), &mina(), message, now).await.unwrap_err();
        assert_eq!(matches!(error, MailError::Refused(_)), refused, "{answers:?}: {error}");
        assert!(matches!(error, MailError::Refused(Why::Status(_)) | MailError::Unavailable(Why::Status(_))));
    }
}

#[tokio::test]
async fn a_letter_outlives_a_wrong_password() {
    let mut office = PostOffice::open(&["AUTH: 535 5.7.8 the password is wrong", "250 taken"]).await;
    let mut house = House::with(&office).await;
    house.config.mail.smtp_url = Some(office.url.replace("//", "//shop:hush@").into());
    let id = house.write().await;
    let outbox = house.start();
    assert!(office.next().await.contains(&format!("Message-ID: <{id}@example.com>\r\n")));
    outbox.stop().await;
    assert_eq!(house.waiting().await, 0);
}

#[tokio::test]
async fn a_crash_between_taken_and_marked_sends_the_same_mail_twice_and_no_other() {
    let mut office = PostOffice::open(&["250 taken"]).await;
    let house = House::with(&office).await;
    let id = house.write().await;
    // As much of a try as a crash leaves: claimed and sent, never marked; and its lease has run out.
    let rows = house.tables.outbox();
    let now = house.clock.now();
    let claimed = rows.claim(LetterClass::Unproved, now, now, 1).await.unwrap();
    let message = house.words().message(&letter(), Locale::Ko).unwrap();
    let sent = house.mailer().send(id, &mina(), message, claimed[0].mail.created_at).await;
    assert_eq!(sent, Ok(Sent::Accepted));
    let first = office.next().await;

    let outbox = house.start();
    let second = office.next().await;
    let head = |mail: &str, name: &str| mail.lines().find(|line| line.starts_with(name)).map(str::to_owned);
    for name in ["Message-ID: ", "Date: ", "To: ", "Subject: "] {
        assert!(head(&first, name).is_some() && head(&first, name) == head(&second, name), "{name}");
    }
    outbox.stop().await;
    assert_eq!(house.waiting().await, 0);
    assert!(!rows.done(&claimed[0]).await.unwrap());
}

/// Nobody knows whether it was taken: better twice than never.
#[tokio::test]
async fn a_letter_to_which_nothing_was_said_comes_again_as_the_same_mail() {
    comes_again(&[GONE, "250 taken"]).await;
}

#[tokio::test]
async fn where_tls_is_asked_for_nothing_is_said_without_it() {
    let mut office = PostOffice::open(&["250 taken"]).await;
    let mut house = House::with(&office).await;
    house.config.mail.smtp_url = Some(format!("{}?tls=required", office.url).into());
    let message = house.words().message(&letter(), Locale::En).unwrap();
    let now = house.clock.now();
    let sent = house.mailer().send(MailId::new(now, 1), &mina(), message, now).await;
    assert!(matches!(sent, Err(MailError::Unavailable(_))), "{sent:?}");
    assert!(office.heard.try_recv().is_err());
}

/// In a process of its own, for all senders of one process are counted together.
#[tokio::test]
async fn what_became_of_each_try_is_counted() {
    let mut office = PostOffice::open(&["451 not now", "250 taken", "550 nobody is called so"]).await;
    let folder = tempfile::tempdir().unwrap();
    let shop = Process::start(folder.path(), &[("STOCKADE_SMTP_URL", office.url.as_str())]).await;
    assert_eq!(shop.sign_up(&Person::number(1)).await.status, 202);
    let first = message_id(&office.next().await);
    assert_eq!(message_id(&office.next().await), first);
    assert_eq!(shop.sign_up(&Person::number(2)).await.status, 202);
    office.next().await;
    shop.counts(r#"stockade_mails_total{outcome="refused"}"#, 1).await;
    for (outcome, times) in [("retried", 1), ("sent", 1), ("refused", 1), ("given_up", 0), ("too_late", 0)] {
        let count = shop.count(&format!(r#"stockade_mails_total{{outcome="{outcome}"}}"#)).await;
        assert_eq!(count, times, "{outcome}");
    }
    shop.stop().await;
}

/// Where no server is set, the log says which file a letter has become.
#[tokio::test]
async fn a_letter_that_is_written_to_a_folder_is_named_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Process::start(folder.path(), &[]).await;
    let mina = Person::number(1);
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    shop.says(" was written to ").await;
    let log = shop.log();
    let line = log.lines().find(|line| line.contains(" was written to ")).unwrap();
    let (_, path) = line.split_once(" path=").unwrap_or_else(|| panic!("no path in {line}"));
    let path = path.split(' ').next().unwrap();
    assert!(path.ends_with(".eml"), "{line}");
    assert!(std::fs::read_to_string(path).unwrap().contains(&format!("To: {}", mina.email)), "{line}");
    shop.stop().await;
}

/// Each leaves at its time, and once; and whoever has a share of his own does not wait behind them.
#[tokio::test]
async fn what_has_no_room_in_this_hour_leaves_in_a_later_one() {
    let mut office = PostOffice::open_to_all().await;
    let mut house = House::with(&office).await;
    house.config.mail.letters = PostageLimits { per_hour: 8, unproved_per_hour: 2 };
    let mut written = Vec::new();
    for _ in 0..5 {
        written.push(format!("Message-ID: <{}@example.com>", house.write().await));
    }
    let outbox = house.start();
    let mut heard = Vec::new();
    for leave in [2, 2, 1] {
        for _ in 0..leave {
            heard.push(message_id(&office.next().await));
        }
        // The second of these is looked for after the others were: one of them too many would be heard before it.
        for _ in 0..2 {
            let warning = house.write_this(&Letter::PasswordChanged).await;
            outbox.wake();
            assert_eq!(message_id(&office.next().await), format!("Message-ID: <{warning}@example.com>"));
        }
        house.clock.advance(61 * 60_000);
        outbox.wake();
    }
    outbox.stop().await;
    assert_eq!(house.waiting().await, 0);
    assert!(office.heard.try_recv().is_err());
    heard.sort();
    written.sort();
    assert_eq!(heard, written);
}

fn message_id(mail: &str) -> String {
    mail.lines().find(|line| line.starts_with("Message-ID: ")).unwrap().to_owned()
}
