//! What words do: verbs in odd places, row locks, INTO, WITH clauses, COPY's direction.

use super::super::command::{Effects, Reason};
use super::super::keyword::{Class, Key};
use super::super::scan::{Kind, Token};
use super::{Before, Copying, WITH_ITEM, WITH_NAME, Walk};

impl Walk<'_, '_> {
    pub(super) fn quoted(&mut self, token: Token) {
        if self.before != Before::Dot {
            if self.frame() & WITH_NAME != 0 {
                self.set_frame(WITH_ITEM);
                self.before = Before::ItemName;
                return;
            }
            self.chain = self.before;
        }
        self.name(token);
    }

    #[inline]
    pub(super) fn word(&mut self, token: Token) {
        let before = self.before;
        if before == Before::Dot {
            return self.name(token);
        }
        let found = self.cursor.keyword(token);
        let frame = self.frame();
        self.chain = before;
        if frame & WITH_NAME != 0 {
            let recursive = found.is_some_and(|word| word.key == Key::Recursive);
            if recursive && before == Before::Word(Key::With) {
                self.before = Before::Word(Key::Recursive);
            } else {
                self.set_frame(WITH_ITEM);
                self.before = Before::ItemName;
            }
            return;
        }
        let Some(word) = found else {
            return self.name(token);
        };
        let in_item = frame & WITH_ITEM != 0;
        if before == Before::Word(Key::As) {
            // Behind AS every word is a label or a type, but for AS [NOT] MATERIALIZED.
            if in_item && matches!(word.key, Key::Materialized | Key::Not) {
                self.before = Before::Word(word.key);
            } else {
                self.name(token);
            }
            return;
        }
        match word.key {
            Key::Insert | Key::Update | Key::Delete | Key::Merge
                if (before.is_head() || in_item) && self.cursor.at_name() =>
            {
                self.raise(Reason::Write);
            }
            Key::Update | Key::Share | Key::No | Key::NoKeyLock if before == Before::Word(Key::For) => {
                self.raise(Reason::Lock);
            }
            Key::Into => self.into(before),
            Key::With => self.with(before),
            Key::Select | Key::Table if in_item => self.set_frame(0),
            Key::On if before == Before::Word(Key::Distinct) => {
                self.before = Before::DistinctOn;
                return;
            }
            Key::To | Key::From if self.copying == Copying::Target && self.depth == 0 => {
                self.direction(word.key);
            }
            Key::Begin if self.verb == Key::Create && self.cursor.at_word("atomic") => {
                self.atomic += 1;
            }
            Key::Case if self.atomic > 0 => self.atomic += 1,
            Key::End if self.atomic > 0 => self.atomic -= 1,
            Key::Operator if self.cursor.peek().kind == Kind::Open => {}
            Key::Materialized if in_item && before == Before::Word(Key::Not) => {}
            _ => self.keyword(token, word.class, word.key, before),
        }
        self.before = Before::Word(word.key);
    }

    /// A listed word that has no rule of its own where it stands.
    fn keyword(&mut self, token: Token, class: Class, key: Key, before: Before) {
        let opens = self.cursor.peek().kind == Kind::Open;
        match class {
            Class::Reserved => {}
            Class::Syntax if opens => {}
            Class::TypeFunction if !opens => {}
            Class::Plain | Class::Soft | Class::TypeFunction if opens => {
                let syntax = match key {
                    Key::By => {
                        matches!(before, Before::Word(Key::Order | Key::Group | Key::Partition))
                    }
                    Key::Sets => before == Before::Word(Key::Grouping),
                    Key::Zone => before == Before::Word(Key::Time),
                    Key::Varying => before.is_operand() || before == Before::Word(Key::Character),
                    Key::Join => before.is_operand() || before == Before::Word(Key::JoinKind),
                    _ if class == Class::TypeFunction => {
                        before.is_operand() || before == Before::Word(Key::Not)
                    }
                    _ => class == Class::Soft && before.is_operand(),
                };
                self.call(token, syntax);
            }
            _ => self.name(token),
        }
    }

    /// SELECT INTO makes a table. INSERT INTO and MERGE INTO have been judged by their verb.
    fn into(&mut self, before: Before) {
        let query = matches!(
            self.verb,
            Key::Select | Key::With | Key::Values | Key::Table | Key::Copy | Key::Explain | Key::Other
        );
        if !query {
            return;
        }
        self.raise(Reason::Write);
        if matches!(before, Before::Word(Key::Insert | Key::Merge)) {
            return;
        }
        let temporary = ["temp", "temporary", "local", "global"];
        let effect = if temporary.iter().any(|word| self.cursor.at_word(word)) {
            Effects::TEMPORARY
        } else {
            Effects::DDL
        };
        self.leave(effect);
    }

    fn with(&mut self, before: Before) {
        if before.is_head() {
            self.set_frame(WITH_NAME);
        } else if self.verb == Key::Declare && self.depth == 0 && self.cursor.at_word("hold") {
            self.leave(Effects::HOLD_CURSOR);
        }
    }

    /// TO or FROM of a COPY. Its grammar is `copy_file_name` in gram.y.
    fn direction(&mut self, key: Key) {
        self.copying = Copying::Options;
        let standard = self.cursor.at_word("stdin") || self.cursor.at_word("stdout");
        if !standard {
            self.leave(Effects::EXTERNAL);
        }
        if key == Key::From {
            self.raise(Reason::Write);
            if standard {
                self.leave(Effects::COPY_IN);
            }
        } else if !standard {
            self.raise(Reason::Write);
        }
    }
}
