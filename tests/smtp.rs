//! The journey through a mail server that we did not write, what becomes of a letter while it does not take our password, and to whom
//! one goes over TLS: aiosmtpd, from a virtual environment, with certificates that `openssl` makes.
//!
//! `AIOSMTPD_PYTHON` names a Python that has it, and then it must work; `scripts/verify` installs one and sets it. Without
//! it, on a machine that has none, there is nothing to prove, and the test says so; where `CI` is set it fails.

mod support;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use stockade::clock::Clock;
use stockade::config::Config;
use stockade::domain::id::MailId;
use stockade::domain::user::{Email, Locale};
use stockade::mail::{Letter, MailError, Mailer, Sent, Words};
use support::stranger::{self, Stranger};
use support::{Pair, Person, Shop, letters_in, one_line, wait_for};
use tempfile::TempDir;

struct PostOffice {
    folder: TempDir,
    process: Stranger,
}

impl PostOffice {
    fn open(python: &str) -> PostOffice {
        let folder = tempfile::tempdir().unwrap();
        let process = Stranger::open(python, "smtp/server.py", [folder.path()]);
        PostOffice { folder, process }
    }

    /// One that takes nothing but over TLS, which begins in this way.
    fn open_over_tls(python: &str, way: &str) -> PostOffice {
        let folder = tempfile::tempdir().unwrap();
        certify(folder.path());
        let args = [folder.path().as_os_str(), OsStr::new(way)];
        let process = Stranger::open(python, "smtp/server.py", args);
        PostOffice { folder, process }
    }
}

/// The Python that has the server, if there is one.
fn python() -> Option<String> {
    stranger::python("AIOSMTPD_PYTHON", "aiosmtpd")
}

/// An authority of a test's own, `authority.pem`, vouches for a server on this machine: `server.pem`, with its key.
fn certify(folder: &Path) {
    let extensions = "[req]\ndistinguished_name = name\n[name]\n\
        [authority]\nbasicConstraints = critical, CA:TRUE\n\
        [server]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1\n";
    std::fs::write(folder.join("extensions"), extensions).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config extensions";
    let root = "-extensions authority -days 2 -keyout authority.key -out authority.pem";
    let by = "-CA authority.pem -CAkey authority.key -set_serial 1 -days 2";
    for line in [
        format!("req -x509 {key} -subj /CN=authority {root}"),
        format!("req {key} -subj /CN=server -keyout server.key -out server.csr"),
        format!("x509 -req -in server.csr {by} -extfile extensions -extensions server -out server.pem"),
    ] {
        let said = Command::new("openssl").args(line.split(' ')).current_dir(folder).output();
        let said = said.expect("openssl makes certificates; is it installed?");
        assert!(said.status.success(), "{line}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

/// ASVS 12.3.1, 12.3.4: a letter crosses a network sealed, to a server for which an authority vouches that the operator believes, and to
/// nobody else: neither where nobody vouches, nor where somebody of the same name does.
#[actix_web::test]
async fn a_letter_goes_over_tls_to_whom_an_authority_vouches_for() {
    let Some(python) = python() else { return };
    let another = tempfile::tempdir().unwrap();
    certify(another.path());
    for (way, url) in
        [("smtps", "smtps://127.0.0.1:PORT"), ("starttls", "smtp://127.0.0.1:PORT?tls=required")]
    {
        let post = PostOffice::open_over_tls(&python, way);
        let url = url.replace("PORT", &post.process.port.to_string());
        let send = async |vouched_by: Option<&Path>| {
            let mut config = Config::development(post.folder.path()).mail;
            config.smtp_url = Some(url.clone().into());
            config.smtp_roots = vouched_by.map(|folder| folder.join("authority.pem"));
            assert_eq!(Mailer::check(&config), Ok(()));
            let mailer = Mailer::new(&config, post.folder.path()).unwrap();
            let words = Words::new(&config.public_url).unwrap();
            let message = words.message(&Letter::PasswordChanged, Locale::En).unwrap();
            let (now, to) = (Clock::start().now(), Email::parse("mina@example.com").unwrap());
            mailer.send(MailId::new(now, 7), &to, message, now).await
        };
        for vouched_by in [None, Some(another.path())] {
            let sent = send(vouched_by).await;
            assert!(matches!(sent, Err(MailError::Unavailable(_))), "{way}: {sent:?}");
        }
        assert!(letters_in(post.folder.path()).is_empty());
        assert_eq!(send(Some(post.folder.path())).await, Ok(Sent::Accepted), "{way}");
        assert_eq!(letters_in(post.folder.path())[0].to, "mina@example.com");
    }
}

#[actix_web::test]
async fn a_letter_waits_until_the_password_is_put_right() {
    let Some(python) = python() else { return };
    let post = PostOffice::open(&python);
    let password = post.folder.path().join("password");
    std::fs::write(&password, "changed").unwrap();
    let url = format!("smtp://shop:hush@127.0.0.1:{}", post.process.port);
    let shop = Shop::open_with(|config| config.mail.smtp_url = Some(url.into())).await;
    let mina = Person::number(1);
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    let refused = post.folder.path().join("refused");
    wait_for(|| refused.exists().then_some(())).await;
    assert!(letters_in(post.folder.path()).is_empty());
    std::fs::write(&password, "hush").unwrap();
    let letter = wait_for(|| letters_in(post.folder.path()).pop()).await;
    assert_eq!(letter.to, mina.email);
    shop.close().await;
}

#[actix_web::test]
async fn the_journey_through_a_real_mail_server() {
    let Some(python) = python() else { return };
    let post = PostOffice::open(&python);
    let url = format!("smtp://127.0.0.1:{}", post.process.port);
    let shop = Shop::open_with(|config| config.mail.smtp_url = Some(url.into())).await;
    let product = shop.stocked(1).await;
    let mina = Person::number(1);
    assert_eq!(shop.sign_up(&mina).await.status, 202);
    let letter = wait_for(|| letters_in(post.folder.path()).pop()).await;
    assert_eq!(letter.to, mina.email);
    assert!(letter.head.contains("Message-ID: <mail_") && letter.head.contains("multipart/alternative"));
    assert_eq!(shop.verify(&letter.token()).await.status, 204);
    let pair = shop.log_in(&mina).await;
    shop.as_of(&pair, "POST", "/v1/orders").json(&one_line(&product, 1)).send().await.ok(201);
    let next = Pair::of(&shop.try_refresh(&pair.refresh).await);
    assert_eq!(shop.as_of(&next, "DELETE", "/v1/sessions/current").send().await.status, 204);
    assert!(!shop.admits(&pair.access).await && !shop.admits(&next.access).await);
    assert!(shop.letters().is_empty(), "no file where there is a server");
    shop.close().await;
}
