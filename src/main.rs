//! The `tidegate` command.

#![warn(clippy::unwrap_used)]

use std::io::Write;
use std::process;

use clap::Parser;
use tidegate::app::cli::{Cli, Command, RunArgs};
use tidegate::app::exit::ExitCode;
use tidegate::app::{check, explain, load, logging, run, setup};
use tidegate::config::ConfigError;
use tidegate::demo;

/// A thread of its own gives free memory back to the system after some ten seconds. glibc gives back only what lies
/// above all that is in use, and one small thing that outlives a crowd of clients is enough to keep what they had.
#[cfg(all(feature = "jemalloc", target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> process::ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => run(cli.run),
        Some(Command::Run(args)) => run(args),
        Some(Command::Check(args)) if args.print_setup => load::load(&args.run).map(|s| setup::print(&s)),
        Some(Command::Check(args)) => load::load(&args.run).map(|settings| check::check(&settings)),
        Some(Command::Explain(args)) => explain::explain(&args),
        Some(Command::Demo(args)) => Ok(demo::demo(&args)),
    };
    match done {
        Ok(code) => code.into(),
        Err(error) => {
            // Whoever started us without a standard error does not want to know.
            let _ = writeln!(std::io::stderr().lock(), "tidegate: {error}");
            ExitCode::Usage.into()
        }
    }
}

fn run(args: RunArgs) -> Result<ExitCode, ConfigError> {
    let settings = load::load(&args)?;
    logging::start(settings.log_format);
    let reload = move || match load::load(&args) {
        Ok(settings) => Some(settings),
        Err(error) => {
            tracing::error!(%error, "the configuration cannot be read anew; the old one stays");
            None
        }
    };
    Ok(run::run(settings, Box::new(reload)))
}
