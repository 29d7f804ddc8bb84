//! What holds for every text.

use proptest::prelude::*;

use super::{catalog, class_of};
use crate::sql::{Access, Dialect, classify, fingerprint, statements};

const SOUP: &[&str] = &[
    "select",
    "with",
    "values",
    "table",
    "insert",
    "into",
    "update",
    "delete",
    "from",
    "merge",
    "for",
    "share",
    "as",
    "materialized",
    "not",
    "recursive",
    "copy",
    "to",
    "stdout",
    "explain",
    "analyze",
    "create",
    "begin",
    "atomic",
    "case",
    "end",
    "set",
    "local",
    "on",
    "distinct",
    "operator",
    "(",
    ")",
    "[",
    "]",
    ",",
    ";",
    ".",
    "::",
    ":",
    "=",
    "+",
    "-",
    "*",
    "/",
    "--",
    "\n",
    "/*",
    "*/",
    "'",
    "''",
    "\"",
    "\"a\"",
    "$$",
    "$a$",
    "$1",
    "E'",
    "U&'",
    "\\",
    "1",
    "1.5",
    "0x",
    "a",
    "t",
    "f_write",
    "nextval",
    "lower",
    "set_config",
    "pg_temp",
    "\0",
    "\u{e9}",
];

fn soup() -> impl Strategy<Value = String> {
    let glue = prop_oneof![3 => Just(" "), 1 => Just("")];
    proptest::collection::vec((proptest::sample::select(SOUP), glue), 0..60)
        .prop_map(|parts| parts.into_iter().flat_map(|(word, glue)| [word, glue]).collect())
}

/// Text that stands between two tokens without changing what they are.
fn blank() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(
        &[" ", "\n", "\t\r\n", "/* x */", " /* ' */ ", "-- select\n", "/* /* ; */ \" */", " -- $$\r"][..],
    )
}

fn write() -> impl Strategy<Value = String> {
    let verb = proptest::sample::select(
        &[
            "insert%into t values (1)%returning a",
            "update%t%set a = 1%returning a",
            "update%only%t%set a = 1%returning a",
            "update%\"T\"%set a = 1%returning a",
            "delete%from%t%returning a",
            "DELETE%FROM%ONLY (t)%RETURNING a",
        ][..],
    );
    (verb, blank()).prop_map(|(verb, blank)| verb.replace('%', blank))
}

fn wrapped() -> impl Strategy<Value = String> {
    let inner = (write(), blank(), 0..4_u8).prop_map(|(write, blank, form)| match form {
        0 => format!("with{blank}w as ({blank}{write}{blank}) select * from w"),
        1 => format!("with w(a) as materialized({blank}{write}) table w"),
        2 => format!("with q as (select 1),{blank}update(a) as{blank}({write}) select 1, (2)"),
        _ => format!("with w as (with v as ({blank}{write}) select 1) select 2"),
    });
    (inner, blank(), 0..7_u8).prop_map(|(query, blank, form)| match form {
        0 => format!("{blank}{query}"),
        1 => format!("({blank}{query}{blank})"),
        2 => format!("explain (costs off) {blank}{query}"),
        3 => format!("copy{blank}({query}) to stdout"),
        4 => format!("select 1;{blank}{query}"),
        5 => format!("explain{blank}verbose {query}"),
        _ => format!("((({query})))"),
    })
}

proptest! {
    #[test]
    fn any_bytes_are_classified(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        for standard_conforming_strings in [false, true] {
            let dialect = Dialect { standard_conforming_strings };
            let class = classify(&text, &catalog(), dialect);
            let names = catalog();
            let count = statements(&text, &names, dialect).count();
            prop_assert_eq!(count, usize::try_from(class.statements).unwrap());
        }
    }

    #[test]
    fn any_soup_is_classified(text in soup()) {
        for standard_conforming_strings in [false, true] {
            let dialect = Dialect { standard_conforming_strings };
            let class = classify(text.as_bytes(), &catalog(), dialect);
            let names = catalog();
            let mut end = 0;
            for statement in statements(text.as_bytes(), &names, dialect) {
                // Statements stand in order, and are parts of the text.
                let start = statement.text.as_ptr() as usize - text.as_ptr() as usize;
                prop_assert!(start >= end);
                end = start + statement.text.len();
                prop_assert!(end <= text.len());
                if statement.access != Access::Read {
                    prop_assert_ne!(class.access, Access::Read);
                }
            }
        }
        let _ = fingerprint(text.as_bytes());
    }

    #[test]
    fn a_write_is_never_a_read(sql in wrapped()) {
        prop_assert_ne!(class_of(&sql).access, Access::Read, "{}", sql);
    }

    #[test]
    fn literals_never_change_the_class(content in "\\PC*", tag in "[a-z]{0,3}") {
        let plain = content.replace('\'', "''");
        let escaped = content.replace('\\', "\\\\").replace('\'', "\\'");
        let dollar = content.replace('$', "");
        for (form, read) in [
            ("select lower(%) from t where a = %", true),
            ("with q as (select %) select * from q where q.a in (%, %)", true),
            ("insert into t values (%)", false),
            ("select f_write(%)", false),
            ("select % from t for update", false),
        ] {
            let expected = class_of(&form.replace('%', "'x'")).access;
            prop_assert_eq!(expected == Access::Read, read);
            for literal in [
                format!("'{plain}'"),
                format!("E'{escaped}'"),
                format!("${tag}${dollar}${tag}$"),
                format!("N'{plain}'"),
            ] {
                let sql = form.replace('%', &literal);
                prop_assert_eq!(class_of(&sql).access, expected, "{}", sql);
            }
        }
    }

    #[test]
    fn case_and_comments_never_change_the_class(
        sql in proptest::sample::select(&[
            "select a from t where b = 1", "insert into t values (1)", "select f_write ( )",
            "select * from t for update", "with w as ( delete from t ) select 1", "set a = 1",
            "select * from ( values (1) ) v ( a )", "copy t to stdout", "select 1 into n",
        ][..]),
        blank in blank(),
    ) {
        let expected = class_of(sql);
        let other = sql.to_uppercase().replace(' ', blank);
        let class = class_of(&other);
        prop_assert_eq!(class.access, expected.access, "{}", other);
        prop_assert_eq!(class.effects, expected.effects);
    }
}
