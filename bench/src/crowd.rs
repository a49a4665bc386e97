//! People at the account doors while others order: accounts made as people make them, by signing up and following the
//! link of the letter, and a crowd that logs in with them again and again.
//!
//! Every client comes from an address of its own, for the bench stands before its shop as a proxy would. Four log-ins
//! of five are right; the fifth is somebody nobody knows, who costs as much. Whoever is told to come back later does.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Result, anyhow, bail, ensure};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep};

use crate::client::{Client, Reply, each};
use crate::clock::{Nanos, as_seconds, now_ns};
use crate::judge::Verdict;
use crate::shop::Shop;

/// Accounts that the crowd shares. Each costs a hash before the run begins.
const ACCOUNTS: usize = 50;
/// One log-in in so many is by a stranger.
const STRANGER_EVERY: u64 = 5;
const LETTERS_WITHIN: Duration = Duration::from_secs(60);
/// Where nobody says how long to wait.
const PAUSE: Duration = Duration::from_secs(1);

/// What the crowd heard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogIns {
    pub parallel: usize,
    pub seconds: f64,
    /// Answers by what they mean.
    pub heard: BTreeMap<String, u64>,
}

/// A crowd that is logging in.
pub struct Crowd {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<LogIns>>,
}

struct Account {
    number: usize,
    email: String,
    password: String,
}

/// Answers so far.
#[derive(Default)]
struct Tally {
    opened: Cell<u64>,
    wrong: Cell<u64>,
    overloaded: Cell<u64>,
    limited: Cell<u64>,
    cut: Cell<u64>,
    unexpected: Cell<u64>,
}

impl LogIns {
    pub fn of(&self, word: &str) -> u64 {
        self.heard.get(word).copied().unwrap_or(0)
    }

    /// A flood is answered with what is promised, and some of it gets through.
    pub fn verdict(&self) -> Verdict {
        let words: Vec<String> = self.heard.iter().map(|(word, count)| format!("{word} {count}")).collect();
        let detail = format!("{} in parallel for {:.1} s: {}", self.parallel, self.seconds, words.join(", "));
        match self.of("opened") > 0 && self.of("unexpected") == 0 && self.of("cut") == 0 {
            true => Verdict::pass("log-ins", detail),
            false => Verdict::fail("log-ins", detail),
        }
    }
}

impl Crowd {
    /// Makes the accounts of a running shop, and begins to log in.
    pub async fn gather(shop: &Shop, parallel: usize) -> Result<Self> {
        let target = shop.target();
        let accounts: Vec<Account> = (0..ACCOUNTS).map(Account::number).collect();
        each(target, ACCOUNTS, &accounts, async |client, account| account.sign_up(client).await).await?;
        let links = letters(&shop.data_dir().join("mail")).await?;
        each(target, 8, &links, async |client, token| verify(client, token).await).await?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("log-ins".into())
            .spawn(move || crowd(target, &accounts, parallel, stopped))?;
        Ok(Self { stop, thread })
    }

    /// Sends everybody home.
    pub fn disperse(self) -> Result<LogIns> {
        // Without a listener it has ended already, and says so itself.
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| anyhow!("the crowd at the account doors panicked"))?
    }
}

fn crowd(
    target: SocketAddr,
    accounts: &[Account],
    parallel: usize,
    stopped: oneshot::Receiver<()>,
) -> Result<LogIns> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (tally, began) = (Tally::default(), now_ns());
    runtime.block_on(async {
        let clients = (0..parallel).map(|number| log_in_again_and_again(target, accounts, number, &tally));
        tokio::select! {
            _ = stopped => {}
            _ = join_all(clients) => {}
        }
    });
    Ok(tally.log_ins(parallel, now_ns() - began))
}

/// Never ends.
async fn log_in_again_and_again(target: SocketAddr, accounts: &[Account], number: usize, tally: &Tally) {
    let (mut client, address) = (Client::new(target), address(number));
    for attempt in number as u64.. {
        let stranger = (attempt % STRANGER_EVERY == 0).then(|| Account {
            email: format!("nobody.{number}.{attempt}@example.com"),
            ..Account::number(number)
        });
        let body = stranger.as_ref().unwrap_or(&accounts[number % accounts.len()]).credentials();
        let answer = client.send(&post(target, "/v1/sessions", &address, &body)).await;
        if let Some(pause) = tally.count(answer) {
            sleep(pause).await;
        }
    }
}

impl Tally {
    /// Counts an answer; how long to wait before the next try.
    fn count(&self, answer: Result<Reply>) -> Option<Duration> {
        let (counter, comes_back) = match &answer {
            Err(_) => (&self.cut, true),
            Ok(reply) => match reply.status {
                201 => (&self.opened, false),
                401 => (&self.wrong, false),
                503 => (&self.overloaded, true),
                429 => (&self.limited, true),
                _ => (&self.unexpected, true),
            },
        };
        counter.set(counter.get() + 1);
        let told = answer.ok().and_then(|reply| reply.retry_after_s).map(Duration::from_secs);
        comes_back.then(|| told.unwrap_or(PAUSE))
    }

