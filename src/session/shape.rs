//! Texts that differ only in numbers, brought to one form.

use memchr::memchr;

/// What a byte may mean for the search for numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Part of a word, or of something else that a number can be part of.
    Word,
    /// It can stand next to a number without being part of it.
    Gap,
    /// The same, and two of these begin a comment: `--`, or `/` and `*`.
    Comment,
    Digit,
    /// It begins and ends what is not looked into.
    Quote,
    /// Only finding the tokens would tell.
    Unclear,
}

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Word; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        kinds[digit as usize] = Kind::Digit;
        digit += 1;
    }
    let gaps = b" \t\n\r\x0c(),;=<>+*%";
    let mut at = 0;
    while at < gaps.len() {
        kinds[gaps[at] as usize] = Kind::Gap;
        at += 1;
    }
    kinds[b'-' as usize] = Kind::Comment;
    kinds[b'/' as usize] = Kind::Comment;
    kinds[b'\'' as usize] = Kind::Quote;
    kinds[b'"' as usize] = Kind::Quote;
    kinds[b'$' as usize] = Kind::Unclear;
    kinds[b'\\' as usize] = Kind::Unclear;
    kinds
};

/// How many bytes, up to eight, begin `text` that are letters, underscores, blanks or not ASCII, so that nothing about them
/// matters: most of a text is passed over by this, eight bytes at a time.
fn dull(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = 0x80 * ONES;
    let Some(eight) = text.first_chunk() else { return 0 };
    let eight = u64::from_le_bytes(*eight);
    // The high bit of each byte that is not `byte`.
    let differs = |byte: u64| {
        let bits = eight ^ (byte * ONES);
        ((bits & !HIGH) + !HIGH) | bits
    };
    // ASCII below the letters, but for blanks; and the backslash among the letters.
    let below = !eight & !(eight << 1) & differs(b' '.into());
    let telling = (below | !differs(b'\\'.into())) & HIGH;
    telling.trailing_zeros() as usize / 8
}

/// What stands there; the ends of the text are gaps.
fn kind(text: &[u8], at: usize) -> Kind {
    text.get(at).map_or(Kind::Gap, |byte| KINDS[usize::from(*byte)])
}

/// A text with 0 in place of every whole number that stands alone, outside of quotes.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) text: Vec<u8>,
    /// Where those zeros stand in it.
    pub(super) numbers: Vec<u16>,
}

impl Shape {
    /// Becomes the shape of `text`. Returns false, and is good for nothing, if that has no such number, if it is longer than
    /// 65,535 bytes, or if it has anything (comments, dollar quotes and parameters, backslashes) for which one would have to
    /// look more closely: this is to be far cheaper than to find the text's tokens, so it is one walk that stops at few bytes.
    pub(super) fn take(&mut self, text: &[u8]) -> bool {
        self.text.clear();
        self.numbers.clear();
        let mut copied = 0;
        let mut at = 0;
        while let Some(byte) = text.get(at) {
            match KINDS[usize::from(*byte)] {
                Kind::Word | Kind::Gap => at += dull(text.get(at..).unwrap_or_default()).max(1),
                Kind::Digit => {
                    let start = at;
                    while kind(text, at) == Kind::Digit {
                        at += 1;
                    }
                    let is_gap = |at| matches!(kind(text, at), Kind::Gap | Kind::Comment);
                    if is_gap(start.wrapping_sub(1)) && is_gap(at) {
                        self.text.extend_from_slice(text.get(copied..start).unwrap_or_default());
                        let Ok(number) = self.text.len().try_into() else { return false };
                        self.numbers.push(number);
                        self.text.push(b'0');
                        copied = at;
                    }
                }
                Kind::Comment => {
                    if matches!((byte, text.get(at + 1)), (b'-', Some(b'-')) | (b'/', Some(b'*'))) {
                        return false;
                    }
                    at += 1;
                }
                Kind::Quote => {
                    let rest = text.get(at + 1..).unwrap_or_default();
                    let Some(length) = memchr(*byte, rest) else { return false };
                    if memchr(b'\\', rest.get(..length).unwrap_or_default()).is_some() {
                        return false;
                    }
                    at += length + 2;
                }
                Kind::Unclear => return false,
            }
        }
        self.text.extend_from_slice(text.get(copied..).unwrap_or_default());
        copied > 0
    }
}

/// Whether `text` has that shape: what stands between the numbers is the same, byte for byte, and so it means the same.
/// Cheaper than to find out what shape it has.
pub(super) fn fits(text: &[u8], shape: &[u8], numbers: &[u16]) -> bool {
    let (mut rest, mut from) = (text, 0);
    for number in numbers {
        let number = usize::from(*number);
        let same = shape.get(from..number).and_then(|same| rest.strip_prefix(same));
        let digits = same.unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count();
        let Some(behind) = same.and_then(|same| same.get(digits..)).filter(|_| digits > 0) else {
            return false;
        };
        (rest, from) = (behind, number + 1);
    }
    !numbers.is_empty() && shape.get(from..) == Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<String> {
        let mut shape = Shape::default();
        shape.take(text.as_bytes()).then(|| String::from_utf8(shape.text).unwrap())
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
    fn what_is_passed_over_is_nothing_that_matters() {
        for byte in 0..=u8::MAX {
            let kind = KINDS[usize::from(byte)];
            let is_dull = matches!(byte, b' ' | 0x40..=0x5b | 0x5d..);
            assert!(!is_dull || matches!(kind, Kind::Word | Kind::Gap), "{byte}");
            for at in 0..8 {
                let mut text = *b"a B_~\xc3\xa9z";
                text[at] = byte;
                assert_eq!(dull(&text), if is_dull { 8 } else { at }, "{byte} at {at}");
            }
            assert_eq!(dull(&[byte; 7]), 0);
        }
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

    proptest::proptest! {
        #[test]
        fn what_fits_has_the_same_shape(
            one in "[a1 0-9'(),=/*\"$-]{0,12}",
            numbers in proptest::collection::vec("[a0-9' -]{0,3}", 2..6),
            between in "[a1 0-9'(,=-]{0,3}",
        ) {
            let mut found: Vec<(String, Option<Shape>)> = Vec::new();
            for tail in ["", " ", "x", "0", "'"] {
                for number in &numbers {
                    let text = format!("{one}{number}{between}{number}{tail}");
                    let mut shape = Shape::default();
                    let has_one = shape.take(text.as_bytes());
                    found.push((text, has_one.then_some(shape)));
                }
            }
            for (text, own) in &found {
                for (other, shape) in &found {
                    let Some(shape) = shape else { continue };
                    let same = own.as_ref().is_some_and(|own| own.text == shape.text);
                    proptest::prop_assert_eq!(
                        fits(text.as_bytes(), &shape.text, &shape.numbers), same, "{} {}", text, other
                    );
                }
            }
        }
    }
}
