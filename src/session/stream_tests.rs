//! Random client streams: the collector finds the same units wherever they are cut, and through the translator a
//! client sees what a server of its own would have said.

use crate::session::SettingsMap;
use std::collections::HashMap;

use bytes::{Buf, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::collect::{Collected, Collector, Context, End, Unit};
use super::prepared::{ClientStatements, Sense, Statements};
use super::replies::{Event, Expect, Replies};
use super::server_statements::ServerStatements;
use super::translate::{Sharing, Translator};
use crate::sql::{Catalog, Dialect};
use crate::wire::client::{self, Bind, Parse, SYNC_MESSAGE, Target, tag};
use crate::wire::frame::{HEADER, cstr};
use crate::wire::{Frame, build};

/// One answer: type and what matters of the body.
type Answer = (char, String);

#[derive(Clone, Debug)]
enum Message {
    Parse(usize, usize),
    Bind(usize, usize),
    DescribeStatement(usize),
    DescribePortal(usize),
    Execute(usize),
    CloseStatement(usize),
    ClosePortal(usize),
    Flush,
    CopyDone,
}

#[derive(Clone, Debug)]
enum Stretch {
    Query(usize),
    Pipeline(Vec<Message>),
    /// What drivers send, so that not everything ends in errors.
    Run(usize, usize),
    Call,
    Stray,
}

const NAMES: [&[u8]; 4] = [b"", b"a", b"b", b"c"];
const TEXTS: [&[u8]; 4] = [b"select 1", b"insert 2", b"select fail", b"nonsense"];

fn message() -> impl Strategy<Value = Message> {
    let (name, portal) = (|| 0usize..4, || 0usize..2);
    prop_oneof![
        6 => (name(), 0usize..4).prop_map(|(n, t)| Message::Parse(n, t)),
        6 => (portal(), name()).prop_map(|(p, n)| Message::Bind(p, n)),
        2 => name().prop_map(Message::DescribeStatement),
        1 => portal().prop_map(Message::DescribePortal),
        4 => portal().prop_map(Message::Execute),
        3 => name().prop_map(Message::CloseStatement),
        1 => portal().prop_map(Message::ClosePortal),
        2 => Just(Message::Flush),
        1 => Just(Message::CopyDone),
    ]
}

fn stretch() -> impl Strategy<Value = Stretch> {
    prop_oneof![
        1 => (0usize..4).prop_map(Stretch::Query),
        4 => vec(message(), 0..7).prop_map(Stretch::Pipeline),
        2 => (0usize..4, 0usize..3).prop_map(|(n, t)| Stretch::Run(n, t)),
    ]
}

fn write(out: &mut BytesMut, stretch: &Stretch) {
    let about = |out: &mut BytesMut, tag, kind, name: &[u8]| {
        build::message(out, tag, |b| b.extend_from_slice(&[&[kind], name, &[0]].concat()));
    };
    let execute = |out: &mut BytesMut, portal: &[u8]| {
        build::message(out, tag::EXECUTE, |b| b.extend_from_slice(&[portal, &[0; 5]].concat()));
    };
    let messages = match stretch {
        Stretch::Query(text) => return build::query(out, TEXTS[*text]),
        Stretch::Call => return build::message(out, tag::FUNCTION_CALL, |b| b.extend_from_slice(&[0; 12])),
        Stretch::Stray => return build::message(out, tag::COPY_DATA, |b| b.extend_from_slice(b"1\n")),
        Stretch::Pipeline(messages) => messages.clone(),
        Stretch::Run(name, text) => {
            vec![Message::Parse(*name, *text), Message::Bind(0, *name), Message::Execute(0)]
        }
    };
    for message in messages {
        match message {
            Message::Parse(n, t) => build::parse(out, NAMES[n], TEXTS[t], b"\0\0"),
            Message::Bind(p, n) => build::bind(out, NAMES[p], NAMES[n], b"\0\0\0\0\0\0"),
            Message::DescribeStatement(n) => about(out, tag::DESCRIBE, b'S', NAMES[n]),
            Message::DescribePortal(p) => about(out, tag::DESCRIBE, b'P', NAMES[p]),
            Message::Execute(p) => execute(out, NAMES[p]),
            Message::CloseStatement(n) => about(out, tag::CLOSE, b'S', NAMES[n]),
            Message::ClosePortal(p) => about(out, tag::CLOSE, b'P', NAMES[p]),
            Message::Flush => build::bare(out, tag::FLUSH),
            Message::CopyDone => build::bare(out, tag::COPY_DONE),
        }
    }
    out.extend_from_slice(&SYNC_MESSAGE);
}

fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let frame = Frame::peek(bytes).unwrap()?;
        let (message, rest) = bytes.split_at(frame.len);
        bytes = rest;
        Some((frame.tag, message, &message[HEADER..]))
    })
}

