//! Backups of a shop that sells: whatever was acknowledged before one began is in it, what is restored adds up to the last unit and
//! the last coin, in files and in a database and from either into the other; and what is damaged, or in the way, is refused.

#[path = "backup/sealed.rs"]
mod sealed;
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Executor};
use stockade::clock::Clock;
use stockade::domain::account::AccountState;
use stockade::domain::stock::{FORMAT, Millis};
use stockade::domain::user::Role;
use stockade::persistence::Tables;
use stockade::persistence::backup::{self, BackupError, Place};
use stockade::persistence::revocation::{Revocation, Subject};
use stockade::tokens::Tokens;
use stockade_servers::MariaDb;
use support::{Person, Process, SECRET, card, id, master_key, one_line, paid_with, user};
use tempfile::TempDir;

const BUYERS: u64 = 24;
const PRODUCTS: usize = 3;
/// Answers between one backup and the next.
const ANSWERS: usize = 80;
/// They have come by then, on whatever machine this runs.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What all shops of a test are started with: a provider that takes a moment, so that there is always a payment under way.
fn settings(database: Option<&str>) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("STOCKADE_JWT_SECRET", SECRET.to_owned()),
        ("STOCKADE_MASTER_KEY", master_key()),
        ("STOCKADE_ORDER_RATE_PER_USER", "1000000".to_owned()),
        ("STOCKADE_ORDER_BURST_PER_USER", "1000000".to_owned()),
        ("STOCKADE_SIMULATED_PAYMENT", "latency_ms=15".to_owned()),
    ];
    settings.extend(database.map(|url| ("STOCKADE_DATABASE_URL", url.to_owned())));
    settings
}

/// The program, at work on a folder or a database.
struct Home {
    folder: TempDir,
    settings: Vec<(&'static str, String)>,
}

impl Home {
    fn new(database: Option<&str>) -> Home {
        Home { folder: tempfile::tempdir().unwrap(), settings: settings(database) }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    async fn start(&self) -> Process {
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Process::start(self.folder.path(), &settings).await
    }

    /// A command, on a thread of its own.
    async fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stockade"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STOCKADE_")) {
            command.env_remove(name);
        }
        command.args(words).current_dir(self.folder.path()).env("STOCKADE_DATA_DIR", self.data());
        command.envs(self.settings.iter().map(|(name, value)| (*name, value)));
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn succeeds(&self, words: &[&str]) -> String {
        let said = self.run(words).await;
        let out = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success(), "{words:?}: {out}{}", String::from_utf8_lossy(&said.stderr));
        out
    }

    async fn fails(&self, words: &[&str], why: &str) {
        let said = self.run(words).await;
        let told = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(1), "{words:?}: {told}");
        assert!(told.contains(why), "{why} is missing in: {told}");
    }

    async fn backup(&self, to: &Path) {
        self.succeeds(&["backup", "--to", to.to_str().unwrap()]).await;
    }

    async fn restore(&self, from: &Path) {
        self.succeeds(&["restore", "--from", from.to_str().unwrap()]).await;
        self.succeeds(&["audit"]).await;
    }
}

/// Somebody was told of an order.
#[derive(Clone)]
struct Told {
    who: u64,
    order: String,
    is_paid: bool,
}

/// People who buy without end and remember what they were told: most pay at once, some are declined, some only hold.
struct Crowd {
    told: Arc<Mutex<Vec<Told>>>,
    over: Arc<AtomicBool>,
    buying: Vec<tokio::task::JoinHandle<()>>,
}

fn token(who: u64, role: Role) -> String {
    let (tokens, clock) = (Tokens::new(SECRET.as_bytes(), &[]).unwrap(), Clock::start());
    tokens.sign(user(who), role, 3_600, clock.now(), clock.chance()).unwrap()
}

async fn stocked(shop: &Process, number: usize) -> String {
    let price = json!({ "amount": 1_000, "currency": "KRW" });
    let sku = format!("CUP-{number}-{:x}", Clock::start().chance());
    let body = json!({ "sku": sku, "name": "Cup", "price": price, "stock": 1_000_000 });
    let made = shop.ask("POST", "/v1/admin/products").bearer(&token(0, Role::Admin)).json(&body).send().await;
    id(&made.ok(201))
}

