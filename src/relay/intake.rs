//! Room for what comes from either side: more of it while reads fill what there is.

use super::exchange::Exchange;
use crate::net::buffers::{SIZE, is_full, make_room};

/// Whose last read has left no room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filled {
    server: bool,
    client: bool,
}

impl Exchange<'_, '_> {
    /// Room for a read from the server.
    pub(super) fn make_server_room(&mut self) {
        if self.filled.server {
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
