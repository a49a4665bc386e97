//! Where a test's tables are: in files, or in a database of a MariaDB that the test process starts for itself.
//!
//! Always true: a folder stands for the same tables however often they are opened, and a copy of it for the same database; and
//! the server ends with the process that started it, whatever ends that.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{ConnectOptions, Executor};
use tempfile::TempDir;

use crate::clock::Clock;
use crate::persistence::Tables;
use crate::persistence::audit::{self, Report};
use crate::persistence::journal::{DatabaseConfig, Journal, JournalReader};

/// What a test's tables are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    Sqlite,
    MySql,
}

impl Home {
    /// New tables, and the folder that stands for them.
    pub async fn tables(self) -> (TempDir, Tables) {
        let dir = tempfile::tempdir().unwrap();
        let tables = self.open(&dir).await;
        (dir, tables)
    }

    /// The tables that a folder stands for.
    pub async fn open(self, dir: &TempDir) -> Tables {
        match self {
            Home::Sqlite => Tables::open(dir.path()).await.unwrap(),
            Home::MySql => Tables::connect(&database_of(dir.path()).await).await.unwrap(),
        }
    }

    /// The journal that a folder stands for.
    pub async fn journal(self, dir: &TempDir) -> Journal {
        match self {
            Home::Sqlite => super::open(dir).await,
            Home::MySql => {
                let config = DatabaseConfig::new(database_of(dir.path()).await, Clock::start());
                Journal::connect(config).await.unwrap().0
            }
        }
    }

    /// What the audit says of a journal and the tables, both of which are closed. A shop has rows of its products besides, which nobody
    /// looks for here.
    pub async fn audit(self, dir: &TempDir) -> Report {
        let journal = JournalReader::of_stopped(dir.path()).await.unwrap();
        let tables = match self {
            Home::Sqlite => Tables::read_only(dir.path()),
            Home::MySql => self.open(dir).await,
        };
        let report = audit::of(&journal, &tables).await.unwrap();
        journal.close().await;
        tables.close().await.unwrap();
        report
    }
}

/// The address of the database that belongs to a folder, which is made if there is none.
async fn database_of(dir: &Path) -> String {
    let file = dir.join("database");
    if let Ok(url) = std::fs::read_to_string(&file) {
        return url;
    }
    let url = new_database().await;
    std::fs::write(file, &url).unwrap();
    url
}

/// The address of a new, empty database.
pub async fn new_database() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("shop_{}", MADE.fetch_add(1, Ordering::Relaxed));
    let create: &'static str = format!("create database {name}").leak();
    let options = MySqlConnectOptions::new().host("127.0.0.1").port(SERVER.port);
    options.connect().await.unwrap().execute(create).await.unwrap();
    format!("mysql://root@127.0.0.1:{}/{name}", SERVER.port)
}

/// A running MariaDB. Nobody stops it: its guard does when this process is gone, whose end of the pipe it listens to.
struct Server {
    port: u16,
    _guard: Child,
}

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// Ends a server, by its own number, when nobody holds the other end of the pipe any more. An interruption from the keyboard is for
/// the tests, and ends it by that.
const GUARD: &str = r#"trap '' INT TERM HUP; folder=$1; shift; "$@" & cat > /dev/null; kill -9 $!; wait $! 2> /dev/null; rm -rf -- "$folder""#;
/// How long it may take to say hello.
const START_MS: u64 = 60_000;
const POLL_MS: u64 = 20;

impl Server {
    fn start() -> Server {
        let folder = tempfile::Builder::new().prefix("stockade-mariadb-").tempdir().unwrap().keep();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let port = stockade_servers::free_address().unwrap().port();
        let shown = |path: PathBuf| path.display().to_string();
        std::fs::create_dir(folder.join("data")).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", GUARD, "guard"])
            .arg(&folder)
            .arg(mariadbd())
            .arg("--no-defaults")
            .arg(format!("--datadir={}", shown(folder.join("data"))))
            .arg(format!("--tmpdir={}", shown(folder.clone())))
            .arg(format!("--socket={}", shown(folder.join("socket"))))
            .arg(format!("--port={port}"))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--max-connections=500"])
            // Without tables of users: whoever asks from this machine is let in.
            .arg("--skip-grant-tables")
            // As we ask of every server; that a test's disk is not waited for is another matter.
            .args(["--innodb-flush-log-at-trx-commit=1", "--skip-log-bin", "--innodb-flush-method=nosync"])
            .args(["--innodb-buffer-pool-size=128M", "--innodb-log-file-size=64M", "--performance-schema=OFF"])
            .args(rustix::process::geteuid().is_root().then_some("--user=root"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let server = Server { port, _guard: command.spawn().unwrap() };
        for _ in 0..START_MS / POLL_MS {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(POLL_MS));
        }
        panic!("mariadbd did not start:\n{}", std::fs::read_to_string(folder.join("log")).unwrap());
    }
}

/// Debian puts servers where only an administrator looks.
fn mariadbd() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places =
        std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    let found = places.map(|place| place.join("mariadbd")).find(|program| program.is_file());
    found.expect(
        "the tables are tested on MariaDB too, and mariadbd is not here: apt-get install mariadb-server-core",
    )
}
