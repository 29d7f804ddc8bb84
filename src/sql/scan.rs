//! Text to tokens, by PostgreSQL's own rules (`src/backend/parser/scan.l`).
//!
//! One pass, no allocation, no recursion. Every byte is looked at a bounded number of times,
//! whatever the text says. What PostgreSQL would refuse (or what servers of different versions
//! read differently) ends in [`Kind::Bad`], after which nothing more is read.

use memchr::{memchr, memchr2};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or an identifier without quotes.
    Word,
    /// An identifier in double quotes, quotes included.
    Quoted,
    /// A `'..'` literal without backslash escapes.
    Literal,
    /// Any other string: with escapes, dollar quotes, bits, national characters.
    Text,
    /// A number.
    Number,
    /// `$1`.
    Param,
    /// An operator, also one of a single character.
    Operator,
    /// `(`.
    Open,
    /// `)`.
    Close,
    /// `[`.
    OpenBracket,
    /// `]`.
    CloseBracket,
    /// `,`.
    Comma,
    /// `;`.
    Semicolon,
    /// `.`.
    Dot,
    /// `::`.
    Cast,
    /// `:` or `:=`.
    Colon,
    /// Something that cannot be read with certainty, up to the end of the text.
    Bad,
    /// The end of the text.
    End,
}

/// One token: its kind and where it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    // First byte in the upper half, one past the last in the lower. With two fields the token
    // travels in registers; with three it goes through memory, which doubles the time of it all.
    span: u64,
}

impl Token {
    #[inline(always)]
    fn new(kind: Kind, start: usize, end: usize) -> Self {
        // The scanner takes no text that is longer.
        Self { kind, span: (start as u64) << 32 | end as u64 }
    }

    /// Its first byte in the text.
    #[must_use]
    pub const fn start(&self) -> usize {
        (self.span >> 32) as usize
    }

    /// One past its last byte.
    #[must_use]
    pub const fn end(&self) -> usize {
        (self.span & 0xffff_ffff) as usize
    }

    /// The token's bytes in the text that it was read from.
    #[inline]
    #[must_use]
    pub fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start()..self.end()).unwrap_or(b"")
    }
}

const SPACE: u8 = 1;
const START: u8 = 2;
const CONTINUE: u8 = 4;
const DIGIT: u8 = 8;
const OPERATOR: u8 = 16;
/// A token by itself, whatever follows.
const SINGLE: u8 = 32;
/// What a string may start with, besides a word: `E'..'`, `U&'..'`.
const PREFIX: u8 = 64;

/// What each byte can be: scan.l's `space`, `ident_start`, `ident_cont`, `digit`, `op_chars`.
static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => SPACE,
            b'b' | b'B' | b'e' | b'E' | b'n' | b'N' | b'u' | b'U' | b'x' | b'X' => START | CONTINUE | PREFIX,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => START | CONTINUE,
            b'0'..=b'9' => DIGIT | CONTINUE,
            b'$' => CONTINUE,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/'
            | b'%' | b'<' | b'>' | b'=' => OPERATOR,
            b'(' | b')' | b',' | b';' | b'[' | b']' => SINGLE,
            _ => 0,
        };
        byte += 1;
    }
    table
}

/// What a byte of the class [`SINGLE`] is.
#[inline(always)]
const fn single(byte: u8) -> Kind {
    match byte {
        b'(' => Kind::Open,
        b')' => Kind::Close,
        b',' => Kind::Comma,
        b';' => Kind::Semicolon,
        b'[' => Kind::OpenBracket,
        _ => Kind::CloseBracket,
    }
}

/// The highest bit of each byte.
const HIGH: u64 = repeat(0x80);

const fn repeat(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The eight bytes of `text` from `at` on, the first one lowest; zero stands for what is behind the end.
#[inline(always)]
pub(super) fn eight(text: &[u8], at: usize) -> u64 {
    match text.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => last_bytes(text, at),
    }
}

fn last_bytes(text: &[u8], at: usize) -> u64 {
    let rest = text.get(at..).unwrap_or_default();
    rest.iter().rev().fold(0, |bytes, byte| bytes << 8 | u64::from(*byte))
}

