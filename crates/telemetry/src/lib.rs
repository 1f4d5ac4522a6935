//! Logs of rastOS itself, as `tracing` events.
//!
//! One line an event on standard error: plain on a terminal, JSON where a machine reads it. What users'
//! containers print never passes here.

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Warnings; what the API refuses is for the caller to tell, once.
const QUIET: &str = "warn,kube_client::client=off";

/// How rastOS logs.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// A filter in `tracing`'s directive syntax (`info`, `agent=debug,info`); `RAST_LOG` and then warnings when absent.
    pub filter: Option<String>,
    /// JSON lines instead of text.
    pub json: bool,
}

/// The filter is not in `tracing`'s directive syntax.
#[derive(Debug, thiserror::Error)]
#[error("log filter {filter:?}: {source}; write for example info or agent=debug,info")]
pub struct BadFilter {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn init(log: &Log) -> Result<(), BadFilter> {
    let filter = log.filter.clone().or_else(|| std::env::var("RAST_LOG").ok()).unwrap_or_else(|| QUIET.to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|source| BadFilter { filter, source })?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(true);
    let registry = tracing_subscriber::registry().with(filter);
    let _already_started = if log.json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry.with(lines.with_ansi(false)).try_init()
    };
    Ok(())
}
