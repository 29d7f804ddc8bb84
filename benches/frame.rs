//! What framing costs: walking a result, collecting a unit, translating a prepared one.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::session::collect::Context;
use tidegate::session::prepared::Sense;
use tidegate::session::prepared::Statements;
use tidegate::session::translate::{Sharing, Translator};
use tidegate::session::{ClientStatements, Collector, Replies, ServerStatements, SettingsMap};
use tidegate::sql::{Catalog, Dialect};
use tidegate::wire::Frame;
use tidegate::wire::build;

const SELECT: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = 1;";

fn walk(c: &mut Criterion) {
    let mut group = c.benchmark_group("walk rows");
    for size in [16, 200] {
        let mut stream = BytesMut::new();
        for _ in 0..1_000 {
            build::message(&mut stream, b'D', |b| b.extend_from_slice(&vec![0; size]));
        }
        group.throughput(Throughput::Elements(1_000));
        group.bench_function(format!("{size} bytes"), |b| {
            b.iter(|| {
                let (mut rest, mut rows) = (black_box(&stream[..]), 0);
                while let Ok(Some(frame)) = Frame::peek(rest) {
                    rest = rest.get(frame.len..).unwrap_or_default();
                    rows += 1;
                }
                rows
            });
        });
    }
    group.finish();
}

fn collect(c: &mut Criterion) {
    let catalog = Catalog::builtin();
    let statements = ClientStatements::default();
    let dialect = Dialect { standard_conforming_strings: true };
    let known = Default::default();
    let context = Context { names: &catalog, dialect, statements: &statements, known: &known };
    let mut simple = BytesMut::new();
    build::query(&mut simple, SELECT);
    let mut extended = BytesMut::new();
    build::parse(&mut extended, b"", SELECT, b"\0\0");
    build::bind(&mut extended, b"", b"", b"\0\0\0\0\0\0");
    build::message(&mut extended, b'E', |b| b.extend_from_slice(b"\0\0\0\0\0"));
    build::bare(&mut extended, b'S');
    for (name, unit) in [("simple", &simple), ("extended", &extended)] {
        c.bench_function(&format!("collect a {name} unit"), |b| {
            b.iter(|| Collector::default().collect(black_box(unit), &context));
        });
    }
}

fn translate(c: &mut Criterion) {
    let (mut client, mut server) = (ClientStatements::default(), ServerStatements::default());
    let (mut table, mut replies) = (Statements::default(), Replies::default());
    let statement = table.intern(SELECT, b"\0\0", Sense::default());
    client.insert(b"s1", statement.clone()).expect("there is room for one");
    server.insert(statement);
    let mut unit = BytesMut::new();
    build::bind(&mut unit, b"", b"s1", b"\0\0\0\0\0\0");
    build::message(&mut unit, b'E', |b| b.extend_from_slice(b"\0\0\0\0\0"));
    build::bare(&mut unit, b'S');
    let mut out = BytesMut::with_capacity(1024);
    let settings = SettingsMap::default();
    c.bench_function("translate a prepared unit", |b| {
        b.iter(|| {
            out.clear();
            replies.clear();
            let mut translator = Translator {
                client: &mut client,
                server: &mut server,
                table: &mut table,
                replies: &mut replies,
                limit: 500,
                settings: &settings,
                generation: 0,
                aborted: false,
                sharing: Sharing::Generation { home: 0, generation: 0 },
            };
            translator.translate(black_box(&unit), &mut out)
        });
    });
}

criterion_group!(benches, walk, collect, translate);
criterion_main!(benches);
