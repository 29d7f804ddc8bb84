//! What a unit's names stood for before it, for where it is taken back and run elsewhere.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::prepared::{ClientStatements, SharedStatement, Unnamed};
use crate::wire::Frame;
use crate::wire::client::{self, Parse, Target, tag};

/// Every name that a unit prepares or closes, with the statement that it stood for; at most one for each message.
#[derive(Debug, Default)]
pub struct NamesBefore {
    named: HashMap<Box<[u8]>, Option<SharedStatement>, RandomState>,
    /// The unnamed statement, if it is among them.
    unnamed: Option<Unnamed>,
}

impl NamesBefore {
    /// Reads the names of a whole unit. `unit` holds its messages; `None` if it only uses what there is.
    #[must_use]
    pub fn read(unit: &[u8], statements: &ClientStatements) -> Option<Box<Self>> {
        let mut found = Self::default();
        let mut rest = unit;
        while let Ok(Some(frame)) = Frame::peek(rest) {
            let body = frame.body(rest).unwrap_or_default();
            let name = match frame.tag {
                tag::PARSE => Parse::read(body).map(|p| p.name),
                tag::CLOSE => match client::target(body) {
                    Some(Target::Statement(name)) => Some(name),
                    _ => None,
                },
                _ => None,
            };
            match name {
                Some(b"") if found.unnamed.is_none() => found.unnamed = Some(statements.unnamed.clone()),
                Some(name) if !name.is_empty() && !found.named.contains_key(name) => {
                    found.named.insert(name.into(), statements.get(name).cloned());
                }
                _ => {}
            }
            rest = rest.get(frame.len..).unwrap_or_default();
        }
        // Boxed, as few units have any, and each has room for them while it runs.
        (!found.named.is_empty() || found.unnamed.is_some()).then(|| Box::new(found))
    }

    /// Puts back what was before. First goes what the unit has prepared, so that there is room for what it has closed.
    pub fn put_back(self, statements: &mut ClientStatements) {
        if let Some(unnamed) = self.unnamed {
            statements.unnamed = unnamed;
        }
        for name in self.named.keys() {
            statements.remove(name);
        }
        for (name, statement) in self.named {
            if let Some(statement) = statement {
                // There was room for it before.
                let _ = statements.insert(&name, statement);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::prepared::{MAX_PER_CLIENT, Sense, Statements};
    use crate::wire::build;
    use bytes::BytesMut;

    #[test]
    fn a_unit_is_taken_back_even_by_a_client_that_has_no_more_room() {
        let (mut table, mut statements) = (Statements::default(), ClientStatements::default());
        let [old, new] = [b"select 1", b"select 2"].map(|text| table.intern(text, b"\0\0", Sense::default()));
        for n in 0..MAX_PER_CLIENT {
            statements.insert(n.to_string().as_bytes(), old.clone()).unwrap();
        }
        let mut unit = BytesMut::new();
        build::close_statement(&mut unit, b"7");
        build::close_statement(&mut unit, b"8");
        for name in [b"7", b"a", b"7"] {
            build::parse(&mut unit, name, b"select 2", b"\0\0");
        }
        let before = NamesBefore::read(&unit, &statements).unwrap();
        assert_eq!(before.named.len(), 3);
        for (name, new) in [(b"7", Some(&new)), (b"8", None), (b"a", Some(&new))] {
            statements.remove(name);
            if let Some(new) = new {
                statements.insert(name, new.clone()).unwrap();
            }
        }
        before.put_back(&mut statements);
        assert_eq!((statements.len(), statements.text(b"a")), (MAX_PER_CLIENT, None));
        for name in [b"7", b"8"] {
            assert_eq!(statements.text(name), Some(&old.text[..]));
        }
    }

    /// With a walk over the names at each of them this would not end.
    #[test]
    fn each_message_is_looked_at_once() {
        let mut unit = BytesMut::new();
        for n in 0..400_000 {
            build::close_statement(&mut unit, n.to_string().as_bytes());
        }
        assert_eq!(NamesBefore::read(&unit, &ClientStatements::default()).unwrap().named.len(), 400_000);
    }
}
