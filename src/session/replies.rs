//! What a server's answers belong to, and which of them the client may see.
//!
//! A unit that is passed on as it came needs no script: everything the server says is for the
//! client. Only where we sent messages of our own, or kept one of the client's to ourselves, does
//! the script say whose turn it is.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::prepared::{ClientStatements, SharedStatement, Unnamed};
use super::server_statements::ServerStatements;
use crate::wire::build;
use crate::wire::server::tag;

/// What a server answers next.
#[derive(Debug)]
pub enum Expect {
    /// A Query of ours that sets parameters: everything up to its ReadyForQuery is ours.
    Setup,
    /// A FunctionCall of ours that asks for a position: everything up to its ReadyForQuery is ours.
    Position(Stands),
    /// ParseComplete.
    Parse {
        /// Ours: the client did not ask for it here.
        own: bool,
        /// The statement that the server knows afterwards.
        statement: Option<SharedStatement>,
        /// What it changes.
        before: Option<Before>,
    },
    /// BindComplete.
    Bind,
    /// RowDescription or NoData, behind a ParameterDescription for a statement, which is remembered of this one.
    Describe(Option<SharedStatement>),
    /// Rows and their end.
    Execute,
    /// CloseComplete.
    Close {
        /// Ours: the client did not ask for it.
        own: bool,
        /// What it changes.
        before: Option<Before>,
    },
    /// A message without body, of this type, which we say to the client in the server's place, and what the
    /// client's message changes.
    Say(u8, Option<Before>),
    /// ReadyForQuery to a Sync of ours, which the client did not send.
    QuietReady,
    /// ReadyForQuery, after whatever a Query, a FunctionCall or a Sync brings.
    Ready,
}

/// Where a message of ours stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// In front of the unit.
    InFront,
    /// Behind it: its ReadyForQuery is to be waited for, too.
    Behind,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is for the client.
    Forward,
    /// It is ours.
    Swallow,
    /// It is the ReadyForQuery to a Sync of ours.
    QuietReady,
}

/// What stood somewhere before a message changed it: to be put back if the server skips the message.
#[derive(Debug)]
pub enum Before {
    /// Behind a name of the client's.
    Named {
        /// The name.
        name: Box<[u8]>,
        /// Its statement; `None` if there was none.
        statement: Option<SharedStatement>,
    },
    /// Behind a name that the session's own server knows.
    Bound {
        /// The name.
        name: Box<[u8]>,
        /// Its text.
        text: Box<[u8]>,
    },
    /// Nothing behind a name that the session's own server is about to know.
    Unbound {
        /// The name.
        name: Box<[u8]>,
    },
    /// In place of the unnamed statement.
    Unnamed {
        /// The client's; `None` if the message is ours and leaves it as it is.
        client: Option<Unnamed>,
        /// The number of the server's.
        server: u64,
    },
}

/// What a message that was not executed has not changed after all.
#[derive(Debug)]
pub struct Undone {
    /// The server does not know it.
    pub statement: Option<SharedStatement>,
    /// To be put back.
    pub before: Option<Before>,
}

impl Undone {
    /// Puts back what was before.
    pub fn undo(self, client: &mut ClientStatements, server: &mut ServerStatements) {
        if let Some(statement) = self.statement {
            server.remove(statement.id);
        }
        match self.before {
            None => {}
            Some(Before::Named { name, statement }) => {
                client.remove(&name);
                if let Some(statement) = statement {
                    // There was room for it before.
                    let _ = client.insert(&name, statement);
                }
            }
            Some(Before::Bound { name, text }) => {
                // There was room for it before.
                let _ = client.bind_text(&name, &text);
            }
            Some(Before::Unbound { name }) => {
                client.unbind(&name);
            }
            Some(Before::Unnamed { client: unnamed, server: number }) => {
                server.unnamed = number;
                if let Some(unnamed) = unnamed {
                    client.unnamed = unnamed;
                }
            }
        }
    }
}

/// The answers still to come on one lease.
#[derive(Debug, Default)]
pub struct Replies {
    script: VecDeque<Expect>,
    ready: u32,
    /// An error came: the server skips everything up to the Sync.
    skipping: bool,
    /// A unit that was passed on as it came begins with a Parse for the unnamed statement, which is not complete.
    parsing: bool,
}

impl Replies {
    /// How many ReadyForQuery messages for the client are still to come.
    #[must_use]
    pub fn ready_to_come(&self) -> u32 {
        self.ready
    }

