//! A shop as a process of its own: the real program on a port that the system chose, its log in a file beside its data,
//! killed whenever a test likes. When it goes its log is searched, whatever the test was about: no token and nobody stands there.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::domain::user::Role;
use stockade::tokens::Tokens;

use super::{Ask, Letter, Pair, Person, Reply, SECRET, leaks, letters_in, user, wait_for};

/// As long as a server is waited for: on an empty database it makes every table first.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

pub struct Process {
    child: Child,
    data: PathBuf,
    log: PathBuf,
    /// How long its log was before it began.
    began: usize,
    /// How long its log was when it was last open.
    before: usize,
    base: String,
    client: Client,
}

impl Process {
    /// Starts the program on a folder, with settings of its own, and waits until it is open.
    pub async fn start(folder: &Path, settings: &[(&str, &str)]) -> Process {
        let mut process = Process::begin(folder, settings);
        process.open().await;
        process
    }

    /// The same without waiting.
    pub fn begin(folder: &Path, settings: &[(&str, &str)]) -> Process {
        let (data, log) = (folder.join("data"), folder.join("log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_stockade"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STOCKADE_")) {
            command.env_remove(name);
        }
        command
            .current_dir(folder)
            .env("STOCKADE_DATA_DIR", &data)
            .env("STOCKADE_HTTP_ADDR", "127.0.0.1:0")
            .env("STOCKADE_JWT_SECRET", SECRET)
            .env("RUST_LOG", "debug")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let before = std::fs::read_to_string(&log).unwrap_or_default().len();
        command.stderr(File::options().create(true).append(true).open(&log).unwrap());
        let child = command.spawn().unwrap();
        Process { child, data, log, began: before, before, base: String::new(), client: super::client() }
    }

    /// Waits until it is open, once more than it was before.
    pub async fn open(&mut self) {
        let addr = self.opened(self.before).await;
        self.base = format!("http://{addr}");
        self.before = self.log().len();
    }

    /// Waits until it takes requests, open or not: at a node that is one of many others answer them.
    pub async fn takes_requests(&mut self) {
        let addr = self.said_where("this node takes requests", self.before).await;
        self.base = format!("http://{addr}");
    }

    /// Waits until it would be given requests.
    pub async fn is_ready(&self) {
        let is_ready = async {
            while self.ask("GET", "/readyz").send().await.status != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), is_ready).await;
        assert!(waited.is_ok(), "it finds no lead:\n{}", self.log());
    }

    /// Waits until its log says so, since it was last open.
    pub async fn says(&self, words: &str) {
        wait_for(|| self.log()[self.before..].contains(words).then_some(())).await;
    }

    /// A signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Where it answers, once it says so behind the first `before` bytes of its log.
    async fn opened(&mut self, before: usize) -> String {
        self.said_where("the shop is open", before).await
    }

    async fn said_where(&mut self, words: &str, before: usize) -> String {
        let saying = async {
            loop {
                let log = self.log();
                if let Some(status) = self.child.try_wait().unwrap() {
                    panic!("it ended with {status} before it was open:\n{log}");
                }
                let line = log[before..].lines().find(|line| line.contains(words));
                if let Some((_, addr)) = line.and_then(|line| line.split_once("addr=")) {
                    return addr.split(' ').next().unwrap().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let said = tokio::time::timeout(OPEN_WITHIN, saying).await;
        said.unwrap_or_else(|_| panic!("it never says that {words}:\n{}", self.log()))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; it must end well by itself.
    pub async fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.ends().await;
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// Waits for its end.
    pub async fn ends(&mut self) -> std::process::ExitStatus {
        wait_for(|| self.child.try_wait().unwrap()).await
    }

    /// Where it answers.
    pub fn addr(&self) -> String {
        self.base.trim_start_matches("http://").to_owned()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn ask(&self, method: &str, path: &str) -> Ask {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Ask { builder: self.client.request(method, format!("{}{path}", self.base)) }
    }

    pub fn post(&self, path: &str, body: &Value) -> Ask {
        self.ask("POST", path).json(body)
    }

    pub fn as_of(&self, pair: &Pair, method: &str, path: &str) -> Ask {
        self.ask(method, path).bearer(&pair.access)
    }

    /// An administrator, by a token that an operator has signed.
    pub fn admin(&self, method: &str, path: &str) -> Ask {
        let (clock, tokens) = (Clock::start(), Tokens::new(SECRET.as_bytes(), &[]).unwrap());
        let token = tokens.sign(user(0), Role::Admin, 900, clock.now(), clock.chance()).unwrap();
        self.ask(method, path).bearer(&token)
    }

    /// What a metric says that is there from the start.
    pub async fn count(&self, name: &str) -> u64 {
        let text = self.ask("GET", "/metrics").send().await.text;
        let count = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        count.unwrap_or_else(|| panic!("{name} is missing in {text}"))
    }

    /// Waits until it says so much, or more.
    pub async fn counts(&self, name: &str, least: u64) {
        let counting = async {
            while self.count(name).await < least {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), counting).await;
        assert!(waited.is_ok(), "{name} does not come to {least}:\n{}", self.log());
    }

    pub async fn sign_up(&self, person: &Person) -> Reply {
        self.post("/v1/users", &person.words()).send().await
    }

    pub async fn resend(&self, person: &Person) {
        let asked = self.post("/v1/users/verify/resend", &json!({ "email": person.email })).send().await;
        assert_eq!(asked.status, 202, "{}", asked.text);
    }

    pub async fn verify(&self, token: &str) -> Reply {
        self.post("/v1/users/verify", &json!({ "token": token })).send().await
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

    pub fn letters_to(&self, email: &str) -> Vec<Letter> {
        let mut letters = letters_in(&self.data.join("mail"));
        letters.retain(|letter| letter.to.eq_ignore_ascii_case(email) && !letter.is_about_an_order());
        letters
    }

    /// The how-manieth letter to somebody, when it has come.
    pub async fn letter(&self, email: &str, number: usize) -> Letter {
        wait_for(|| self.letters_to(email).into_iter().nth(number - 1)).await
    }

    /// Somebody new, who has signed up and followed the link.
    pub async fn newcomer(&self, person: &Person) {
        assert_eq!(self.sign_up(person).await.status, 202);
        let letter = self.letter(&person.email, 1).await;
        assert_eq!(self.verify(&letter.token()).await.status, 204);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has usually ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Whoever fails already says why; and a folder that went first has taken the log along.
        if std::thread::panicking() {
            return;
        }
        let Ok(log) = std::fs::read(&self.log) else { return };
        let said = String::from_utf8_lossy(log.get(self.began..).unwrap_or_default());
        let found = leaks(&said);
        assert!(found.is_empty(), "its log holds {found:?}");
    }
}
