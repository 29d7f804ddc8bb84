//! What PostgreSQL's own names mean to a replica.

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::FixedState;

use super::filter::Filter;
use super::names::Verdict;

/// One name per line, `!` for those that must not run on a replica. How it is made:
/// `docs/catalog/builtin_functions.sql`.
const LIST: &str = include_str!("builtin_functions.txt");

static FUNCTIONS: LazyLock<HashMap<&'static [u8], Verdict, FixedState>> = LazyLock::new(|| {
    let lines = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entries = lines.map(|line| match line.strip_prefix('!') {
        Some(name) => (name.as_bytes(), Verdict::Unsafe),
        None => (line.as_bytes(), Verdict::Safe),
    });
    entries.collect()
});

/// What is known of PostgreSQL's own functions of this name.
#[must_use]
pub fn function(name: &[u8]) -> Verdict {
    FUNCTIONS.get(name).copied().unwrap_or(Verdict::Unknown)
}

/// The unsafe ones.
static UNSAFE: LazyLock<Filter> = LazyLock::new(|| {
    let unsafe_ones =
        FUNCTIONS.iter().filter(|(_, verdict)| **verdict == Verdict::Unsafe).map(|(name, _)| *name);
    Filter::of(unsafe_ones.chain([&b"current_setting"[..]]))
});

/// Whether a word, as written, may be an unsafe function of PostgreSQL's, `current_setting`, or one of dblink's.
#[inline]
#[must_use]
pub fn may_be_unsafe(word: &[u8]) -> bool {
    UNSAFE.may_have(word) || word.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"dblink"))
}

/// Whether a word, as written, may be one of [`is_server_relation`].
#[inline]
#[must_use]
pub fn may_be_server_relation(word: &[u8]) -> bool {
    matches!(word, [b'p' | b'P', b'g' | b'G', b'_', ..])
}

/// Whether a system relation tells about the server itself, or about sessions on it, so that
/// another server answers otherwise.
///
/// The plain catalogs, `information_schema` and the statistics of columns (`pg_stats`) are not
/// among them: they are replicated, and every ORM reads them.
#[must_use]
pub fn is_server_relation(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"pg_") else {
        return false;
    };
    const PREFIXES: &[&[u8]] =
        &[b"stat_", b"statio_", b"prepared_", b"replication_", b"hba_", b"ident_", b"shmem_"];
    const NAMES: &[&[u8]] = &[
        b"aios",
        b"backend_memory_contexts",
        b"buffercache",
        b"cursors",
        b"dsm_registry_allocations",
        b"file_settings",
        b"locks",
        b"sequences",
        b"settings",
        b"wait_events",
    ];
    // The catalog of origins is global and replicated, but says nothing to an application.
    PREFIXES.iter().any(|prefix| rest.starts_with(prefix)) || NAMES.contains(&rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_line_is_a_name_and_none_comes_twice() {
        let mut seen = HashSet::new();
        for line in LIST.lines().filter(|line| !line.starts_with('#')) {
            let name = line.strip_prefix('!').unwrap_or(line);
            assert!(!name.is_empty() && name.len() <= 63, "{line:?}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line:?}");
            assert!(seen.insert(name), "{name} comes twice");
        }
        assert!(seen.len() > 1_900);
    }

    #[test]
    fn functions_are_judged() {
        for name in [
            "count",
            "lower",
            "now",
            "clock_timestamp",
            "random",
            "gen_random_uuid",
            "pg_sleep",
            "pg_relation_size",
            "generate_series",
            "json_agg",
            "row_to_json",
            "left",
            "substring",
            "inet_server_addr",
            "inet_server_port",
            "any_value",
            "uuidv7",
            "current_setting",
            "pg_xact_commit_timestamp",
            "pg_get_viewdef",
            "to_regclass",
            "pg_table_is_visible",
            "row_number",
            "string_agg",
            "percentile_cont",
            "current_schema",
            "version",
        ] {
            assert_eq!(function(name.as_bytes()), Verdict::Safe, "{name}");
        }
        for name in [
            "nextval",
            "setval",
            "pg_is_in_recovery",
            "pg_backend_pid",
            "pg_advisory_lock",
            "txid_current",
            "pg_current_snapshot",
            "pg_stat_get_activity",
            "set_config",
            "setseed",
            "query_to_xml",
            "pg_read_file",
            "lo_get",
            "txid_status",
            "pg_walfile_name",
            "pg_log_standby_snapshot",
            "pg_start_backup",
            "inet_client_addr",
        ] {
            assert_eq!(function(name.as_bytes()), Verdict::Unsafe, "{name}");
        }
        for name in ["", "no_such_function", "treat", "ri_fkey_cascade_del", "Lower"] {
            assert_eq!(function(name.as_bytes()), Verdict::Unknown, "{name}");
        }
    }

    #[test]
    fn relations_about_the_server_are_known() {
        for name in [
            "pg_stat_activity",
            "pg_stat_user_tables",
            "pg_statio_all_tables",
            "pg_locks",
            "pg_settings",
            "pg_sequences",
            "pg_prepared_xacts",
            "pg_replication_slots",
            "pg_hba_file_rules",
            "pg_cursors",
            "pg_stat_statements",
        ] {
            assert!(is_server_relation(name.as_bytes()), "{name}");
        }
        for name in [
            "pg_class",
            "pg_attribute",
            "pg_type",
            "pg_namespace",
            "pg_tables",
            "pg_views",
            "pg_indexes",
            "pg_stats",
            "pg_statistic",
            "pg_stats_ext",
            "pg_sequence",
            "pg_timezone_names",
            "tables",
            "stat_activity",
            "",
        ] {
            assert!(!is_server_relation(name.as_bytes()), "{name}");
        }
    }
}
