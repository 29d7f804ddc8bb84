//! Texts that differ only in numbers, brought to one form.

use memchr::{memchr, memchr2, memchr2_iter};

/// Bytes that can stand next to a number without being part of it.
const GAPS: [bool; 256] = {
    let mut gaps = [false; 256];
    let bytes = b" \t\n\r\x0c(),;=<>+-*/%";
    let mut at = 0;
    while at < bytes.len() {
        gaps[bytes[at] as usize] = true;
        at += 1;
    }
    gaps
};

/// Writes `text` to `out` with 0 in place of every whole number that stands alone, outside of quotes. Returns false, and
/// leaves `out` undefined, if there is none, or if the text has anything (comments, dollar quotes and parameters,
/// backslashes) for which one would have to look more closely: this is to be far cheaper than to find the text's tokens.
pub(super) fn shape(text: &[u8], out: &mut Vec<u8>) -> bool {
    if memchr2(b'$', b'\\', text).is_some() || has_comment(text) {
        return false;
    }
    out.clear();
    let mut copied = 0;
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let quote = memchr2(b'\'', b'"', rest);
        let end = at + quote.unwrap_or(rest.len());
        while let Some((start, behind)) = next_digits(text, at, end) {
            at = behind;
            let is_gap = |at: usize| text.get(at).is_none_or(|byte| GAPS[usize::from(*byte)]);
            if is_gap(start.wrapping_sub(1)) && is_gap(behind) {
                out.extend_from_slice(text.get(copied..start).unwrap_or_default());
                out.push(b'0');
                copied = behind;
            }
        }
        let Some(kind) = text.get(end) else { break };
        let Some(length) = memchr(*kind, text.get(end + 1..).unwrap_or_default()) else { return false };
        at = end + length + 2;
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default());
    copied > 0
}

fn has_comment(text: &[u8]) -> bool {
    memchr2_iter(b'-', b'/', text).any(|at| {
        matches!((text.get(at), text.get(at + 1)), (Some(b'-'), Some(b'-')) | (Some(b'/'), Some(b'*')))
    })
}

/// From where to where the next digits stand.
fn next_digits(text: &[u8], from: usize, to: usize) -> Option<(usize, usize)> {
    let part = text.get(from..to)?;
    let start = part.iter().position(u8::is_ascii_digit)?;
    let digits = part.get(start..)?.iter().position(|byte| !byte.is_ascii_digit());
    Some((from + start, digits.map_or(to, |n| from + start + n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<String> {
        let mut out = Vec::new();
        shape(text.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn numbers_that_stand_alone_become_one() {
        let found = of("select a1, b from t2 where c=-12 and d in (3,45) and e = '67 8' limit 9");
        assert_eq!(
            found.as_deref(),
            Some("select a1, b from t2 where c=-0 and d in (0,0) and e = '67 8' limit 0")
        );
        assert_eq!(
            of("select \"a 1\".\"2\" from t where b = 3;").as_deref(),
            Some("select \"a 1\".\"2\" from t where b = 0;")
        );
        assert_eq!(of("select 7/8*9").as_deref(), Some("select 0/0*0"));
        assert_eq!(
            of("select 1.5, .5, 1e5, 0x1f, 1_000, x'1', 7").as_deref(),
            Some("select 1.5, .5, 1e5, 0x1f, 1_000, x'1', 0")
        );
    }

    #[test]
    fn where_it_is_not_plain_what_is_a_number_nothing_is_done() {
        for text in [
            "",
            "select a",
            "select $$ 1 $$, 2",
            "select $a$ 1 $a$, 2",
            "select 1 -- 2",
            "select /* 1 */ 2",
            "select E'\\' 1', 2",
            "select '1",
            "select \"1",
            "select 5é",
            "select $1, 2",
            "select a$1 $",
            "select 1--2",
        ] {
            assert_eq!(of(text).filter(|found| found != text), None, "{text}");
        }
    }
}
