//! The log: JSON in production, readable lines in development.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Profile;

/// The server beneath us tells each of its threads' comings and goings; that is for those who ask.
const FILTER_DEFAULT: &str = "info,actix_server=warn";

/// Starts the log: JSON in production, readable lines in development, coloured on a terminal. `RUST_LOG` chooses what is
/// told, `info` if it is unset. Lines go to standard error, so that standard output belongs to what was asked for.
pub fn start_log(profile: Profile) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as in tests, changes nothing.
    let _ = match profile {
        Profile::Production => lines.json().flatten_event(true).with_current_span(true).finish().try_init(),
        Profile::Development => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            lines.compact().with_target(false).with_ansi(colour).finish().try_init()
        }
    };
}
