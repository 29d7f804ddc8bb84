//! What Tidegate itself answers.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::local::{LostAnswer, MAX_WORK, Nodes, answer, answer_lost};
use super::prepared::Sense;
use super::{Session, Statements, state};
use crate::route::Level;
use crate::sql::Catalog;
use crate::topology::Topology;
use crate::wire::client::{self, tag};
use crate::wire::server::tag as server_tag;
use crate::wire::{Frame, build};

struct Lost {
    session: Session,
    table: Statements,
}

impl Lost {
    fn new() -> Self {
        let mut session = Session::new(Rc::default(), Level::Session, 0);
        session.lose(state::Lost::Told);
        Self { session, table: Statements::default() }
    }

    /// The types of the answer's messages with ReadyForQuery's status, or `over`.
    fn answer(&mut self, unit: &BytesMut) -> String {
        let mut out = BytesMut::new();
        let names = Catalog::builtin();
        match answer_lost(unit, &mut self.session, &names, &mut self.table, &mut out) {
            LostAnswer::Over => "over".to_owned(),
            LostAnswer::Given => tags(&out),
        }
    }
}

/// The types of messages, with ReadyForQuery's status.
fn tags(mut messages: &[u8]) -> String {
    let mut tags = String::new();
    while let Some(frame) = Frame::peek(messages).unwrap() {
        tags.push(char::from(frame.tag));
        if frame.tag == server_tag::READY_FOR_QUERY {
            tags.push(char::from(frame.body(messages).unwrap()[0]));
        }
        messages = &messages[frame.len..];
    }
    tags
}

fn query(sql: &str) -> BytesMut {
    let mut unit = BytesMut::new();
    build::query(&mut unit, sql.as_bytes());
    unit
}

/// Parse (`P`), Bind (`B`) and Execute (`E`) of named statements, and a Sync at the end.
fn extended(steps: &[(char, &str, &str)]) -> BytesMut {
    let mut unit = BytesMut::new();
    for (step, name, sql) in steps {
        match step {
            'P' => build::parse(&mut unit, name.as_bytes(), sql.as_bytes(), b"\0\0"),
            'B' => build::bind(&mut unit, b"", name.as_bytes(), b"\0\0\0\0\0\0"),
            _ => build::message(&mut unit, tag::EXECUTE, |b| b.extend_from_slice(b"\0\0\0\0\0")),
        }
    }
    unit.extend_from_slice(&client::SYNC_MESSAGE);
    unit
}

#[test]
fn in_a_lost_transaction_only_its_end_is_taken() {
    let mut lost = Lost::new();
    for (sql, answer) in [
        ("select 1", "EZE"),
        ("", "IZE"),
        ("insert into t values (1); commit", "EZE"),
        ("savepoint a", "EZE"),
        ("rollback to a", "EZE"),
        ("rollback", "CZI"),
    ] {
        assert_eq!(lost.answer(&query(sql)), answer, "{sql}");
    }
    assert!(lost.session.lost.is_none());
    assert_eq!(Lost::new().answer(&query("commit")), "CZI");
    assert_eq!(Lost::new().answer(&query("rollback; select 1")), "over");
}

#[test]
fn what_was_sent_with_a_lost_transactions_end_runs_only_behind_it() {
    let end = [('P', "a", "commit"), ('B', "a", ""), ('E', "", "")];
    let write = [('P', "b", "insert into t values (1)"), ('B', "b", ""), ('E', "", "")];
    assert_eq!(Lost::new().answer(&extended(&end)), "12CZI");
    assert_eq!(Lost::new().answer(&extended(&write)), "EZE");
    assert_eq!(Lost::new().answer(&extended(&[&end[..], &write[..]].concat())), "over");
    assert_eq!(Lost::new().answer(&extended(&[&write[..], &end[..]].concat())), "EZE");
    // Prepared first, but not run first.
    let mixed = [&end[..1], &write[..], &end[1..]].concat();
    assert_eq!(Lost::new().answer(&extended(&mixed)), "1EZE");
}

/// A name that is bound over and over must not have a long text read as often.
#[test]
fn no_more_text_is_read_than_a_unit_may_name() {
    let mut lost = Lost::new();
    let end = format!("rollback{}", " ".repeat(MAX_WORK / 10));
    let bind = ('B', "a", "");
    assert_eq!(lost.answer(&extended(&[&[('P', "a", &*end)], &[bind; 9][..]].concat())), "1222222222ZE");
    assert_eq!(lost.answer(&extended(&[bind; 100])), "222222222EZE");

    let topology = Topology::default();
    let show = format!("show tidegate.level{}", " ".repeat(MAX_WORK / 10));
    for (binds, answered) in [(9, true), (100, false)] {
        for prepared in [false, true] {
            let mut session = Session::new(Rc::default(), Level::Session, 0);
            let mut table = Statements::default();
            let mut steps = vec![bind; binds];
            if prepared {
                session
                    .statements
                    .insert(b"a", table.intern(show.as_bytes(), b"\0\0", Sense::default()))
                    .unwrap();
            } else {
                steps.insert(0, ('P', "a", &*show));
            }
            let nodes = Nodes { topology: &topology, now: Duration::ZERO };
            let (unit, names) = (extended(&steps), Catalog::builtin());
            let given = answer(&unit, &mut session, &names, nodes, &mut table, &mut BytesMut::new());
            assert_eq!(given.is_some(), answered, "{binds} {prepared}");
        }
    }
}
