//! Hints in a comment at the start of a text, and fingerprints of texts.

use super::scan::{Kind, Scanner};

/// Where a hint sends a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintedRoute {
    /// `route=primary`.
    Primary,
    /// `route=replica`.
    Replica,
    /// `route=auto`: as without a hint, whatever the session's setting says.
    Auto,
}

/// How fresh a hint wants its read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintedConsistency {
    /// `consistency=eventual`.
    Eventual,
    /// `consistency=read_your_writes`.
    ReadYourWrites,
    /// `consistency=session`.
    Session,
}

/// What the comment at the start of a text asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// Where to.
    pub route: Option<HintedRoute>,
    /// How fresh.
    pub consistency: Option<HintedConsistency>,
}

/// The hint at the start of a text: `/* tidegate: route=replica consistency=eventual */`.
///
/// White space, commas or semicolons stand between its parts. Unknown keys and values are
/// ignored. `None` if there is no such comment.
#[must_use]
pub fn hint(text: &[u8]) -> Option<Hint> {
    let text = text.trim_ascii_start().strip_prefix(b"/*")?;
    let text = text.trim_ascii_start();
    let (name, rest) = text.split_at_checked(b"tidegate".len())?;
    if !name.eq_ignore_ascii_case(b"tidegate") {
        return None;
    }
    let rest = rest.trim_ascii_start().strip_prefix(b":")?;
    let body = rest.get(..memchr::memmem::find(rest, b"*/")?)?;
    let mut hint = Hint::default();
    let parts = body.split(|byte| byte.is_ascii_whitespace() || matches!(byte, b',' | b';'));
    for part in parts {
        let Some(equals) = part.iter().position(|&byte| byte == b'=') else {
            continue;
        };
        let (key, value) = part.split_at(equals);
        let value = value.get(1..).unwrap_or(b"");
        let is = |word: &str| value.eq_ignore_ascii_case(word.as_bytes());
        if key.eq_ignore_ascii_case(b"route") {
            hint.route = match () {
                () if is("primary") => Some(HintedRoute::Primary),
                () if is("replica") => Some(HintedRoute::Replica),
                () if is("auto") => Some(HintedRoute::Auto),
                () => hint.route,
            };
        } else if key.eq_ignore_ascii_case(b"consistency") {
            hint.consistency = match () {
                () if is("eventual") => Some(HintedConsistency::Eventual),
                () if is("read_your_writes") => Some(HintedConsistency::ReadYourWrites),
                () if is("session") => Some(HintedConsistency::Session),
                () => hint.consistency,
            };
        }
    }
    Some(hint)
}

/// A number that texts share if they differ in literals, white space, comments and the case of
/// words only; a list of literals counts as one. Stable within a process, not between versions.
#[must_use]
pub fn fingerprint(text: &[u8]) -> u64 {
    let mut hash = Hash(0x243f_6a88_85a3_08d3);
    let mut scanner = Scanner::new(text, true);
    // A comma behind a literal is held back until it is known whether a list goes on.
    let mut literal = false;
    let mut comma = false;
    loop {
        let token = scanner.token();
        let value = matches!(token.kind, Kind::Literal | Kind::Text | Kind::Number | Kind::Param);
        match token.kind {
            Kind::Comma if literal && !comma => {
                comma = true;
                continue;
            }
            _ if value && comma => {
                comma = false;
                continue;
            }
            _ => {}
        }
        if comma {
            hash.add(u64::from(b','));
            comma = false;
        }
        if token.kind == Kind::End {
            return hash.0;
        }
        literal = value;
        // All literals and parameters are one to a fingerprint.
        let kind = if value { Kind::Literal } else { token.kind };
        hash.add(kind as u64);
        match token.kind {
            Kind::Word => hash.word(token.of(text)),
            Kind::Quoted | Kind::Operator => hash.bytes(token.of(text), 0),
            Kind::Bad => {
                hash.bytes(token.of(text), 0);
                return hash.0;
            }
            _ => {}
        }
    }
}

