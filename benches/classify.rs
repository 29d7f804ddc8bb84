//! What classifying costs: everyday statements, and texts made to hurt.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::session::KnownTexts;
use tidegate::sql::{Catalog, CatalogRows, Dialect, Overrides, classify, fingerprint};

/// A database with a few thousand names of its own.
fn catalog() -> Catalog {
    let mut rows = CatalogRows::default();
    for n in 0..2_000 {
        rows.push("safe_function", &format!("app_function_{n}"));
        rows.push("unsafe_relation", &format!("app_table_{n}_id_seq"));
    }
    rows.push("unsafe_function", "app_write");
    Catalog::build(rows, &Overrides::default())
}

const POINT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 5;";

const INSERT: &str = "INSERT INTO orders (customer_id, placed_at, status, total, note) VALUES \
                      ($1, now(), 'new', 129.95, 'leave at the door') RETURNING id, placed_at";

/// About 2 KB of report.
fn report() -> String {
    let mut sql = String::from("WITH ");
    for n in 0..6 {
        if n > 0 {
            sql.push_str(", ");
        }
        sql.push_str(&format!(
            "step_{n} AS (SELECT o.customer_id, date_trunc('month', o.placed_at) AS month, \
             sum(o.total) AS total, count(*) FILTER (WHERE o.status = 'paid') AS paid FROM \
             public.orders o LEFT JOIN customers c ON c.id = o.customer_id WHERE o.placed_at >= \
             '2024-01-01'::date AND c.region IN ('eu', 'us') GROUP BY 1, 2)"
        ));
    }
    sql.push_str(
        " SELECT s.month, coalesce(sum(s.total), 0) FROM step_0 s JOIN step_1 t USING (month) \
         ORDER BY 1 LIMIT 100",
    );
    sql
}

/// An IN list of 1735 bytes.
fn list() -> String {
    let mut sql = String::from("SELECT id, name, price FROM products WHERE id IN (");
    for n in 0..400 {
        if sql.len() > 1_725 {
            break;
        }
        if n > 0 {
            sql.push_str(", ");
        }
        sql.push_str(&format!("{}", 100_000 + n * 37));
    }
    sql.push(')');
    sql
}

/// Texts of this size that are as bad as they come.
fn hostile(size: usize) -> Vec<(&'static str, String)> {
    let half = size / 2;
    vec![
        ("parentheses", format!("select {}1{}", "(".repeat(half), ")".repeat(half))),
        ("sum", format!("select 1{}", "+1".repeat(half))),
        ("signs", format!("select 1{}1", "+-".repeat(half))),
        ("dollars", format!("select $tag${}$tag$", "$tag".repeat(size / 4))),
        ("tags", format!("select {}", "$a$ $b$ $a$, ".repeat(size / 13))),
        ("comments", format!("select {}1{}", "/*".repeat(half), "*/".repeat(half))),
        ("strings", format!("select {}''", "'a'\n".repeat(size / 4))),
        ("calls", format!("select {}1{}", "lower(".repeat(size / 7), ")".repeat(size / 7))),
        ("statements", "select 1;".repeat(size / 9)),
    ]
}

fn everyday(criterion: &mut Criterion) {
    let names = catalog();
    let report = report();
    let list = list();
    let mut group = criterion.benchmark_group("classify");
    for (name, sql) in [("point", POINT), ("insert", INSERT), ("report", &report), ("list", &list)] {
        group.throughput(Throughput::Bytes(sql.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| classify(black_box(sql.as_bytes()), &names, Dialect::default()));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("judge again");
    for (name, sql) in [("point", POINT), ("report", &report)] {
        let mut known = KnownTexts::default();
        group.throughput(Throughput::Bytes(sql.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| known.judge(black_box(sql.as_bytes()), &names, Dialect::default()));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("fingerprint");
    for (name, sql) in [("point", POINT), ("report", &report)] {
        group.throughput(Throughput::Bytes(sql.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| fingerprint(black_box(sql.as_bytes())));
        });
    }
    group.finish();
}

/// Ten times the text must take about ten times as long.
fn linear(criterion: &mut Criterion) {
    let names = catalog();
    let mut group = criterion.benchmark_group("hostile");
    group.sample_size(10).measurement_time(Duration::from_secs(1));
    for size in [100_000, 1_000_000] {
        for (name, sql) in hostile(size) {
            group.throughput(Throughput::Bytes(sql.len() as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| classify(black_box(sql.as_bytes()), &names, Dialect::default()));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, everyday, linear);
criterion_main!(benches);
