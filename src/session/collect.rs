//! Finds units in what a client sends: one Query, or everything up to a Sync.

use std::cell::RefCell;

use super::judge::{Brief, Verdict};
use super::known::KnownTexts;
use super::prepared::ClientStatements;
use crate::sql::{Dialect, Names};
use crate::wire::client::{self, Bind, Parse, Target, tag};
use crate::wire::{Frame, FrameError};

/// A Query or Parse up to this many bytes is read as a whole before it goes anywhere.
pub const MAX_TEXT: usize = 16 * 1024 * 1024;

/// A pipeline of more bytes than this before its Sync goes to the primary as it comes.
pub const MAX_PIPELINE: usize = 256 * 1024;

/// So many names of the statements that a unit parses are remembered; what uses further ones in the same unit goes to the
/// primary.
const MAX_PARSED: usize = 64;

/// What the collector needs to judge texts by.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// What names stand for in the session's database.
    pub names: &'a dyn Names,
    /// How literals are read.
    pub dialect: Dialect,
    /// The session's prepared statements.
    pub statements: &'a ClientStatements,
    /// What was judged before.
    pub known: &'a RefCell<KnownTexts>,
}

impl Context<'_> {
    fn judge(&self, text: &[u8]) -> Brief {
        self.known.borrow_mut().judge(text, self.names, self.dialect)
    }
}

/// How the messages of a unit end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By its Query or FunctionCall, or by a Sync.
    Closed,
    /// By a Flush, behind nothing but Parse, Describe and Close of statements: it leaves no transaction open
    /// that the rest of the pipeline could need, so it can stand alone. asyncpg prepares like this.
    Flushed,
    /// More of the same unit follows: it was flushed, or is too large to wait for its Sync.
    Open,
}

/// One unit, which stands at the start of the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// Its bytes. A last message that is not complete is not counted.
    pub len: usize,
    /// Whether more follows.
    pub end: End,
    /// What its texts say.
    pub verdict: Verdict,
    /// A single Query message.
    pub simple: bool,
    /// It names a prepared statement, uses one of an earlier unit, or parses the unnamed one elsewhere than at its
    /// start: it cannot be passed on as it is.
    pub named: bool,
    /// It has messages besides Sync.
    pub any: bool,
    /// It has nothing but Close messages for statements, and Sync.
    pub only_closes: bool,
    /// A text was too large to be judged: anything may have changed.
    pub unread: bool,
    /// It uses a statement whose text is not known: one of SQL PREPARE, or one that does not exist.
    pub unknown: bool,
    /// It is a Query, or has an Execute: something is run, not merely prepared.
    pub executes: bool,
    /// It has a FunctionCall.
    pub function_call: bool,
    /// It has the end of a COPY's data in it.
    pub ends_copy: bool,
    /// It is a Query or FunctionCall behind messages that no Sync has ended: if one of those fails, the server skips it.
    pub mixed: bool,
    /// Where the last Parse message for the unnamed statement stands, from its tag to its end.
    pub unnamed: Option<(usize, usize)>,
    /// [`Self::is_judged`] and [`Self::is_read`], which are asked for many times.
    judged: bool,
    reads: bool,
}

impl Unit {
    /// Whether all of it is there, so that it can be judged, and sent again if need be.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !matches!(self.end, End::Open)
    }

    /// Whether all of it was judged, and nothing in it can write.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.reads
    }

    /// Whether all of it was judged.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        self.judged
    }
}

/// What stands at the start of the buffer.
#[derive(Clone, Copy, Debug)]
pub enum Collected {
    /// Not yet a unit: read more.
    More,
    /// A unit.
    Unit(Unit),
    /// Terminate.
    Terminate,
    /// That many bytes, of which not all need have come, of COPY data which nobody waits for:
    /// PostgreSQL ignores them, too.
    Stray(usize),
    /// A message type that does not exist, or not here.
    Unknown(u8),
    /// A message whose body cannot be read.
    Malformed(u8),
    /// A length that cannot be.
    Broken(FrameError),
}

/// Reads one unit's messages as they arrive, each of them once.
#[derive(Debug, Default)]
pub struct Collector {
    at: usize,
    verdict: Verdict,
    started: Option<Started>,
    /// The names of the first statements that the unit parses, up to [`MAX_PARSED`].
    parsed: Vec<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug)]
