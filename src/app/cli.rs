//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A primary and its read replicas as one PostgreSQL database.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `run` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy.
    Run(RunArgs),
    /// Check the configuration and every node, then exit.
    Check(CheckArgs),
    /// Tell where a statement would go, and why.
    Explain(ExplainArgs),
    /// Start a primary, two standbys, Tidegate and a checked load, all in a temporary directory.
    Demo(DemoArgs),
}

/// Flags of `run` and `check`. Each outweighs its variable, which outweighs the file.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Where clients connect [default: 127.0.0.1:6432].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where clients connect that only ever read from replicas: a standby's behaviour, writes are refused [default:
    /// nowhere].
    #[arg(long, value_name = "ADDR")]
    pub listen_replica: Option<String>,
    /// Where metrics and health are served [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// A PostgreSQL server, primary or standby: postgres://user:password@host:port/database. Repeat it.
    #[arg(long = "node", value_name = "URL")]
    pub nodes: Vec<String>,
    /// How clients log in: trust or scram [default: scram].
    #[arg(long, value_name = "METHOD")]
    pub auth: Option<String>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// How log lines are written: text or json [default: text].
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Flags of `check`.
#[derive(Clone, Debug, Default, Args)]
pub struct CheckArgs {
    /// Flags of `run`.
    #[command(flatten)]
    pub run: RunArgs,
    /// Instead, print SQL that lets Tidegate log in as a role that is no superuser.
    #[arg(long)]
    pub print_setup: bool,
}

/// Flags of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The statement.
    pub sql: String,
    /// A node whose database's functions and relations are looked up.
    #[arg(long, value_name = "URL")]
    pub node: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `demo`.
#[derive(Clone, Debug, Default, Args)]
pub struct DemoArgs {
    /// End after this many seconds; without it, at Ctrl-C.
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// Print one JSON object as the last line.
    #[arg(long)]
    pub json: bool,
    /// Sessions of the load.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub sessions: usize,
    /// Percentage of writes in the load.
    #[arg(long, value_name = "PERCENT", default_value_t = 20)]
    pub writes: u32,
    /// How far the second replica lags on purpose, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 150)]
    pub lag: u32,
    /// The consistency level: session, read_your_writes or eventual.
    #[arg(long, value_name = "LEVEL", default_value = "session")]
    pub consistency: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound_and_run_needs_no_word() {
        Cli::command().debug_assert();
        let cli =
            Cli::try_parse_from(["tidegate", "--node", "postgres://a", "--node", "postgres://b"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.nodes.len(), 2);
        let cli = Cli::try_parse_from(["tidegate", "run", "--auth", "trust"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Run(args)) if args.auth.as_deref() == Some("trust")));
        let cli =
            Cli::try_parse_from(["tidegate", "check", "--print-setup", "--node", "postgres://a"]).unwrap();
        assert!(
            matches!(cli.command, Some(Command::Check(args)) if args.print_setup && args.run.nodes.len() == 1)
        );
        let cli = Cli::try_parse_from(["tidegate", "explain", "select 1"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Explain(args)) if args.sql == "select 1"));
    }
}
