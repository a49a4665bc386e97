//! How a message leaves the house: to a mail server, or into a folder where none is configured.
//!
//! A mail that is sent twice carries the same `Message-ID` both times, so the reader's program shows it once. What a server
//! answers may repeat the address, so only its status code is passed on. Always true: a mail is refused for good by what is said
//! about itself or its reader alone; what is said about us, a password or a sender's address, can be put right, and the mail waits.

use std::error::Error as _;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::{self, AsyncSmtpTransportBuilder, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use reqwest::Url;
use secrecy::ExposeSecret;

use super::Message;
use crate::config::Mail;
use crate::domain::id::MailId;
use crate::domain::stock::Millis;
use crate::domain::user::Email;

/// For one step of a conversation with the server.
const STEP_WITHIN: Duration = Duration::from_secs(15);
/// Open connections to the server.
pub const CONNECTIONS_MAX: u32 = 4;
const IDLE_FOR: Duration = Duration::from_secs(30);
const FOLDER: &str = "mail";

/// Where a message went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The server has taken it.
    Accepted,
    Written(PathBuf),
}

/// Why a message did not go. None of it names an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    #[error("no mail can be sent as it is configured: {0}")]
    Config(String),
    /// It is about this mail or its reader: trying again changes nothing.
    #[error("refused for good ({0})")]
    Refused(Why),
    #[error("not taken now ({0})")]
    Unavailable(Why),
}

impl MailError {
    /// Nobody knows whether it was taken.
    pub const TIME_OUT: MailError = MailError::Unavailable(Why::Word("time-out"));
}

/// The server's status code, or what went wrong before it had one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Status(u16),
    Word(&'static str),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Why::Status(code) => write!(f, "status {code}"),
            Why::Word(word) => f.write_str(word),
        }
    }
}

/// Sends messages.
pub struct Mailer {
    from: Mailbox,
    way: Way,
}

enum Way {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Folder(PathBuf),
}

impl Mailer {
    /// Opens no connection yet.
    pub fn new(config: &Mail, data_dir: &Path) -> Result<Mailer, MailError> {
        let way = match server(config)? {
            Some(server) => {
                let pool = PoolConfig::new().max_size(CONNECTIONS_MAX).idle_timeout(IDLE_FOR);
                Way::Smtp(server.timeout(Some(STEP_WITHIN)).pool_config(pool).build())
            }
            None => Way::Folder(data_dir.join(FOLDER)),
        };
        Ok(Mailer { from: config.from.clone(), way })
    }

    /// Whether there can be one under this configuration. A node may come to need it long after it has started.
    pub fn check(config: &Mail) -> Result<(), MailError> {
        server(config).map(drop)
    }

    /// Hands the message over. An error means that it was not taken, or that nobody knows.
    pub async fn send(
        &self,
        id: MailId,
        to: &Email,
        message: Message,
        now: Millis,
    ) -> Result<Sent, MailError> {
        let mail = self.mail(id, to, message, now)?;
        match &self.way {
            Way::Smtp(server) => match server.send(mail).await {
                Ok(_) => Ok(Sent::Accepted),
                Err(error) => {
                    let why = told(&error, self.from.email.as_ref());
                    // The words may have been meant for us all the same. Whoever is not let in any more was not refused for his letter.
                    match why {
                        MailError::Refused(why) if !matches!(server.test_connection().await, Ok(true)) => {
                            Err(MailError::Unavailable(why))
                        }
                        why => Err(why),
                    }
                }
            },
            Way::Folder(folder) => {
                let path = folder.join(format!("{id}.eml"));
                write(folder, &path, &mail.formatted())
                    .map(|()| Sent::Written(path))
                    .map_err(|_| MailError::Unavailable(Why::Word("the mail folder cannot be written")))
            }
        }
    }

