//! Sends to many sockets by one call of the operating system: io_uring, where there is one.

use std::io;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use compio_buf::{BufResult, IntoInner};
use compio_driver::op::{OpCodeFlag, Send, SendFlags};
use compio_driver::{Key, Proactor, PushEntry};

use super::source::Source;

/// So many sends go by one call.
pub(super) const SENDS: usize = 64;

/// A send does not wait, and is over when it has been taken in. What has not been taken in by so many calls never will be.
const CALLS: usize = 100;

type Bytes = Vec<u8>;
type Op = Send<Bytes, Rc<Source>>;

/// What becomes of a send: how many bytes have gone, or why none has.
pub(super) type Sent = io::Result<usize>;

/// The way to the operating system, of one thread.
pub struct Ring {
    proactor: Proactor,
    under_way: Vec<(Key<Op>, Rc<Source>)>,
}

impl Ring {
    /// One for this thread.
    ///
    /// # Errors
    /// The operating system has none, or none for us: container runtimes often forbid it.
    pub fn new() -> io::Result<Self> {
        let mut builder = Proactor::builder();
        builder
            .capacity(u32::try_from(SENDS).unwrap_or(u32::MAX))
            // Threads of its own would take over what the operating system cannot do. It can.
            .thread_pool_limit(0)
            .detect_opcode_support(OpCodeFlag::Send);
        // Since Linux 6.1: one thread only, which takes results in when it sends anew.
        let plain = builder.clone();
        builder.single_issuer(true).defer_taskrun(true).coop_taskrun(true);
        let proactor = builder.build().or_else(|_| plain.build())?;
        let mut ring = Self { proactor, under_way: Vec::with_capacity(SENDS) };
        // One may be there, and not be for us to use.
        ring.call()?;
        Ok(ring)
    }

    /// Sends all of a batch, as far as that goes without waiting, and says what has become of each.
    ///
    /// # Errors
    /// The operating system does not take them in any more. Nobody knows then what has become of those that are said to have
    /// failed with the same error, and the ring is of no use.
    pub(super) fn send(
        &mut self,
        batch: impl Iterator<Item = (Rc<Source>, Bytes)>,
        mut done: impl FnMut(Rc<Source>, Bytes, Sent),
    ) -> io::Result<()> {
        for (source, bytes) in batch {
            let op = Send::new(source.clone(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            match self.proactor.push(op) {
                PushEntry::Pending(key) => self.under_way.push((key, source)),
                PushEntry::Ready(BufResult(sent, op)) => done(source, op.into_inner(), sent),
            }
        }
        let mut failure = None;
        for _ in 0..CALLS {
            failure = self.call().err().or(failure);
            let mut under_way = mem::take(&mut self.under_way);
            for (key, source) in under_way.drain(..) {
                match self.proactor.pop(key) {
                    PushEntry::Pending(key) => self.under_way.push((key, source)),
                    PushEntry::Ready(BufResult(sent, op)) => done(source, op.into_inner(), sent),
                }
            }
            if self.under_way.is_empty() {
                self.under_way = under_way;
                return Ok(());
            }
        }
        for (_, source) in self.under_way.drain(..) {
            done(source, Bytes::new(), Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Err(failure.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
    }

    fn call(&mut self) -> io::Result<()> {
        match self.proactor.poll(Some(Duration::ZERO)) {
            // Nothing was under way; or some is still to be taken in.
            Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                Ok(())
            }
            result => result,
        }
    }
}