    /// Whether every message is for the client, so that only ReadyForQuery and errors matter.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.script.is_empty()
    }

    /// Whether a Query or FunctionCall of ours is being answered, which nothing of the client's has to do with.
    #[must_use]
    pub fn are_ours(&self) -> bool {
        matches!(self.script.front(), Some(Expect::Setup | Expect::Position(_)))
    }

    /// Whether a statement is to be prepared.
    #[must_use]
    pub fn parses(&self) -> bool {
        self.script.iter().any(|expect| matches!(expect, Expect::Parse { statement: Some(_), .. }))
    }

    /// Whether what comes next is for the client as it stands, up to ReadyForQuery.
    #[must_use]
    pub fn is_passed_on(&self) -> bool {
        matches!(self.script.front(), None | Some(Expect::Ready))
    }

    /// Where the FunctionCall of ours stands that is being answered.
    #[must_use]
    pub fn position(&self) -> Option<Stands> {
        match self.script.front() {
            Some(Expect::Position(stands)) => Some(*stands),
            _ => None,
        }
    }

    /// A unit was passed on as it came; one ReadyForQuery will follow. `parses`: it begins with a Parse for the
    /// unnamed statement.
    pub fn expect_plain(&mut self, parses: bool) {
        self.parsing = parses;
        self.ready += 1;
        if !matches!(self.script.back(), None | Some(Expect::Setup | Expect::Position(_))) {
            self.script.push_back(Expect::Ready);
        }
    }

    /// Behind the whole of a unit, the server was asked for its position.
    pub fn expect_position_behind(&mut self) {
        if !matches!(self.script.back(), Some(Expect::Ready)) {
            self.script.push_back(Expect::Ready);
        }
        self.script.push_back(Expect::Position(Stands::Behind));
        self.ready += 1;
    }

    /// A message was sent that brings that answer.
    pub fn expect(&mut self, expect: Expect) {
        if matches!(expect, Expect::Ready | Expect::QuietReady) {
            self.ready += 1;
        }
        self.script.push_back(expect);
    }

    /// The statement that a RowDescription or NoData is about, if that is to be remembered.
    #[must_use]
    pub fn described(&self) -> Option<&SharedStatement> {
        match self.script.front() {
            Some(Expect::Describe(statement)) => statement.as_ref(),
            _ => None,
        }
    }

    /// Says what is ours to say before the server says anything more.
    pub fn say(&mut self, out: &mut BytesMut) {
        while let Some(Expect::Say(tag, _)) = self.script.front().filter(|_| !self.skipping) {
            build::bare(out, *tag);
            self.script.pop_front();
        }
    }

    /// Whether the server, having failed, skips everything up to a Sync.
    #[must_use]
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Whether what is answered now stands before a Query or FunctionCall, which an error makes the server skip.
    #[must_use]
    pub fn is_before_query(&self) -> bool {
        !matches!(self.script.front(), Some(Expect::Ready) | None)
    }

    /// The last message was skipped, and a Sync of ours stands in its place.
    pub fn end_by_sync(&mut self) {
        if let Some(last) = self.script.back_mut() {
            *last = Expect::QuietReady;
        }
    }

    /// The whole unit has been written. If every answer is for the client as it stands, and no error can undo
    /// anything, the script is not needed.
    pub fn complete(&mut self) {
        let plain = |expect: &Expect| {
            matches!(
                expect,
                Expect::Bind
                    | Expect::Describe(None)
                    | Expect::Execute
                    | Expect::Close { own: false, before: None }
                    | Expect::Ready
            )
        };
        if self.script.iter().all(plain) {
            self.script.clear();
            self.parsing = false;
        }
    }

    /// Takes in a message of that type. What is ours to say after it is to be asked of [`Self::say`].
    pub fn on_message(&mut self, tag: u8) -> Event {
        self.parsing &= tag != tag::PARSE_COMPLETE;
        self.skipping &= tag != tag::READY_FOR_QUERY;
        let Some(front) = self.script.front() else {
            if tag == tag::READY_FOR_QUERY {
                self.ready = self.ready.saturating_sub(1);
            }
            return Event::Forward;
        };
        let (pop, event) = match (front, tag) {
            (Expect::Setup | Expect::Position(Stands::InFront), tag::READY_FOR_QUERY) => {
                (true, Event::Swallow)
            }
            (Expect::Position(Stands::Behind), tag::READY_FOR_QUERY) => {
                self.ready = self.ready.saturating_sub(1);
                (true, Event::Swallow)
            }
            // Notifications may come at any time, and are never ours.
            (_, tag::NOTIFICATION_RESPONSE) => (false, Event::Forward),
            (Expect::Setup | Expect::Position(_), _) => (false, Event::Swallow),
            (Expect::Parse { own, .. }, tag::PARSE_COMPLETE)
            | (Expect::Close { own, .. }, tag::CLOSE_COMPLETE) => {
                (true, if *own { Event::Swallow } else { Event::Forward })
            }
            (Expect::Bind, tag::BIND_COMPLETE)
            | (Expect::Describe(_), tag::ROW_DESCRIPTION | tag::NO_DATA)
            | (Expect::Execute, tag::COMMAND_COMPLETE | tag::EMPTY_QUERY | tag::PORTAL_SUSPENDED) => {
                (true, Event::Forward)
            }
            (Expect::Ready, tag::READY_FOR_QUERY) => {
                self.ready = self.ready.saturating_sub(1);
                (true, Event::Forward)
            }
            (Expect::QuietReady, tag::READY_FOR_QUERY) => {
                self.ready = self.ready.saturating_sub(1);
                (true, Event::QuietReady)
            }
            _ => (false, Event::Forward),
        };
        if pop {
            self.script.pop_front();
        }
        event
    }

    /// An ErrorResponse came: the server skips everything up to the next ReadyForQuery. What the message that
    /// failed and those behind it would have changed is handed to `undone`, the last change first.
    pub fn on_error(&mut self, undone: impl FnMut(Undone)) {
        self.skipping = true;
        // A Parse for the unnamed statement takes the old one away before it can fail (`exec_parse_message`).
        match self.script.front_mut() {
            Some(Expect::Parse { before: Some(Before::Unnamed { client, server }), .. }) => {
                *server = 0;
                *client = client.take().map(|_| Unnamed::default());
            }
            Some(Expect::Ready) | None if self.parsing => {
                let before = Before::Unnamed { client: Some(Unnamed::default()), server: 0 };
                self.script.push_front(Expect::Parse { own: false, statement: None, before: Some(before) });
            }
            _ => {}
        }
        self.parsing = false;
        self.skip(undone);
    }

    /// ReadyForQuery came: what stands before it in the script was sent after the server had failed already, and
    /// was skipped, too.
    pub fn on_skipped(&mut self, undone: impl FnMut(Undone)) {
        self.skip(undone);
    }

    fn skip(&mut self, undone: impl FnMut(Undone)) {
        let skipped = self
            .script
            .iter()
            .position(|e| {
                matches!(e, Expect::Ready | Expect::QuietReady | Expect::Setup | Expect::Position(_))
            })
            .unwrap_or(self.script.len());
        self.script
            .drain(..skipped)
            .rev()
            .filter_map(|expect| match expect {
                Expect::Parse { statement, before, .. } => Some(Undone { statement, before }),
                Expect::Close { before, .. } | Expect::Say(_, before) => {
                    Some(Undone { statement: None, before })
                }
                _ => None,
            })
            .for_each(undone);
    }

    /// CopyInResponse came in an extended query: PostgreSQL ignores every Sync that it has got already
    /// ("Message Flow", "COPY Operations"), so that no ReadyForQuery follows them.
    pub fn forget_syncs(&mut self) {
        self.ready = 0;
        self.script.clear();
        // What the client sends behind its data is answered behind the COPY's own end.
        self.script.push_back(Expect::Execute);
    }

    /// Nothing is expected any more.
    pub fn clear(&mut self) {
        self.script.clear();
        self.ready = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(replies: &mut Replies, tags: &[u8]) -> String {
        let mut seen = String::new();
        let mut after = BytesMut::new();
        replies.say(&mut after);
        for &tag in tags {
            if tag == tag::ERROR_RESPONSE {
                replies.on_error(|_| {});
            }
            let said: String =
                after.split().chunks(5).map(|m| char::from(m[0]).to_ascii_lowercase()).collect();
            seen.push_str(&said);
            if replies.on_message(tag) == Event::Forward {
                seen.push(char::from(tag));
            }
            replies.say(&mut after);
        }
        seen.extend(after.chunks(5).map(|m| char::from(m[0])));
        seen
    }

    #[test]
    fn what_we_asked_for_ourselves_is_not_seen() {
        let mut replies = Replies::default();
        replies.expect(Expect::Setup);
        replies.expect(Expect::Close { own: true, before: None });
        replies.expect(Expect::Parse { own: true, statement: None, before: None });
        replies.expect(Expect::Bind);
        replies.expect(Expect::Execute);
        replies.expect(Expect::Ready);
        assert_eq!(run(&mut replies, b"CSCZ312DDCZ"), "2DDCZ");
        assert!(replies.is_plain());
        assert_eq!(replies.ready_to_come(), 0);
    }

    #[test]
    fn what_the_server_was_not_asked_we_say_in_its_place_and_in_its_turn() {
        let mut replies = Replies::default();
        replies.expect(Expect::Say(b'1', None));
        replies.expect(Expect::Bind);
        replies.expect(Expect::Describe(None));
        replies.expect(Expect::Execute);
        replies.expect(Expect::Say(b'3', None));
        replies.expect(Expect::Ready);
        assert_eq!(run(&mut replies, b"2TDCZ"), "12TDC3Z");
    }

    #[test]
    fn after_an_error_nothing_is_said_until_ready() {
        let mut replies = Replies::default();
        replies.expect(Expect::Bind);
        replies.expect(Expect::Execute);
        replies.expect(Expect::Say(b'3', None));
        replies.expect(Expect::Ready);
        replies.expect(Expect::Bind);
        replies.expect(Expect::Ready);
        assert_eq!(run(&mut replies, b"EZ2Z"), "EZ2Z");
        assert_eq!(replies.ready_to_come(), 0);
    }

    #[test]
    fn a_parse_that_was_skipped_is_handed_back() {
        let mut replies = Replies::default();
        replies.expect(Expect::Bind);
        for name in [b"s", b"t"] {
            let before = Before::Named { name: name[..].into(), statement: None };
            replies.expect(Expect::Parse { own: false, statement: None, before: Some(before) });
        }
        replies.expect(Expect::Ready);
        let mut names = Vec::new();
        replies.on_error(|undone| match undone.before {
            Some(Before::Named { name, .. }) => names.push(name),
            other => panic!("{other:?}"),
        });
        assert_eq!(names, [Box::from(&b"t"[..]), Box::from(&b"s"[..])]);
    }

    #[test]
    fn a_plain_unit_needs_no_script_even_behind_a_setup() {
        let mut replies = Replies::default();
        replies.expect(Expect::Setup);
        replies.expect_plain(false);
        assert_eq!(run(&mut replies, b"CZTDCZ"), "TDCZ");
        replies.expect_plain(false);
        assert!(replies.is_plain());
        assert_eq!(run(&mut replies, b"12TDCZ"), "12TDCZ");
        assert_eq!(replies.ready_to_come(), 0);
    }

    #[test]
    fn syncs_sent_before_a_copy_bring_no_ready() {
        let mut replies = Replies::default();
        replies.expect_plain(false);
        replies.forget_syncs();
        assert_eq!(replies.ready_to_come(), 0);
        replies.expect_plain(false);
        assert_eq!(run(&mut replies, b"CZ"), "CZ");
    }

    #[test]
    fn positions_that_were_asked_for_are_nobodys_answer() {
        let mut replies = Replies::default();
        let mut front = |tags: &[u8], parses| {
            replies.expect(Expect::Position(Stands::InFront));
            replies.expect_plain(parses);
            assert_eq!(replies.ready_to_come(), 1);
            assert!(replies.are_ours());
            run(&mut replies, tags)
        };
        assert_eq!(front(b"VZTDCZ", false), "TDCZ");
        assert_eq!(front(b"EZ12TDCZ", true), "12TDCZ");
        assert_eq!(front(b"VZEZ", true), "EZ");
        let mut behind = |tags: &[u8], parses| {
            replies.expect_plain(parses);
            replies.expect_position_behind();
            assert_eq!(replies.ready_to_come(), 2);
            let seen = run(&mut replies, tags);
            assert!(replies.is_plain() && replies.ready_to_come() == 0);
            seen
        };
        assert_eq!(behind(b"CZVZ", false), "CZ");
        assert_eq!(behind(b"12CZNEZ", true), "12CZ");
        assert_eq!(behind(b"EZVZ", true), "EZ");
        // A notification is the client's, whenever it comes.
        assert_eq!(behind(b"CZVAZ", false), "CZA");
    }
}
