//! Whoever gets hold of the disk, or of the log, learns nothing about anybody: after whole lives of people, in Korean and
//! in English, every byte of the data directory and of the log is searched for what they said and what they held.
//!
//! The folder of mails is left out: it stands for the mail server, and is where the search must find something.

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::domain::user::Role;
use stockade::tokens::Tokens;
use support::{Letter, Pair, Person, Process, Reply, SECRET, Secrets, leaks, one_line, paid_with, user};

/// What is paid with: known as long as the payment runs, and no longer.
const TOKEN: &str = "means of payment";

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
        assert_eq!(leaks(&token), [token.as_str()], "every other test knows it by its shape");
        self.secrets.keep_link(&token);
        token
    }

    fn opened(&mut self, reply: &Reply) -> Pair {
        let pair = Pair::of(reply);
        assert_eq!(leaks(&format!("{} {}", pair.access, pair.refresh)), [&pair.access, &pair.refresh]);
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
        for _ in 0..2 {
            assert_eq!(self.process.verify(&token).await.status, 204);
        }
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
        let product = sold_to_all(self.process).await;
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

    /// Everything that can be paid with, and what nobody should have sent.
    async fn pays(&mut self) {
        let pair = self.log_in().await;
        let mut body = one_line(&sold_to_all(self.process).await, 1);
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

/// A product that anybody may have as often as they like.
async fn sold_to_all(process: &Process) -> String {
    let products = process.ask("GET", "/v1/products").send().await.ok(200);
    let mut products = products["data"].as_array().unwrap().iter();
    let sale = |product: &&Value| product["sale"].clone();
    let for_all = products.find(|it| sale(it)["state"] == "open" && sale(it)["per_customer_limit"].is_null());
    support::id(for_all.unwrap())
}

/// Somebody who sends back what has arrived.
struct SendsBack {
    person: Person,
    order: String,
    why: &'static str,
}

impl SendsBack {
    /// What they have paid for arrives on days of a second.
    async fn those_to_whom_it_came(folder: &Path, secrets: &mut Secrets) -> Vec<SendsBack> {
        let settings = [("RUST_LOG", "trace"), ("STOCKADE_CALENDAR_DAY", "1s")];
        let process = Process::start(folder, &settings).await;
        let mut all = Vec::new();
        let reasons = ["because her kitchen is too small", "새 부엌이 너무 좁아서"];
        for (number, why) in (11..).zip(reasons) {
            let person = Person::number(number);
            secrets.keep_person(&person);
            process.newcomer(&person).await;
            secrets.keep_link(&process.letter(&person.email, 1).await.token());
            let pair = process.log_in(&person).await;
            secrets.keep_pair(&pair);
            let body = paid_with(&sold_to_all(&process).await, 1, "tok_ok");
            let order = process.as_of(&pair, "POST", "/v1/orders").json(&body).send().await.ok(201);
            let order = support::id(&order);
            let arrives = async {
                let path = format!("/v1/orders/{order}");
                while process.as_of(&pair, "GET", &path).send().await.ok(200)["lines"][0]["delivery_status"]
                    != "delivered"
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), arrives).await.expect("it arrives");
            all.push(SendsBack { person, order, why });
        }
        process.stop().await;
        all
    }

    /// On a day that does not end meanwhile, for it is forgotten when the line is back. What the owner is told of it.
    async fn says_why(&self, process: &Process, admin: &str, secrets: &mut Secrets) -> String {
        let SendsBack { person: Person { name, phone, .. }, order, why } = self;
        let (device, why) = (format!("telephone of {name}"), format!("{name}, {phone}: {why}"));
        secrets.keep("device", &device);
        secrets.keep("reason of a return", &why);
        let asked = process.post("/v1/sessions", &self.person.credentials()).header("User-Agent", &device);
        let pair = Pair::of(&asked.send().await);
        secrets.keep_pair(&pair);
        let path = format!("/v1/orders/{order}/lines/1/return");
        let body = json!({ "reason": why });
        let returned = process.as_of(&pair, "POST", &path).json(&body).send().await.ok(200);

        // A clerk gives a little of it back, and writes down for whom.
        let reason = format!("a call of {name} on {phone}");
        secrets.keep("reason of a refund", &reason);
        let amount = json!({ "amount": 1, "currency": returned["total"]["currency"] });
        let body = json!({ "amount": amount, "restock": "leave", "reason": reason });
        let refund = process.post(&format!("/v1/admin/orders/{order}/refunds"), &body);
        refund.key(&format!("a-call-about-{order}")).bearer(admin).send().await.ok(201);
        process.as_of(&pair, "GET", "/v1/users/me/export").send().await.text
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
    let mut secrets = Secrets::default();
    let returns = SendsBack::those_to_whom_it_came(folder.path(), &mut secrets).await;
    let process = Process::start(folder.path(), &[("RUST_LOG", "trace")]).await;
    let clock = Clock::start();
    let tokens = Tokens::new(SECRET.as_bytes(), &[]).unwrap();
    let admin = tokens.sign(user(0), Role::Admin, 900, clock.now(), clock.chance()).unwrap();
    let mut told = String::new();
    for one in &returns {
        told += &one.says_why(&process, &admin, &mut secrets).await;
    }
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

    // And it can see: the letters are full of what it looks for, and so is what somebody is told of himself.
    let mut mails: Vec<u8> = std::fs::read_dir(data.join("mail"))
        .unwrap()
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    mails.extend(told.as_bytes());
    let seen = search.of(&mails);
    for what in ["e-mail", "mailed token", "device", "reason of a return"] {
        assert!(seen.iter().any(|line| line.starts_with(what)), "{what} is missing in {seen:?}");
    }
    let log = std::fs::read_to_string(log).unwrap();
    for word in ["TRACE", "has proved their address", "money is asked back"] {
        assert!(log.contains(word), "not much of a log:\n{log}");
    }
}

/// What every server's log is searched for when it goes.
#[test]
fn a_token_is_known_by_its_shape_and_a_person_by_a_word() {
    let (clock, mina) = (Clock::start(), Person::number(7));
    let signed = Tokens::new(SECRET.as_bytes(), &[]).unwrap();
    let signed = signed.sign(user(1), Role::Shopper, 900, clock.now(), clock.chance()).unwrap();
    let (session, secret) = (format!("sess_{}", "0".repeat(26)), "aB3_-".repeat(9)[..43].to_owned());
    let refresh = format!("{session}_{secret}.{}", &secret[..16]);
    for token in [&signed, &refresh, &format!("verify_{secret}"), &format!("reset_{secret}")] {
        for line in [format!("token={token} x"), format!("{{\"a\":\"{token}\"}}"), format!("Bearer {token}")]
        {
            assert_eq!(leaks(&line), [token.as_str()], "{line}");
        }
    }
    for word in [mina.email.as_str(), &mina.phone, &mina.name, "+821023451007"] {
        let line = format!("INFO somebody: {word}");
        assert_eq!(leaks(&format!("one\n{line}\ntwo")), [line.as_str()]);
    }
    let harmless = format!(
        "the session {session} of user_{} ends session={session} \
         a link of verify_that-nobody-ever-sent is at data/mail/mail_{}.eml",
        "0".repeat(26),
        "0".repeat(26),
    );
    assert_eq!(leaks(&harmless), [""; 0]);
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
