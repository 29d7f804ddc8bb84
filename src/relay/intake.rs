//! Room for what comes from either side: more of it while reads fill what there is.

use std::io;
use std::task::{Context, Poll, ready};

use super::exchange::Exchange;
use crate::net::buffers::{SIZE, is_full, make_room};

/// Whose last read has left no room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filled {
    server: bool,
    client: bool,
}

impl Exchange<'_, '_> {
    /// Reads from the server. It gets room when something has come: those whose answers are not there yet would else all
    /// have room that nobody needs, rather than take turns with what lies in the processor's cache.
    pub(super) fn poll_read_server(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.server.input.capacity() == 0 {
            ready!(self.server.stream.poll_readable(cx))?;
        }
        self.make_server_room();
        self.server.stream.poll_read_into(cx, &mut self.server.input)
    }

    /// Room for a read from the server.
    pub(super) fn make_server_room(&mut self) {
        if self.server.input.capacity() == 0 {
            self.server.input = self.buffers.borrow_mut().take();
        } else if self.filled.server {
            self.buffers.borrow_mut().enlarge(&mut self.server.input);
        } else {
            make_room(&mut self.server.input);
        }
    }

    /// The server has been read from: what has come is not consumed yet.
    pub(super) fn note_server_read(&mut self) {
        self.filled.server = is_full(&self.server.input);
    }

    /// Room for a read from the client.
    pub(super) fn make_client_room(&mut self) {
        if self.filled.client {
            self.buffers.borrow_mut().enlarge(self.client.input);
        } else {
            self.client.input.reserve(SIZE);
        }
    }

    /// The same for the client.
    pub(super) fn note_client_read(&mut self) {
        self.filled.client = is_full(self.client.input);
    }
}
