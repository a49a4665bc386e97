//! Flags over environment over file over defaults: who said what, and who is heard.
//!
//! Always true: an empty value takes away nothing that a lower layer has said of a setting with a default, for it is as never said.
//! Of one without a default it says that there is none, and which shop this is nobody leaves empty.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use ::config::{File, FileFormat, Source, Value};

use super::{ConfigError, SETTINGS, Setting};

/// Read when it is there and `--config` names no other.
const FILE_DEFAULT: &str = "stockade.toml";
const PREFIX: &str = "STOCKADE_";
/// Left empty it is refused: whoever meant production must not get the shop that forgives.
const NEVER_EMPTY: &str = "profile";

/// Who said a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(String),
    Variable(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {path}"),
            Origin::Variable(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// A value as it counts, for showing.
#[derive(Debug, Clone)]
pub struct Effective {
    pub setting: &'static Setting,
    /// `…` for a secret.
    pub value: String,
    pub origin: Origin,
}

/// All settings, each with the value that won. An empty one means: unset.
#[derive(Debug, Clone)]
pub struct Layers {
    values: BTreeMap<&'static str, (String, Origin)>,
    strangers: Vec<String>,
}

impl Layers {
    /// Merges the file (`path`, or `stockade.toml` where there is one), these variables and these flags.
    pub fn of(
        path: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Layers, ConfigError> {
        let defaults = SETTINGS.iter().map(|s| (s.key, (s.default.to_owned(), Origin::Default)));
        let mut layers = Layers { values: defaults.collect(), strangers: Vec::new() };
        layers.add_file(path)?;
        for (name, value) in variables {
            match SETTINGS.iter().find(|setting| setting.variable() == name) {
                Some(setting) => layers.say(setting, value, Origin::Variable(name)),
                None if name.starts_with(PREFIX) => layers.strangers.push(name),
                None => {}
            }
        }
        for (key, value) in flags {
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
                layers.say(setting, value, Origin::Flag(setting.flag()));
            }
        }
        Ok(layers)
    }

    /// Whoever says nothing in so many words has not said it, where there is a default; where there is none it is told who has.
    fn say(&mut self, setting: &Setting, value: String, origin: Origin) {
        let says_nothing = value.is_empty() && !setting.default.is_empty() && setting.key != NEVER_EMPTY;
        if !says_nothing {
            self.values.insert(setting.key, (value, origin));
        }
    }

    fn add_file(&mut self, path: Option<&Path>) -> Result<(), ConfigError> {
        let file = path.unwrap_or(Path::new(FILE_DEFAULT));
        let name = file.display().to_string();
        let unreadable = |reason: String| ConfigError::File { file: name.clone(), reason };
        if path.is_none() && !file.exists() {
            return Ok(());
        }
        let text = std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
        let table = File::from_str(&text, FileFormat::Toml)
            .collect()
            .map_err(|error| unreadable(error.to_string()))?;
        for (key, value) in table {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
                return Err(ConfigError::Unknown { origin: name, hint: hint(&key), key });
            };
            let list = value.clone().into_array().ok().filter(|_| value.clone().into_string().is_err());
            let said = match list {
                Some(items) => items
                    .into_iter()
                    .map(Value::into_string)
                    .collect::<Result<Vec<_>, _>>()
                    .map(|i| i.join(",")),
                None => value.into_string(),
            };
            let said = said
                .map_err(|_| unreadable(format!("`{key}` is neither a word, a number nor a list of them")))?;
            self.say(setting, said, Origin::File(name.clone()));
        }
        Ok(())
    }

    /// Variables that look like ours and mean nothing. Not an error: an orchestrator makes some of these by itself.
    pub fn strangers(&self) -> &[String] {
        &self.strangers
    }

    /// Every setting as it counts.
    pub fn effective(&self) -> impl Iterator<Item = Effective> {
        SETTINGS.iter().filter_map(|setting| {
            let (value, origin) = self.values.get(setting.key)?;
            Some(Effective { setting, value: shown(setting, value), origin: origin.clone() })
        })
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn is_default(&self, key: &str) -> bool {
        self.values.get(key).is_none_or(|(_, origin)| *origin == Origin::Default)
    }

    pub(super) fn parsed<T: FromStr>(&self, key: &'static str) -> Result<T, ConfigError>
    where
        T::Err: fmt::Display,
    {
        let text = self.text(key).unwrap_or_default();
        text.parse().map_err(|error: T::Err| self.bad(key, &error.to_string()))
    }

    pub(super) fn number<T: FromStr>(&self, key: &'static str) -> Result<T, ConfigError> {
        let digits = self.text(key).unwrap_or_default().replace('_', "");
        digits.parse().map_err(|_| self.bad(key, "expected a whole number"))
    }

    pub(super) fn positive<T: FromStr + PartialEq + Default>(
        &self,
        key: &'static str,
    ) -> Result<T, ConfigError> {
        match self.number(key)? {
            zero if zero == T::default() => Err(self.bad(key, "expected at least 1")),
            number => Ok(number),
        }
    }

    pub(super) fn list<T: FromStr>(&self, key: &'static str) -> Result<Vec<T>, ConfigError>
    where
        T::Err: fmt::Display,
    {
        let items =
            self.text(key).unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(|item| item.parse().map_err(|error: T::Err| self.bad(key, &error.to_string()))).collect()
    }

    pub(super) fn bad(&self, key: &'static str, reason: &str) -> ConfigError {
        let (value, origin) = self.values.get(key).cloned().unwrap_or((String::new(), Origin::Default));
        ConfigError::Value {
            key,
            value: SETTINGS.iter().find(|s| s.key == key).map_or_else(String::new, |s| shown(s, &value)),
            origin: origin.to_string(),
            reason: reason.to_owned(),
        }
    }
}

/// A value as it may be shown: nothing of a secret.
fn shown(setting: &Setting, value: &str) -> String {
    if setting.secret && !value.is_empty() { "…".to_owned() } else { without_password(value) }
}

/// A URL as it may be shown: who logs in, and with what, is left out.
fn without_password(value: &str) -> String {
    match (value.find("://"), value.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => format!("{}…{}", &value[..scheme + 3], &value[at..]),
        _ => value.to_owned(),
    }
}

/// `; did you mean …?` when a known key is near.
fn hint(key: &str) -> String {
    let near = SETTINGS.iter().map(|s| (distance(key, s.key), s.key)).min();
    near.filter(|(steps, _)| *steps <= 3)
        .map(|(_, near)| format!("; did you mean `{near}`?"))
        .unwrap_or_default()
}

/// How many letters must be changed, added or left out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn flags_win_over_variables_over_the_file_over_defaults() {
        let (_folder, path) = file(
            "http_addr = \"1.1.1.1:1\"\nworkers = 3\nshutdown_ms = 7\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]",
        );
        let variables = [
            ("STOCKADE_HTTP_ADDR", "2.2.2.2:2"),
            ("STOCKADE_WORKERS", "4"),
            ("STOCKADE_PORT", "5"),
            ("HOME", "x"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let layers = Layers::of(Some(&path), variables, [("http_addr", "3.3.3.3:3".to_owned())]).unwrap();
        assert_eq!(layers.text("http_addr"), Some("3.3.3.3:3"));
        assert_eq!(layers.text("workers"), Some("4"));
        assert_eq!(layers.text("shutdown_ms"), Some("7"));
        assert_eq!(layers.text("trusted_proxies"), Some("10.0.0.0/8,::1"));
        assert_eq!(layers.text("data_dir"), Some("./data"));
        assert_eq!(layers.strangers(), ["STOCKADE_PORT"]);
        let origins: Vec<String> = layers.effective().map(|e| e.origin.to_string()).collect();
        assert!(
            origins.contains(&"flag --http-addr".to_owned())
                && origins.contains(&"environment STOCKADE_WORKERS".to_owned())
        );
    }

    #[test]
    fn an_empty_value_is_as_never_said() {
        let said = "roles = \"gateway\"\njwt_algorithm = \"EdDSA\"\nredis_url = \"redis://cache\"\n";
        let (_folder, path) = file(&format!("data_dir = \"\"\nworkers = \"\"\n{said}"));
        let named = ["ROLES", "JWT_ALGORITHM", "REDIS_URL", "MAIL_FROM", "CALENDAR_DAY", "TRUSTED_PROXIES"];
        let variables = named.map(|name| (format!("STOCKADE_{name}"), String::new()));
        let flags = ["http_addr", "roles"].map(|key| (key, String::new()));
        let layers = Layers::of(Some(&path), variables, flags).unwrap();
        let origin = |key: &str| layers.values.get(key).map(|(_, origin)| origin.clone());
        for (key, said) in [("roles", "gateway"), ("jwt_algorithm", "EdDSA")] {
            assert_eq!(layers.text(key), Some(said), "the file has said it");
            assert_eq!(origin(key), Some(Origin::File(path.display().to_string())), "{key}");
        }
        assert_eq!(layers.text("redis_url"), None, "there is no default, so it says that there is none");
        for key in ["data_dir", "mail_from", "calendar_day", "http_addr"] {
            let setting = SETTINGS.iter().find(|setting| setting.key == key).unwrap();
            assert_eq!(layers.text(key), Some(setting.default), "{key}");
            assert!(layers.is_default(key), "{key}");
        }
        assert_eq!(layers.text("workers"), None);
        assert!(!layers.is_default("trusted_proxies"), "an empty list is a list");
    }

    #[test]
    fn an_empty_profile_over_production_is_no_development_shop() {
        let (_folder, path) = file("profile = \"production\"");
        let variable = ("STOCKADE_PROFILE".to_owned(), String::new());
        let layers = Layers::of(Some(&path), [variable], []).unwrap();
        let told = Config::read(&layers).map(drop).unwrap_err().to_string();
        assert!(told.starts_with("profile = ``") && told.contains("environment STOCKADE_PROFILE"), "{told}");
    }

    #[test]
    fn an_unknown_key_is_an_error_that_helps() {
        let (_folder, path) = file("htp_addr = \"1.1.1.1:1\"");
        let error = Layers::of(Some(&path), [], []).unwrap_err().to_string();
        assert!(error.contains("did you mean `http_addr`?"), "{error}");
        let missing = Layers::of(Some(Path::new("no/such/file.toml")), [], []).unwrap_err().to_string();
        assert!(missing.contains("no/such/file.toml"), "{missing}");
    }

    #[test]
    fn a_secret_is_shown_as_three_dots() {
        let secret = ("STOCKADE_JWT_SECRET".to_owned(), "hush".to_owned());
        let layers = Layers::of(None, [secret], []).unwrap();
        let shown = layers.effective().find(|e| e.setting.secret).map(|e| e.value);
        assert_eq!(shown.as_deref(), Some("…"));
        assert_eq!(without_password("mysql://root:hush@db/shop"), "mysql://…@db/shop");
    }
}
