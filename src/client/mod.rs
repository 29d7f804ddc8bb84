//! One client: accept, handshake, serve.
//!
//! [`worker`] is the thread that it lives on, [`mod@accept`] how it comes there, `resident` its task, and `berth` where it is while
//! it has something to do; [`balance`] says which thread that is to be, and [`transfer`] takes it there. [`enter`] lets it in: [`handshake`] reads its first packet, [`asked`] what it asks for there ([`packets`]
//! remembers that), [`login`] has it prove what stands there, [`keyring`] keeps what servers take as proof, and [`names`] what is
//! known of its database. [`serve`] is its life, [`mod@unit`] one unit of it, [`place`] where that goes, [`lease`] how it gets a
//! server connection, [`outcome`] what its end means, [`moved`] what becomes of transactions that cannot stay where they are;
//! [`tunnel`] is for those that replicate.

pub mod accept;
pub mod asked;
pub mod balance;
mod berth;
mod bonds;
pub mod cancel;
pub mod enter;
mod exchange;
pub mod gather;
pub mod handshake;
pub mod keyring;
pub mod lease;
pub mod login;
pub mod logins;
pub mod moved;
pub mod names;
pub mod outcome;
pub mod packets;
pub mod place;
mod proof;
mod reach;
mod resident;
pub mod serve;
pub mod texts;
pub mod transfer;
pub mod tunnel;
pub mod unit;
mod want;
pub mod waiters;
pub mod worker;

pub use worker::{Job, Worker};
