//! Reads the rest of an answer that nobody is to see.

use std::io;

use bytes::{Buf, BytesMut};

use crate::net::invalid_data;
use crate::server::Connection;
use crate::wire::Frame;
use crate::wire::frame::HEADER;
use crate::wire::server::{Status, tag};

/// No message that is looked into is longer.
const MAX_LOOK: usize = 64 * 1024;

/// Reads until the server has answered all that it was sent; `pass` bytes of its current message are still to come.
///
/// # Errors
/// The connection broke, or the server has said something else than the answer to a read. The connection must not be used
/// for anything else then.
pub async fn drain(server: &mut Connection, mut pass: usize) -> io::Result<()> {
    server.replies.say(&mut BytesMut::new());
    loop {
        let n = pass.min(server.input.len());
        server.input.advance(n);
        pass -= n;
        if pass == 0 {
            pass = take(server)?;
            if pass > 0 {
                continue;
            }
            if server.replies.ready_to_come() == 0 {
                return Ok(());
            }
        }
        server.input.reserve(crate::net::buffers::SIZE);
        if server.stream.read(&mut server.input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Takes the whole messages at the start of the input. How many bytes of a longer one are to be passed over.
fn take(server: &mut Connection) -> io::Result<usize> {
    while server.replies.ready_to_come() > 0
        && let Some(frame) = Frame::peek(&server.input).map_err(invalid_data)?
    {
        let whole = server.input.len() >= frame.len;
        if !whole && !matches!(frame.tag, tag::READY_FOR_QUERY | tag::PARAMETER_STATUS | tag::ERROR_RESPONSE)
        {
            passed_over(server, frame.tag);
            return Ok(frame.len);
        }
        if !whole && frame.len > MAX_LOOK {
            return Err(invalid_data("a server sent a message that is too long"));
        }
        if !whole {
            break;
        }
        let body = server.input.get(HEADER..frame.len).unwrap_or_default();
        match frame.tag {
            // What the error takes back of prepared statements is not worth telling apart.
            tag::ERROR_RESPONSE => return Err(invalid_data("a read failed whose answer nobody waits for")),
            tag::PARAMETER_STATUS => {
                server.parameters.take_in(body);
            }
            tag::READY_FOR_QUERY => {
                let status = body.first().copied().and_then(Status::from_byte);
                server.status = status.ok_or_else(|| invalid_data("a server is in an unknown state"))?;
            }
            _ => {}
        }
        passed_over(server, frame.tag);
        server.input.advance(frame.len);
    }
    Ok(0)
}

/// A message is not for anybody, and neither is what we would have to say behind it.
fn passed_over(server: &mut Connection, tag: u8) {
    server.replies.on_message(tag);
    server.replies.say(&mut BytesMut::new());
}
