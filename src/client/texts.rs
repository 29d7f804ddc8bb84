//! The texts and names in a unit that has to be looked at once more.

use super::serve::Client;
use crate::relay::exchange::Undo;
use crate::session::Unit;
use crate::sql::fingerprint;
use crate::wire::Frame;
use crate::wire::client::{self, Parse, tag};

impl Client {
    pub(super) fn learn(&mut self, unit: &Unit) {
        let mut learned = self.worker.learned.borrow_mut();
        each_text(self.input.get(..unit.len).unwrap_or_default(), |name, text| {
            if let Some(text) = text.or_else(|| self.session.statements.text(name)) {
                learned.insert(fingerprint(text));
            }
        });
    }

    pub(super) fn is_learned(&self, unit: &Unit) -> bool {
        let learned = self.worker.learned.borrow();
        if learned.is_empty() {
            return false;
        }
        let mut found = false;
        each_text(self.input.get(..unit.len).unwrap_or_default(), |name, text| {
            if let Some(text) = text.or_else(|| self.session.statements.text(name)) {
                found |= learned.contains(fingerprint(text));
            }
        });
        found
    }

    /// What the names that this unit prepares or closes stand for before it.
    pub(super) fn names_before(&self, unit: &Unit) -> Vec<Undo> {
        let mut found: Vec<Undo> = Vec::new();
        let mut rest = self.input.get(..unit.len).unwrap_or_default();
        while let Ok(Some(frame)) = Frame::peek(rest) {
            let body = frame.body(rest).unwrap_or_default();
            let name = match frame.tag {
                tag::PARSE => Parse::read(body).map(|p| p.name),
                tag::CLOSE => match client::target(body) {
                    Some(client::Target::Statement(name)) => Some(name),
                    _ => None,
                },
                _ => None,
            };
            if let Some(name) = name.filter(|n| !n.is_empty())
                && !found.iter().any(|(n, _)| **n == *name)
            {
                found.push((name.into(), self.session.statements.get(name).cloned()));
            }
            rest = rest.get(frame.len..).unwrap_or_default();
        }
        found
    }
}

/// Every text of a unit, or the name of the statement that stands for one.
fn each_text(messages: &[u8], mut found: impl FnMut(&[u8], Option<&[u8]>)) {
    let mut rest = messages;
    while let Ok(Some(frame)) = Frame::peek(rest) {
        let Some(body) = frame.body(rest) else { break };
        match frame.tag {
            tag::QUERY => found(b"", client::query(body)),
            tag::PARSE => {
                if let Some(parse) = Parse::read(body) {
                    found(parse.name, Some(parse.text));
                }
            }
            tag::BIND => {
                if let Some(bind) = client::Bind::read(body) {
                    found(bind.statement, None);
                }
            }
            _ => {}
        }
        rest = rest.get(frame.len..).unwrap_or_default();
    }
}
