//! Whoever gets hold of the disk, or of the log, learns nothing about anybody: after whole lives of people, in Korean and
//! in English, every byte of the data directory and of the log is searched for what they said and what they held.
//!
//! The folder of mails is left out: it stands for the mail server, and is where the search must find something.

mod support;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::domain::user::Role;
use stockade::tokens::Tokens;
use support::{Letter, Pair, Person, Process, Reply, SECRET, one_line, user};

/// What is paid with: known as long as the payment runs, and no longer.
const TOKEN: &str = "means of payment";

/// What must not be found, by what it is.
#[derive(Default)]
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn keep(&mut self, what: &str, word: &str) {
        self.0.push((what.to_owned(), word.to_owned()));
    }

    fn keep_person(&mut self, person: &Person) {
        let Person { email, password, name, phone, street } = person;
        self.keep_email(email);
        self.keep_phone(phone);
        self.keep("password", password);
        self.keep("name", name);
        self.keep("address line", street);
    }

    fn keep_email(&mut self, email: &str) {
        self.keep("e-mail", email);
        self.keep("first part of an e-mail", email.split('@').next().unwrap());
    }

    /// As it was written, and as it is kept (E.164).
    fn keep_phone(&mut self, phone: &str) {
        let digits = phone.replace('-', "");
        self.keep("phone", phone);
        self.keep("phone", &digits);
        self.keep("phone", digits.strip_prefix('0').unwrap());
    }

    /// What a session's id may be known by stands beside the secret in a token; the secret may not.
    fn keep_pair(&mut self, pair: &Pair) {
        let mut access = pair.access.split('.').skip(1);
        self.keep("claims of an access token", access.next().unwrap());
        self.keep("signature of an access token", access.next().unwrap());
        let (word, mark) = pair.refresh.rsplit_once('.').unwrap();
        self.keep("refresh token", &word["sess_".len() + 26 + 1..]);
        self.keep("mark of a refresh token", mark);
    }

    fn keep_link(&mut self, token: &str) {
        self.keep("mailed token", token);
        self.keep("secret of a mailed token", &token[token.len() - 43..]);
    }

    fn search(&self) -> Search {
        let mut needles: HashMap<[u8; 4], Vec<Needle>> = HashMap::new();
        for (what, word) in &self.0 {
            assert!(word.chars().count() >= 4, "{what} {word:?} is too short to be looked for");
            let mut seen = BTreeSet::new();
            for (how, bytes) in disguises(word) {
                let bytes = bytes.to_ascii_lowercase();
                if !seen.insert(bytes.clone()) {
                    continue;
                }
                let first = bytes[..4].try_into().unwrap();
                needles
                    .entry(first)
                    .or_default()
                    .push(Needle { what: format!("{what} {word:?}{how}"), bytes });
            }
        }
        Search { needles }
    }
}

