//! The demo as people see it: a table that is drawn anew each second, or one line per second where the output
//! is no terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use super::report::Routes;

/// What one second showed.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Seconds since the load began.
    pub seconds: u64,
    /// Reads and writes in all.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Reads of too old data.
    pub stale: u64,
    /// Statements that failed.
    pub errors: u64,
    /// What the proxy says.
    pub routes: Routes,
}

/// Shows moments.
#[derive(Debug)]
pub struct View {
    terminal: bool,
    join: String,
    web: String,
    lagging: String,
    last: Option<Moment>,
    drawn: usize,
}

impl View {
    /// `join` is the psql line, `web` the page's address, `lagging` the node that lags on purpose.
    #[must_use]
    pub fn new(join: String, web: String, lagging: String) -> Self {
        Self { terminal: io::stdout().is_terminal(), join, web, lagging, last: None, drawn: 0 }
    }

    /// Shows a moment.
    pub fn show(&mut self, moment: Moment) {
        let text = if self.terminal { self.table(&moment) } else { self.line(&moment) };
        let mut out = io::stdout().lock();
        if self.terminal && self.drawn > 0 {
            // Back to the table's first line, and away with the old one.
            let _ = write!(out, "\x1b[{}F\x1b[J", self.drawn);
        }
        // Whoever has closed the output sees nothing, and misses nothing.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
        self.drawn = text.matches('\n').count() + 1;
        self.last = Some(moment);
    }

    fn per_second(&self, now: u64, then: impl Fn(&Moment) -> u64) -> u64 {
        now.saturating_sub(self.last.as_ref().map_or(0, then))
    }

    fn table(&self, m: &Moment) -> String {
        let mut text = format!(
            "Tidegate demo, {} s    join in: {}\n                        live page: {}\n\n{:<18}{:<9}{:>9}{:>10}{:>11}{:>13}\n",
            m.seconds, self.join, self.web, "node", "role", "reads/s", "writes/s", "lag, ms", "lag, bytes"
        );
        for (name, node) in &m.routes.nodes {
            let count =
                |all: &std::collections::BTreeMap<String, u64>| all.get(name).copied().unwrap_or_default();
            let reads = self.per_second(count(&m.routes.reads_by_node), |l| {
                l.routes.reads_by_node.get(name).copied().unwrap_or_default()
            });
            let writes = self.per_second(count(&m.routes.writes_by_node), |l| {
                l.routes.writes_by_node.get(name).copied().unwrap_or_default()
            });
            let lag = node.lag_seconds.map_or_else(|| "-".to_owned(), |l| format!("{:.0}", l * 1000.0));
            let bytes = node.lag_bytes.map_or_else(|| "-".to_owned(), |b| format!("{b:.0}"));
            let note = if *name == self.lagging { "  lags on purpose" } else { "" };
            let role = if node.up { node.role.as_str() } else { "down" };
            let _ = writeln!(text, "{name:<18}{role:<9}{reads:>9}{writes:>10}{lag:>11}{bytes:>13}{note}");
        }
        let reads: u64 = m.routes.reads_by_node.values().sum();
        let primary: u64 = m.routes.reads_on_primary.values().sum();
        let share = if reads == 0 { 0.0 } else { 100.0 * primary as f64 / reads as f64 };
        let whys: Vec<_> = m.routes.reads_on_primary.iter().map(|(why, n)| format!("{why} {n}")).collect();
        let _ = write!(
            text,
            "\nreads {}  writes {}  reads on the primary {share:.1} % ({})\nstale reads {}  errors {}  healed {}   (every read is checked; Ctrl-C ends and cleans up)",
            m.reads,
            m.writes,
            whys.join(", "),
            m.stale,
            m.errors,
            m.routes.healed
        );
        text
    }

    fn line(&self, m: &Moment) -> String {
        let reads = self.per_second(m.reads, |l| l.reads);
        let writes = self.per_second(m.writes, |l| l.writes);
        let primary: u64 = m.routes.reads_on_primary.values().sum();
        let lags: Vec<_> = m
            .routes
            .nodes
            .iter()
            .filter_map(|(name, n)| n.lag_seconds.map(|l| format!("{name} {:.0} ms", l * 1000.0)))
            .collect();
        format!(
            "{:>4} s  reads/s {reads}  writes/s {writes}  reads on the primary {primary} of {}  lag {}  stale {}  errors {}",
            m.seconds,
            m.reads,
            lags.join(", "),
            m.stale,
            m.errors
        )
    }
}
