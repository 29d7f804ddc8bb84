//! What names stand for: relations, attributes and calls.

use super::super::builtin;
use super::super::command::{Effects, Reason};
use super::super::fold::{LONGEST, fold};
use super::super::keyword::Key;
use super::super::names::Verdict;
use super::super::scan::{Kind, Token};
use super::super::set;
use super::super::special::special_function;
use super::{Before, Copying, Walk};

impl Walk<'_, '_> {
    /// One part of a possibly qualified name; `chain` tells what stands in front of all of it.
    #[inline]
    pub(super) fn name(&mut self, token: Token) {
        match self.cursor.peek().kind {
            Kind::Dot => self.qualifier(token),
            Kind::Open => self.call(token, false),
            _ => self.relation(token),
        }
        self.before = Before::Name;
    }

    /// Nothing asks for names once the statement is bound for the primary.
    #[inline]
    fn asks(&self) -> bool {
        self.reason.is_none() && self.copying != Copying::Options
    }

    fn qualifier(&mut self, token: Token) {
        let mut buffer = [0; LONGEST];
        let name = fold(token.kind, self.cursor.bytes(token), &mut buffer);
        if name == b"pg_temp" || name.starts_with(b"pg_temp_") {
            self.leave(Effects::TEMPORARY);
            self.raise(Reason::Relation);
        }
    }

    #[inline]
    fn relation(&mut self, token: Token) {
        let attribute = self.before == Before::Dot;
        let text = self.cursor.bytes(token);
        if token.kind == Kind::Word {
            let plain =
                if attribute { self.names.is_plain_attribute(text) } else { self.names.is_plain(text) };
            if plain {
                return;
            }
        }
        let mut buffer = [0; LONGEST];
        let name = fold(token.kind, text, &mut buffer);
        self.hides |= self.names.hides(name);
        if attribute {
            self.attribute(name);
        }
        if self.asks() && self.names.relation(name) == Verdict::Unsafe {
            self.raise(Reason::Relation);
        }
    }

    /// A name behind a dot may be a call in disguise: `(1).f` is `f(1)`.
    fn attribute(&mut self, name: &[u8]) {
        let special = special_function(name);
        if let Some(special) = special {
            self.leave(special.effects);
        }
        // A column, mostly: not enough for a READ ONLY transaction to be refused anything.
        self.hidden(name, Effects::HIDDEN);
        if !self.names.sets(name) && self.names.is_users(name) {
            self.leave(Effects::OPAQUE);
        }
        if !self.asks() {
            return;
        }
        if self.names.attribute(name) == Verdict::Unsafe {
            self.raise(special.map_or(Reason::Function, |special| special.reason));
        } else if name == b"current_setting" {
            self.raise(Reason::SessionState);
        }
    }

    /// What the code of a function of that name does to the session, as far as that is known; `binding` if it may bind it.
    fn hidden(&mut self, name: &[u8], binding: Effects) {
        if self.names.sets(name) {
            self.leave(Effects::UNKNOWN_SETTINGS);
            self.raise(Reason::SessionState);
        }
        if self.names.binds(name) {
            self.leave(binding);
            self.raise(Reason::Function);
        }
    }

    /// The same of a name that nothing is known of: it may be a function which has just come. Where nothing asks for
    /// functions it is a table with its columns, mostly.
    fn unheard_of(&mut self, name: &[u8]) {
        if !self.names.may_be_new(name) {
            return;
        }
        self.leave(Effects::OPAQUE);
        // A read calls it, wherever it goes for other reasons.
        if self.asks() || matches!(self.verb, Key::Call | Key::Select | Key::With) {
            self.leave(Effects::HIDDEN.with(Effects::MAY_BIND));
            if self.names.knows_users() {
                self.leave(Effects::UNKNOWN_SETTINGS);
            }
        }
    }

    /// A name in front of a parenthesis. `syntax`: it is a keyword at its place, unless the
    /// catalog knows better.
    pub(super) fn call(&mut self, token: Token, syntax: bool) {
        match self.chain {
            // An alias with its columns: FROM (..) t(a, b), FROM f(..) WITH ORDINALITY t(a, b).
            Before::Close | Before::Word(Key::Ordinality) => return,
            // A type with its modifiers, or again an alias.
            Before::Word(Key::As) | Before::Cast => return self.relation(token),
            // COPY t (a, b).
            _ if self.copying != Copying::Not && self.depth == 0 => return self.relation(token),
            _ => {}
        }
        let mut buffer = [0; LONGEST];
        let name = fold(token.kind, self.cursor.bytes(token), &mut buffer);
        let special = special_function(name);
        if name == b"set_config" {
            let local = set::is_local(self.cursor.clone());
            self.leave(if local { Effects::SETTINGS } else { Effects::UNKNOWN_SETTINGS });
            self.set_configs = self.set_configs.saturating_add(1);
        } else if let Some(special) = special {
            self.leave(special.effects);
        }
        if !syntax {
            self.unheard_of(name);
        }
        self.hidden(name, Effects::HIDDEN.with(Effects::MAY_BIND));
        if !self.asks() {
            // INSERT INTO t (a, b).
            self.hides |= self.names.hides(name);
            if self.names.is_users(name) {
                self.leave(Effects::OPAQUE);
            }
            return;
        }
        let reason = match self.names.function(name) {
            Verdict::Safe => {
                self.setting = name == b"current_setting";
                return;
            }
            Verdict::Unknown if syntax => return,
            Verdict::Unsafe => Reason::Function,
            Verdict::Unknown => Reason::UnknownFunction,
        };
        if builtin::function(name) == Verdict::Unknown || self.names.is_users(name) {
            self.leave(Effects::OPAQUE);
        }
        self.doubt = Some(special.map_or(reason, |special| special.reason));
    }
}
