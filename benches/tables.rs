//! What tables cost as they grow: a lookup among 10,000 must not cost what a walk over them would.

use std::cell::RefCell;
use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate::session::collect::Context;
use tidegate::session::prepared::{Sense, Statements};
use tidegate::session::{ClientStatements, Collector, KnownTexts, ServerStatements};
use tidegate::sql::{Catalog, CatalogRows, Dialect, Learned, Overrides};
use tidegate::wire::build;

/// Few, more than a worker's table of known texts has places, and as many as a client would hardly have.
const SIZES: [usize; 3] = [16, 1_000, 10_000];

fn text(n: usize) -> String {
    format!("SELECT id, name, price FROM products WHERE shop = {n} AND id = $1")
}

/// The tables of a worker, a client and a server after as many statements as given.
fn prepared(size: usize) -> (Statements, ClientStatements, ServerStatements) {
    let (mut table, mut client, mut server) =
        (Statements::default(), ClientStatements::default(), ServerStatements::default());
    for n in 0..size {
        let statement = table.intern(text(n).as_bytes(), b"\0\0", Sense::default());
        client.insert(format!("s{n}").as_bytes(), statement.clone()).expect("there is room");
        server.insert(statement);
    }
    (table, client, server)
}

fn statements(c: &mut Criterion) {
    let mut group = c.benchmark_group("prepared statements");
    for size in SIZES {
        let (mut table, mut client, mut server) = prepared(size);
        let mut at = 0;
        let mut next = move || {
            at = (at + 7) % size;
            at
        };
        let names: Vec<_> = (0..size).map(|n| format!("s{n}").into_bytes()).collect();
        group.bench_function(BenchmarkId::new("find one", size), |b| {
            b.iter(|| {
                let statement = client.get(&names[next()]).expect("it is there");
                server.touch(statement.id)
            });
        });
        let texts: Vec<_> = (0..size).map(|n| text(n).into_bytes()).collect();
        group.bench_function(BenchmarkId::new("parse a known text", size), |b| {
            b.iter(|| table.intern(black_box(&texts[next()]), b"\0\0", Sense::default()));
        });
        group.bench_function(BenchmarkId::new("prepare and close", size), |b| {
            b.iter(|| {
                let statement = table.intern(black_box(b"SELECT 1"), b"\0\0", Sense::default());
                client.insert(b"new", statement).expect("there is room");
                client.remove(b"new")
            });
        });
        // The least used one makes room for another.
        let mut gone = server.evict(size - 1);
        group.bench_function(BenchmarkId::new("evict one", size), |b| {
            b.iter(|| {
                server.insert(gone.take().expect("one was taken out"));
                gone = server.evict(size - 1);
            });
        });
    }
    group.finish();
}

fn known(c: &mut Criterion) {
    let names = Catalog::build(CatalogRows::default(), &Overrides::default());
    let mut group = c.benchmark_group("judge texts that come again");
    for size in SIZES {
        let texts: Vec<_> = (0..size).map(|n| text(n).into_bytes()).collect();
        let mut known = KnownTexts::default();
        for text in texts.iter().chain(&texts) {
            known.judge(text, &names, Dialect::default());
        }
        let mut at = 0;
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                at = (at + 7) % size;
                known.judge(black_box(&texts[at]), &names, Dialect::default())
            });
        });
    }
    group.finish();
}

/// Collecting a Bind, an Execute and a Sync.
fn bound(c: &mut Criterion) {
    let names = Catalog::build(CatalogRows::default(), &Overrides::default());
    let mut group = c.benchmark_group("bind a prepared statement");
    for size in SIZES {
        let (_table, statements, _server) = prepared(size);
        let units: Vec<_> = (0..size)
            .map(|n| {
                let mut unit = BytesMut::new();
                build::bind(&mut unit, b"", format!("s{n}").as_bytes(), b"\0\0\0\0\0\0");
                build::message(&mut unit, b'E', |b| b.extend_from_slice(b"\0\0\0\0\0"));
                build::bare(&mut unit, b'S');
                unit
            })
            .collect();
        let known = RefCell::default();
        let dialect = Dialect::default();
        let context = Context { names: &names, dialect, statements: &statements, known: &known };
        let mut at = 0;
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                at = (at + 7) % size;
                Collector::default().collect(black_box(&units[at]), &context)
            });
        });
    }
    group.finish();
}

fn learned(c: &mut Criterion) {
    let mut group = c.benchmark_group("learned texts");
    for size in SIZES {
        let mut learned = Learned::default();
        (0..size as u64).for_each(|n| learned.insert(n));
        let mut at = 0;
        group.bench_function(BenchmarkId::new("look for one", size), |b| {
            b.iter(|| {
                at = (at + 7) % (2 * size as u64);
                learned.contains(black_box(at))
            });
        });
    }
    let mut learned = Learned::default();
    let mut n = 0;
    group.bench_function("one more where there is no room", |b| {
        b.iter(|| {
            n += 1;
            learned.insert(black_box(n));
        });
    });
    group.finish();
}

criterion_group!(benches, statements, known, bound, learned);
criterion_main!(benches);
