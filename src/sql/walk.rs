//! Walks over one statement's tokens and collects what speaks against a replica.
//!
//! What makes a name a call, an alias with columns or a piece of syntax is told by the token in
//! front of it. The few cases where that depends on an enclosing parenthesis live in a small
//! array of frames; deeper than that, every doubt goes to the primary.

use super::command::{Effects, Reason};
use super::cursor::Cursor;
use super::keyword::Key;
use super::names::{Names, Verdict};
use super::scan::{Kind, Token};
use super::special::same_everywhere;

mod calls;
mod words;

/// How many nested parentheses are remembered.
const DEPTH: usize = 64;

/// An expression may follow the group's end: DISTINCT ON (..), OPERATOR(..).
const EXPRESSION: u8 = 1;
/// In a WITH clause, in front of a name.
const WITH_NAME: u8 = 2;
/// In a WITH clause, behind a name.
const WITH_ITEM: u8 = 4;

/// What stood in front of the current token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing: a statement starts.
    Start,
    Open,
    Close,
    /// The end of a group that an expression may follow.
    CloseExpression,
    Dot,
    Cast,
    /// An identifier that is no listed keyword.
    Name,
    /// The name of a WITH item.
    ItemName,
    /// A literal, number, parameter or subscript.
    Operand,
    /// A comma or an operator.
    Separator,
    /// ON behind DISTINCT.
    DistinctOn,
    Word(Key),
}

impl Before {
    /// Whether an expression has just ended, so that no other can start here.
    const fn is_operand(self) -> bool {
        matches!(self, Self::Close | Self::Name | Self::Operand)
    }

    const fn is_head(self) -> bool {
        matches!(self, Self::Start | Self::Open)
    }
}

/// How far a COPY has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copying {
    /// It is no COPY.
    Not,
    /// In front of TO or FROM.
    Target,
    /// Behind them: options only.
    Options,
}

/// The state of one statement's walk.
pub(super) struct Walk<'a, 'n> {
    pub(super) cursor: Cursor<'a>,
    names: &'n dyn Names,
    /// Why the statement is no read, once that is known.
    reason: Option<Reason>,
    pub(super) effects: Effects,
    /// How many calls of `set_config` it has.
    pub(super) set_configs: u32,
    /// Writing to something that it names runs code which may leave something in the session.
    pub(super) hides: bool,
    /// The statement's first word.
    verb: Key,
    before: Before,
    /// What stood in front of the first part of the current qualified name.
    chain: Before,
    copying: Copying,
    /// Raised when the parenthesis that follows turns out to be a call's.
    doubt: Option<Reason>,
    /// The parenthesis that follows is that of `current_setting`.
    setting: bool,
    depth: usize,
    frames: [u8; DEPTH],
    /// Open BEGIN ATOMIC and CASE of a function's body.
    atomic: u32,
}

impl<'a, 'n> Walk<'a, 'n> {
    pub(super) fn new(cursor: Cursor<'a>, names: &'n dyn Names) -> Self {
        Self {
            cursor,
            names,
            reason: None,
            effects: Effects::default(),
            set_configs: 0,
            hides: false,
            verb: Key::Other,
            before: Before::Start,
            chain: Before::Start,
            copying: Copying::Not,
            doubt: None,
            setting: false,
            depth: 0,
            frames: [0; DEPTH],
            atomic: 0,
        }
    }

    /// Gets ready for the next statement of the same text.
    pub(super) fn restart(&mut self) {
        self.reason = None;
        self.effects = Effects::default();
        self.set_configs = 0;
        self.hides = false;
        self.verb = Key::Other;
        self.before = Before::Start;
        self.chain = Before::Start;
        self.copying = Copying::Not;
        self.doubt = None;
        self.setting = false;
        self.depth = 0;
        self.frames[0] = 0;
        self.atomic = 0;
    }

    /// Why the statement is no read; `None` if it is one.
    pub(super) const fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Sends the statement to the primary; of several reasons the strongest stays.
    pub(super) fn raise(&mut self, reason: Reason) {
        if self.reason.is_none_or(|old| strength(reason) > strength(old)) {
            self.reason = Some(reason);
        }
    }

    pub(super) fn leave(&mut self, effects: Effects) {
        self.effects = self.effects.with(effects);
    }

    /// Sets the verb that the rest of the statement is read by.
    pub(super) fn set_verb(&mut self, verb: Key) {
        self.verb = verb;
        if verb == Key::Copy {
            self.copying = Copying::Target;
        }
    }

    /// Reads a parenthesis that stands where a statement may start.
    pub(super) fn open_statement(&mut self) {
        self.before = Before::Start;
        self.open();
    }