impl Crowd {
    async fn come(shop: &Arc<Process>) -> Crowd {
        let products: Vec<String> = join_all((0..PRODUCTS).map(|number| stocked(shop, number))).await;
        let (told, over) = (Arc::<Mutex<Vec<Told>>>::default(), Arc::<AtomicBool>::default());
        let buy = |who: u64| {
            let (shop, products, told, over) = (shop.clone(), products.clone(), told.clone(), over.clone());
            tokio::spawn(async move {
                let token = token(who, Role::Shopper);
                for turn in who.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let product = &products[turn as usize % PRODUCTS];
                    let body = match turn % 5 {
                        0 => one_line(product, 1),
                        1 => paid_with(product, 2, "tok_declined"),
                        2 => {
                            let both = [product, &products[(turn + 1) as usize % PRODUCTS]];
                            let mut body = support::lines(&both.map(|product| (product.as_str(), 1)));
                            body["payment"] = card("tok_ok");
                            body
                        }
                        _ => paid_with(product, 1, "tok_ok"),
                    };
                    let reply = shop.ask("POST", "/v1/orders").bearer(&token).json(&body).send().await;
                    let order = match reply.status.as_u16() {
                        201 | 202 => reply.json(),
                        402 => reply.json()["order"].clone(),
                        _ => continue,
                    };
                    let is_paid = order["status"] == "paid";
                    told.lock().unwrap().push(Told { who, order: id(&order), is_paid });
                }
            })
        };
        Crowd { buying: (1..=BUYERS).map(buy).collect(), told, over }
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    /// Waits until so many more have been told.
    async fn goes_on(&self) {
        let before = self.told().len();
        let buying = async {
            while self.told().len() < before + ANSWERS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(ANSWERED_WITHIN, buying).await.expect("nobody can buy");
    }

    async fn leaves(self) {
        self.over.store(true, Ordering::Relaxed);
        join_all(self.buying).await.into_iter().for_each(|ended| ended.unwrap());
    }
}

/// Everything that was told is so, in a shop that was restored.
async fn stands(shop: &Process, told: &[Told]) {
    for some in told.chunks(16) {
        let looks = some.iter().map(async |told| {
            let look = shop.ask("GET", &format!("/v1/orders/{}", told.order));
            (told, look.bearer(&token(told.who, Role::Shopper)).send().await)
        });
        for (told, reply) in join_all(looks).await {
            let order: Value = reply.ok(200);
            assert!(!told.is_paid || order["status"] == "paid", "{order}");
        }
    }
}

/// What several backups of a busy shop hold, each with what had been told before it began.
struct Busy {
    backups: Vec<(PathBuf, Vec<Told>)>,
    mina: Person,
    _folder: TempDir,
}

impl Busy {
    async fn shop(home: &Home, backups: usize) -> Busy {
        let folder = tempfile::tempdir().unwrap();
        let (shop, mina) = (Arc::new(home.start().await), Person::number(1));
        shop.newcomer(&mina).await;
        let crowd = Crowd::come(&shop).await;
        let mut taken = Vec::new();
        for number in 0..backups {
            crowd.goes_on().await;
            let (to, told) = (folder.path().join(number.to_string()), crowd.told());
            home.backup(&to).await;
            taken.push((to, told));
        }
        // It sells on, and ends in order.
        crowd.goes_on().await;
        crowd.leaves().await;
        let shop = Arc::into_inner(shop).unwrap();
        shop.stop().await;
        home.succeeds(&["audit"]).await;
        Busy { backups: taken, mina, _folder: folder }
    }