    fn mail(
        &self,
        id: MailId,
        to: &Email,
        message: Message,
        now: Millis,
    ) -> Result<lettre::Message, MailError> {
        let to = to
            .written()
            .parse()
            .map_err(|_| MailError::Refused(Why::Word("no server knows such an address")))?;
        let date = UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
        lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(message.subject)
            .date(date)
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            // No machine answers it (RFC 3834).
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()))
            .multipart(MultiPart::alternative_plain_html(message.plain, message.html))
            .map_err(|_| MailError::Refused(Why::Word("the message cannot be put together")))
    }
}

/// The mail server as its address says it, if there is one.
fn server(config: &Mail) -> Result<Option<AsyncSmtpTransportBuilder>, MailError> {
    let roots = config.smtp_roots.as_deref().map(roots).transpose()?;
    let Some(url) = &config.smtp_url else { return Ok(None) };
    let unusable = |why: String| MailError::Config(format!("STOCKADE_SMTP_URL: {why}"));
    let url = url.expose_secret();
    let server =
        AsyncSmtpTransport::<Tokio1Executor>::from_url(url).map_err(|error| unusable(error.to_string()))?;
    let Some(roots) = roots else { return Ok(Some(server)) };
    // What the client has made of the address believes everybody's roots alone, so it is made once more.
    let url = Url::parse(url).map_err(|error| unusable(error.to_string()))?;
    let tls = trusting(roots, url.host_str().unwrap_or_default());
    let tls = tls.map_err(|error| unusable(error.to_string()))?;
    let when = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, when)| when.into_owned());
    Ok(Some(match (url.scheme(), when.as_deref()) {
        ("smtps", _) => server.tls(Tls::Wrapper(tls)),
        (_, Some("required")) => server.tls(Tls::Required(tls)),
        (_, Some("opportunistic")) => server.tls(Tls::Opportunistic(tls)),
        _ => server,
    }))
}

/// The operator's own authorities. A file that says nothing usable would be found out by letters that do not leave.
fn roots(file: &Path) -> Result<Certificate, MailError> {
    let unusable = |why: &str| {
        let file = file.display();
        MailError::Config(format!("STOCKADE_SMTP_ROOTS: {file} cannot be used as certificates: {why}"))
    };
    let pem = std::fs::read(file).map_err(|error| unusable(&error.to_string()))?;
    // Whatever is no certificate is passed over, so a file without one would be read as none, and not as a mistake.
    let begin = "-----BEGIN CERTIFICATE-----";
    if !String::from_utf8_lossy(&pem).lines().any(|line| line.starts_with(begin)) {
        return Err(unusable(&format!("no line of it is {begin}")));
    }
    let roots = Certificate::from_pem(&pem).map_err(|error| unusable(&error.to_string()))?;
    // What stands in them is looked at only when somebody is to believe them.
    trusting(roots.clone(), "localhost").map_err(|error| unusable(&error.to_string()))?;
    Ok(roots)
}

/// TLS with the host of this name, for whom these may vouch as well.
fn trusting(roots: Certificate, host: &str) -> Result<TlsParameters, smtp::Error> {
    TlsParameters::builder(host.to_owned()).add_root_certificate(roots).build()
}

fn told(error: &smtp::Error, from: &str) -> MailError {
    let why = match error.status() {
        Some(status) => Why::Status(u16::from(status)),
        None if error.is_timeout() => Why::Word("time-out"),
        None if error.is_tls() => Why::Word("TLS"),
        None if error.is_client() => Why::Word("the server does not offer what is needed"),
        None => Why::Word("connection"),
    };
    let words = error.source().map(ToString::to_string).unwrap_or_default();
    match why {
        Why::Status(code) if is_about_the_letter(code, &words, from) => MailError::Refused(why),
        why => MailError::Unavailable(why),
    }
}

/// Replies that may be meant for one letter (RFC 5321, section 4.2.3, and RFC 7504). All others that end in *never* (530 and 535 among
/// them, RFC 4954) are about us or about how we speak.
const MEANT_FOR_ONE: [u16; 6] = [550, 551, 552, 553, 554, 556];
/// Words by which a server without finer codes says that it means us.
const MEANT_FOR_US: [&str; 7] =
    ["sender", "relay", "authenti", "not authori", "client host", "blocked", "policy"];

