//! The journey through a mail server that we did not write, and what becomes of a letter while it does not take our password: aiosmtpd,
//! from a virtual environment.
//!
//! `AIOSMTPD_PYTHON` names a Python that has it, and then it must work; `scripts/verify` installs one and sets it. Without
//! it, on a machine that has none, there is nothing to prove, and the test says so.

mod support;

use support::stranger::Stranger;
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
}

/// The Python that has the server, if there is one.
fn python() -> Option<String> {
    let named = std::env::var("AIOSMTPD_PYTHON").ok();
    if named.is_none() {
        eprintln!("AIOSMTPD_PYTHON names no Python with aiosmtpd: this is proved by scripts/verify");
    }
    named
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
