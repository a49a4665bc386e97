//! What is kept of people, and where it can be read: in their own hands, and nowhere else.

#[path = "privacy/owner.rs"]
mod owner;
mod support;

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stockade::actors::user::erase_again;
use stockade::app::App;
use stockade::clock::Clock;
use stockade::config::{Config, MasterKeys};
use stockade::domain::delivery::{DeliveryState, Reason};
use stockade::domain::user::PasswordPolicy;
use stockade::persistence::Tables;
use stockade::persistence::audit::audit;
use stockade::seed;
use support::{Pair, Person, Shop, id, one_line, paid_with, wait_for};
use tracing_subscriber::fmt::MakeWriter;

/// Everything that was logged while it was installed.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Log {
    type Writer = Log;

    fn make_writer(&'w self) -> Log {
        self.clone()
    }
}

/// The one log of this process, as talkative as it can be about ourselves.
fn log() -> &'static Log {
    static LOG: std::sync::OnceLock<Log> = std::sync::OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let filter = "info,stockade=trace,lettre=trace,sqlx=debug";
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log.clone()).init();
        log
    })
}

fn holds(heap: &[u8], needle: &str) -> bool {
    heap.windows(needle.len()).any(|piece| piece.eq_ignore_ascii_case(needle.as_bytes()))
}

/// Every byte of the databases, their write-ahead logs included.
fn dump(folder: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let databases = files.filter(|path| path.file_name().unwrap().to_str().unwrap().contains(".db"));
    databases.flat_map(|path| std::fs::read(path).unwrap()).collect()
}

/// ASVS 11.3, 14.2: neither the store nor the log says who somebody is, or lets anybody be them.
#[actix_web::test]
async fn a_dump_of_the_store_and_the_log_name_nobody() {
    let log = log();
    let shop = Shop::open().await;
    let product = shop.stocked(5).await;
    let mina = shop.newcomer(1).await;
    let unproved = Person::number(2);
    shop.sign_up(&unproved).await;
    let waiting = shop.letter(&unproved.email, 1).await.token();
    let pair = log_in_from(&shop, &mina, "Minas Telefon 7").await;
    let next = Pair::of(&shop.try_refresh(&pair.refresh).await);
    shop.as_of(&next, "POST", "/v1/orders").json(&one_line(&product, 1)).send().await.ok(201);
    shop.try_log_in(&Person { password: "a wrong password".to_owned(), ..mina.clone() }).await;
    shop.try_refresh("sess_nonsense.nonsense").await;
    shop.verify(&waiting[..20]).await.problem(410, "link_expired");
    let moved = json!({ "email": "mina@elsewhere.example", "password": mina.password });
    assert_eq!(shop.as_of(&next, "POST", "/v1/users/me/email").json(&moved).send().await.status, 202);
    let confirm = shop.letter("mina@elsewhere.example", 1).await.token();
    shop.post("/v1/password-resets", &json!({ "email": mina.email })).send().await;
    let reset = shop.letter(&mina.email, 3).await.token();

    let live = dump(shop.folder());
    let folder = shop.stop().await;
    let at_rest = dump(folder.path());
    let logged = log.0.lock().unwrap().clone();
    assert!(
        holds(&live, "create table users") && holds(&logged, "has signed up"),
        "we looked at the right place"
    );
    let e164 = |person: &Person| format!("+82{}", &person.phone.replace('-', "")[1..]);
    for person in [&mina, &unproved] {
        let said =
            [&person.email, &person.password, &person.name, &person.phone, &person.street, &e164(person)];
        for word in said {
            assert!(!holds(&live, word) && !holds(&at_rest, word), "the store holds {word}");
            assert!(!holds(&logged, word), "the log holds {word}");
        }
    }
    for word in ["mina@elsewhere.example", "a wrong password", "mina.park", "teheran", "Minas Telefon"] {
        assert!(!holds(&live, word) && !holds(&at_rest, word) && !holds(&logged, word), "{word}");
    }
    for token in [&pair.access, &pair.refresh, &next.access, &next.refresh, &waiting, &confirm, &reset] {
        assert!(!holds(&live, token) && !holds(&at_rest, token) && !holds(&logged, token), "{token}");
        // Its end alone. (What stands behind the last `_` may be one letter: that is a letter of base64.)
        let secret = &token[token.len() - 16..];
        assert!(!holds(&live, secret) && !holds(&logged, secret), "{token}");
    }
}