    /// The last one opens as a shop, in which everything is that was told, and goes on selling.
    async fn opens(&self, home: &Home) {
        let (_, told) = self.backups.last().unwrap();
        let shop = home.start().await;
        stands(&shop, told).await;
        shop.log_in(&self.mina).await;
        let product = stocked(&shop, PRODUCTS).await;
        let bought = shop.ask("POST", "/v1/orders").bearer(&token(1, Role::Shopper));
        let bought = bought.json(&paid_with(&product, 1, "tok_ok")).send().await.ok(201);
        assert_eq!(bought["status"], "paid");
        shop.stop().await;
        home.succeeds(&["audit"]).await;
    }
}

#[tokio::test]
async fn a_shop_that_sells_from_files_is_restored_as_it_was_at_one_moment() {
    let home = Home::new(None);
    let busy = Busy::shop(&home, 4).await;
    let mut restored = Vec::new();
    for (backup, _) in &busy.backups {
        for file in std::fs::read_dir(backup).unwrap().map(Result::unwrap) {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
        }
        assert_eq!(std::fs::metadata(backup).unwrap().permissions().mode() & 0o777, 0o700);
        let home = Home::new(None);
        home.restore(backup).await;
        restored.push(home);
    }
    busy.opens(restored.last().unwrap()).await;
}

/// Another database of the same server.
async fn another(server: &MariaDb, name: &'static str) -> String {
    let create: &'static str = format!("create database {name}").leak();
    let url = server.url();
    MySqlConnectOptions::from_str(&url).unwrap().connect().await.unwrap().execute(create).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

#[tokio::test]
async fn a_shop_that_sells_from_a_database_is_restored_in_another_one_in_files_and_back() {
    let server = MariaDb::started().await.unwrap();
    let home = Home::new(Some(&server.url()));
    let busy = Busy::shop(&home, 2).await;
    let (first, last) = (&busy.backups[0].0, &busy.backups[1].0);
    Home::new(Some(&another(&server, "first").await)).restore(first).await;
    let elsewhere = Home::new(Some(&another(&server, "last").await));
    elsewhere.restore(last).await;
    busy.opens(&elsewhere).await;

    // From the database into files, and from files into a database again.
    let files = Home::new(None);
    files.restore(last).await;
    busy.opens(&files).await;
    let moved = files.folder.path().join("moved");
    files.backup(&moved).await;
    let back = Home::new(Some(&another(&server, "back").await));
    back.restore(&moved).await;
    busy.opens(&back).await;

    // A database in which something stands stays as it is.
    back.fails(&["restore", "--from", last.to_str().unwrap()], "the database has tables").await;
    back.succeeds(&["audit"]).await;
    // What was filled half-way opens nowhere.
    let half = files.folder.path().join("half");
    copy(last, &half);
    miscount(&half);
    let half_full = Home::new(Some(&another(&server, "half").await));
    half_full.fails(&["restore", "--from", half.to_str().unwrap()], "order_lines.rows is damaged").await;
    half_full.fails(&["seed"], "the journal ends at").await;
}

// --- what is refused ------------------------------------------------------------------------------------------------------------

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// A manifest that was changed, with the right sum.
fn rewrite(backup: &Path, change: impl FnOnce(&mut Value)) {
    let path = backup.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    std::fs::write(&path, manifest.to_string()).unwrap();
    sum_up(backup);
}

/// A manifest that counts wrong, with the right sum.
fn miscount(backup: &Path) {
    rewrite(backup, |manifest| manifest["rows"]["order_lines"] = json!(1_000_000));
}

/// Sums that are right, whatever stands there.
fn sum_up(backup: &Path) {
    let names = std::fs::read_dir(backup).unwrap().map(|file| file.unwrap().file_name());
    let names = names.filter(|name| name != "SHA256SUMS");
    let summed = Command::new("sha256sum").args(names).current_dir(backup).output().unwrap();
    assert!(summed.status.success());
    std::fs::write(backup.join("SHA256SUMS"), summed.stdout).unwrap();
}

/// A backup of a small shop that has stopped, and the shop.
async fn small_backup() -> (Home, PathBuf) {
    let home = Home::new(None);
    home.succeeds(&["seed", "--products", "3", "--stock", "5"]).await;
    let backup = home.folder.path().join("backup");
    home.backup(&backup).await;
    (home, backup)
}

async fn restored(from: &Path, into: &Path) -> Result<(), BackupError> {
    backup::restore(from, Place::Files(into), None, true, &Clock::start()).await.map(drop)
}

#[tokio::test]
async fn what_was_damaged_is_refused_before_anything_is_written() {
    let (home, backup) = small_backup().await;
    let names: Vec<_> = std::fs::read_dir(&backup)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.len() > 30, "{names:?}");
    let whole: BTreeMap<&String, Vec<u8>> =
        names.iter().map(|name| (name, std::fs::read(backup.join(name)).unwrap())).collect();
    let into = home.folder.path().join("into");
    for (name, bytes) in &whole {
        let path = backup.join(name);
        let refused = async |what: &str| {
            let refused = restored(&backup, &into).await;
            assert!(refused.is_err() && !into.exists(), "{name} {what}");
        };
        if let Some(middle) = bytes.len().checked_sub(1).map(|last| last / 2) {
            let mut flipped = bytes.clone();
            flipped[middle] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            refused("flipped").await;
            std::fs::write(&path, &bytes[..middle]).unwrap();
            refused("cut").await;
        }
        std::fs::write(&path, [bytes.as_slice(), b"-"].concat()).unwrap();
        refused("with more behind it").await;
        std::fs::remove_file(&path).unwrap();
        refused("gone").await;
        std::fs::write(&path, bytes).unwrap();
    }
    // Sums that are right do not help a manifest that is wrong, and nothing of what was begun is left.
    let wrong = home.folder.path().join("wrong");
    copy(&backup, &wrong);
    miscount(&wrong);
    assert!(matches!(restored(&wrong, &into).await, Err(BackupError::Damaged { .. })) && !into.exists());
    restored(&backup, &into).await.unwrap();
}

/// A program that could not read a journal carries it nowhere.
#[tokio::test]
async fn the_journal_of_a_newer_version_is_neither_copied_nor_restored() {
    let (home, backup) = small_backup().await;
    let into = home.folder.path().join("into");
    rewrite(&backup, |manifest| {
        assert_eq!(manifest["journal"]["format"], FORMAT);
        manifest["journal"]["format"] = json!(FORMAT + 1);
    });
    let refused = restored(&backup, &into).await.unwrap_err();
    assert!(matches!(refused, BackupError::NewerJournal { .. }) && !into.exists(), "{refused}");
    // One of before there was a number is as good as ever.
    rewrite(&backup, |manifest| drop(manifest["journal"].as_object_mut().unwrap().remove("format")));
    restored(&backup, &into).await.unwrap();

    let file = SqliteConnectOptions::new().filename(home.data().join("journal.db"));
    let mut file = file.connect().await.unwrap();
    file.execute("update journal_meta set format_number = 1000").await.unwrap();
    sqlx::Connection::close(file).await.unwrap();
    home.fails(&["backup", "--to", "newer"], "take its backup with the stockade that serves it").await;
    for command in ["migrate", "audit"] {
        home.fails(&[command], "the journal was written by a newer version").await;
    }
}

#[tokio::test]
async fn nothing_is_written_where_something_is() {
    let (home, backup) = small_backup().await;
    let (from, data) = (backup.to_str().unwrap().to_owned(), home.data());
    let before = std::fs::read(data.join("shop.db")).unwrap();
    home.fails(&["restore", "--from", &from], "is not empty").await;
    home.fails(&["backup", "--to", &from], "is not empty").await;
    let elsewhere = home.folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("notes.txt"), "mine").unwrap();
    home.fails(&["restore", "--from", &from, "--into", elsewhere.to_str().unwrap()], "is not empty").await;
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
    assert_eq!(std::fs::read(data.join("shop.db")).unwrap(), before);
    home.fails(&["backup", "--to", "to", "--data-dir", "nowhere"], "there is no store in nowhere").await;
    assert!(!home.folder.path().join("to").exists());
    // A folder that is empty will do.
    let empty = home.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    home.succeeds(&["restore", "--from", &from, "--into", empty.to_str().unwrap()]).await;
    home.succeeds(&["audit", "--data-dir", empty.to_str().unwrap()]).await;
}