/// Of eight bytes, the highest bit of each one that can continue a word, which is what [`CLASS`] calls `CONTINUE`;
/// the other bits mean nothing. No sum of these carries into the next byte.
#[inline(always)]
const fn continues(bytes: u64) -> u64 {
    let low = bytes & !HIGH;
    let folded = low | repeat(0x20);
    let letter = (folded + repeat(0x80 - b'a')) & !(folded + repeat(0x7f - b'z'));
    let digit = (low + repeat(0x80 - b'0')) & !(low + repeat(0x7f - b'9'));
    let underscore = HIGH - (low ^ repeat(b'_'));
    let dollar = HIGH - (low ^ repeat(b'$'));
    bytes | letter | digit | underscore | dollar
}

/// Reads a text's tokens one after another.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// Up to here the text holds nothing but `+` and `-`, each an operator of its own.
    signs: usize,
    /// Whether a backslash in `'..'` is an ordinary character.
    plain_strings: bool,
    #[cfg(test)]
    looked: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `text`. One of 4 GiB or more, which no message can bring, is bad
    /// as a whole.
    #[must_use]
    pub const fn new(text: &'a [u8], standard_conforming_strings: bool) -> Self {
        let text = if text.len() < u32::MAX as usize { text } else { b"\0" };
        Self {
            text,
            at: 0,
            signs: 0,
            plain_strings: standard_conforming_strings,
            #[cfg(test)]
            looked: 0,
        }
    }

    /// The text that is read.
    #[must_use]
    pub const fn text(&self) -> &'a [u8] {
        self.text
    }

    /// How many bytes have been looked at, counting those looked at twice.
    #[cfg(test)]
    pub(super) const fn looked(&self) -> usize {
        self.looked
    }

    #[cfg(test)]
    fn count(&mut self, from: usize, to: usize) {
        self.looked += to.saturating_sub(from);
    }

    #[cfg(not(test))]
    #[inline(always)]
    fn count(&mut self, _from: usize, _to: usize) {}

    #[inline]
    fn byte(&self, at: usize) -> u8 {
        // Zero belongs to no class and is refused by itself, so it may stand for the end too.
        self.text.get(at).copied().unwrap_or(0)
    }

    #[inline]
    fn is(&self, at: usize, class: u8) -> bool {
        CLASS[usize::from(self.byte(at))] & class != 0
    }

    #[inline]
    fn run(&self, mut at: usize, class: u8) -> usize {
        while self.is(at, class) {
            at += 1;
        }
        at
    }

    /// The next token. After [`Kind::End`] and [`Kind::Bad`] it stays there.
    #[inline]
    pub fn token(&mut self) -> Token {
        let from = self.at;
        let Some(start) = self.blank() else {
            return self.bad(from);
        };
        let Some(&first) = self.text.get(start) else {
            self.at = start;
            self.count(from, start);
            return Token::new(Kind::End, start, start);
        };
        let class = CLASS[usize::from(first)];
        let found = if class & (START | PREFIX) == START {
            Some((Kind::Word, self.word_end(start)))
        } else if class & SINGLE != 0 {
            Some((single(first), start + 1))
        } else if class & START != 0 {
            self.word(start, first)
        } else {
            self.other(start, first)
        };
        match found {
            Some((kind, end)) => {
                self.count(from, end);
                self.at = end;
                Token::new(kind, start, end)
            }
            None => self.bad(start),
        }
    }

    #[cold]
    fn bad(&mut self, start: usize) -> Token {
        let end = self.text.len();
        self.count(self.at, end);
        // Stays where it is: asking again gives the same answer from the same byte.
        self.at = start;
        Token::new(Kind::Bad, start, end)
    }

    /// Skips white space and comments; `None` for a comment without an end.
    #[inline]
    fn blank(&self) -> Option<usize> {
        // One space, or none, and then no comment: nearly always so.
        let mut at = self.at + usize::from(self.byte(self.at) == b' ');
        if CLASS[usize::from(self.byte(at))] & (START | DIGIT) != 0 {
            return Some(at);
        }
        loop {
            at = self.run(at, SPACE);
            match self.byte(at) {
                b'-' if self.byte(at + 1) == b'-' => at = self.line_end(at + 2),
                b'/' if self.byte(at + 1) == b'*' => at = self.block_end(at + 2)?,
                _ => return Some(at),
            }
        }
    }

    /// A line comment ends at a line feed or a carriage return.
    fn line_end(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or(b"");
        memchr2(b'\n', b'\r', rest).map_or(self.text.len(), |n| at + n)
    }

    /// Block comments nest.
    fn block_end(&self, mut at: usize) -> Option<usize> {
        let mut depth = 1_u32;
        loop {
            at += memchr2(b'*', b'/', self.text.get(at..)?)?;
            match (self.byte(at), self.byte(at + 1)) {
                (b'*', b'/') => {
                    at += 2;
                    depth -= 1;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                (b'/', b'*') => {
                    at += 2;
                    depth = depth.checked_add(1)?;
                }
                _ => at += 1,
            }
        }
    }

    /// A word, or one of the strings that start like one.
    fn word(&mut self, start: usize, first: u8) -> Option<(Kind, usize)> {
        let second = self.byte(start + 1);
        if second == b'\'' {
            match first {
                b'e' | b'E' => return self.escaped(start + 2),
                // Within bits there is no doubled quote: the first one ends it.
                b'b' | b'B' | b'x' | b'X' => return self.bits(start + 2),
                b'n' | b'N' => {
                    let (_, end) = self.string(start + 2)?;
                    return Some((Kind::Text, end));
                }
                _ => {}
            }
        } else if second == b'&' && matches!(first, b'u' | b'U') {
            match self.byte(start + 2) {
                // PostgreSQL refuses this form when backslashes escape.
                b'\'' if self.plain_strings => {
                    let (_, end) = self.plain(start + 3)?;
                    return Some((Kind::Text, end));
                }
                // A name spelt in code points: rare, and its meaning may hang on UESCAPE.
                b'\'' | b'"' => return None,
                _ => {}
            }
        }
        Some((Kind::Word, self.word_end(start)))
    }

    /// Where the word around `at` ends: eight bytes at a time.
    #[inline]
    fn word_end(&self, mut at: usize) -> usize {
        loop {
            let others = !continues(eight(self.text, at)) & HIGH;
            if others != 0 {
                return at + others.trailing_zeros() as usize / 8;
            }
            at += 8;
        }
    }

    fn other(&mut self, start: usize, first: u8) -> Option<(Kind, usize)> {
        let kind = match first {
            b'.' if !self.is(start + 1, DIGIT) => Kind::Dot,
            b'.' | b'0'..=b'9' => return self.number(start, first),
            b'\'' => return self.string(start + 1),
            b'"' => return self.quoted(start),
            b'$' => return self.dollar(start),
            b':' => {
                return Some(match self.byte(start + 1) {
                    b':' => (Kind::Cast, start + 2),
                    b'=' => (Kind::Colon, start + 2),
                    _ => (Kind::Colon, start + 1),
                });
            }
            _ if CLASS[usize::from(first)] & OPERATOR != 0 => {
                return Some((Kind::Operator, self.operator(start)));
            }
            _ => return None,
        };
        Some((kind, start + 1))
    }

    /// An operator ends where a comment starts in it; and unless it has one of `~!@#^&|`?%`, it
    /// does not end in `+` or `-`.
    fn operator(&mut self, start: usize) -> usize {
        if start < self.signs {
            return start + 1;
        }
        let mut end = start;
        let mut special = false;
        loop {
            let byte = self.byte(end);
            if CLASS[usize::from(byte)] & OPERATOR == 0 {
                break;
            }
            if matches!((byte, self.byte(end + 1)), (b'/', b'*') | (b'-', b'-')) {
                break;
            }
            special |= !matches!(byte, b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=');
            end += 1;
        }
        if special {
            return end;
        }
        self.signs = end;
        while end > start + 1 && matches!(self.byte(end - 1), b'+' | b'-') {
            end -= 1;
        }
        end
    }

    /// Numbers as PostgreSQL 16 writes them. What follows one must not be able to continue a
    /// name: up to 14, `1INTO` is two tokens; since 15, an error.
    fn number(&self, start: usize, first: u8) -> Option<(Kind, usize)> {
        let mut at = start;
        let radix = match self.byte(start + 1) {
            b'x' | b'X' => Some(16),
            b'o' | b'O' => Some(8),
            b'b' | b'B' => Some(2),
            _ => None,
        };
        if let (b'0', Some(radix)) = (first, radix) {
            at = start + 2;
            while char::from(self.byte(at)).is_digit(radix) || self.byte(at) == b'_' {
                at += 1;
            }
        } else {
            at = self.digits(at);
            // `1..2` is a range, not `1.` and `.2`.
            if self.byte(at) == b'.' && self.byte(at + 1) != b'.' {
                at = self.digits(at + 1);
            }
            if matches!(self.byte(at), b'e' | b'E') {
                let sign = usize::from(matches!(self.byte(at + 1), b'+' | b'-'));
                if self.is(at + 1 + sign, DIGIT) {
                    at = self.digits(at + 1 + sign);
                }
            }
        }
        if self.is(at, START | DIGIT) {
            return None;
        }
        Some((Kind::Number, at))
    }

    fn digits(&self, mut at: usize) -> usize {
        while self.is(at, DIGIT) || (self.byte(at) == b'_' && self.is(at + 1, DIGIT)) {
            at += 1;
        }
        at
    }

    fn string(&mut self, at: usize) -> Option<(Kind, usize)> {
        if self.plain_strings { self.plain(at) } else { self.escaped(at) }
    }

    fn plain(&mut self, mut at: usize) -> Option<(Kind, usize)> {
        loop {
            at += memchr(b'\'', self.text.get(at..)?)? + 1;
            if self.byte(at) == b'\'' {
                at += 1;
            } else if let Some(next) = self.continued(at) {
                at = next;
            } else {
                return Some((Kind::Literal, at));
            }
        }
    }

    fn bits(&mut self, mut at: usize) -> Option<(Kind, usize)> {
        loop {
            at += memchr(b'\'', self.text.get(at..)?)? + 1;
            match self.continued(at) {
                Some(next) => at = next,
                None => return Some((Kind::Text, at)),
            }
        }
    }

    fn escaped(&mut self, mut at: usize) -> Option<(Kind, usize)> {
        loop {
            at += memchr2(b'\'', b'\\', self.text.get(at..)?)? + 1;
            if self.byte(at - 1) == b'\\' || self.byte(at) == b'\'' {
                at += 1;
            } else if let Some(next) = self.continued(at) {
                at = next;
            } else {
                return Some((Kind::Text, at));
            }
        }
    }

    /// A string goes on, by the same rules, in the next quotes if a new line lies between.
    fn continued(&mut self, from: usize) -> Option<usize> {
        let mut at = from;
        let mut new_line = false;
        let next = loop {
            match self.byte(at) {
                b'\n' | b'\r' => new_line = true,
                b'-' if self.byte(at + 1) == b'-' => {
                    at = self.line_end(at + 2);
                    continue;
                }
                b'\'' if new_line => break Some(at + 1),
                byte if CLASS[usize::from(byte)] & SPACE != 0 => {}
                _ => break None,
            }
            at += 1;
        };
        self.count(from, at);
        next
    }

    fn quoted(&self, start: usize) -> Option<(Kind, usize)> {
        let mut at = start + 1;
        loop {
            at += memchr(b'"', self.text.get(at..)?)? + 1;
            if self.byte(at) != b'"' {
                break;
            }
            at += 1;
        }
        // A name without characters is an error.
        (at > start + 2).then_some((Kind::Quoted, at))
    }

    /// `$1`, or a dollar-quoted string up to the same tag.
    fn dollar(&self, start: usize) -> Option<(Kind, usize)> {
        if self.is(start + 1, DIGIT) {
            let end = self.run(start + 1, DIGIT);
            return (!self.is(end, START)).then_some((Kind::Param, end));
        }
        let mut tag = start + 1;
        if self.is(tag, START) {
            while self.is(tag, CONTINUE) && self.byte(tag) != b'$' {
                tag += 1;
            }
        }
        if self.byte(tag) != b'$' {
            return None;
        }
        let delimiter = self.text.get(start..=tag)?;
        let mut at = tag + 1;
        loop {
            // The comparison stops at the next dollar at the latest, so this stays linear.
            at += memchr(b'$', self.text.get(at..)?)?;
            if self.text.get(at..)?.starts_with(delimiter) {
                return Some((Kind::Text, at + delimiter.len()));
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_at_once_are_judged_as_one_by_one() {
        for byte in 0..=255 {
            let expected = CLASS[usize::from(byte)] & CONTINUE != 0;
            for at in 0..8 {
                for others in [0, b'z', 0x7f, 0x80, 0xff] {
                    let mut bytes = [others; 8];
                    bytes[at] = byte;
                    let found = continues(u64::from_le_bytes(bytes)).to_le_bytes()[at] & 0x80 != 0;
                    assert_eq!(found, expected, "{byte:#x} at {at} among {others:#x}");
                }
            }
        }
    }

    #[test]
    fn eight_bytes_end_with_the_text() {
        let text = b"abcdefghij";
        assert_eq!(eight(text, 0).to_le_bytes(), *b"abcdefgh");
        assert_eq!(eight(text, 2).to_le_bytes(), *b"cdefghij");
        assert_eq!(eight(text, 7).to_le_bytes(), *b"hij\0\0\0\0\0");
        assert_eq!(eight(text, 10), 0);
        assert_eq!(eight(text, 11), 0);
    }
}