    fn log_ins(&self, parallel: usize, took: Nanos) -> LogIns {
        let heard = [
            ("opened", &self.opened),
            ("wrong", &self.wrong),
            ("overloaded", &self.overloaded),
            ("rate_limited", &self.limited),
            ("cut", &self.cut),
            ("unexpected", &self.unexpected),
        ];
        let heard = heard.into_iter().filter(|(_, count)| count.get() > 0);
        LogIns {
            parallel,
            seconds: as_seconds(took),
            heard: heard.map(|(word, count)| (word.to_owned(), count.get())).collect(),
        }
    }
}

impl Account {
    fn number(number: usize) -> Self {
        let email = format!("mina.{number}@example.com");
        Self { number, email, password: format!("four foxes fly far {number}") }
    }

    fn credentials(&self) -> String {
        json!({ "email": self.email, "password": self.password }).to_string()
    }

    async fn sign_up(&self, client: &mut Client) -> Result<()> {
        let Self { number, email, password } = self;
        let body = json!({
            "email": email,
            "password": password,
            "name": "Mina Park",
            "phone": format!("010-2345-{:04}", 1_000 + number),
            "address": { "line1": "Teheran-ro 1", "city": "Seoul", "postal_code": "06236", "country": "KR" },
        });
        let request = post(client.target(), "/v1/users", &address(*number), &body.to_string());
        let reply = client.send(&request).await?;
        ensure!(reply.status == 202, "a sign-up was answered {}: {}", reply.status, reply.text());
        Ok(())
    }
}

async fn verify(client: &mut Client, token: &String) -> Result<()> {
    let body = json!({ "token": token }).to_string();
    let reply = client.send(&post(client.target(), "/v1/users/verify", "127.0.0.1", &body)).await?;
    ensure!(reply.status == 204, "a verification was answered {}: {}", reply.status, reply.text());
    Ok(())
}

/// The tokens of all letters, when they have come.
async fn letters(folder: &Path) -> Result<Vec<String>> {
    let began = Instant::now();
    loop {
        let mut tokens = Vec::new();
        for file in std::fs::read_dir(folder).into_iter().flatten() {
            // One that is being written has no whole link yet; the next look sees it.
            tokens.extend(token_of(&std::fs::read_to_string(file?.path()).unwrap_or_default()));
        }
        if tokens.len() >= ACCOUNTS {
            return Ok(tokens);
        }
        if began.elapsed() > LETTERS_WITHIN {
            bail!("{} of {ACCOUNTS} letters came within {LETTERS_WITHIN:?}", tokens.len());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The token in a letter's link. What quoted-printable did to it (RFC 2045 §6.7) is undone.
fn token_of(letter: &str) -> Option<String> {
    let plain = letter.replace("=\r\n", "").replace("=3D", "=");
    let (_, behind) = plain.split_once("#token=")?;
    let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')?;
    Some(behind[..end].to_owned())
}

/// A client's own address: in the networks set aside for measuring (RFC 2544).
fn address(number: usize) -> String {
    format!("198.{}.{}.{}", 18 + (number >> 16 & 1), number >> 8 & 255, number & 255)
}

fn post(target: SocketAddr, path: &str, from: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {target}\r\nContent-Type: application/json\r\nAccept-Language: en\r\n\
         X-Forwarded-For: {from}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_out_of_a_letter_however_its_lines_were_broken() {
        let plain = "Open http://127.0.0.1:1/verify#token=verify_4f-_x\r\nwithin a day";
        assert_eq!(token_of(plain).as_deref(), Some("verify_4f-_x"));
        let quoted = "<a href=3D\"http://h/verify#token=3Dverify_4f=\r\n-_x\">";
        assert_eq!(token_of(quoted).as_deref(), Some("verify_4f-_x"));
        assert_eq!(token_of("verify#token=verify_half"), None);
    }

    #[test]
    fn only_what_is_promised_passes() {
        let tally = Tally::default();
        let reply = |status| Ok(Reply { status, retry_after_s: Some(2), replayed: false, body: Vec::new() });
        assert_eq!(tally.count(reply(201)), None);
        assert_eq!(tally.count(reply(401)), None);
        assert_eq!(tally.count(reply(503)), Some(Duration::from_secs(2)));
        let log_ins = tally.log_ins(4, 1);
        assert_eq!((log_ins.of("opened"), log_ins.of("overloaded"), log_ins.of("cut")), (1, 1, 0));
        assert!(log_ins.verdict().ruling == crate::judge::Ruling::Pass);
        tally.count(reply(500));
        assert!(tally.log_ins(4, 1).verdict().ruling == crate::judge::Ruling::Fail);
    }
}
