//! Wiring: from the command line to running threads and back.
//!
//! [`cli`] reads the command line, [`load`] makes settings of it, [`run`] runs them, [`explain`] and
//! [`check`] answer questions, [`setup`] prints what a superuser has to do.

mod accept;
pub mod check;
pub mod cli;
pub mod exit;
pub mod explain;
mod files;
pub mod load;
pub mod logging;
pub mod run;
pub mod setup;