/// A server that knows statements and portals, and nothing else.
#[derive(Default)]
struct Toy {
    statements: HashMap<Vec<u8>, Vec<u8>>,
    portals: HashMap<Vec<u8>, Vec<u8>>,
    skips: bool,
}

impl Toy {
    fn answer(&mut self, kind: u8, body: &[u8], out: &mut Vec<Answer>) {
        if self.skips && kind != tag::SYNC {
            return;
        }
        if let Err(sqlstate) = self.run(kind, body, out) {
            out.push(('E', sqlstate.to_owned()));
            self.skips = kind != tag::QUERY;
        }
        if matches!(kind, tag::SYNC | tag::QUERY) {
            self.skips = false;
            // Outside of a transaction block portals end with their transaction.
            self.portals.clear();
            out.push(('Z', String::new()));
        }
    }

    fn run(&mut self, kind: u8, body: &[u8], out: &mut Vec<Answer>) -> Result<(), &'static str> {
        let mut say = |tag, text: &[u8]| out.push((tag, String::from_utf8(text.to_vec()).unwrap()));
        match kind {
            tag::QUERY => {
                self.statements.remove(&b""[..]);
                Self::execute(client::query(body).unwrap(), say)?;
            }
            tag::PARSE => {
                let parse = Parse::read(body).unwrap();
                if parse.name.is_empty() {
                    self.statements.remove(parse.name);
                }
                if parse.text == b"nonsense" {
                    return Err("42601");
                }
                if self.statements.contains_key(parse.name) {
                    return Err("42P05");
                }
                self.statements.insert(parse.name.to_vec(), parse.text.to_vec());
                say('1', b"");
            }
            tag::BIND => {
                let bind = Bind::read(body).unwrap();
                let text = self.statements.get(bind.statement).ok_or("26000")?.clone();
                if !bind.portal.is_empty() && self.portals.contains_key(bind.portal) {
                    return Err("42P03");
                }
                self.portals.insert(bind.portal.to_vec(), text);
                say('2', b"");
            }
            tag::DESCRIBE => match client::target(body).unwrap() {
                Target::Statement(name) => {
                    let text = self.statements.get(name).ok_or("26000")?;
                    say('t', b"");
                    say(if text.starts_with(b"select") { 'T' } else { 'n' }, text);
                }
                Target::Portal(name) => {
                    let text = self.portals.get(name).ok_or("34000")?;
                    say(if text.starts_with(b"select") { 'T' } else { 'n' }, text);
                }
            },
            tag::EXECUTE => {
                let text = self.portals.get(cstr(body).unwrap().0).ok_or("34000")?;
                Self::execute(text, say)?;
            }
            tag::CLOSE => {
                match client::target(body).unwrap() {
                    Target::Statement(name) => self.statements.remove(name),
                    Target::Portal(name) => self.portals.remove(name),
                };
                say('3', b"");
            }
            _ => {}
        }
        Ok(())
    }

    fn execute(text: &[u8], mut say: impl FnMut(char, &[u8])) -> Result<(), &'static str> {
        match text {
            b"nonsense" => return Err("42601"),
            b"select fail" => return Err("22012"),
            _ => {}
        }
        if text.starts_with(b"select") {
            say('D', text);
        }
        say('C', text);
        Ok(())
    }
}

/// A server connection as `relay` keeps it.
#[derive(Default)]
struct Server {
    toy: Toy,
    statements: ServerStatements,
    replies: Replies,
    input: BytesMut,
}

#[derive(Default)]
struct Session {
    statements: ClientStatements,
    skipping: bool,
    input: BytesMut,
    seen: Vec<Answer>,
    own: Toy,
    expected: Vec<Answer>,
}

