//! A line's words, as PostgreSQL cuts them (`next_token` and `next_field_expand` in
//! src/backend/libpq/hba.c).

use std::iter::Peekable;
use std::str::Chars;

/// One word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The word without its quotes.
    pub(crate) text: String,
    /// It begins with a quote, which takes the meaning from a keyword.
    pub(crate) quoted: bool,
}

impl Token {
    /// Whether this is that keyword, and not a name in quotes that reads the same.
    pub(crate) fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }

    /// Whether the word begins with this sign and has no quotes that would make it a name.
    pub(crate) fn begins(&self, sign: char) -> bool {
        !self.quoted && self.text.starts_with(sign)
    }
}

/// What stands between blanks: one word, or several with commas between.
pub(crate) type Field = Vec<Token>;

/// The fields of a line without its comment; never an empty one.
pub(crate) fn fields(line: &str) -> Vec<Field> {
    let mut chars = line.chars().peekable();
    let mut all = Vec::new();
    while let Some(first) = token(&mut chars) {
        let mut field = Vec::new();
        let mut next = Some(first);
        while let Some((token, comma)) = next {
            field.push(token);
            next = if comma { self::token(&mut chars) } else { None };
        }
        all.push(field);
    }
    all
}

/// The next word, and whether a comma ends it.
fn token(chars: &mut Peekable<Chars<'_>>) -> Option<(Token, bool)> {
    while chars.next_if(|&c| is_blank(c) || c == ',').is_some() {}
    let mut text = String::new();
    let mut quoted = false;
    let mut saw_quote = false;
    let mut in_quote = false;
    // A quote within quotes that may be the first of two, which stand for one.
    let mut was_quote = false;
    let mut comma = false;
    while let Some(c) = chars.next_if(|&c| in_quote || !is_blank(c)) {
        if c == '#' && !in_quote {
            chars.by_ref().for_each(drop);
            break;
        }
        if c == ',' && !in_quote {
            comma = true;
            break;
        }
        if c != '"' || was_quote {
            text.push(c);
        }
        was_quote = in_quote && c == '"' && !was_quote;
        if c == '"' {
            in_quote = !in_quote;
            saw_quote = true;
            quoted |= text.is_empty();
        }
    }
    (saw_quote || !text.is_empty()).then_some((Token { text, quoted }, comma))
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields by `|`, words by `,`; a word that began with a quote stands in quotes.
    fn shown(line: &str) -> String {
        let word =
            |token: &Token| if token.quoted { format!("\"{}\"", token.text) } else { token.text.clone() };
        let field = |field: &Field| field.iter().map(word).collect::<Vec<_>>().join(",");
        fields(line).iter().map(field).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn words_are_cut_as_postgres_cuts_them() {
        for (line, wanted) in [
            ("", ""),
            (" \t\r", ""),
            ("# host all", ""),
            ("host all#all", "host|all"),
            ("host  a,b,\tc d", "host|a,b,c|d"),
            ("a ,b", "a|b"),
            ("a,,b,", "a,b"),
            ("\"a b\" c", "\"a b\"|c"),
            ("\"a#b\",\"c,d\"", "\"a#b\",\"c,d\""),
            ("\"a\"\"b\"", "\"a\"b\""),
            ("a\"b c\"d", "ab cd"),
            ("\"\" a", "\"\"|a"),
            ("\"all\"", "\"all\""),
            ("\"open all", "\"open all\""),
        ] {
            assert_eq!(shown(line), wanted, "{line}");
        }
    }
}
