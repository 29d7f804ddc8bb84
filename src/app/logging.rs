//! Where log lines go: to standard error, as text or JSON.

use tracing_subscriber::EnvFilter;

use crate::config::settings::LogFormat;

/// Starts logging. `TIDEGATE_LOG` sets levels by module, as in `info,tidegate::monitor=debug`.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It fails only where logging was started before, as in tests.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
