//! Turns a client's messages into what one server must get: statement names of ours for the
//! client's, and a Parse in front where that server does not know the statement yet.

use bytes::BytesMut;

use super::prepared::{ClientStatements, PREFIX, Sense, SharedStatement, Statements};
use super::replies::{Before, Expect, Replies};
use super::server_statements::ServerStatements;
use super::settings::SettingsMap;
use crate::wire::Frame;
use crate::wire::build;
use crate::wire::client::{self, Bind, Parse, Target, tag};
use crate::wire::server::tag as server_tag;

/// The client has too many prepared statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// Everything that a translation reads and changes.
#[derive(Debug)]
pub struct Translator<'a> {
    /// The client's statements.
    pub client: &'a mut ClientStatements,
    /// The statements that the server knows.
    pub server: &'a mut ServerStatements,
    /// The statements of the worker.
    pub table: &'a mut Statements,
    /// The answers to come from the server.
    pub replies: &'a mut Replies,
    /// The most statements that a server connection keeps.
    pub limit: usize,
    /// The session's settings, some of which decide what names in a text mean.
    pub settings: &'a SettingsMap,
    /// With whom new statements are shared.
    pub sharing: Sharing,
    /// The generation of the database's definitions.
    pub generation: u64,
    /// The transaction under way has failed.
    pub aborted: bool,
}

/// With whom a session's new prepared statements are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// With every session of that role and database, and of the same settings, that prepares the same in this generation of
    /// the database: another one begins when a definition may have changed, since a server keeps to the columns that a statement had when it
    /// was parsed.
    Generation {
        /// See [`Sense::home`].
        home: u64,
        /// See [`Sense::generation`].
        generation: u64,
    },
    /// With nobody: what the statement means hangs on objects of the session's own, as cursors and temporary tables.
    Nobody,
}

