//! Tests of the classifier as a whole.

use super::{Access, Catalog, CatalogRows, Class, Dialect, Overrides, Reason, classify};

mod appendix;
mod commands;
mod effects;
mod properties;
mod reads;
mod scanning;
mod writes;

/// A database as appendix A has it.
fn catalog() -> Catalog {
    let mut rows = CatalogRows::default();
    for name in ["t_unlogged", "t_id_seq", "v_write", "v_nextval", "ft", "hot_domain"] {
        rows.push("unsafe_relation", name);
    }
    for name in ["f_write", "f_nextval", "f_catch", "f_branch", "f_notice", "f_set_config"] {
        rows.push("unsafe_function", name);
    }
    for name in ["dblink_connect", "dblink_exec", "Odd", "t_writer"] {
        rows.push("unsafe_function", name);
    }
    for name in ["f_stable", "safe_agg"] {
        rows.push("safe_function", name);
    }
    rows.push("unsafe_operator", "<<~");
    Catalog::build(rows, &Overrides::default())
}

fn class_of(sql: &str) -> Class<'_> {
    classify(sql.as_bytes(), &catalog(), Dialect::default())
}

fn assert_read(sql: &str) {
    assert_eq!(class_of(sql).access, Access::Read, "{sql}");
}

fn assert_primary(sql: &str, reason: Reason) {
    assert_eq!(class_of(sql).access, Access::Primary(reason), "{sql}");
}
