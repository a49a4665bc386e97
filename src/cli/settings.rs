//! Settings as flags, made from the one table of settings.

use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::Result;
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::config::{Config, ConfigError, Layers, SETTINGS, Setting};

/// The flags' names, where clap can borrow them for ever.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| SETTINGS.iter().map(Setting::flag).collect());

/// Every setting that may be a flag, and `--config`.
#[derive(Debug, Default, Clone)]
pub struct Flags {
    file: Option<PathBuf>,
    said: Vec<(&'static str, String)>,
}

/// Those that concern every command; the others are no flags of `seed` or `token`.
#[derive(Debug, Default, Clone)]
pub struct CommonFlags(pub Flags);

/// What the environment says. Of a variable that is none of ours the name alone counts.
fn variables() -> Result<Vec<(String, String)>, ConfigError> {
    let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let said = named.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        // Passed over, it would be as good as never said, and the shop would start on a default.
        Err(_) if SETTINGS.iter().any(|setting| setting.variable() == name) => {
            Err(ConfigError::Unreadable { name })
        }
        Err(_) => Ok((name, String::new())),
    });
    said.collect()
}

impl Flags {
    /// These, and then those: the later word counts.
    pub fn and(mut self, later: Flags) -> Flags {
        self.file = later.file.or(self.file);
        self.said.extend(later.said);
        self
    }

    /// Flags over the environment over the file.
    pub fn layers(self) -> Result<Layers> {
        Ok(Layers::of(self.file.as_deref(), variables()?, self.said)?)
    }

    /// A configuration that the profile allows.
    pub fn config(self) -> Result<Config> {
        Ok(Config::read(&self.layers()?)?)
    }

    fn read(matches: &mut ArgMatches, wanted: impl Fn(&Setting) -> bool) -> Flags {
        let flags = SETTINGS.iter().filter(|setting| !setting.secret && wanted(setting));
        Flags {
            file: matches.remove_one("config"),
            said: flags.filter_map(|s| Some((s.key, matches.remove_one::<String>(s.key)?))).collect(),
        }
    }

    fn add(command: Command, wanted: impl Fn(&Setting) -> bool) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help_heading("Settings")
            .help("Read settings from this file instead of stockade.toml");
        let flags = SETTINGS.iter().zip(&*NAMES).filter(|(setting, _)| !setting.secret && wanted(setting));
        let flags = flags.map(|(setting, name)| {
            let default = if setting.default.is_empty() {
                String::new()
            } else {
                format!(", default: {}", setting.default)
            };
            Arg::new(setting.key)
                .long(name.as_str())
                .value_name(setting.value)
                .help_heading("Settings")
                .help(format!("{} [{}{default}]", setting.help, setting.variable()))
        });
        command.arg(file).args(flags)
    }
}

macro_rules! flags {
    ($kind:ident, $wrap:expr, $wanted:expr) => {
        impl FromArgMatches for $kind {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
                Self::from_arg_matches_mut(&mut matches.clone())
            }

            fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
                Ok($wrap(Flags::read(matches, $wanted)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }

        impl Args for $kind {
            fn augment_args(command: Command) -> Command {
                Flags::add(command, $wanted)
            }

            fn augment_args_for_update(command: Command) -> Command {
                Flags::add(command, $wanted)
            }
        }
    };
}

flags!(Flags, |flags| flags, |_| true);
flags!(CommonFlags, CommonFlags, |setting| setting.common);
