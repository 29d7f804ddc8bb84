//! A line's fields one after the other, and what is wrong with them.

use super::token::{Field, Token, fields};

/// What is wrong with a line of rules or identity maps, and what to write instead. Shows one word
/// of the line and never all of it: options of methods that PostgreSQL has beside ours hold passwords.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {word:?}: {problem}")]
pub struct LineError {
    /// Its number, from 1.
    pub line: usize,
    /// The word that cannot stand there, or behind which one is missing.
    pub word: String,
    /// Why, and the remedy.
    pub problem: &'static str,
}

/// A line that is being read.
pub(crate) struct Line {
    number: usize,
    rest: std::vec::IntoIter<Field>,
    /// The word that was read last.
    last: String,
}

impl Line {
    /// Cuts a line; `None` if there is nothing in it.
    ///
    /// # Errors
    /// It is more than one line, or a word asks for another file.
    pub(crate) fn read(number: usize, text: &str) -> Result<Option<Self>, LineError> {
        let text = text.trim_end_matches(['\r', '\n']);
        // What stands behind a line break would pass for options, or be lost in a comment.
        if let Some((_, second)) = text.split_once('\n') {
            let word = second.split_whitespace().next().unwrap_or_default().to_owned();
            let problem = "there is a line break before it; give each line as a string of its own";
            return Err(LineError { line: number, word, problem });
        }
        let fields = fields(text);
        let Some(first) = fields.iter().flatten().next() else { return Ok(None) };
        let last = first.text.clone();
        if let Some(file) = fields.iter().flatten().find(|t| t.begins('@') && t.text.len() > 1) {
            let problem = "other files are not read; write the names here, with commas between";
            return Err(LineError { line: number, word: file.text.clone(), problem });
        }
        Ok(Some(Self { number, rest: fields.into_iter(), last }))
    }

    /// The next field's words; at least one.
    ///
    /// # Errors
    /// There is none: `missing` says what should stand there.
    pub(crate) fn many(&mut self, missing: &'static str) -> Result<Field, LineError> {
        match self.next() {
            Some(field) => Ok(field),
            None => Err(LineError { line: self.number, word: self.last.clone(), problem: missing }),
        }
    }

    /// The next field, which has one word only.
    ///
    /// # Errors
    /// There is none, or it has several.
    pub(crate) fn one(&mut self, missing: &'static str) -> Result<Token, LineError> {
        let mut field = self.many(missing)?.into_iter();
        match (field.next(), field.next()) {
            (Some(token), None) => Ok(token),
            (_, Some(second)) => {
                Err(self.error(&second, "one word only may stand here; write another line for it"))
            }
            (None, None) => Err(LineError { line: self.number, word: self.last.clone(), problem: missing }),
        }
    }

    /// The next field's words, if there is one.
    pub(crate) fn next(&mut self) -> Option<Field> {
        let field = self.rest.next()?;
        if let Some(token) = field.last() {
            self.last.clone_from(&token.text);
        }
        Some(field)
    }

    /// Its number, from 1.
    pub(crate) const fn number(&self) -> usize {
        self.number
    }

    /// That a word cannot stand where it does.
    pub(crate) fn error(&self, token: &Token, problem: &'static str) -> LineError {
        LineError { line: self.number, word: token.text.clone(), problem }
    }
}