struct Hash(u64);

impl Hash {
    fn add(&mut self, value: u64) {
        // Odd multiplier and rotation as in FxHash: quick, and good enough to tell texts apart.
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.0 ^= self.0 >> 32;
    }

    fn word(&mut self, word: &[u8]) {
        // Sets the bit that makes ASCII letters small. It moves other bytes of names too, to
        // places where no byte of a name is.
        self.bytes(word, 0x2020_2020_2020_2020);
    }

    fn bytes(&mut self, bytes: &[u8], fold: u64) {
        self.add(bytes.len() as u64);
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.add(u64::from_le_bytes(*chunk) | fold);
        }
        let mut last = [0; 8];
        for (slot, byte) in last.iter_mut().zip(rest) {
            *slot = *byte;
        }
        self.add(u64::from_le_bytes(last) | fold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hints_are_read_at_the_start_only() {
        let primary = Hint { route: Some(HintedRoute::Primary), consistency: None };
        assert_eq!(hint(b"/* tidegate: route=primary */ select 1"), Some(primary));
        assert_eq!(hint(b"  /*tidegate:route=PRIMARY*/select 1"), Some(primary));
        assert_eq!(hint(b"select /* tidegate: route=primary */ 1"), None);
        assert_eq!(hint(b"/* other */ /* tidegate: route=primary */ select 1"), None);
        assert_eq!(hint(b"/*+ tidegate: route=primary */ select 1"), None);
        assert_eq!(hint(b"-- tidegate: route=primary\nselect 1"), None);
        assert_eq!(hint(b"/* tidegate: route=primary"), None);
        assert_eq!(hint(b"/* tide"), None);
        assert_eq!(hint(b""), None);
    }

    #[test]
    fn several_keys_and_unknown_ones() {
        let both = Hint { route: Some(HintedRoute::Replica), consistency: Some(HintedConsistency::Eventual) };
        let text = b"/* tidegate: route=replica, consistency=eventual, colour=red, route=moon */";
        assert_eq!(hint(text), Some(both));
        assert_eq!(hint(b"/* tidegate: */ select 1"), Some(Hint::default()));
        assert_eq!(
            hint(b"/* tidegate: consistency=read_your_writes;route=auto */"),
            Some(Hint {
                route: Some(HintedRoute::Auto),
                consistency: Some(HintedConsistency::ReadYourWrites),
            })
        );
        assert_eq!(
            hint(b"/* tidegate: consistency=session */").and_then(|hint| hint.consistency),
            Some(HintedConsistency::Session)
        );
    }

    #[test]
    fn fingerprints_ignore_literals_and_layout() {
        let base = fingerprint(b"SELECT a FROM t WHERE id IN (1, 2, 3) AND n = 'x'");
        for same in [
            "select a from t where id in (4) and n = 'it''s'",
            "select a\n from t /* c */ where id in ($1,$2) and n=$$y$$ -- end",
        ] {
            assert_eq!(fingerprint(same.as_bytes()), base, "{same}");
        }
        for other in [
            "select b from t where id in (4) and n = 'x'",
            "select a from t where id in (4, x) and n = 'x'",
            "select a from t where id in (4) and n = 'x';",
            "select a from \"T\" where id in (4) and n = 'x'",
        ] {
            assert_ne!(fingerprint(other.as_bytes()), base, "{other}");
        }
        assert_ne!(fingerprint(b"select 1, "), fingerprint(b"select 1"));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_asked(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = hint(&text);
            let _ = fingerprint(&text);
        }

        #[test]
        fn literals_never_change_a_fingerprint(number in any::<u32>(), text in "[^']*") {
            let one = format!("select f({number}, '{text}') from t");
            prop_assert_eq!(fingerprint(one.as_bytes()), fingerprint(b"select f(1, 'a') from t"));
        }
    }
}
