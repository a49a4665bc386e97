//! People who come to a shop: what they say about themselves, the letters they get, and the tokens they hold.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{Ask, Reply, Shop};

/// No letter takes longer.
const LETTER_WITHIN: Duration = Duration::from_secs(20);

/// How often the trail of a shop that has stopped tells of this.
pub async fn told_in_trail(folder: &Path, kind: &str) -> usize {
    let trail = stockade::persistence::Tables::read_only(folder).trail();
    trail.before(i64::MAX, 100).await.unwrap().iter().filter(|entry| entry.kind == kind).count()
}

/// A list on which these passwords stand, as Have I Been Pwned gives it out.
pub fn breached_list(passwords: &[&str]) -> String {
    let line = |password: &&str| {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let digits: String = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        format!("{digits}:{}\r\n", password.len())
    };
    passwords.iter().map(line).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Somebody with an address, a number and a password of their own.
#[derive(Debug, Clone)]
pub struct Person {
    pub email: String,
    pub password: String,
    pub name: String,
    pub phone: String,
    pub street: String,
}

/// A letter as its reader sees it.
#[derive(Debug, Clone)]
pub struct Letter {
    pub to: String,
    pub head: String,
    pub text: String,
}

/// What a log-in gives.
#[derive(Debug, Clone)]
pub struct Pair {
    pub access: String,
    pub refresh: String,
}

impl Person {
    /// The how-manieth of a test.
    pub fn number(number: u32) -> Person {
        Person {
            email: format!("mina.park.{number}@example.com"),
            password: format!("four foxes fly far {number}"),
            name: format!("Mina Park the {number}th"),
            phone: format!("010-2345-{:04}", 1_000 + number),
            street: format!("Teheran-ro {number}, a house with a blue door"),
        }
    }

    pub fn words(&self) -> Value {
        json!({
            "email": self.email,
            "password": self.password,
            "name": self.name,
            "phone": self.phone,
            "address": { "line1": self.street, "city": "Seoul", "postal_code": "06236", "country": "KR" },
        })
    }

    pub fn credentials(&self) -> Value {
        json!({ "email": self.email, "password": self.password })
    }
}

impl Letter {
    /// They come when the tables have followed, beside whatever else is written to somebody.
    pub fn is_about_an_order(&self) -> bool {
        self.text.contains("/orders/order_")
    }

    /// The token behind the `#` of its link.
    #[track_caller]
    pub fn token(&self) -> String {
        let (_, rest) = self.text.split_once("#token=").unwrap_or_else(|| panic!("no link in {}", self.text));
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect()
    }
}

impl Pair {
    #[track_caller]
    pub fn of(reply: &Reply) -> Pair {
        assert!(reply.status.is_success(), "{}", reply.text);
        let body = reply.json();
        let word = |name: &str| body[name].as_str().unwrap().to_owned();
        Pair { access: word("access_token"), refresh: word("refresh_token") }
    }
}

impl Shop {
    /// Every letter about an account so far, oldest first.
    pub fn letters(&self) -> Vec<Letter> {
        let mut letters = letters_in(&self.folder().join("mail"));
        letters.retain(|letter| !letter.is_about_an_order());
        letters
    }

    /// Every letter about an order so far, in the order of its life.
    pub fn letters_about(&self, order: &str) -> Vec<Letter> {
        let mut letters = letters_in(&self.folder().join("mail"));
        letters.retain(|letter| letter.is_about_an_order() && letter.text.contains(order));
        letters
    }

    pub fn letters_to(&self, email: &str) -> Vec<Letter> {
        let mut letters = self.letters();
        letters.retain(|letter| letter.to.eq_ignore_ascii_case(email));
        letters
    }

    /// The how-manieth letter to somebody, when it has come.
    pub async fn letter(&self, email: &str, number: usize) -> Letter {
        wait_for(|| self.letters_to(email).into_iter().nth(number - 1)).await
    }

    pub fn post(&self, path: &str, body: &Value) -> Ask {
        self.ask("POST", path).json(body)
    }

    pub async fn sign_up(&self, person: &Person) -> Reply {
        self.post("/v1/users", &person.words()).send().await
    }

    pub async fn verify(&self, token: &str) -> Reply {
        self.post("/v1/users/verify", &json!({ "token": token })).send().await
    }

    /// Somebody new, who has signed up and followed the link.
    pub async fn newcomer(&self, number: u32) -> Person {
        let person = Person::number(number);
        assert_eq!(self.sign_up(&person).await.status, 202);
        let letter = self.letter(&person.email, 1).await;
        let verified = self.verify(&letter.token()).await;
        assert_eq!(verified.status, 204, "{}", verified.text);
        person
    }

    pub async fn try_log_in(&self, person: &Person) -> Reply {
        self.post("/v1/sessions", &person.credentials()).send().await
    }

    pub async fn log_in(&self, person: &Person) -> Pair {
        Pair::of(&self.try_log_in(person).await)
    }

    pub async fn try_refresh(&self, refresh: &str) -> Reply {
        self.post("/v1/sessions/refresh", &json!({ "refresh_token": refresh })).send().await
    }

    /// With somebody's access token.
    pub fn as_of(&self, pair: &Pair, method: &str, path: &str) -> Ask {
        self.ask(method, path).bearer(&pair.access)
    }

    /// Whether an access token still opens a door.
    pub async fn admits(&self, access: &str) -> bool {
        match self.get("/v1/users/me").bearer(access).send().await.status.as_u16() {
            200 => true,
            401 => false,
            other => panic!("{other}"),
        }
    }

    /// The id of somebody's account.
    pub async fn id_of(&self, pair: &Pair) -> String {
        super::id(&self.as_of(pair, "GET", "/v1/users/me").send().await.ok(200))
    }
}

/// Every letter in a folder, by the names of their files.
pub fn letters_in(folder: &Path) -> Vec<Letter> {
    let Ok(folder) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "eml"));
    files.sort();
    files.iter().map(|path| letter(&std::fs::read_to_string(path).unwrap())).collect()
}

/// What somebody else does in their own time: asked for until it is there.
pub async fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let coming = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LETTER_WITHIN, coming).await.expect("it came in time")
}

fn letter(eml: &str) -> Letter {
    let (head, body) = eml.split_once("\r\n\r\n").unwrap();
    let to = head.lines().find_map(|line| line.strip_prefix("To: ")).unwrap();
    let to = to.trim_start_matches('<').trim_end_matches('>').to_owned();
    // The whole boundary: a line of quoted-printable may well begin with two dashes of a token.
    let (_, behind) = head.split_once("boundary=\"").unwrap();
    let boundary = format!("--{}", behind.split_once('"').unwrap().0);
    Letter { to, head: head.to_owned(), text: body.split(&boundary).map(part).collect() }
}

/// One part of a multipart body, in the clear.
fn part(part: &str) -> String {
    let Some((head, body)) = part.split_once("\r\n\r\n") else { return part.to_owned() };
    let head = head.to_lowercase();
    if head.contains("base64") {
        let bytes = BASE64_STANDARD.decode(body.split_whitespace().collect::<String>()).unwrap();
        String::from_utf8(bytes).unwrap()
    } else if head.contains("quoted-printable") {
        unquoted(body)
    } else {
        body.to_owned()
    }
}

/// Quoted-printable (RFC 2045 §6.7).
fn unquoted(text: &str) -> String {
    let text = text.replace("=\r\n", "");
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let code = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| *first == b'=') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}