// --- who has left ---------------------------------------------------------------------------------------------------------------

/// The accounts whose deletion a shop's trail tells of, as `--erased` takes them.
async fn left(data: &Path) -> String {
    let tables = Tables::read_only(data);
    let entries = tables.trail().before(i64::MAX, 100).await.unwrap();
    tables.close().await.unwrap();
    let left = entries.iter().filter(|entry| entry.kind == "account_deleted");
    left.map(|entry| format!("{} has left\n", entry.subject)).collect()
}

/// State and key of an account.
async fn account(data: &Path, user: &str) -> (AccountState, bool) {
    let tables = Tables::read_only(data);
    let user = tables.users().find(user.parse().unwrap()).await.unwrap().unwrap();
    tables.close().await.unwrap();
    (user.state, user.wrapped_key.is_some() || user.personal.is_some() || user.email.is_some())
}

/// A backup brings back whoever has left since; who restores it has them leave once more.
#[tokio::test]
async fn who_has_left_since_a_backup_is_erased_once_more() {
    let home = Home::new(None);
    let (shop, people) = (home.start().await, [Person::number(1), Person::number(2), Person::number(3)]);
    let mut ids = Vec::new();
    for person in &people {
        shop.newcomer(person).await;
        let pair = shop.log_in(person).await;
        ids.push(id(&shop.as_of(&pair, "GET", "/v1/users/me").send().await.ok(200)));
    }
    let leaves = async |person: &Person| {
        let pair = shop.log_in(person).await;
        let erase = json!({ "password": person.password });
        assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    };
    leaves(&people[2]).await;
    let backup = home.folder.path().join("backup");
    home.backup(&backup).await;
    leaves(&people[0]).await;
    shop.stop().await;

    let (file, from) = (home.folder.path().join("left.txt"), backup.to_str().unwrap());
    let list = left(&home.data()).await;
    assert_eq!(list.lines().count(), 2);
    let again = home.folder.path().join("again");
    let into = ["restore", "--from", from, "--into", again.to_str().unwrap()];
    let said = home.succeeds(&into).await;
    assert!(said.contains("minutes ago. Whatever was done since is undone"), "{said}");
    assert_eq!(account(&again, &ids[0]).await, (AccountState::Verified, true));
    std::fs::remove_dir_all(&again).unwrap();

    let erased = [&into[..], &["--erased", file.to_str().unwrap()][..]].concat();
    std::fs::write(&file, format!("{list}\nnobody has left\n")).unwrap();
    home.fails(&erased, "`nobody` is no id of a user").await;
    assert!(!again.exists(), "it is read before anything is written");
    std::fs::write(&file, format!("{list}{}\n", user(77))).unwrap();
    let said = home.succeeds(&erased).await;
    assert!(said.contains("1 of 3 accounts that are to be erased were there, and are gone."), "{said}");
    assert_eq!(account(&again, &ids[0]).await, (AccountState::Deleted, false));
    assert_eq!(account(&again, &ids[1]).await, (AccountState::Verified, true));
    home.succeeds(&["audit", "--data-dir", again.to_str().unwrap()]).await;
    assert_eq!(left(&again).await.lines().count(), 2, "it stands in the trail as well");
    // Whatever an operator has signed for them ends, also for somebody who is not in the backup.
    let tables = Tables::read_only(&again);
    let (now, year) = (Clock::start().now(), 365 * 86_400_000);
    let revoked = tables.revocations().since(Millis(0), now.plus(year - 3_600_000)).await.unwrap();
    tables.close().await.unwrap();
    for gone in [ids[0].parse().unwrap(), ids[2].parse().unwrap(), user(77)] {
        let is_theirs = |one: &Revocation| matches!(one.subject, Subject::User(user, _) if user == gone);
        assert!(revoked.iter().any(is_theirs), "{gone}");
    }
}

