//! Names as PostgreSQL stores them: folded to lower case unless quoted, cut to 63 bytes.

use super::scan::Kind;

/// `NAMEDATALEN - 1` of every stock server.
pub(super) const LONGEST: usize = 63;

/// Room for one folded name.
pub(super) type Buffer = [u8; LONGEST];

/// The name that a [`Kind::Word`] or [`Kind::Quoted`] token stands for. Copies only where it has to.
#[inline]
pub(super) fn fold<'a>(kind: Kind, text: &'a [u8], buffer: &'a mut Buffer) -> &'a [u8] {
    if kind == Kind::Quoted {
        let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or(b"");
        if inner.len() <= LONGEST && !inner.contains(&b'"') {
            return inner;
        }
        return unquote(inner, buffer);
    }
    let kept = clip(text);
    // Without an early end this has no branches to predict.
    let upper = kept.iter().fold(false, |upper, byte| upper | byte.is_ascii_uppercase());
    if !upper {
        return kept;
    }
    let Some(folded) = buffer.get_mut(..kept.len()) else {
        return b"";
    };
    folded.copy_from_slice(kept);
    folded.make_ascii_lowercase();
    folded
}

#[cold]
fn unquote<'a>(inner: &[u8], buffer: &'a mut Buffer) -> &'a [u8] {
    let mut length = 0;
    let mut at = 0;
    while let (Some(&byte), Some(slot)) = (inner.get(at), buffer.get_mut(length)) {
        *slot = byte;
        length += 1;
        at += 1 + usize::from(byte == b'"');
    }
    // A character that did not fit as a whole is dropped, as `clip` does.
    if inner.get(at).is_some_and(|&byte| continues(byte)) {
        while length > 0 && continues(buffer[length - 1]) {
            length -= 1;
        }
        length = length.saturating_sub(1);
    }
    buffer.get(..length).unwrap_or(b"")
}

/// Cuts a name to its first 63 bytes, at the start of a UTF-8 character.
pub(super) fn clip(name: &[u8]) -> &[u8] {
    if name.len() <= LONGEST {
        return name;
    }
    let mut end = LONGEST;
    while end > 0 && name.get(end).is_some_and(|&byte| continues(byte)) {
        end -= 1;
    }
    name.get(..end).unwrap_or(b"")
}

const fn continues(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(kind: Kind, text: &str) -> Vec<u8> {
        fold(kind, text.as_bytes(), &mut [0; LONGEST]).to_vec()
    }

    #[test]
    fn words_fold_and_quotes_keep() {
        assert_eq!(folded(Kind::Word, "NextVal"), b"nextval");
        assert_eq!(folded(Kind::Word, "nextval"), b"nextval");
        assert_eq!(folded(Kind::Quoted, "\"NextVal\""), b"NextVal");
        assert_eq!(folded(Kind::Quoted, "\"a\"\"b\""), b"a\"b");
    }

    #[test]
    fn long_names_are_cut_as_the_server_cuts_them() {
        let long = "A".repeat(80);
        assert_eq!(folded(Kind::Word, &long), "a".repeat(63).as_bytes());
        assert_eq!(folded(Kind::Quoted, &format!("\"{long}\"")), "A".repeat(63).as_bytes());
        // The 63rd byte falls into the middle of a character.
        let wide = format!("{}\u{e9}x", "a".repeat(62));
        assert_eq!(folded(Kind::Word, &wide), "a".repeat(62).as_bytes());
        assert_eq!(folded(Kind::Quoted, &format!("\"{wide}\"")), "a".repeat(62).as_bytes());
    }
}
