//! The scanner with one token of foresight, and small questions to ask of a token.

use super::keyword::{Keyword, keyword};
use super::scan::{Kind, Scanner, Token};

/// Reads tokens one after another, showing the next one before it is taken.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    scanner: Scanner<'a>,
    ahead: Token,
    /// One past the last token taken.
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8], standard_conforming_strings: bool) -> Self {
        let mut scanner = Scanner::new(text, standard_conforming_strings);
        let ahead = scanner.token();
        Self { scanner, ahead, end: 0 }
    }

    #[inline]
    pub(super) fn peek(&self) -> Token {
        self.ahead
    }

    #[inline]
    pub(super) fn take(&mut self) -> Token {
        let token = self.ahead;
        self.end = token.end();
        self.ahead = self.scanner.token();
        token
    }

    /// One past the last token taken.
    pub(super) const fn end(&self) -> usize {
        self.end
    }

    #[inline]
    pub(super) fn bytes(&self, token: Token) -> &'a [u8] {
        token.of(self.scanner.text())
    }

    /// The keyword that a [`Kind::Word`] is.
    #[inline]
    pub(super) fn keyword(&self, token: Token) -> Option<Keyword> {
        keyword(self.scanner.text(), token.start(), token.end())
    }

    /// The text between two places.
    pub(super) fn between(&self, start: usize, end: usize) -> &'a [u8] {
        self.scanner.text().get(start..end).unwrap_or(b"")
    }

    /// Whether the next token is this unquoted word (given in lower case).
    pub(super) fn at_word(&self, word: &str) -> bool {
        self.ahead.kind == Kind::Word && self.bytes(self.ahead).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Takes the next token if it is this unquoted word.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.take();
        }
        found
    }

    /// Takes the next token if it is one of these unquoted words.
    pub(super) fn take_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.take_word(word))
    }

    /// Whether the next token can be a name.
    pub(super) const fn at_name(&self) -> bool {
        matches!(self.ahead.kind, Kind::Word | Kind::Quoted)
    }

    /// Takes one name, as written.
    pub(super) fn take_name(&mut self) -> Option<&'a [u8]> {
        if !self.at_name() {
            return None;
        }
        let token = self.take();
        Some(self.bytes(token))
    }

    /// Whether the statement ends before the next token.
    pub(super) const fn at_end(&self) -> bool {
        matches!(self.ahead.kind, Kind::Semicolon | Kind::End | Kind::Bad)
    }

    /// Takes what is left of the statement and gives its text, as written.
    pub(super) fn take_rest(&mut self) -> &'a [u8] {
        if self.at_end() {
            return b"";
        }
        let start = self.ahead.start();
        while !self.at_end() {
            self.take();
        }
        self.between(start, self.end)
    }
}