/// Named after its time, and those that are too old go, once there is a newer one; where none is taken nothing goes.
#[tokio::test]
async fn backups_are_kept_for_so_many_days_beside_each_other() {
    let home = Home::new(None);
    let among = home.folder.path().join("backups");
    let old = among.join("2020-01-01T00-00-00Z");
    std::fs::create_dir_all(&old).unwrap();
    let words = ["backup", "--in", among.to_str().unwrap(), "--keep", "8"];
    // There is no shop yet.
    assert_eq!(home.run(&words).await.status.code(), Some(1));
    assert!(old.exists());
    home.succeeds(&["seed", "--products", "3", "--stock", "5"]).await;
    home.succeeds(&words[..3]).await;
    assert!(old.exists());
    let taken = || std::fs::read_dir(&among).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let first = taken().into_iter().find(|path| *path != old).unwrap();
    // Of the same second it would have the same name, and is refused.
    let aside = home.folder.path().join("aside");
    std::fs::rename(&first, &aside).unwrap();
    let told = home.succeeds(&words).await;
    assert!(told.contains("1 that were older than 8 days are removed"), "{told}");
    assert!(!old.exists() && taken().len() == 1, "{:?}", taken());
    let another = Home::new(None);
    another.restore(&taken()[0]).await;
    for wrong in
        [&["backup"][..], &["backup", "--to", "x", "--in", "y"], &["backup", "--to", "x", "--keep", "8"]]
    {
        assert_eq!(home.run(wrong).await.status.code(), Some(2), "{wrong:?}");
    }
}
