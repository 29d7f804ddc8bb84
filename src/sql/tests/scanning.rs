//! Tokens, and how much work they take.

use crate::sql::scan::{Kind, Scanner};

fn tokens(text: &str) -> Vec<(Kind, String)> {
    let mut scanner = Scanner::new(text.as_bytes(), true);
    let mut found = Vec::new();
    loop {
        let token = scanner.token();
        if token.kind == Kind::End {
            return found;
        }
        found.push((token.kind, String::from_utf8_lossy(token.of(text.as_bytes())).into_owned()));
        if token.kind == Kind::Bad {
            return found;
        }
    }
}

fn assert_tokens(text: &str, expected: &[(Kind, &str)]) {
    let found = tokens(text);
    let found: Vec<_> = found.iter().map(|(kind, text)| (*kind, text.as_str())).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn operators_end_where_postgres_ends_them() {
    use Kind::{Number, Operator, Word};
    assert_tokens("a=-1", &[(Word, "a"), (Operator, "="), (Operator, "-"), (Number, "1")]);
    assert_tokens("a@-1", &[(Word, "a"), (Operator, "@-"), (Number, "1")]);
    assert_tokens("a<--b", &[(Word, "a"), (Operator, "<")]);
    assert_tokens("a*/*x*/b", &[(Word, "a"), (Operator, "*"), (Word, "b")]);
    assert_tokens(
        "1+-+2",
        &[(Number, "1"), (Operator, "+"), (Operator, "-"), (Operator, "+"), (Number, "2")],
    );
    assert_tokens("a!=b", &[(Word, "a"), (Operator, "!="), (Word, "b")]);
}

#[test]
fn strings_of_all_kinds() {
    use Kind::{Bad, Literal, Quoted, Text, Word};
    assert_tokens("'a''b'", &[(Literal, "'a''b'")]);
    assert_tokens("'a'\n 'b'", &[(Literal, "'a'\n 'b'")]);
    assert_tokens("'a' -- x\n'b'", &[(Literal, "'a' -- x\n'b'")]);
    assert_tokens("'a' 'b'", &[(Literal, "'a'"), (Literal, "'b'")]);
    assert_tokens(r"'a\' x", &[(Literal, r"'a\'"), (Word, "x")]);
    assert_tokens(r"e'a\'b' x", &[(Text, r"e'a\'b'"), (Word, "x")]);
    assert_tokens("E'a'\r'\\''", &[(Text, "E'a'\r'\\''")]);
    assert_tokens("x'1f'b'01'n'x'", &[(Text, "x'1f'"), (Text, "b'01'"), (Text, "n'x'")]);
    assert_tokens("U&'x' u& ", &[(Text, "U&'x'"), (Word, "u"), (Kind::Operator, "&")]);
    assert_tokens("$$a$b$$", &[(Text, "$$a$b$$")]);
    assert_tokens("$a$ $$ $b$ $a $a$", &[(Text, "$a$ $$ $b$ $a $a$")]);
    assert_tokens("a$b$c$", &[(Word, "a$b$c$")]);
    assert_tokens("\"a\"\"b\"", &[(Quoted, "\"a\"\"b\"")]);
    assert_tokens("type'x'", &[(Word, "type"), (Literal, "'x'")]);
    assert_tokens("$1$", &[(Kind::Param, "$1"), (Bad, "$")]);
    assert_tokens("u&\"x\"", &[(Bad, "u&\"x\"")]);
}

#[test]
fn numbers_and_punctuation() {
    use Kind::{Bad, Cast, Colon, Dot, Number, Param, Word};
    for number in ["1", "1.5", ".5", "1.", "1e9", "1.5E-3", "0x1F", "0o17", "0b01", "1_000"] {
        assert_tokens(number, &[(Number, number)]);
    }
    assert_tokens("1..2", &[(Number, "1"), (Dot, "."), (Number, ".2")]);
    assert_tokens("$12", &[(Param, "$12")]);
    assert_tokens("a.b", &[(Word, "a"), (Dot, "."), (Word, "b")]);
    assert_tokens(
        "a::b:c:=d",
        &[(Word, "a"), (Cast, "::"), (Word, "b"), (Colon, ":"), (Word, "c"), (Colon, ":="), (Word, "d")],
    );
    for bad in ["1a", "1e'", "0xg", "1_", "12_a", "0b12"] {
        assert_tokens(bad, &[(Bad, bad)]);
    }
}

#[test]
fn a_bad_token_stays() {
    let mut scanner = Scanner::new(b"a 'b", true);
    assert_eq!(scanner.token().kind, Kind::Word);
    let first = scanner.token();
    assert_eq!(first.kind, Kind::Bad);
    assert_eq!(scanner.token(), first);
}

/// Bytes looked at per byte of text, for a text repeated to about this size.
fn work(unit: &str, size: usize) -> f64 {
    let text = unit.repeat(size / unit.len());
    let mut scanner = Scanner::new(text.as_bytes(), true);
    while !matches!(scanner.token().kind, Kind::End | Kind::Bad) {}
    scanner.looked() as f64 / text.len() as f64
}

#[test]
fn work_grows_with_length_only() {
    for unit in [
        "(",
        "1+",
        "+",
        "+-",
        "*+",
        "@-",
        "'a' ",
        "'a'\n",
        "'",
        "''",
        "\"\"",
        "\"a\"",
        "/*",
        "/**/",
        "-- x\n",
        "--",
        "'a' -- x\n",
        "E'\\",
        "$",
        "$$",
        "$a$",
        "$a$ $b$ ",
        "$aaaaaaaa",
        "$a$$aa$",
        "a$",
        "1",
        "1.",
        "1_",
        "0x",
        " ",
        "\n",
        "a ",
        "a.",
        "::",
        "U&'",
        "n'a'",
        "/",
        "*",
        "*/",
        "/ *",
    ] {
        let large = work(unit, 100_000);
        assert!(large <= 3.0, "{unit:?}: {large} looks per byte");
    }
    // A million different tags: the first that is not closed ends it.
    let tags: String = (0..100_000).map(|n| format!("$t{n}$ ")).collect();
    let mut scanner = Scanner::new(tags.as_bytes(), true);
    assert_eq!(scanner.token().kind, Kind::Bad);
    assert!(scanner.looked() <= 2 * tags.len());
}
