//! Disks that fail: full, read-only, and lying about a sync. The real process, a real small disk.
//!
//! The small disk is a tmpfs of the server's own mount namespace, so nothing outside sees it; the test reaches it
//! through the process. Mounting needs root, or a kernel that lets users have namespaces.
#![allow(clippy::disallowed_methods, reason = "a test that waits for a process needs the time")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stockade_servers::free_address;
use tempfile::TempDir;

const SERVER: &str = env!("CARGO_BIN_EXE_stockade");
const SECRET: &str = "a signing key for tests, long enough";
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Shop {
    process: Child,
    base: String,
    log: PathBuf,
    client: Client,
    token: String,
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(SERVER);
    configure(&mut command, data);
    command
}

fn configure(command: &mut Command, data: &Path) {
    command.env("STOCKADE_DATA_DIR", data).env("STOCKADE_JWT_SECRET", SECRET).env("RUST_LOG", "info");
    // One buyer asks for as much as a disk takes.
    command.env("STOCKADE_ORDER_RATE_PER_USER", "100000").env("STOCKADE_ORDER_BURST_PER_USER", "100000");
}

fn run(data: &Path, arguments: &[&str]) -> Output {
    command(data).args(arguments).output().unwrap()
}

fn token(data: &Path, arguments: &[&str]) -> String {
    let told = run(data, &[&["token"], arguments].concat());
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8_lossy(&told.stdout).lines().last().unwrap().trim().to_owned()
}

impl Shop {
    /// Starts `program`, which ends up being the server, and waits until it is ready.
    async fn start(program: Command, data: &Path, log: &Path) -> Shop {
        let shop = Shop::begin(program, data, log);
        shop.until_ready().await;
        shop
    }

    /// The same without waiting.
    fn begin(mut program: Command, data: &Path, log: &Path) -> Shop {
        let address = free_address().unwrap();
        configure(&mut program, data);
        let out = OpenOptions::new().create(true).append(true).open(log).unwrap();
        program
            .env("STOCKADE_HTTP_ADDR", address.to_string())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        let process = program.spawn().unwrap();
        let keys = tempfile::tempdir().unwrap();
        let token = token(keys.path(), &["--users", "1", "--out", "/dev/stdout"]);
        Shop {
            process,
            base: format!("http://{address}"),
            log: log.to_owned(),
            client: Client::builder().tls_certs_only([]).build().unwrap(),
            token,
        }
    }

    async fn until_ready(&self) {
        self.until_readiness_is(StatusCode::OK).await;
    }

