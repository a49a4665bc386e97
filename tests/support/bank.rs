//! localstripe as a process of a test's own: something that speaks as Stripe does and that we did not write.
//!
//! `LOCALSTRIPE_PYTHON` names a Python that has it, and then it must work; `scripts/verify` installs one and sets it. Without it,
//! on a machine that has none, there is no bank, and a test that needs one has nothing to prove; where `CI` is set it fails.

use reqwest::Client;
use serde_json::Value;

use super::stranger::{Stranger, python};

/// Opens every account there.
pub const BANK_KEY: &str = "sk_test_1";

pub struct Bank {
    _process: Stranger,
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
        let python = python("LOCALSTRIPE_PYTHON", "localstripe")?;
        let _process = Stranger::open(&python, "stripe/server.py", flags);
        let url = format!("http://127.0.0.1:{}", _process.port);
        let client = Client::builder().tls_certs_only([]).no_proxy().build().unwrap();
        Some(Bank { _process, url, client })
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
