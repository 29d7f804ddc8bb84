//! The 165 statements that were tried on a standby: where each goes.

use super::class_of;
use crate::sql::{Access, Reason};

const TABLE: &str = include_str!("../../../tests/data/appendix_a.tsv");

#[test]
fn every_statement_goes_where_the_table_says() {
    let mut count = 0;
    for line in TABLE.lines().skip(1) {
        let mut fields = line.split('\t');
        let mut field = || fields.next().unwrap();
        let (_group, name, sql, expected) = (field(), field(), field(), field());
        let access = class_of(sql).access;
        let right = match expected {
            "replica" => access == Access::Read,
            "primary" => matches!(access, Access::Primary(_)),
            "session" => access == Access::Primary(Reason::SessionState),
            "transaction" => {
                matches!(access, Access::Primary(Reason::Transaction | Reason::Mixed))
            }
            other => panic!("{name}: unknown expectation {other}"),
        };
        assert!(right, "{name}: {sql}: {access:?}, expected {expected}");
        // None of them is refused for want of understanding.
        assert_ne!(access, Access::Primary(Reason::Unrecognised), "{name}");
        count += 1;
    }
    assert_eq!(count, 165);
}