/// On a device that calls itself so.
async fn log_in_from(shop: &Shop, person: &Person, device: &str) -> Pair {
    let asked = shop.post("/v1/sessions", &person.credentials()).header("User-Agent", device);
    Pair::of(&asked.send().await)
}

async fn one(folder: &Path, sql: &'static str) -> Option<Vec<u8>> {
    one_in(folder, "people.db", sql).await
}

async fn one_in(folder: &Path, file: &str, sql: &'static str) -> Option<Vec<u8>> {
    let options = SqliteConnectOptions::new().filename(folder.join(file)).read_only(true);
    let mut connection = options.connect().await.unwrap();
    let found = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    found
}

/// ASVS 14.2: with the person goes the key, and whatever it sealed.
#[actix_web::test]
async fn deletion_destroys_the_key_and_whatever_it_sealed() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let before = one(shop.folder(), "select personal from users").await;
    assert!(before.is_some_and(|sealed| sealed.len() > 100));
    let product = shop.stocked(5).await;
    let mut order = one_line(&product, 1);
    order["address"] = mina.words()["address"].clone();
    shop.as_of(&pair, "POST", "/v1/orders").json(&order).send().await.ok(201);
    shop.as_of(&pair, "POST", "/v1/cart/items").json(&order["items"][0]).send().await.ok(200);
    let wish = format!("/v1/wishes/{product}");
    assert_eq!(shop.as_of(&pair, "PUT", &wish).send().await.status, 204);
    let sealed = one(shop.folder(), "select sealed from order_addresses").await;
    assert!(sealed.is_some_and(|sealed| sealed.len() > 100));
    // Two links are on their way, of which one has an address sealed; that of the sign-up says that it was used.
    let forgot = shop.post("/v1/password-resets", &json!({ "email": mina.email })).send().await;
    assert_eq!(forgot.status, 202);
    let reset = shop.letter(&mina.email, 2).await.token();
    let moves = json!({ "email": "mina@elsewhere.example", "password": mina.password });
    assert_eq!(shop.as_of(&pair, "POST", "/v1/users/me/email").json(&moves).send().await.status, 202);
    let confirm = shop.letter("mina@elsewhere.example", 1).await.token();
    let sealed = one(shop.folder(), "select sealed from one_time_tokens where sealed is not null").await;
    assert!(sealed.is_some_and(|sealed| !sealed.is_empty()));
    let links = "select cast(count(*) as blob) from one_time_tokens";
    assert_eq!(one(shop.folder(), links).await, Some(b"3".to_vec()));
    let tables = [
        "select cast(count(*) as blob) from sessions",
        links,
        "select cast(count(*) as blob) from verified_emails",
        "select cast(count(*) as blob) from verified_phones",
        "select cast(count(*) as blob) from wishes",
        "select cast(count(*) as blob) from cart_lines",
        "select cast(count(*) as blob) from order_addresses",
        "select cast(count(*) as blob) from unproved_addresses",
    ];
    for table in tables {
        assert_ne!(one(shop.folder(), table).await, Some(b"0".to_vec()), "{table}");
    }

    let erase = json!({ "password": mina.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    let left =
        "select coalesce(wrapped_key, personal, email_blind, phone_blind, cast(password as blob)) from users";
    assert_eq!(one(shop.folder(), left).await, None);
    for table in tables {
        assert_eq!(one(shop.folder(), table).await, Some(b"0".to_vec()), "{table}");
    }
    shop.verify(&confirm).await.problem(410, "link_expired");
    let again = json!({ "token": reset, "new_password": "eight owls and a half" });
    let told = shop.ask("PUT", "/v1/password-resets").json(&again).send().await;
    told.problem(410, "link_expired");
    shop.close().await;
}

/// What of this is in the databases, or in their write-ahead logs: a piece of each is enough.
fn left_of(folder: &Path, kept: &[Vec<u8>]) -> usize {
    let heap = dump(folder);
    // Behind the version and the name of the master key, which all have.
    kept.iter().filter(|kept| heap.windows(32).any(|piece| *piece == kept[16..48])).count()
}

/// ASVS 14.2: who leaves is not in the room that their rows have left in the file either, nor in its write-ahead log, with a letter
/// on its way.
#[actix_web::test]
async fn what_was_erased_stands_in_no_byte_of_the_store() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    // From here on letters cannot be written, and wait.
    let letters = shop.folder().join("mail");
    std::fs::remove_dir_all(&letters).unwrap();
    std::fs::write(&letters, "no folder").unwrap();
    let forgot = shop.post("/v1/password-resets", &json!({ "email": mina.email })).send().await;
    assert_eq!(forgot.status, 202);
    let waiting = async {
        loop {
            match one(shop.folder(), "select max(letter) from outbox").await {
                Some(letter) => return letter,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let mut kept =
        vec![tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("a letter waits")];
    for sql in [
        "select max(recipient) from outbox",
        "select max(wrapped_key) from outbox",
        "select wrapped_key from users",
        "select personal from users",
    ] {
        kept.push(one(shop.folder(), sql).await.unwrap());
    }
    assert_eq!(left_of(shop.folder(), &kept), kept.len(), "we looked at the right place");
    let erase = json!({ "password": mina.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    wait_for(|| (left_of(shop.folder(), &kept) == 0).then_some(())).await;
    let folder = shop.stop().await;
    assert_eq!(left_of(folder.path(), &kept), 0);
}

/// ASVS 14.2: why somebody sends a line back goes with them out of the file of money and its write-ahead log, though nobody writes
/// there meanwhile. A backup of before has it, and whoever restores that erases once more who has left since.
#[actix_web::test]
async fn why_a_line_comes_back_stands_nowhere_when_whoever_said_so_has_left() {
    let shop = Shop::open().await;
    let product = shop.stocked(5).await;
    let mut people = Vec::new();
    for number in [1, 2] {
        let person = shop.newcomer(number).await;
        let pair = shop.log_in(&person).await;
        let who = shop.id_of(&pair).await;
        let body = paid_with(&product, 1, "tok_ok");
        let order = id(&shop.as_of(&pair, "POST", "/v1/orders").json(&body).send().await.ok(201));
        people.push((person, who, order, format!("it does not go with kitchen {number}")));
    }
    shop.settle().await;
    shop.night().await;
    shop.night().await;
    let mut sealed = Vec::new();
    for (person, _, order, why) in &people {
        let pair = shop.log_in(person).await;
        let path = format!("/v1/orders/{order}/lines/1/return");
        shop.as_of(&pair, "POST", &path).json(&json!({ "reason": why })).send().await.ok(200);
        assert!(!holds(&dump(shop.folder()), why), "the store holds {why}");
        match &shop.deliveries(order).await[0].reason {
            Some(Reason::Sealed(bytes)) => sealed.push(bytes.clone()),
            other => panic!("{other:?}"),
        }
    }
    let stand = |folder: &Path| [0, 1].map(|at| left_of(folder, &sealed[at..=at]) == 1);
    assert_eq!(stand(shop.folder()), [true, true], "we look at the right place");
    let (leaves, _, _, _) = &people[0];
    let (pair, erase) = (shop.log_in(leaves).await, json!({ "password": leaves.password }));
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    wait_for(|| (stand(shop.folder()) == [false, true]).then_some(())).await;

    let (folder, (_, who, order, _)) = (shop.stop().await, &people[1]);
    let tables = Tables::open(folder.path()).await.unwrap();
    assert_eq!(erase_again(&tables, &Clock::start(), &[who.parse().unwrap()]).await.unwrap(), 1);
    let rows = tables.deliveries().of_order(order.parse().unwrap()).await.unwrap();
    assert_eq!((rows[0].state, &rows[0].reason), (DeliveryState::ReturnRequested, &None));
    tables.close().await.unwrap();
    assert_eq!(stand(folder.path()), [false, false]);
}

/// ASVS 14.2: what is bought is kept apart from who bought it: the shop's tables and the journal have no place for a person, and
/// an order keeps its amounts when its buyer has gone.
#[actix_web::test]
async fn orders_keep_their_amounts_and_know_nobody() {
    let shop = Shop::open().await;
    let product = shop.stocked(5).await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    shop.as_of(&pair, "POST", "/v1/orders").json(&one_line(&product, 3)).send().await.ok(201);
    let erase = json!({ "password": mina.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    let folder = shop.stop().await;

    let columns = "select cast(group_concat(m.name || '.' || c.name, ' ') as blob) from sqlite_master m, \
        pragma_table_info(m.name) c where m.type = 'table' and m.name not like '\\_sqlx%' escape '\\'";
    for file in ["shop.db", "journal.db"] {
        let columns = String::from_utf8(one_in(folder.path(), file, columns).await.unwrap()).unwrap();
        assert!(columns.contains("orders.buyer_id") || columns.contains("journal."), "{columns}");
        for word in [
            "email",
            "mail",
            "phone",
            "address",
            "street",
            "city",
            "postal",
            "password",
            "device",
            "user_name",
        ] {
            assert!(!columns.contains(word), "{file}: {word} in {columns}");
        }
    }
    let total = "select cast(total_minor as blob) from orders";
    assert_eq!(one_in(folder.path(), "shop.db", total).await, Some(b"3000".to_vec()));
    assert_eq!(audit(folder.path()).await.unwrap().differences, Vec::<String>::new());
}

/// ASVS 14.2: a payment and a refund are ids, amounts, words and times, and stay when their buyer has gone.
#[actix_web::test]
async fn payments_keep_their_amounts_and_know_nobody() {
    let shop = Shop::open().await;
    let product = shop.stocked(5).await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let buy = async |token: &str| {
        let body = paid_with(&product, 1, token);
        shop.as_of(&pair, "POST", "/v1/orders").json(&body).send().await
    };
    buy("tok_ok").await.ok(201);
    buy("tok_declined").await.problem(402, "payment_declined");
    let cancelled = id(&buy("tok_ok").await.ok(201));
    shop.as_of(&pair, "POST", &format!("/v1/orders/{cancelled}/cancel")).send().await.ok(200);
    shop.settle().await;
    let erase = json!({ "password": mina.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    let folder = shop.stop().await;

    let columns = "select cast(group_concat(name, ' ') as blob) from pragma_table_info('payments')";
    let columns = one_in(folder.path(), "money.db", columns).await.unwrap();
    assert_eq!(
        String::from_utf8(columns).unwrap(),
        "id order_id attempt buyer_id amount_minor currency token state reason provider_ref captured_minor captured_currency refunded_minor \
         key_hash body_hash tries version created_at_ms updated_at_ms told_open"
    );
    let columns = "select cast(group_concat(name, ' ') as blob) from pragma_table_info('refunds')";
    let columns = one_in(folder.path(), "money.db", columns).await.unwrap();
    assert_eq!(
        String::from_utf8(columns).unwrap(),
        "id payment_id order_id cause line key_hash amount_minor currency restock state reason provider_ref tries \
         due_at_ms version created_at_ms updated_at_ms body_hash made_anew"
    );
    let columns = "select cast(group_concat(name, ' ') as blob) from pragma_table_info('approvals')";
    let columns = one_in(folder.path(), "money.db", columns).await.unwrap();
    assert_eq!(
        String::from_utf8(columns).unwrap(),
        "id what order_id payment_id refund_id line amount_minor currency restock asked_by asked_in asked_at_ms \
         key_hash body_hash seconded_by seconded_at_ms second_key_hash second_body_hash due_at_ms"
    );
    // What was paid with has gone long before the buyer.
    let left = "select cast(group_concat(state || ' ' || captured_minor || ' ' || refunded_minor || ' ' || \
        coalesce(token, '-') || ' ' || coalesce(reason, '-'), ', ' order by state, refunded_minor) as blob) from payments";
    let left = one_in(folder.path(), "money.db", left).await.unwrap();
    assert_eq!(
        String::from_utf8(left).unwrap(),
        "declined 0 0 - card_declined, paid 1000 0 - -, paid 1000 1000 - -"
    );
    let refund = "select cast(cause || ' ' || amount_minor || ' ' || state as blob) from refunds";
    let refund = one_in(folder.path(), "money.db", refund).await;
    assert_eq!(refund, Some(b"order_cancelled 1000 done".to_vec()));
    let report = audit(folder.path()).await.unwrap();
    assert_eq!(report.all_differences().collect::<Vec<_>>(), [""; 0]);
}

/// A shop's master keys: the first one seals.
fn under(bytes: &'static [u8]) -> impl FnOnce(&mut Config) {
    move |config| {
        let mut keys = bytes.iter().map(|byte| MasterKeys::one([*byte; 32]).current);
        let current = keys.next().expect("no key");
        config.people.master_keys = Some(MasterKeys { current, former: keys.collect() });
    }
}

/// ASVS 13.3: the master key is replaced under living accounts.
#[actix_web::test]
async fn a_master_key_is_rotated_under_living_accounts() {
    let shop = Shop::open_with(under(&[1])).await;
    let (mina, jun) = (shop.newcomer(1).await, shop.newcomer(2).await);
    let before = log_in_from(&shop, &mina, "a phone under the first key").await;
    let shop = shop.reopen_with(under(&[2, 1])).await;
    let pair = shop.log_in(&mina).await;
    let me = shop.as_of(&pair, "GET", "/v1/users/me").send().await.ok(200);
    assert_eq!(me["email"], mina.email);
    let next = Pair::of(&shop.try_refresh(&before.refresh).await);
    assert!(shop.admits(&next.access).await);
    // Still one owner of the address and of the number.
    shop.sign_up(&Person { phone: "010-8888-1234".to_owned(), ..mina.clone() }).await;
    shop.sign_up(&Person { email: "another@example.com".to_owned(), ..mina.clone() }).await;
    assert!(!shop.letter(&mina.email, 3).await.text.contains("#token="));
    assert!(shop.letters_to("another@example.com").is_empty());
    // By now everybody is under the new key alone.
    assert_eq!(shop.app().users().rekey_all().await.unwrap().left, 0);
    let shop = shop.reopen_with(under(&[2])).await;
    for person in [&mina, &jun] {
        let pair = shop.log_in(person).await;
        let me = shop.as_of(&pair, "GET", "/v1/users/me").send().await.ok(200);
        assert_eq!(me["email"], person.email);
    }
    let pair = shop.log_in(&mina).await;
    let listed = shop.as_of(&pair, "GET", "/v1/sessions").send().await.ok(200);
    let mut sessions = listed["data"].as_array().unwrap().iter();
    assert!(sessions.any(|session| session["device"] == "a phone under the first key"), "{listed}");
    shop.close().await;
}

#[actix_web::test]
async fn links_outlive_a_master_key() {
    let shop = Shop::open_with(under(&[1])).await;
    let (mina, kim, jun) = (shop.newcomer(1).await, shop.newcomer(3).await, Person::number(2));
    shop.sign_up(&jun).await;
    let first = shop.letter(&jun.email, 1).await.token();
    shop.post("/v1/password-resets", &json!({ "email": mina.email })).send().await;
    let reset = shop.letter(&mina.email, 2).await.token();
    let pair = shop.log_in(&kim).await;
    let change = json!({ "email": "new@example.com", "password": kim.password });
    shop.as_of(&pair, "POST", "/v1/users/me/email").json(&change).send().await;
    let change = shop.letter("new@example.com", 1).await.token();
    // Whoever has yet to prove an address is somebody under the new key too, and may have another letter.
    let shop = shop.reopen_with(under(&[2, 1])).await;
    assert_eq!(shop.app().users().rekey_all().await.unwrap().left, 0);
    shop.try_log_in(&jun).await.problem(403, "email_not_verified");
    shop.post("/v1/users/verify/resend", &json!({ "email": jun.email })).send().await;
    let second = shop.letter(&jun.email, 2).await.token();
    assert_eq!(shop.verify(&first).await.status, 204);
    shop.verify(&second).await.problem(410, "link_expired");
    let mina = Person { password: "eight owls and a half".to_owned(), ..mina };
    let body = json!({ "token": reset, "new_password": mina.password });
    assert_eq!(shop.ask("PUT", "/v1/password-resets").json(&body).send().await.status, 204);
    assert_eq!(shop.verify(&change).await.status, 204);
    let shop = shop.reopen_with(under(&[2])).await;
    for person in [jun, mina, Person { email: "new@example.com".to_owned(), ..kim }] {
        shop.log_in(&person).await;
    }
    shop.close().await;
}

#[actix_web::test]
async fn an_address_has_one_owner_whatever_key_it_was_proved_under() {
    let shop = Shop::open_with(under(&[1])).await;
    let mina = Person::number(1);
    let rival = Person { phone: "010-8888-1234".to_owned(), ..mina.clone() };
    let namesake = Person { phone: mina.phone.clone(), ..Person::number(2) };
    for person in [&mina, &rival, &namesake] {
        shop.sign_up(person).await;
    }
    let mut tokens = Vec::new();
    for number in 1..=2 {
        tokens.push(shop.letter(&mina.email, number).await.token());
    }
    let late = shop.letter(&namesake.email, 1).await.token();
    let other = shop.newcomer(3).await;
    assert_eq!(shop.verify(&tokens[0]).await.status, 204);
    // Moved to another key, or not yet: who follows a letter from before finds it taken.
    let shop = shop.reopen_with(under(&[2, 1])).await;
    assert_eq!(shop.app().users().rekey_all().await.unwrap().left, 0);
    shop.verify(&tokens[1]).await.problem(410, "link_expired");
    shop.verify(&late).await.problem(409, "phone_taken");
    let pair = shop.log_in(&other).await;
    let change = json!({ "phone": mina.phone });
    shop.as_of(&pair, "PATCH", "/v1/users/me").json(&change).send().await.problem(409, "phone_taken");
    shop.close().await;
}

/// Under another key an address is not found, and whoever signed up again would be somebody else.
#[actix_web::test]
async fn a_shop_does_not_open_under_a_master_key_that_opens_no_account() {
    let under = |byte: u8, was_lost: bool| {
        move |config: &mut Config| {
            config.people.master_keys = Some(MasterKeys::one([byte; 32]));
            config.people.master_key_was_lost = was_lost;
        }
    };
    // Nothing was sealed yet, so any key will do.
    let shop = Shop::open_with(under(1, false)).await.reopen_with(under(2, false)).await;
    let mina = shop.newcomer(1).await;
    let folder = shop.stop().await;
    let refused = async |byte| {
        let mut config = Config::development(folder.path());
        under(byte, false)(&mut config);
        format!("{:#}", App::build(&config).await.err().expect("it opened"))
    };
    let told = refused(1).await;
    assert!(told.contains("STOCKADE_MASTER_KEY is not the one"), "{told}");
    assert!(told.contains("STOCKADE_MASTER_KEY_WAS_LOST=true"), "{told}");
    // Nor does anybody become an administrator of it.
    let mut config = Config::development(folder.path());
    under(3, false)(&mut config);
    let password =
        PasswordPolicy { chars_min: 8 }.accept("seven swans swim".to_owned().into(), None).unwrap();
    let made =
        seed::make_admin(&config, &Clock::start(), "root@example.com".parse().unwrap(), password).await;
    assert!(made.unwrap_err().to_string().contains("STOCKADE_MASTER_KEY is not the one"));

    // The refusal has changed nothing.
    let shop = Shop::open_on(folder, under(2, false)).await;
    shop.log_in(&mina).await;
    // Lost for ever: the shop opens, nobody comes in, and whoever signs up now is somebody.
    let shop = shop.reopen_with(under(4, true)).await;
    shop.try_log_in(&mina).await.problem(401, "unauthenticated");
    shop.newcomer(2).await;
    let shop = shop.reopen_with(under(4, false)).await;
    shop.close().await;
}

/// ASVS 16.2, 16.3.
#[actix_web::test]
async fn the_trail_tells_what_was_done_to_accounts_and_names_nobody() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    shop.try_log_in(&Person { password: "a wrong password".to_owned(), ..mina.clone() }).await;
    let pair = shop.log_in(&mina).await;
    let user = shop.id_of(&pair).await;
    let change = json!({ "current_password": mina.password, "new_password": "five foxes fly far" });
    shop.as_of(&pair, "PUT", "/v1/users/me/password").json(&change).send().await;
    shop.as_of(&pair, "GET", "/v1/users/me/export").send().await.ok(200);
    for what in ["suspend", "reinstate"] {
        shop.admin("POST", &format!("/v1/admin/users/{user}/{what}")).send().await;
    }
    let again = shop.log_in(&Person { password: "five foxes fly far".to_owned(), ..mina }).await;
    let erase = json!({ "password": "five foxes fly far" });
    assert_eq!(shop.as_of(&again, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    let folder = shop.stop().await;
    let trail = Tables::read_only(folder.path()).trail();
    let mut entries = trail.before(i64::MAX, 100).await.unwrap();
    entries.reverse();
    let told: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(
        told,
        [
            "signed_up",
            "address_verified",
            "log_in_failed",
            "logged_in",
            "password_changed",
            "data_exported",
            "suspended",
            "reinstated",
            "logged_in",
            "account_deleted",
        ]
    );
    assert!(entries.iter().all(|entry| entry.subject == user));
    assert_eq!(trail.verify().await.unwrap().1, Vec::<String>::new());
}

/// ASVS 13.3: what is configured as a secret is not printed.
#[test]
fn secrets_do_not_show() {
    let mut config = Config::development(Path::new("x"));
    config.tokens.secret = Some("hush-hush".to_owned().into());
    config.tokens.former = vec!["hush-before".to_owned().into()];
    config.people.master_keys = Some(MasterKeys::one([7; 32]));
    config.backups.keys = Some(MasterKeys::one([7; 32]));
    let shown = format!("{config:?}");
    assert!(!shown.contains("hush") && !shown.contains("7, 7"), "{shown}");
}