fn say_all(said: &[u8], seen: &mut Vec<Answer>) {
    seen.extend(frames(said).map(|(tag, ..)| (char::from(tag), String::new())));
}

fn collect(session: &Session) -> Collected {
    let names = Catalog::builtin();
    let dialect = Dialect { standard_conforming_strings: true };
    let known = Default::default();
    let context = Context { names: &names, dialect, statements: &session.statements, known: &known };
    Collector::default().collect(&session.input, &context)
}

impl Server {
    /// Answers everything that has come, as `relay::downstream` passes it on.
    fn run(&mut self, session: &mut Session) {
        let input = self.input.split();
        let mut answers = Vec::new();
        for (kind, _, body) in frames(&input) {
            self.toy.answer(kind, body, &mut answers);
        }
        let mut failed = false;
        for answer in answers {
            let (statements, known) = (&mut session.statements, &mut self.statements);
            if !self.replies.are_ours() {
                match answer.0 {
                    'E' => {
                        failed = true;
                        self.replies.on_error(|undone| undone.undo(statements, known));
                    }
                    'Z' => self.replies.on_skipped(|undone| undone.undo(statements, known)),
                    _ => {}
                }
            }
            let mut said = BytesMut::new();
            let event = self.replies.on_message(answer.0 as u8);
            self.replies.say(&mut said);
            if event == Event::Forward {
                session.seen.push(answer);
            }
            say_all(&said, &mut session.seen);
            session.skipping |= event == Event::QuietReady && failed;
        }
    }

    fn translate(&mut self, session: &mut Session, table: &mut Statements, unit: Option<&Unit>, n: usize) {
        let mut translator = Translator {
            client: &mut session.statements,
            server: &mut self.statements,
            table,
            replies: &mut self.replies,
            limit: 2,
            settings: &SettingsMap::default(),
            sharing: Sharing::Generation { home: 0, generation: 0 },
            generation: 0,
            aborted: false,
        };
        if unit.is_some() {
            translator.evict(&mut self.input);
        }
        translator.translate(&session.input[..n], &mut self.input).unwrap();
        if unit.is_some_and(|u| u.end == End::Closed) {
            self.replies.complete();
        }
        let mut said = BytesMut::new();
        self.replies.say(&mut said);
        say_all(&said, &mut session.seen);
    }

    /// Runs a unit as `relay::exchange` does.
    fn exchange(
        &mut self,
        session: &mut Session,
        table: &mut Statements,
        unit: &Unit,
        set_up: bool,
        mut late: u32,
    ) {
        if set_up {
            build::query(&mut self.input, b"set");
            self.replies.expect(Expect::Setup);
            self.statements.unnamed = 0;
        }
        if unit.named || unit.end != End::Closed {
            let flush = if unit.end == End::Flushed { HEADER } else { 0 };
            self.translate(session, table, Some(unit), unit.len - flush);
            if unit.end == End::Flushed {
                self.input.extend_from_slice(&SYNC_MESSAGE);
                self.replies.expect(Expect::QuietReady);
            }
        } else {
            self.translate(session, table, Some(unit), 0);
            if let Some((start, end)) = unit.unnamed {
                let mut translator = Translator {
                    client: &mut session.statements,
                    server: &mut self.statements,
                    table,
                    replies: &mut self.replies,
                    limit: 2,
                    settings: &SettingsMap::default(),
                    sharing: Sharing::Generation { home: 0, generation: 0 },
                    generation: 0,
                    aborted: false,
                };
                translator.passed_unnamed(&session.input[start..end]);
            }
            if unit.simple {
                session.statements.drop_unnamed();
                self.statements.unnamed = 0;
            }
            self.replies.expect_plain(unit.unnamed.is_some());
            self.input.extend_from_slice(&session.input[..unit.len]);
        }
        session.input.advance(unit.len);
        let mut open = unit.end == End::Open;
        while open {
            late = late.rotate_right(1);
            if late & 1 == 0 {
                self.run(session);
            }
            let (kind, len) = frames(&session.input).next().map(|(kind, m, _)| (kind, m.len())).unwrap();
            self.translate(session, table, None, len);
            session.input.advance(len);
            open = kind != tag::SYNC;
        }
        self.run(session);
    }
}