/// What a careless line of code makes of a word.
fn disguises(word: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = word.as_bytes();
    let joined = |each: fn(u8) -> String, between: &str| {
        bytes.iter().map(|byte| each(*byte)).collect::<Vec<_>>().join(between).into_bytes()
    };
    let escaped = word.encode_utf16().fold(String::new(), |mut text, unit| {
        match u8::try_from(unit) {
            Ok(ascii) if ascii.is_ascii() => text.push(char::from(ascii)),
            _ => write!(text, "\\u{unit:04x}").unwrap(),
        }
        text
    });
    let mut all = vec![
        ("", bytes.to_vec()),
        (" with escapes", escaped.into_bytes()),
        (" percent-encoded", percent_encoded(bytes)),
        (" in hexadecimal", joined(|byte| format!("{byte:02x}"), "")),
        (" as a list of numbers", joined(|byte| byte.to_string(), ", ")),
        (" in UTF-16", word.encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ];
    // In base64 a word has three faces, by where it begins; their edges depend on what stands beside it.
    for before in 0..3 {
        let shifted = [&b"???"[..before], bytes].concat();
        let text = BASE64_STANDARD.encode(&shifted);
        let whole = &text[(before * 8).div_ceil(6)..shifted.len() / 3 * 4];
        if whole.len() >= 8 {
            all.push((" in base64", whole.as_bytes().to_vec()));
        }
    }
    all
}

fn percent_encoded(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().fold(Vec::new(), |mut text, byte| {
        match byte {
            b'-' | b'_' | b'.' => text.push(*byte),
            _ if byte.is_ascii_alphanumeric() => text.push(*byte),
            _ => text.extend_from_slice(format!("%{byte:02x}").as_bytes()),
        }
        text
    })
}

struct Needle {
    what: String,
    bytes: Vec<u8>,
}

/// Finds all secrets in one walk over the bytes, in whatever case.
struct Search {
    needles: HashMap<[u8; 4], Vec<Needle>>,
}

impl Search {
    fn of(&self, bytes: &[u8]) -> BTreeSet<&str> {
        let bytes = bytes.to_ascii_lowercase();
        let mut found = BTreeSet::new();
        for at in 0..bytes.len().saturating_sub(3) {
            let here = &bytes[at..];
            let Some(needles) = self.needles.get(&here[..4]) else { continue };
            let there = needles.iter().filter(|needle| here.starts_with(&needle.bytes));
            found.extend(there.map(|needle| needle.what.as_str()));
        }
        found
    }

    /// Complaints about a file or everything below a folder, but for the mails.
    fn under(&self, path: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for file in files_under(path) {
            let bytes = std::fs::read(&file).unwrap();
            found.extend(self.of(&bytes).iter().map(|what| format!("{}: {what}", file.display())));
        }
        found
    }
}

fn files_under(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| !path.ends_with("mail")).flat_map(|path| files_under(&path)).collect()
}

/// One person's whole life in a shop.
struct Life<'a> {
    process: &'a Process,
    secrets: &'a mut Secrets,
    person: Person,
    language: &'static str,
    /// Letters that have been read, by address.
    read: HashMap<String, usize>,
}