/// Is a reply about the letter or its reader, and not about who brings it? The client does not tell at which step it was given, so it
/// is taken by its codes, the finer one first (RFC 3463), and by its words where there is none.
fn is_about_the_letter(code: u16, words: &str, from: &str) -> bool {
    if !MEANT_FOR_ONE.contains(&code) {
        return false;
    }
    match finer(words) {
        // A sender's address: of a bad form, of a bad host.
        Some((1, 7 | 8)) => false,
        // The reader's address, or his box; the letter's size; what it holds.
        Some((1, 1..) | (2, _) | (3, 4) | (6, _)) => true,
        // Undefined: the words say more.
        Some((0 | 1, 0)) | None => {
            let words = words.to_lowercase();
            !words.contains(&from.to_lowercase()) && !MEANT_FOR_US.iter().any(|word| words.contains(word))
        }
        // Their machine, the way there, how we speak, who may send.
        Some(_) => false,
    }
}

/// The subject and the detail of `5.1.1`, with which the words of a reply may begin.
fn finer(words: &str) -> Option<(u16, u16)> {
    let mut numbers = words.split_whitespace().next()?.strip_prefix("5.")?.split('.');
    let pair = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    numbers.next().is_none().then_some(pair)
}

/// For the owner's eyes alone: a link in it is as good as a password.
/// Whoever watches the folder sees whole mails only. Its name is on the disk as well when this returns, for the row goes then.
fn write(folder: &Path, path: &Path, mail: &[u8]) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let part = path.with_extension("part");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(mail)?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    File::open(folder)?.sync_all()?;
    // The folder may be new, too.
    folder.parent().map_or(Ok(()), |data| File::open(data)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::domain::user::Locale;
    use crate::mail::{Letter, LinkToken, Words};
    use std::os::unix::fs::PermissionsExt;

    const NOW: Millis = Millis(1_800_000_000_000);

    fn message() -> Message {
        let letter = Letter::VerifyAddress { token: LinkToken::new("verify_4f-_x") };
        Words::new("https://shop.example.com").unwrap().message(&letter, Locale::Ko).unwrap()
    }

    #[tokio::test]
    async fn without_a_server_a_mail_is_a_file_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let mailer = Mailer::new(&Config::development(dir.path()).mail, dir.path()).unwrap();
        let (id, to) = (MailId::new(NOW, 7), Email::parse("Mina@example.com").unwrap());
        let Sent::Written(path) = mailer.send(id, &to, message(), NOW).await.unwrap() else {
            panic!("no file")
        };
        assert_eq!(path, dir.path().join(format!("mail/{id}.eml")));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mail = std::fs::read_to_string(&path).unwrap();
        for line in [
            "From: Stockade <no-reply@localhost.localdomain>",
            "To: Mina@example.com",
            "Subject: =?utf-8?b?",
            &format!("Message-ID: <{id}@localhost.localdomain>"),
            "Date: Fri, 15 Jan 2027 08:00:00 +0000",
            "Auto-Submitted: auto-generated",
            "Content-Type: multipart/alternative;",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Type: text/html; charset=utf-8",
        ] {
            assert!(mail.contains(line), "{line}\n{mail}");
        }
        // Sent again it is the same mail in the same place.
        assert_eq!(mailer.send(id, &to, message(), NOW).await, Ok(Sent::Written(path)));
        assert_eq!(std::fs::read_dir(dir.path().join("mail")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told_from_one_that_refuses() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::development(dir.path()).mail;
        config.smtp_url = Some(format!("smtp://{nobody}").into());
        let mailer = Mailer::new(&config, dir.path()).unwrap();
        let to = Email::parse("mina@example.com").unwrap();
        let sent = mailer.send(MailId::new(NOW, 7), &to, message(), NOW).await;
        assert_eq!(sent, Err(MailError::Unavailable(Why::Word("connection"))));
    }
}