/// Gives the session's input to one of the servers, unit by unit, as `client` does.
fn serve(session: &mut Session, servers: &mut [Server], table: &mut Statements, choice: &[usize], late: u32) {
    let mut choice = choice.iter().cycle();
    while !session.input.is_empty() {
        if session.skipping {
            let (kind, len) = frames(&session.input).next().map(|(kind, m, _)| (kind, m.len())).unwrap();
            session.input.advance(len);
            if kind == tag::SYNC {
                session.skipping = false;
                session.seen.push(('Z', String::new()));
            }
            continue;
        }
        let unit = match collect(session) {
            Collected::Unit(unit) => unit,
            Collected::Stray(n) => {
                session.input.advance(n);
                continue;
            }
            other => panic!("{other:?}"),
        };
        if unit.is_whole() && (!unit.any || unit.only_closes) {
            for (_, _, body) in frames(&session.input[..unit.len]).filter(|m| m.0 == tag::CLOSE) {
                if let Some(Target::Statement(name)) = client::target(body) {
                    if name.is_empty() {
                        session.statements.drop_unnamed();
                    }
                    session.statements.remove(name);
                }
                session.seen.push(('3', String::new()));
            }
            if unit.end == End::Closed {
                session.seen.push(('Z', String::new()));
            }
            session.input.advance(unit.len);
            continue;
        }
        let choice = choice.next().unwrap();
        let server = &mut servers[choice % 3];
        server.exchange(session, table, &unit, choice / 3 == 1, late);
        assert_eq!(server.replies.ready_to_come(), 0, "an answer is still waited for");
        assert!(server.replies.is_plain(), "an answer is still waited for: {:?}", server.replies);
    }
}

/// Every unit and stray message of a stream that comes in pieces of the given lengths.
fn units(stream: &[u8], pieces: &[usize]) -> Vec<String> {
    let mut statements = ClientStatements::default();
    statements.insert(b"a", Statements::default().intern(b"insert 2", b"\0\0", Sense::default())).unwrap();
    let names = Catalog::builtin();
    let dialect = Dialect { standard_conforming_strings: true };
    let known = Default::default();
    let context = Context { names: &names, dialect, statements: &statements, known: &known };
    let (mut collector, mut buffer, mut rest, mut found) =
        (Collector::default(), BytesMut::new(), stream, vec![]);
    let mut pieces = pieces.iter().cycle();
    let mut skip = 0;
    loop {
        let n = skip.min(buffer.len());
        buffer.advance(n);
        skip -= n;
        let collected = if skip == 0 { collector.collect(&buffer, &context) } else { Collected::More };
        match collected {
            Collected::More if rest.is_empty() => break,
            Collected::More => {
                let (piece, behind) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
                buffer.extend_from_slice(piece);
                rest = behind;
            }
            Collected::Unit(unit) => {
                found.push(format!("{unit:?}"));
                buffer.advance(unit.len);
            }
            Collected::Stray(n) => {
                found.push(format!("stray {n}"));
                skip = n;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(collector.is_idle() && buffer.is_empty());
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn units_are_the_same_wherever_the_stream_is_cut(
        stretches in vec(prop_oneof![8 => stretch(), 1 => Just(Stretch::Call), 1 => Just(Stretch::Stray)], 1..8),
        pieces in vec(1usize..40, 1..20),
    ) {
        let mut stream = BytesMut::new();
        stretches.iter().for_each(|s| write(&mut stream, s));
        let whole = units(&stream, &[stream.len()]);
        prop_assert_eq!(&whole, &units(&stream, &pieces));
        prop_assert!(whole.len() >= stretches.len());
    }

    #[test]
    fn a_client_sees_what_a_server_of_its_own_would_say(
        steps in vec((0usize..2, stretch(), vec(0usize..9, 1..4), any::<u32>()), 1..16),
    ) {
        let mut sessions = [Session::default(), Session::default()];
        let mut servers: [Server; 3] = Default::default();
        let mut table = Statements::default();
        for (who, stretch, choice, late) in steps {
            let session = &mut sessions[who];
            write(&mut session.input, &stretch);
            let input = session.input.clone();
            for (kind, _, body) in frames(&input) {
                session.own.answer(kind, body, &mut session.expected);
            }
            serve(session, &mut servers, &mut table, &choice, late);
            prop_assert_eq!(&session.seen, &session.expected);
        }
    }
}