    /// Readiness follows the journal within a tenth of a second.
    async fn until_readiness_is(&self, expected: StatusCode) {
        let began = Instant::now();
        loop {
            let ready = self.client.get(format!("{}/readyz", self.base)).send().await;
            if ready.is_ok_and(|ready| ready.status() == expected) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "never {expected}; the log says:\n{}", self.told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_told(&self, words: &str) {
        self.until_told_often(words, 1).await;
    }

    /// So many times.
    async fn until_told_often(&self, words: &str, times: usize) {
        let began = Instant::now();
        while self.told().matches(words).count() < times {
            assert!(began.elapsed() < PATIENCE, "not {times} × {words:?}; the log says:\n{}", self.told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn told(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn product(&self) -> String {
        let page: Value = self.get("/v1/products?limit=1").await.json().await.unwrap();
        page["data"][0]["id"].as_str().unwrap().to_owned()
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token).send().await.unwrap()
    }

    async fn order(&self, product: &str, key: &str) -> Response {
        self.try_order(product, key).await.unwrap()
    }

    /// As a buyer does who retries with his key until somebody says yes: the order's id.
    async fn order_at_last(&self, product: &str, key: &str) -> String {
        self.told_at_last(product, key).await.0
    }

    /// The order, and whether it stood before any of these requests.
    async fn told_at_last(&self, product: &str, key: &str) -> (String, bool) {
        let (began, mut heard_all) = (Instant::now(), true);
        loop {
            let told = self.try_order(product, key).await;
            heard_all &= told.as_ref().is_some_and(|told| told.status() != StatusCode::SERVICE_UNAVAILABLE);
            if let Some(told) = told
                && told.status() == StatusCode::CREATED
            {
                let stood = heard_all && told.headers().contains_key("Idempotent-Replayed");
                let order: Value = told.json().await.unwrap();
                return (order["id"].as_str().unwrap().to_owned(), stood);
            }
            assert!(began.elapsed() < PATIENCE, "{key} is never answered; the log says:\n{}", self.told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As an administrator does who asks again until somebody says yes.
    async fn renamed_at_last(&self, product: &str, admin: &str, name: &str) {
        let began = Instant::now();
        loop {
            let change = self.client.patch(format!("{}/v1/admin/products/{product}", self.base));
            let change = change.bearer_auth(admin).header("If-Match", "*").json(&json!({ "name": name }));
            if change.send().await.is_ok_and(|told| told.status() == StatusCode::OK) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "never {name:?}; the log says:\n{}", self.told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn name_of(&self, product: &str) -> String {
        let page: Value = self.get(&format!("/v1/products/{product}")).await.json().await.unwrap();
        page["name"].as_str().unwrap().to_owned()
    }

    /// `None` where the connection was lost: a server that recovers closes its doors for a moment.
    async fn try_order(&self, product: &str, key: &str) -> Option<Response> {
        self.client
            .post(format!("{}/v1/orders", self.base))
            .bearer_auth(&self.token)
            .header("Idempotency-Key", key)
            .json(&json!({ "items": [{ "product_id": product, "quantity": 1 }] }))
            .send()
            .await
            .ok()
    }

    /// Stops in order; everything acknowledged must add up.
    fn stop(mut self) {
        let stopped = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(stopped.success());
        let ended = self.process.wait().unwrap();
        assert!(ended.success(), "{ended}; the log says:\n{}", self.told());
    }
}

/// A test that failed leaves no server behind.
impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn audit(data: &Path) {
    let audit = run(data, &["audit"]);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

async fn code(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let problem: Value = answer.json().await.unwrap();
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

/// A command that runs this script among mounts of its own: `$0` is the server, `$1` is `data`.
fn mounted(data: &Path, script: &str) -> Command {
    let mut command = Command::new("unshare");
    configure(&mut command, data);
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", script, SERVER]).arg(data);
    command
}

/// A command that runs `stockade serve` on a tmpfs of so many MiB at `data`.
fn on_a_small_disk(data: &Path, mebibytes: u32) -> Command {
    let script = "mount -t tmpfs -o size=\"$2\"m tmpfs \"$1\" && \"$0\" seed --users 1 --products 1 --stock 100000 \
                  && exec \"$0\" serve";
    let mut command = mounted(data, script);
    command.arg(mebibytes.to_string());
    command
}

/// What makes a sync fail when a test says so, built into this folder.
fn failing_syncs(folder: &Path) -> PathBuf {
    let shim = folder.join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/failing_sync.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&shim)
        .arg(source)
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success());
    shim
}

/// The next sync of this file or folder fails. Whole at once: while nothing stands in it, any sync does.
fn arm(trigger: &Path, wanted: &Path) {
    let armed = trigger.with_extension("armed");
    fs::write(&armed, wanted.to_str().unwrap()).unwrap();
    fs::rename(&armed, trigger).unwrap();
}

/// A full disk refuses new holds with a definite no, loses nothing, goes on reading, and sells again once there is
/// room.
#[actix_web::test]
async fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    fs::create_dir(&data).unwrap();
    let shop = Shop::start(on_a_small_disk(&data, 24), &data, &log).await;
    let product = shop.product().await;
    // Outside this is an empty folder; the disk is seen through the process that has it mounted.
    let disk = PathBuf::from(format!("/proc/{}/root{}", shop.process.id(), data.display()));
    let mut ballast = File::create(disk.join("ballast")).unwrap();
    while ballast.write_all(&[7; 4096]).is_ok() {}
    drop(ballast);
    let (mut held, mut refused) = (Vec::new(), None);
    // The log has its room already: the disk is missed when the archive brings it into its file.
    for number in 0..20_000 {
        let key = format!("full-{number}");
        let answer = shop.order(&product, &key).await;
        if answer.status() == StatusCode::CREATED {
            let order: Value = answer.json().await.unwrap();
            held.push((key, order["id"].as_str().unwrap().to_owned()));
        } else {
            refused = Some((key, code(answer).await));
            break;
        }
    }
    let (key, said) = refused.expect("the disk never got full");
    assert!(
        said == (503, "owner_unavailable".into()) || said == (503, "overloaded".into()),
        "a full disk answers {said:?}"
    );
    // Serving goes on: what stands is read, and a winner who asks again hears yes.
    for (_, id) in &held {
        assert_eq!(shop.get(&format!("/v1/orders/{id}")).await.status(), StatusCode::OK);
    }
    assert_eq!(shop.get(&format!("/v1/products/{product}")).await.status(), StatusCode::OK);
    shop.until_readiness_is(StatusCode::SERVICE_UNAVAILABLE).await;
    let told = shop.told();
    assert!(
        told.contains("disk is full") || told.contains("room"),
        "the log does not say what to do:\n{told}"
    );

    fs::remove_file(disk.join("ballast")).unwrap();
    shop.until_ready().await;
    let again = shop.order(&product, &key).await;
    assert_eq!(again.status(), StatusCode::CREATED, "there is room again");
    for (key, id) in &held {
        let replay = shop.order(&product, key).await;
        let replayed = replay.headers().contains_key("idempotent-replayed");
        let order: Value = replay.json().await.unwrap();
        assert!(replayed, "{key}: {order}\n{}", shop.told());
        assert_eq!(order["id"].as_str(), Some(id.as_str()), "{key}");
    }
    // The disk goes with the process: look at a copy.
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let pid = shop.process.id();
    let frozen = Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap();
    assert!(frozen.success());
    for file in fs::read_dir(&disk).unwrap().flatten() {
        let name = file.file_name();
        if !name.to_string_lossy().ends_with("-shm") && !name.to_string_lossy().ends_with(".lock") {
            fs::copy(file.path(), copy.join(name)).unwrap();
        }
    }
    let _ = Command::new("kill").args(["-CONT", &pid.to_string()]).status();
    audit(&copy);
    shop.stop();
}

/// A data directory that cannot be written is refused at the start, in one clear sentence.
#[test]
fn a_read_only_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    assert!(run(&data, &["seed", "--users", "1", "--products", "1", "--stock", "1"]).status.success());
    let script = "mount -t tmpfs tmpfs \"$1\" && mount -o remount,ro tmpfs \"$1\" && exec \"$0\" serve";
    let mut server = mounted(&data, script)
        .env("STOCKADE_HTTP_ADDR", free_address().unwrap().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    server.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    let ended = server.wait().unwrap();
    assert_eq!(ended.code(), Some(1), "{told}");
    assert!(told.contains(&*data.to_string_lossy()), "it does not name the directory: {told}");
    assert!(!told.contains("stack backtrace") && !told.contains("panicked"), "{told}");
    audit(&data);
}

/// A disk that has room for all but another file of the log: the sentence says so, and nothing is said of what could not be read.
#[test]
fn a_disk_without_room_for_a_file_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    // What is taken away again leaves two MiB.
    let script = "mount -t tmpfs -o size=24m tmpfs \"$1\" && \"$0\" seed --users 1 --products 1 --stock 10 \
                  && head -c 2097152 /dev/zero > \"$1/room\" && { cat /dev/zero > \"$1/ballast\"; rm \"$1/room\"; exec \"$0\" serve; }";
    let mut command = mounted(&data, script);
    let started = command.env("STOCKADE_HTTP_ADDR", free_address().unwrap().to_string()).output().unwrap();
    let told = String::from_utf8_lossy(&started.stderr);
    assert_eq!(started.status.code(), Some(1), "{told}");
    let sentence = format!("another file of the log cannot be made in {}: the disk is full", data.display());
    assert!(told.contains(&sentence) && told.contains("make room"), "{told}");
    assert!(!told.contains("could not be read back"), "{told}");
}

/// What a failed sync has left is written back before the shop opens. Somebody who reads, as a backup does for as long as it takes, keeps it
/// from that, and is waited for.
#[actix_web::test]
async fn a_backup_that_runs_after_a_failed_sync() {
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    fs::create_dir(&data).unwrap();
    assert!(run(&data, &["seed", "--users", "1", "--products", "1", "--stock", "10"]).status.success());
    let serve = || {
        let mut server = Command::new(SERVER);
        server.arg("serve");
        server
    };
    let shop = Shop::start(serve(), &data, &log).await;
    let product = shop.product().await;
    let order = shop.order_at_last(&product, "before").await;
    // Killed, it leaves a write-ahead log.
    drop(shop);
    let mark = data.join("journal.unclean-io");
    File::create(&mark).unwrap();
    let file = SqliteConnectOptions::new().filename(data.join("journal.db")).read_only(true);
    let mut reading = file.connect().await.unwrap();
    for statement in ["begin", "select count(*) from journal"] {
        sqlx::query(statement).execute(&mut reading).await.unwrap();
    }
    let mut shop = Shop::begin(serve(), &data, &log);
    shop.until_told("while somebody reads").await;
    // It is told again with each try.
    let once = shop.told().matches("while somebody reads").count();
    shop.until_told_often("while somebody reads", once + 1).await;
    assert!(shop.process.try_wait().unwrap().is_none() && mark.exists(), "{}", shop.told());
    reading.close().await.unwrap();
    shop.until_ready().await;
    assert!(!mark.exists());
    assert_eq!(shop.order_at_last(&product, "before").await, order);
    shop.stop();
    audit(&data);
}

/// A sync that fails: whoever waits hears *unknown*, the process recovers by itself, and nothing that was
/// acknowledged is lost.
#[actix_web::test]
async fn a_failing_sync() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    fs::create_dir(&data).unwrap();
    let shim = failing_syncs(folder.path());
    assert!(run(&data, &["seed", "--users", "1", "--products", "1", "--stock", "100000"]).status.success());
    let trigger = folder.path().join("fail");
    let mut server = Command::new(SERVER);
    server.arg("serve").env("LD_PRELOAD", &shim).env("SHIM_FAIL", &trigger);
    let shop = Shop::start(server, &data, &log).await;
    let product = shop.product().await;
    let mut held = Vec::new();
    for number in 0..20 {
        let key = format!("before-{number}");
        let order: Value = shop.order(&product, &key).await.json().await.unwrap();
        held.push((key, order["id"].as_str().unwrap().to_owned()));
    }
    let mut unknown = 0;
    for round in 0..12 {
        if round >= 3 && unknown > 0 {
            break;
        }
        File::create(&trigger).unwrap();
        let key = format!("lost-{round}");
        // The sync that fails may be the log's, which leaves this very order in doubt; or that of a file behind it.
        let told = shop.try_order(&product, &key).await;
        let mut denied = false;
        if let Some(told) = told.filter(|told| told.status() != StatusCode::CREATED) {
            let (status, code) = code(told).await;
            assert!(
                status == 503 && ["outcome_unknown", "owner_unavailable"].contains(&code.as_str()),
                "{code}"
            );
            unknown += u32::from(code == "outcome_unknown");
            denied = code == "owner_unavailable";
        }
        let (order, stood) = shop.told_at_last(&product, &key).await;
        assert!(!(denied && stood), "{key} was denied, and stood");
        held.push((key.clone(), order));
        for (key, id) in &held {
            assert_eq!(&shop.order_at_last(&product, key).await, id, "{key} after round {round}");
        }
    }
    assert!(unknown > 0, "nobody was left in doubt:\n{}", shop.told());
    shop.stop();
    audit(&data);
}

/// The same in a file of the tables: whatever is acknowledged there afterwards would stand behind a hole.
#[actix_web::test]
async fn a_failing_sync_of_the_tables() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    fs::create_dir(&data).unwrap();
    assert!(run(&data, &["seed", "--users", "1", "--products", "1", "--stock", "100"]).status.success());
    let trigger = folder.path().join("fail");
    let mut server = Command::new(SERVER);
    server.arg("serve").env("LD_PRELOAD", failing_syncs(folder.path())).env("SHIM_FAIL", &trigger);
    let shop = Shop::start(server, &data, &log).await;
    let admin = token(&data, &["--role", "admin"]);
    let product = shop.product().await;
    shop.renamed_at_last(&product, &admin, "Moon jar").await;

    arm(&trigger, &data.canonicalize().unwrap().join("shop.db-wal"));
    // What is flushed is synced with the next text that is changed.
    let held = shop.order_at_last(&product, "flushed").await;
    shop.renamed_at_last(&product, &admin, "Celadon bowl").await;
    assert!(!trigger.exists(), "no sync of the tables failed");
    shop.until_told("the disk failed while the tables were written").await;
    shop.until_told("recovered: everything acknowledged was read back from the disk").await;
    shop.until_ready().await;
    assert!(!data.join("shop.unclean-io").exists(), "it is written back");
    assert_eq!(shop.name_of(&product).await, "Celadon bowl");
    assert_eq!(shop.order_at_last(&product, "flushed").await, held);
    shop.renamed_at_last(&product, &admin, "Dragon vase").await;
    shop.stop();
    audit(&data);
}

/// Where letters are files the row of one goes when its name is on the disk: a folder that cannot be synced has not taken it.
#[actix_web::test]
async fn a_folder_of_letters_that_cannot_be_synced() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    fs::create_dir(&data).unwrap();
    let trigger = folder.path().join("fail");
    let mut server = Command::new(SERVER);
    server.arg("serve").env("LD_PRELOAD", failing_syncs(folder.path())).env("SHIM_FAIL", &trigger);
    let shop = Shop::start(server, &data, &log).await;
    arm(&trigger, &data.canonicalize().unwrap().join("mail"));
    let mina = json!({
        "email": "mina@example.com",
        "password": "four foxes fly far",
        "name": "Mina Park",
        "phone": "010-2345-1001",
        "address": { "line1": "Teheran-ro 1", "city": "Seoul", "postal_code": "06236", "country": "KR" },
    });
    let told = shop.client.post(format!("{}/v1/users", shop.base)).json(&mina).send().await.unwrap();
    assert_eq!(told.status(), StatusCode::ACCEPTED);
    shop.until_told("was not taken and is tried again").await;
    assert!(!trigger.exists(), "it was the folder's sync that failed");
    shop.until_told("was written to").await;
    shop.stop();
}

#[cfg(target_os = "linux")]
#[actix_web::test]
async fn whoever_sells_in_earnest_does_not_sell_from_memory() {
    use stockade::app::Store;
    use stockade::clock::Clock;
    use stockade::config::{Config, Profile};

    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut config = Config::development(folder.path());
    config.profile = Profile::Production;
    let refused = Store::open(&config, &Clock::start()).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("lies in memory") && refused.contains("take a disk"), "{refused}");
    // Nothing of it is left in anybody's way, and to look at a shop it will do.
    config.profile = Profile::Development;
    Store::open(&config, &Clock::start()).await.unwrap().close().await;
}