impl Life<'_> {
    async fn post(&self, path: &str, body: Value) -> Reply {
        self.process.post(path, &body).header("Accept-Language", self.language).send().await
    }

    async fn next_letter(&mut self, email: &str) -> Letter {
        let read = self.read.entry(email.to_owned()).or_default();
        *read += 1;
        self.process.letter(email, *read).await
    }

    /// The token of the next letter to an address.
    async fn link(&mut self, email: &str) -> String {
        let token = self.next_letter(email).await.token();
        self.secrets.keep_link(&token);
        token
    }

    fn opened(&mut self, reply: &Reply) -> Pair {
        let pair = Pair::of(reply);
        self.secrets.keep_pair(&pair);
        pair
    }

    async fn log_in(&mut self) -> Pair {
        let reply = self.process.try_log_in(&self.person).await;
        self.opened(&reply)
    }

    async fn begins(&mut self) {
        let (email, words) = (self.person.email.clone(), self.person.words());
        self.secrets.keep_person(&self.person);
        assert_eq!(self.post("/v1/users", words).await.status, 202);
        self.process.try_log_in(&self.person).await.problem(403, "email_not_verified");
        let token = self.link(&email).await;
        self.process.verify("verify_that-nobody-ever-sent").await.problem(410, "link_expired");
        assert_eq!(self.process.verify(&token).await.status, 204);
        self.process.verify(&token).await.problem(410, "link_expired");
        // Somebody signs up with an address, or a number, that is taken.
        assert_eq!(self.post("/v1/users", self.person.words()).await.status, 202);
        self.next_letter(&email).await;
        let other = Person { email: format!("other.{email}"), ..self.person.clone() };
        self.secrets.keep_email(&other.email);
        assert_eq!(self.post("/v1/users", other.words()).await.status, 202);
        self.next_letter(&email).await;
    }

    async fn orders(&mut self) {
        let pair = self.log_in().await;
        let wrong = Person { password: "a guess that is wrong".to_owned(), ..self.person.clone() };
        self.secrets.keep("wrong password", &wrong.password);
        self.process.try_log_in(&wrong).await.problem(401, "unauthenticated");
        let products = self.process.ask("GET", "/v1/products?limit=1").send().await.ok(200);
        let product = products["data"][0]["id"].as_str().unwrap();
        let order = self.process.as_of(&pair, "POST", "/v1/orders").json(&one_line(product, 1));
        let order = order.key("an-order-of-a-life").send().await.ok(201);
        let order = format!("/v1/orders/{}", support::id(&order));
        self.process.as_of(&pair, "GET", &order).send().await.ok(200);
        self.orders_elsewhere(&pair).await;
        let refreshed = self.process.try_refresh(&pair.refresh).await;
        let next = self.opened(&refreshed);
        let again = self.process.try_refresh(&next.refresh).await;
        self.opened(&again);
        // Stolen, or so it looks: the session ends.
        self.process.try_refresh(&pair.refresh).await.problem(401, "unauthenticated");
    }

    /// To an address that is not the account's: ordered, out of the cart, looked at, refused, and said badly.
    async fn orders_elsewhere(&mut self, pair: &Pair) {
        let product = self.sold_to_all().await;
        let (name, street) =
            (format!("{} junior", self.person.name), format!("{}, at the back", self.person.street));
        let city = format!("the city of {}", self.person.name);
        self.secrets.keep("recipient", &name);
        self.secrets.keep("address line of an order", &street);
        self.secrets.keep("city of an order", &city);
        let address = json!({ "recipient": name, "line1": street, "city": city, "postal_code": "04524", "country": "KR" });
        let item = json!({ "product_id": product, "quantity": 1 });
        let mut body = json!({ "items": [item], "address": address });
        for (path, status) in [("/v1/orders/preview", 200), ("/v1/orders", 201)] {
            let told = self.process.as_of(pair, "POST", path).json(&body).send().await;
            assert_eq!(told.status, status, "{}", told.text);
        }
        body["items"][0]["quantity"] = json!(1_000);
        let refused = self.process.as_of(pair, "POST", "/v1/orders").json(&body).send().await;
        assert_eq!(refused.status, 409, "{}", refused.text);
        body["address"]["country"] = json!("nowhere");
        let refused = self.process.as_of(pair, "POST", "/v1/orders").json(&body).send().await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        self.process.as_of(pair, "POST", "/v1/cart/items").json(&item).send().await.ok(200);
        let out = json!({ "address": address });
        self.process
            .as_of(pair, "POST", "/v1/cart/checkout")
            .key("elsewhere")
            .json(&out)
            .send()
            .await
            .ok(201);
    }

    /// A product that anybody may have as often as they like.
    async fn sold_to_all(&self) -> String {
        let products = self.process.ask("GET", "/v1/products").send().await.ok(200);
        let mut products = products["data"].as_array().unwrap().iter();
        let sale = |product: &&Value| product["sale"].clone();
        let for_all =
            products.find(|it| sale(it)["state"] == "open" && sale(it)["per_customer_limit"].is_null());
        support::id(for_all.unwrap())
    }

    /// Everything that can be paid with, and what nobody should have sent.
    async fn pays(&mut self) {
        let pair = self.log_in().await;
        let mut body = one_line(&self.sold_to_all().await, 1);
        for (token, status) in [
            ("tok_random_0", 201),
            ("tok_refund_fails_1", 201),
            ("tok_declined", 402),
            ("tok_pending_then_ok", 202),
            ("pm_1RfK2aB9xQ7mW3", 402),
            ("4242424242424242", 422),
            ("4000-0566-5566-5556", 422),
            ("5555 5555 5555 4444", 422),
        ] {
            let what = if status == 422 { "card number" } else { TOKEN };
            self.secrets.keep(what, token);
            self.secrets.keep(what, &token.replace(['-', ' '], ""));
            body["payment"] = support::card(token);
            let paid = self.process.as_of(&pair, "POST", "/v1/orders").json(&body).send().await;
            assert_eq!(paid.status, status, "{token} {}", paid.text);
            if token == "tok_refund_fails_1" {
                let cancel = format!("/v1/orders/{}/cancel", support::id(&paid.json()));
                self.process.as_of(&pair, "POST", &cancel).send().await.ok(200);
            }
            if status == 202 {
                self.is_paid(&pair, &support::id(&paid.json())).await;
            }
        }
    }

    async fn is_paid(&self, pair: &Pair, order: &str) {
        let path = format!("/v1/orders/{order}");
        for _ in 0..100 {
            let order = self.process.as_of(pair, "GET", &path).send().await.ok(200);
            if order["payment"]["status"] == "paid" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it is not paid");
    }

    async fn changes(&mut self) {
        let pair = self.log_in().await;
        let changed = Person {
            name: format!("{} the Second", self.person.name),
            phone: self.person.phone.replace("2345", "8765"),
            street: format!("{}, back entrance", self.person.street),
            ..self.person.clone()
        };
        self.secrets.keep_person(&changed);
        let words = changed.words();
        let patch = json!({ "name": words["name"], "phone": words["phone"], "address": words["address"] });
        self.process.as_of(&pair, "PATCH", "/v1/users/me").json(&patch).send().await.ok(200);
        self.person = changed;
        let export = self.process.as_of(&pair, "GET", "/v1/users/me/export").send().await.ok(200);
        assert_eq!(export["profile"]["name"], self.person.name.as_str());

        let email = format!("new.{}", self.person.email);
        self.secrets.keep_email(&email);
        let wish = json!({ "email": email, "password": self.person.password });
        let asked = self.process.as_of(&pair, "POST", "/v1/users/me/email").json(&wish).send().await;
        assert_eq!(asked.status, 202, "{}", asked.text);
        let token = self.link(&email).await;
        assert_eq!(self.process.verify(&token).await.status, 204);
        self.person.email = email;

        let pair = self.log_in().await;
        let password = format!("{}, and a fifth", self.person.password);
        self.secrets.keep("changed password", &password);
        let change = json!({ "current_password": self.person.password, "new_password": password });
        let changed = self.process.as_of(&pair, "PUT", "/v1/users/me/password").json(&change).send().await;
        assert_eq!(changed.status, 204, "{}", changed.text);
        self.person.password = password;
    }

    async fn forgets_the_password(&mut self) {
        let email = self.person.email.clone();
        assert_eq!(self.post("/v1/password-resets", json!({ "email": email })).await.status, 202);
        let token = loop {
            let letter = self.next_letter(&email).await;
            if letter.text.contains("/reset#token=") {
                break letter.token();
            }
        };
        self.secrets.keep_link(&token);
        let password = format!("{}, and a sixth", self.person.password);
        self.secrets.keep("password after a reset", &password);
        let reset = json!({ "token": token, "new_password": password });
        let reset = self.process.ask("PUT", "/v1/password-resets").json(&reset).send().await;
        assert_eq!(reset.status, 204, "{}", reset.text);
        self.person.password = password;
    }

    async fn is_kept_out(&mut self, admin: &str) {
        let pair = self.log_in().await;
        let me = self.process.as_of(&pair, "GET", "/v1/users/me").send().await.ok(200);
        let user = support::id(&me);
        let listed = format!("/v1/admin/users?email={}", self.person.email);
        let listed = self.process.ask("GET", &listed).bearer(admin).send().await.ok(200);
        assert_eq!(listed["data"].as_array().unwrap().len(), 1);
        for what in ["suspend", "reinstate"] {
            let path = format!("/v1/admin/users/{user}/{what}");
            assert_eq!(self.process.ask("POST", &path).bearer(admin).send().await.status, 204);
            let status = self.process.try_log_in(&self.person).await.status.as_u16();
            assert_eq!(status, if what == "suspend" { 403 } else { 201 });
        }
    }

    async fn ends(&mut self) {
        let pair = self.log_in().await;
        let erase = json!({ "password": self.person.password });
        let erased = self.process.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await;
        assert_eq!(erased.status, 204, "{}", erased.text);
        self.process.try_log_in(&self.person).await.problem(401, "unauthenticated");
    }

    /// What goes wrong is logged too.
    async fn is_misunderstood(&self) {
        let Person { email, password, name, .. } = &self.person;
        for body in [
            json!({ "email": format!("{email}@twice"), "password": password }),
            json!({ "email": email, "password": password, "name": name }),
            json!({ "email": [email], "password": password }),
        ] {
            assert_eq!(self.post("/v1/sessions", body).await.status, 422);
        }
        let broken = format!(r#"{{"email":"{email}","password":"{password}""#);
        let broken = self.process.ask("POST", "/v1/sessions").body(broken).send().await;
        assert_eq!(broken.status, 400);
        let nowhere = self.process.ask("GET", &format!("/v1/nowhere/{email}")).send().await;
        assert_eq!(nowhere.status, 404);
    }
}

fn people() -> [(Person, &'static str); 2] {
    let mina = Person {
        email: "Mina.Park.Seoul@example.com".to_owned(),
        password: "여우 네 마리가 멀리 난다".to_owned(),
        name: "박미나리".to_owned(),
        phone: "010-2345-6789".to_owned(),
        street: "테헤란로 152, 파란 대문 집".to_owned(),
    };
    let jonas = Person {
        email: "jonas.lindqvist@example.org".to_owned(),
        password: "four foxes fly far away".to_owned(),
        name: "Jonas Lindqvist".to_owned(),
        phone: "010-2345-4321".to_owned(),
        street: "Itaewon-ro 27, third floor".to_owned(),
    };
    [(mina, "ko-KR,ko;q=0.9"), (jonas, "en")]
}

/// ASVS 11.3, 14.2, 16.2.5.
#[actix_web::test]
async fn neither_the_disk_nor_the_log_knows_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), &[("RUST_LOG", "trace")]).await;
    let clock = Clock::start();
    let tokens = Tokens::new(SECRET.as_bytes(), &[]).unwrap();
    let admin = tokens.sign(user(0), Role::Admin, 900, clock.now(), clock.chance()).unwrap();
    let mut secrets = Secrets::default();
    for (person, language) in people() {
        let mut life =
            Life { process: &process, secrets: &mut secrets, person, language, read: HashMap::new() };
        life.begins().await;
        life.orders().await;
        life.pays().await;
        life.is_misunderstood().await;
        life.changes().await;
        life.forgets_the_password().await;
        life.is_kept_out(&admin).await;
        // The second one stays, so that a living account is searched too.
        if language != "en" {
            life.ends().await;
        }
    }

    let search = secrets.search();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let mut found = search.under(&data);
    // While a payment runs it needs what it is paid with, and a database in use still has pages of a moment ago.
    found.retain(|line| !(line.contains(TOKEN) && line.contains("/money.db")));
    process.stop().await;
    found.extend(search.under(&data));
    found.extend(search.under(&log));
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));

    // And it can see: the letters are full of what it looks for.
    let mails: Vec<u8> = std::fs::read_dir(data.join("mail"))
        .unwrap()
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    let seen = search.of(&mails);
    for what in ["e-mail", "mailed token"] {
        assert!(seen.iter().any(|line| line.starts_with(what)), "{what} is missing in {seen:?}");
    }
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("TRACE") && log.contains("has proved their address"), "not much of a log:\n{log}");
}

#[test]
fn the_search_sees_through_disguises() {
    let mut secrets = Secrets::default();
    secrets.keep("name", "박미나리");
    secrets.keep("e-mail", "mina.park@example.com");
    let search = secrets.search();
    let mail = b"mina.park@example.com";
    let numbers: Vec<String> = mail.iter().map(u8::to_string).collect();
    for hidden in [
        "to <MINA.Park@example.com>".to_owned(),
        format!("{{\"email\":\"{}\"}}", BASE64_STANDARD.encode(mail)),
        BASE64_STANDARD.encode("<mina.park@example.com>"),
        BASE64_STANDARD.encode("a:mina.park@example.com,"),
        format!("[{}]", numbers.join(", ")),
        "?email=mina.park%40example.com".to_owned(),
        r#"{"name":"\uBC15\ubbf8\ub098\ub9ac"}"#.to_owned(),
        "박미나리".to_owned(),
    ] {
        assert_eq!(search.of(hidden.as_bytes()).len(), 1, "{hidden}");
    }
    assert_eq!(search.of(b"mina.pork@example.com, and nothing else").len(), 0);
}