    /// Walks to the statement's end, which is not taken.
    pub(super) fn run(&mut self) {
        loop {
            let token = self.cursor.peek();
            match token.kind {
                Kind::Semicolon if self.depth == 0 && self.atomic == 0 => break,
                Kind::End => break,
                Kind::Bad => return self.raise(Reason::Unrecognised),
                _ => {}
            }
            self.cursor.take();
            self.step(token);
        }
        if self.depth > 0 || self.atomic > 0 || self.copying == Copying::Target {
            self.raise(Reason::Unrecognised);
        }
    }

    #[inline]
    fn step(&mut self, token: Token) {
        match token.kind {
            Kind::Word => self.word(token),
            Kind::Quoted => self.quoted(token),
            Kind::Operator => self.operator(token),
            Kind::Open => self.open(),
            Kind::Close => self.close(),
            Kind::OpenBracket => {
                self.push(0);
                self.before = Before::Separator;
            }
            Kind::CloseBracket => {
                self.close();
                self.before = Before::Operand;
            }
            Kind::Comma => {
                if self.frame() & WITH_ITEM != 0 {
                    self.set_frame(WITH_NAME);
                }
                self.before = Before::Separator;
            }
            Kind::Semicolon => {
                // Only a rule's actions and a function's body hold semicolons.
                if self.verb != Key::Create {
                    self.raise(Reason::Unrecognised);
                }
                self.before = Before::Separator;
            }
            Kind::Dot => {
                if !matches!(self.before, Before::Name | Before::Word(_)) {
                    self.chain = Before::Operand;
                }
                self.before = Before::Dot;
            }
            Kind::Cast => self.before = Before::Cast,
            Kind::Colon => self.before = Before::Separator,
            Kind::Literal | Kind::Text | Kind::Number | Kind::Param => {
                self.before = Before::Operand;
            }
            Kind::Bad | Kind::End => {}
        }
    }

    #[inline]
    fn frame(&self) -> u8 {
        // Out of sight nothing is known, and an expression may follow every group.
        self.frames.get(self.depth).copied().unwrap_or(EXPRESSION)
    }

    fn set_frame(&mut self, frame: u8) {
        if let Some(slot) = self.frames.get_mut(self.depth) {
            *slot = frame;
        } else if frame != 0 {
            self.raise(Reason::Unrecognised);
        }
    }

    fn push(&mut self, frame: u8) {
        self.depth += 1;
        if let Some(slot) = self.frames.get_mut(self.depth) {
            *slot = frame;
        }
    }

    fn open(&mut self) {
        let with = self.frame() & (WITH_ITEM | WITH_NAME) != 0;
        let of_item = matches!(self.before, Before::ItemName | Before::Word(Key::As | Key::Materialized));
        if with && !of_item {
            // WITH .. (SELECT ..): the clause is over.
            self.set_frame(0);
        }
        let expression = matches!(self.before, Before::DistinctOn | Before::Word(Key::Operator));
        self.push(if expression { EXPRESSION } else { 0 });
        self.before = Before::Open;
        if let Some(reason) = self.doubt.take() {
            // A bare query is no argument: `name (SELECT` is syntax or an error.
            let query = ["select", "with", "table"].iter().any(|word| self.cursor.at_word(word));
            if !query {
                self.raise(reason);
            }
        }
        if self.setting {
            self.setting = false;
            let first = self.cursor.peek();
            if first.kind != Kind::Literal || !same_everywhere(self.cursor.bytes(first)) {
                self.raise(Reason::SessionState);
            }
        }
    }

    fn close(&mut self) {
        let expression = self.frame() & EXPRESSION != 0;
        self.before = if expression { Before::CloseExpression } else { Before::Close };
        match self.depth.checked_sub(1) {
            Some(depth) => self.depth = depth,
            None => self.raise(Reason::Unrecognised),
        }
    }

    #[inline]
    fn operator(&mut self, token: Token) {
        self.before = Before::Separator;
        if self.reason.is_none() && self.names.operator(self.cursor.bytes(token)) == Verdict::Unsafe {
            self.raise(Reason::Function);
        }
    }
}

/// Which of two reasons is told.
const fn strength(reason: Reason) -> u8 {
    match reason {
        Reason::UnknownFunction => 0,
        Reason::Relation => 1,
        Reason::Function => 2,
        Reason::Transaction => 3,
        Reason::SessionState => 4,
        Reason::Lock => 5,
        Reason::Write => 6,
        Reason::Mixed => 7,
        Reason::Unrecognised => 8,
    }
}