struct Started {
    named: bool,
    only_closes: bool,
    only_prepares: bool,
    unnamed: Option<(usize, usize)>,
    function_call: bool,
    ends_copy: bool,
    mixed: bool,
    unknown: bool,
    executes: bool,
}

impl Collector {
    /// Whether part of a unit has been read.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.at == 0
    }

    /// Looks at what has come since the last call. `buffer` starts with the unit's first byte.
    /// After anything but [`Collected::More`] the collector stands at the beginning again.
    pub fn collect(&mut self, buffer: &[u8], context: &Context<'_>) -> Collected {
        loop {
            let rest = buffer.get(self.at..).unwrap_or_default();
            let frame = match Frame::peek(rest) {
                Ok(Some(frame)) => frame,
                Ok(None) if self.at >= MAX_PIPELINE => return self.finish(End::Open, false),
                Ok(None) => return Collected::More,
                Err(error) => return self.give_up(Collected::Broken(error)),
            };
            let Some(body) = frame.body(rest) else {
                return self.incomplete(frame);
            };
            if let Some(found) = self.message(frame, body, context) {
                return found;
            }
            if self.at >= MAX_PIPELINE {
                return self.finish(End::Open, false);
            }
        }
    }

    /// A message of which only a part has come.
    fn incomplete(&mut self, frame: Frame) -> Collected {
        match frame.tag {
            tag::QUERY | tag::PARSE if frame.len > MAX_TEXT => {
                if self.started.is_none() {
                    self.started = Some(Started::new(false));
                }
                self.finish(End::Open, true)
            }
            tag::QUERY | tag::PARSE => Collected::More,
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL if self.started.is_none() => {
                self.give_up(Collected::Stray(frame.len))
            }
            t if !client::is_known(t) => self.give_up(Collected::Unknown(t)),
            _ if self.at + frame.len > MAX_PIPELINE => {
                if self.started.is_none() {
                    self.started = Some(Started::new(false));
                }
                self.finish(End::Open, false)
            }
            _ => Collected::More,
        }
    }

    fn message(&mut self, frame: Frame, body: &[u8], context: &Context<'_>) -> Option<Collected> {
        let first = self.started.is_none();
        if first && frame.tag == tag::QUERY {
            return Some(query(frame, body, context));
        }
        let started = self.started.get_or_insert(Started::new(true));
        match frame.tag {
            tag::QUERY => {
                let Some(text) = client::query(body) else {
                    return Some(self.give_up(Collected::Malformed(frame.tag)));
                };
                self.verdict.fold(&context.judge(text));
                started.only_closes = false;
                started.follows(first);
                self.at += frame.len;
                return Some(self.finish(End::Closed, false));
            }
            tag::PARSE => {
                let Some(parse) = Parse::read(body) else {
                    return Some(self.give_up(Collected::Malformed(frame.tag)));
                };
                self.verdict.fold(&context.judge(parse.text));
                started.only_closes = false;
                // One for the unnamed statement leads a unit that is passed on as it stands: only there does an
                // error before its ParseComplete tell that it failed, rather than was skipped.
                started.named |= !parse.name.is_empty() || self.at > 0;
                if parse.name.is_empty() {
                    started.unnamed = Some((self.at, self.at + frame.len));
                } else if self.parsed.len() < MAX_PARSED {
                    self.parsed.push(parse.name.into());
                }
            }
            tag::BIND => {
                let Some(bind) = Bind::read(body) else {
                    return Some(self.give_up(Collected::Malformed(frame.tag)));
                };
                started.only_closes = false;
                started.only_prepares = false;
                self.mention(bind.statement, context);
            }
            tag::DESCRIBE => {
                started.only_closes = false;
                match client::target(body) {
                    Some(Target::Statement(name)) => self.mention(name, context),
                    Some(Target::Portal(_)) => started.only_prepares = false,
                    None => return Some(self.give_up(Collected::Malformed(frame.tag))),
                }
            }
            tag::CLOSE => match client::target(body) {
                Some(Target::Statement(_)) => started.named = true,
                Some(Target::Portal(_)) => {
                    started.only_closes = false;
                    started.only_prepares = false;
                }
                None => return Some(self.give_up(Collected::Malformed(frame.tag))),
            },
            tag::EXECUTE => {
                started.executes = true;
                started.only_closes = false;
                started.only_prepares = false;
            }
            tag::SYNC => {
                self.at += frame.len;
                return Some(self.finish(End::Closed, false));
            }
            tag::FLUSH => {
                let end = if started.only_prepares { End::Flushed } else { End::Open };
                self.at += frame.len;
                return Some(self.finish(end, false));
            }
            tag::FUNCTION_CALL => {
                started.only_closes = false;
                started.function_call = true;
                started.follows(first);
                self.at += frame.len;
                return Some(self.finish(End::Closed, false));
            }
            tag::TERMINATE => return Some(self.give_up(Collected::Terminate)),
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL if first => {
                return Some(self.give_up(Collected::Stray(frame.len)));
            }
            // In the middle of a pipeline: passed on, where PostgreSQL ignores it.
            tag::COPY_DATA => {}
            tag::COPY_DONE | tag::COPY_FAIL => started.ends_copy = true,
            other => return Some(self.give_up(Collected::Unknown(other))),
        }
        self.at += frame.len;
        None
    }

    /// A statement is used: what it says counts, unless it was parsed in this very unit.
    fn mention(&mut self, name: &[u8], context: &Context<'_>) {
        let Some(started) = &mut self.started else { return };
        if name.is_empty() && started.unnamed.is_some() {
            return;
        }
        started.named = true;
        match context.statements.known(name) {
            Some((text, findings)) => {
                let brief = findings.brief(context.names, context.dialect, || context.judge(text));
                self.verdict.fold(&brief);
            }
            // Its text counts already. Most drivers prepare and describe, or prepare and run, in one unit.
            None if self.parsed.iter().any(|parsed| **parsed == *name) => {}
            None => started.unknown = true,
        }
    }

    fn finish(&mut self, end: End, unread: bool) -> Collected {
        let started = self.started.take().unwrap_or(Started::new(true));
        let (at, verdict) = (std::mem::take(&mut self.at), std::mem::take(&mut self.verdict));
        if !self.parsed.is_empty() {
            self.parsed = Vec::new();
        }
        let sync_only = at == client::SYNC_MESSAGE.len() && end == End::Closed;
        let judged = end != End::Open && !unread && !started.unknown && !started.function_call;
        Collected::Unit(Unit {
            len: at,
            end,
            verdict,
            simple: false,
            named: started.named,
            any: !sync_only,
            only_closes: started.only_closes && end != End::Open,
            unread,
            unknown: started.unknown,
            executes: started.executes,
            function_call: started.function_call,
            ends_copy: started.ends_copy,
            mixed: started.mixed,
            unnamed: started.unnamed,
            judged,
            reads: judged && verdict.is_read(),
        })
    }

    fn give_up(&mut self, found: Collected) -> Collected {
        // What came before a message that cannot be taken goes first.
        if self.at > 0 {
            return self.finish(End::Open, false);
        }
        *self = Self::default();
        found
    }
}

/// A unit of its own.
fn query(frame: Frame, body: &[u8], context: &Context<'_>) -> Collected {
    let Some(text) = client::query(body) else { return Collected::Malformed(frame.tag) };
    let mut verdict = Verdict::default();
    verdict.fold(&context.judge(text));
    Collected::Unit(Unit {
        len: frame.len,
        end: End::Closed,
        verdict,
        simple: true,
        named: false,
        any: true,
        only_closes: false,
        unread: false,
        unknown: false,
        executes: true,
        function_call: false,
        ends_copy: false,
        mixed: false,
        unnamed: None,
        judged: true,
        reads: verdict.is_read(),
    })
}

impl Started {
    /// A Query or FunctionCall ends the unit. Behind other messages of it, whose answers must be told apart from its own.
    fn follows(&mut self, first: bool) {
        self.mixed = !first;
        self.named |= !first;
    }

    const fn new(only_closes: bool) -> Self {
        Self {
            named: false,
            only_closes,
            only_prepares: only_closes,
            unnamed: None,
            function_call: false,
            ends_copy: false,
            mixed: false,
            unknown: false,
            executes: false,
        }
    }
}