/// Whether a text may have a literal that stands for the time at which it is parsed (manual, "Special Values" of date/time
/// types): whoever prepares it means the time when he does.
fn tells_time(text: &[u8]) -> bool {
    const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    let mut rest = text;
    loop {
        let Some(start) = rest.iter().position(|byte| is_part(*byte)) else { return false };
        rest = rest.get(start..).unwrap_or_default();
        let end = rest.iter().position(|byte| !is_part(*byte)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        // now() is a function.
        if behind.first() != Some(&b'(') && WORDS.iter().any(|time| word.eq_ignore_ascii_case(time)) {
            return true;
        }
        rest = behind;
    }
}

impl Translator<'_> {
    /// Writes to `out` what the server must get for the complete messages in `messages`.
    ///
    /// # Errors
    /// The client has too many prepared statements; nothing of this call must be sent then.
    pub fn translate(&mut self, messages: &[u8], out: &mut BytesMut) -> Result<(), TooMany> {
        let mut rest = messages;
        while let Ok(Some(frame)) = Frame::peek(rest) {
            let Some(body) = frame.body(rest) else { break };
            let (message, behind) = rest.split_at(frame.len);
            self.message(frame.tag, message, body, out)?;
            rest = behind;
        }
        Ok(())
    }

    /// Closes statements that the server has beyond the limit. Only at the start of a unit: nothing
    /// can have failed there, so that the server will not skip the Close.
    pub fn evict(&mut self, out: &mut BytesMut) {
        while let Some(old) = self.server.evict(self.limit) {
            build::close_statement(out, &old.name);
            self.replies.expect(Expect::Close { own: true, before: None });
        }
    }

    /// Notes that a Parse for the unnamed statement was passed on as it came.
    pub fn passed_unnamed(&mut self, message: &[u8]) {
        let Some(parse) = message.get(crate::wire::frame::HEADER..).and_then(Parse::read) else { return };
        let number = self.table.number();
        self.client.set_unnamed(number, parse.text, parse.types);
        self.server.unnamed = number;
    }

    fn message(&mut self, kind: u8, message: &[u8], body: &[u8], out: &mut BytesMut) -> Result<(), TooMany> {
        match kind {
            tag::PARSE => {
                if let Some(parse) = Parse::read(body) {
                    return self.parse(parse, message, out);
                }
                out.extend_from_slice(message);
            }
            tag::BIND => {
                self.replies_after_bind(body, message, out);
            }
            tag::DESCRIBE => {
                let mut described = None;
                match client::target(body) {
                    Some(Target::Statement(name)) => match self.provide(name, out) {
                        Some(statement) => {
                            build::describe_statement(out, &statement.name);
                            described = Some(statement);
                        }
                        None => build::describe_statement(out, own_name(name)),
                    },
                    _ => out.extend_from_slice(message),
                }
                self.replies.expect(Expect::Describe(described));
            }
            tag::EXECUTE => {
                out.extend_from_slice(message);
                self.replies.expect(Expect::Execute);
            }
            tag::CLOSE => match client::target(body) {
                Some(Target::Statement(name)) => {
                    if name.is_empty() {
                        let before = Some(self.take_unnamed());
                        self.server.unnamed = 0;
                        out.extend_from_slice(message);
                        self.replies.expect(Expect::Close { own: false, before });
                    } else if let Some(statement) = self.client.remove(name) {
                        let before = Before::Named { name: name.into(), statement: Some(statement) };
                        self.replies.expect(Expect::Say(server_tag::CLOSE_COMPLETE, Some(before)));
                    } else {
                        let before =
                            self.client.unbind(name).map(|text| Before::Bound { name: name.into(), text });
                        build::close_statement(out, own_name(name));
                        self.replies.expect(Expect::Close { own: false, before });
                    }
                }
                _ => {
                    out.extend_from_slice(message);
                    self.replies.expect(Expect::Close { own: false, before: None });
                }
            },
            tag::SYNC | tag::QUERY | tag::FUNCTION_CALL => {
                if kind == tag::QUERY {
                    // It ends the life of the unnamed statement (manual, "Extended Query").
                    self.client.drop_unnamed();
                    self.server.unnamed = 0;
                }
                out.extend_from_slice(message);
                self.replies.expect(Expect::Ready);
            }
            _ => out.extend_from_slice(message),
        }
        Ok(())
    }

    fn parse(&mut self, parse: Parse<'_>, message: &[u8], out: &mut BytesMut) -> Result<(), TooMany> {
        if parse.name.is_empty() {
            out.extend_from_slice(message);
            let before = Some(self.take_unnamed());
            let number = self.table.number();
            self.client.set_unnamed(number, parse.text, parse.types);
            self.server.unnamed = number;
            self.replies.expect(Expect::Parse { own: false, statement: None, before });
            return Ok(());
        }
        if self.client.get(parse.name).is_some()
            && let Some(old) = self.provide(parse.name, out)
        {
            // PostgreSQL refuses a second statement of that name (42P05): the same refusal comes
            // from a Parse for a name that the server has.
            build::parse(out, &old.name, parse.text, parse.types);
            self.replies.expect(Expect::Parse { own: false, statement: None, before: None });
            return Ok(());
        }
        if self.client.is_bound() {
            // The server that has the session's SQL-level statements is the only one it needs: there PostgreSQL itself
            // keeps the one name space of both kinds.
            let new = self.client.bind_text(parse.name, parse.text).map_err(|_| TooMany)?;
            let before = new.then(|| Before::Unbound { name: parse.name.into() });
            build::parse(out, own_name(parse.name), parse.text, parse.types);
            self.replies.expect(Expect::Parse { own: false, statement: None, before });
            return Ok(());
        }
        let statement = match self.sharing {
            Sharing::Generation { home, generation } if !tells_time(parse.text) => {
                let sense = Sense { home, settings: self.settings.plan_key(), generation };
                self.table.intern_read_by(parse.text, parse.types, sense, Some(self.settings))
            }
            Sharing::Generation { .. } => {
                self.table.own_read_by(parse.text, parse.types, Some(self.settings))
            }
            // Something in the transaction, or in the unit, may have set something for this statement.
            Sharing::Nobody => self.table.own(parse.text, parse.types),
        };
        self.client.begin(self.generation);
        self.client.insert(parse.name, statement.clone()).map_err(|_| TooMany)?;
        let before = Some(Before::Named { name: parse.name.into(), statement: None });
        if self.server.touch(statement.id) {
            if self.aborted {
                // What may be parsed now, the server decides.
                build::parse(out, b"", parse.text, parse.types);
                self.server.unnamed = 0;
                self.replies.expect(Expect::Parse { own: false, statement: None, before });
            } else {
                self.replies.expect(Expect::Say(server_tag::PARSE_COMPLETE, before));
            }
            return Ok(());
        }
        build::parse(out, &statement.name, parse.text, parse.types);
        self.server.insert(statement.clone());
        self.replies.expect(Expect::Parse { own: false, statement: Some(statement), before });
        Ok(())
    }

    fn replies_after_bind(&mut self, body: &[u8], message: &[u8], out: &mut BytesMut) {
        match Bind::read(body) {
            Some(bind) => match self.provide(bind.statement, out) {
                Some(statement) => build::bind(out, bind.portal, &statement.name, bind.rest),
                None => build::bind(out, bind.portal, own_name(bind.statement), bind.rest),
            },
            None => out.extend_from_slice(message),
        }
        self.replies.expect(Expect::Bind);
    }

    /// Writes the head of a Bind whose `frame` has not come as a whole, up to and with its names; what
    /// follows can be passed on untouched. `None` while the names are not there. Returns how many bytes of
    /// `message` were used.
    pub fn bind_head(&mut self, frame: Frame, message: &[u8], out: &mut BytesMut) -> Option<usize> {
        let bind = message.get(crate::wire::frame::HEADER..).and_then(Bind::read)?;
        let used = message.len() - bind.rest.len();
        let name = match self.provide(bind.statement, out) {
            Some(statement) => statement.name.clone(),
            None => own_name(bind.statement).into(),
        };
        let len = frame.len - bind.statement.len() + name.len();
        out.extend_from_slice(&[tag::BIND]);
        out.extend_from_slice(&u32::try_from(len - 1).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(bind.portal);
        out.extend_from_slice(&[0]);
        out.extend_from_slice(&name);
        out.extend_from_slice(&[0]);
        self.replies.expect(Expect::Bind);
        Some(used)
    }

    /// Makes sure that the server knows the client's statement, and returns it; `None` if the name is
    /// passed on as it is.
    fn provide(&mut self, name: &[u8], out: &mut BytesMut) -> Option<SharedStatement> {
        if name.is_empty() {
            let unnamed = &self.client.unnamed;
            if self.server.unnamed == unnamed.number {
                return None;
            }
            let before = Some(Before::Unnamed { client: None, server: self.server.unnamed });
            self.server.unnamed = unnamed.number;
            if let Some(said) = unnamed.said() {
                build::parse(out, b"", &said.text, &said.types);
                self.replies.expect(Expect::Parse { own: true, statement: None, before });
            } else {
                // The server still has somebody else's, which this client must not run.
                build::close_statement(out, b"");
                self.replies.expect(Expect::Close { own: true, before });
            }
            return None;
        }
        let mut statement = self.client.get(name)?.clone();
        // What it means here, it may mean to nobody else: to be parsed here, or to be read anew, as PostgreSQL does when a
        // definition or the path has changed, by the settings of whoever runs it.
        let parsed = self.server.touch(statement.id);
        let differs = self.sharing == Sharing::Nobody || !statement.is_meant_under(self.settings);
        if (!parsed && differs) || (!statement.is_own() && statement.is_read_otherwise(self.settings)) {
            let own = self.table.own_copy(&statement);
            if self.client.insert(name, own.clone()).is_ok() {
                statement = own;
            }
        }
        self.provide_shared(&statement, out);
        Some(statement)
    }

    fn provide_shared(&mut self, statement: &SharedStatement, out: &mut BytesMut) {
        if self.server.touch(statement.id) {
            return;
        }
        build::parse(out, &statement.name, &statement.text, &statement.types);
        self.server.insert(statement.clone());
        self.replies.expect(Expect::Parse { own: true, statement: Some(statement.clone()), before: None });
    }

    /// Takes the client's unnamed statement away.
    fn take_unnamed(&mut self) -> Before {
        Before::Unnamed {
            client: Some(std::mem::take(&mut self.client.unnamed)),
            server: self.server.unnamed,
        }
    }
}

/// A name that is passed on for the server to know or to refuse. It must not be one of ours: behind that stands the
/// statement of another client.
fn own_name(name: &[u8]) -> &[u8] {
    if name.starts_with(PREFIX) { b"tidegate: no such statement" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct World {
        client: ClientStatements,
        server: ServerStatements,
        table: Statements,
        replies: Replies,
    }

    impl World {
        fn send(&mut self, messages: &BytesMut) -> String {
            let mut out = BytesMut::new();
            let mut translator = Translator {
                client: &mut self.client,
                server: &mut self.server,
                table: &mut self.table,
                replies: &mut self.replies,
                limit: 2,
                settings: &SettingsMap::default(),
                sharing: Sharing::Generation { home: 0, generation: 0 },
                generation: 0,
                aborted: false,
            };
            translator.evict(&mut out);
            translator.translate(messages, &mut out).unwrap();
            let mut tags = String::new();
            let mut rest = &out[..];
            while let Some(frame) = Frame::peek(rest).unwrap() {
                tags.push(char::from(frame.tag));
                rest = &rest[frame.len..];
            }
            tags
        }
    }

    fn unit(parse: Option<&str>, bind: Option<&str>) -> BytesMut {
        let mut bytes = BytesMut::new();
        if let Some(name) = parse {
            build::parse(&mut bytes, name.as_bytes(), format!("select '{name}'").as_bytes(), b"\0\0");
        }
        if let Some(name) = bind {
            build::bind(&mut bytes, b"", name.as_bytes(), b"\0\0\0\0\0\0");
            build::message(&mut bytes, tag::EXECUTE, |b| b.extend_from_slice(b"\0\0\0\0\0"));
        }
        bytes.extend_from_slice(&client::SYNC_MESSAGE);
        bytes
    }

    #[test]
    fn a_statement_is_parsed_once_per_server_and_on_demand() {
        let mut world = World::default();
        assert_eq!(world.send(&unit(Some("a"), Some("a"))), "PBES");
        assert_eq!(world.send(&unit(None, Some("a"))), "BES");
        world.server = ServerStatements::default();
        assert_eq!(world.send(&unit(None, Some("a"))), "PBES");
        // Another client with the same text: the server knows it already.
        world.client = ClientStatements::default();
        assert_eq!(world.send(&unit(Some("a"), Some("a"))), "BES");
    }

    #[test]
    fn the_unnamed_statement_follows_its_client() {
        let mut world = World::default();
        assert_eq!(world.send(&unit(Some(""), Some(""))), "PBES");
        assert_eq!(world.send(&unit(None, Some(""))), "BES");
        world.server = ServerStatements::default();
        assert_eq!(world.send(&unit(None, Some(""))), "PBES");
    }

    #[test]
    fn a_name_that_the_client_does_not_have_is_passed_on_for_the_server_to_refuse() {
        let mut world = World::default();
        assert_eq!(world.send(&unit(None, Some("nobody"))), "BES");
    }

    #[test]
    fn a_server_keeps_no_more_than_its_limit() {
        let mut world = World::default();
        for name in ["a", "b", "c"] {
            assert_eq!(world.send(&unit(Some(name), Some(name))), "PBES");
        }
        assert_eq!(world.send(&unit(None, Some("b"))), "CBES");
        assert_eq!(world.server.len(), 2);
        assert_eq!(world.send(&unit(None, Some("a"))), "PBES");
    }
}
