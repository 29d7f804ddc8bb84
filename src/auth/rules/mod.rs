//! Who may come in, from where and by which method: rules in the syntax of pg_hba.conf
//! (src/backend/libpq/hba.c), one line per rule, of which the first that fits counts.
//!
//! What Tidegate cannot judge is an error and never skipped: a rule that fits nobody could be the
//! `reject` that somebody counts on.
//!
//! Reading order: `token` (a line's words), [`mod@line`] (a line's fields, and what is wrong with
//! them), [`address`], [`rule`] (one rule), `parse` (a line into a rule), [`denial`] (how a
//! client is told).

pub(crate) mod token;
pub mod line;
pub mod address;
pub mod rule;
mod parse;
pub mod denial;

#[cfg(test)]
mod tests;

pub use denial::Denial;
pub use line::LineError;
pub use rule::{Applicant, ClientCert, Rule, RuleMethod, Transport};

use super::client_login::Method;

/// The rules in their order. Immutable: a reload makes new ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Reads lines of pg_hba.conf. Empty lines and comments are passed over; of no rule at all
    /// comes a list that lets nobody in.
    ///
    /// # Errors
    /// A line is malformed, or asks for what Tidegate does not do.
    pub fn parse<S: AsRef<str>>(lines: &[S]) -> Result<Self, LineError> {
        let numbered = lines.iter().zip(1..);
        let rules = numbered.filter_map(|(text, number)| parse::rule(number, text.as_ref()).transpose());
        rules.collect::<Result<_, _>>().map(Self)
    }

    /// The first rule that fits, whatever it says (PostgreSQL: `check_hba`).
    #[must_use]
    pub fn find(&self, applicant: &Applicant<'_>) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.fits(applicant))
    }

    /// The first rule that fits, and the login that it asks for.
    ///
    /// # Errors
    /// No rule fits, or the one that does says `reject`.
    pub fn admit(&self, applicant: &Applicant<'_>) -> Result<(&Rule, Method), Denial> {
        let rule = self.find(applicant).ok_or(Denial::NoEntry)?;
        rule.method.login().map(|method| (rule, method)).ok_or(Denial::Rejected)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }
}

impl Default for Rules {
    /// SCRAM from anywhere, for replication too; trust from nowhere.
    fn default() -> Self {
        Self(vec![Rule::scram_for_all()])
    }
}
