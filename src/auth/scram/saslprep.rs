//! SASLprep (RFC 4013) as PostgreSQL's `pg_saslprep` (src/common/saslprep.c) does it.

use std::borrow::Cow;

use stringprep::tables;
use unicode_normalization::UnicodeNormalization;

/// The bytes that PostgreSQL hashes for `password`.
///
/// The RFC checks for prohibited characters and for mixed writing directions *after*
/// normalization; PostgreSQL checks the text as it is before, and takes the raw password
/// where a check fails. A login works only if both ends do the same, so this follows PostgreSQL.
#[must_use]
pub fn prepare(password: &str) -> Cow<'_, str> {
    if password.is_ascii() {
        return Cow::Borrowed(password);
    }
    let mapped: String = password
        .chars()
        .filter_map(|c| match c {
            c if tables::non_ascii_space_character(c) => Some(' '),
            c if tables::commonly_mapped_to_nothing(c) => None,
            c => Some(c),
        })
        .collect();
    if mapped.is_empty() || mapped.contains(is_prohibited) || mixes_directions(&mapped) {
        return Cow::Borrowed(password);
    }
    Cow::Owned(mapped.nfkc().collect())
}

/// The same for bytes that may be no text: those are used as they are (`SASLPREP_INVALID_UTF8`).
#[must_use]
pub fn prepare_bytes(password: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(password).map(prepare) {
        Ok(Cow::Owned(prepared)) => Cow::Owned(prepared.into_bytes()),
        Ok(Cow::Borrowed(_)) | Err(_) => Cow::Borrowed(password),
    }
}

/// RFC 4013, sections 2.3 and 2.5.
fn is_prohibited(c: char) -> bool {
    tables::non_ascii_space_character(c)
        || tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
        || tables::unassigned_code_point(c)
}

/// RFC 3454, section 6: text with right-to-left letters must begin and end with one, and hold
/// no left-to-right letter.
fn mixes_directions(text: &str) -> bool {
    if !text.contains(tables::bidi_r_or_al) {
        return false;
    }
    text.contains(tables::bidi_l)
        || !text.starts_with(tables::bidi_r_or_al)
        || !text.ends_with(tables::bidi_r_or_al)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_rfc_4013() {
        for (given, wanted) in
            [("I\u{ad}X", "IX"), ("user", "user"), ("USER", "USER"), ("\u{aa}", "a"), ("\u{2168}", "IX")]
        {
            assert_eq!(prepare(given), wanted);
        }
    }

    #[test]
    fn what_cannot_be_prepared_stays_as_it_is() {
        for raw in [
            "\u{7}",            // a control character, in pure ASCII: never looked at
            "\u{7}\u{aa}",      // a control character
            "\u{ad}",           // nothing is left
            "\u{627}1",         // right to left, but ends otherwise
            "\u{627}a\u{627}",  // both directions
            "\u{1f600}\u{aa}",  // unassigned in Unicode 3.2
            "\u{e000}\u{2168}", // private use
        ] {
            assert_eq!(prepare(raw), raw);
        }
    }

    #[test]
    fn bytes_that_are_no_text_stay_as_they_are() {
        assert_eq!(*prepare_bytes(b"\xff\xc2\xaa"), *b"\xff\xc2\xaa");
        assert_eq!(*prepare_bytes("\u{aa}".as_bytes()), *b"a");
        assert_eq!(*prepare_bytes(b"a"), *b"a");
    }

    #[test]
    fn checks_come_before_normalization() {
        // U+1F100 turns into "0." but is unassigned in Unicode 3.2: the raw text counts.
        assert_eq!(prepare("\u{1f100}"), "\u{1f100}");
        // U+2135 reads left to right and turns into U+05D0, which reads right to left.
        assert_eq!(prepare("a\u{2135}"), "a\u{5d0}");
    }
}
