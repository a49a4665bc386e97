//! localstripe as a process of a test's own: something that speaks as Stripe does and that we did not write.
//!
//! `LOCALSTRIPE_PYTHON` names a Python that has it, and then it must work; `scripts/verify` installs one and sets it. Without it,
//! on a machine that has none, there is no bank, and a test that needs one has nothing to prove.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

use reqwest::Client;
use serde_json::Value;

/// Opens every account there.
pub const BANK_KEY: &str = "sk_test_1";

pub struct Bank {
    process: Child,
    /// It lives as long as this is open.
    _life: ChildStdin,
    pub url: String,
    client: Client,
}

impl Bank {
    /// It ignores `Idempotency-Key`, as localstripe does.
    pub fn open() -> Option<Bank> {
        Bank::open_with(&[])
    }

    /// One that has learned what a key is, and where calls can be held in the middle: `tests/stripe/server.py` says how.
    pub fn with_keys() -> Option<Bank> {
        Bank::open_with(&["--keys"])
    }

    fn open_with(flags: &[&str]) -> Option<Bank> {
        let Ok(python) = std::env::var("LOCALSTRIPE_PYTHON") else {
            eprintln!(
                "LOCALSTRIPE_PYTHON names no Python with localstripe: this is proved by scripts/verify"
            );
            return None;
        };
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stripe/server.py"))
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().expect("localstripe says its port; is it installed?");
        let _life = process.stdin.take().unwrap();
        let client = Client::builder().tls_certs_only([]).no_proxy().build().unwrap();
        Some(Bank { process, _life, url: format!("http://127.0.0.1:{port}"), client })
    }

    pub async fn ask(&self, path: &str) -> Value {
        let asking = self.client.get(format!("{}{path}", self.url)).bearer_auth(BANK_KEY);
        asking.send().await.unwrap().json().await.unwrap()
    }

    pub async fn tell(&self, path: &str, body: Value) -> Value {
        let telling = self.client.post(format!("{}{path}", self.url)).bearer_auth(BANK_KEY).json(&body);
        let text = telling.send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The token of a card with this number, as a browser would have made it.
    pub async fn card(&self, number: &str) -> String {
        let card = serde_json::json!({ "number": number, "exp_month": 12, "exp_year": 2030, "cvc": "123" });
        let made =
            self.tell("/v1/payment_methods", serde_json::json!({ "type": "card", "card": card })).await;
        made["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
