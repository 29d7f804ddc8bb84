//! A client's first packets: version, encryption, login, and what it is told when it is in.

use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use rand::Rng;

use super::asked::{Asked, MINOR};
use super::cancel::Handle;
use super::login::{LoggedInAs, log_in};
use super::packets::Packets;
use super::worker::Worker;
use crate::auth::{Applicant, Credential};
use crate::net::buffers::make_room;
use crate::net::tls::{ALPN, Session};
use crate::net::{Acceptor, Stream};
use crate::server::Parameters;
use crate::wire::build::{self, Report};
use crate::wire::sqlstate;
use crate::wire::startup::{self, First};

/// The first byte of a TLS connection: no length of a startup packet begins like that.
const TLS_HANDSHAKE: u8 = 0x16;

/// Bytes that most clients are told in answer to their startup packet.
const WELCOME: usize = 1024;

/// The longest message that a client may send while it logs in.
pub(super) const MAX_LOGIN_MESSAGE: usize = 64 * 1024;

/// What a client asked for, and was proven to be.
#[derive(Debug)]
pub struct Arrival {
    /// What it asked for.
    pub asked: Rc<Asked>,
    /// The role's oid, if that is known.
    pub role: Option<u32>,
    /// What servers take as proof.
    pub credential: Option<Credential>,
    /// What it is told first: that it has proven who it is. With the rest, for each write wakes it.
    pub said: BytesMut,
}

/// How a first packet ended.
#[derive(Debug)]
pub enum Greeting {
    /// A client wants in.
    Arrival(Box<Arrival>),
    /// A cancel request.
    Cancel(u32, Vec<u8>),
    /// Nothing more to do: it left, or was refused and told so.
    Over,
}

/// Speaks with a client until it has proven who it is. `input` may hold more afterwards.
pub async fn greet(stream: &mut Stream, address: IpAddr, input: &mut BytesMut, worker: &Worker) -> Greeting {
    match try_greet(stream, address, input, worker).await {
        Ok(greeting) => greeting,
        Err(Some(report)) => {
            worker.count_error(&report);
            let mut out = BytesMut::new();
            report.write(&mut out);
            // The client may be gone already; there is nobody else to tell.
            let _ = stream.write_last(&out).await;
            Greeting::Over
        }
        Err(None) => Greeting::Over,
    }
}

async fn try_greet(
    stream: &mut Stream,
    address: IpAddr,
    input: &mut BytesMut,
    worker: &Worker,
) -> Result<Greeting, Option<Report>> {
    while input.is_empty() {
        more(stream, input, worker).await?;
    }
    if input.first() == Some(&TLS_HANDSHAKE) {
        greet_directly(stream, input, worker).await?;
    }
    loop {
        let len = loop {
            if let Some(len) = startup::length(input).map_err(|_| malformed())?
                && input.len() >= len
            {
                break len;
            }
            more(stream, input, worker).await?;
        };
        let request = request(input.get(..len).unwrap_or_default(), worker)?;
        input.advance(len);
        match request {
            Request::Encrypt(by) => {
                // Bytes that came before our answer may be an attacker's (CVE-2021-23222 and its kin).
                if !input.is_empty() {
                    return Err(Some(Report::fatal(
                        sqlstate::PROTOCOL_VIOLATION,
                        "received unencrypted data after an encryption request",
                    )));
                }
                match worker.shared.acceptor.load_full() {
                    Some(acceptor) if by == Encryption::Tls && stream.tls().is_none() => {
                        stream.write_all(b"S").await.map_err(|_| None)?;
                        Box::pin(secure(stream, &acceptor, BytesMut::new())).await?;
                    }
                    _ => stream.write_all(b"N").await.map_err(|_| None)?,
                }
            }
            Request::Cancel(pid, key) => return Ok(Greeting::Cancel(pid, key)),
            Request::Enter(asked, packet) => {
                let arrival = arrive(stream, address, input, worker, asked).await?;
                // What strangers say is not kept.
                if let Some(packet) = packet {
                    worker.packets.borrow_mut().remember(packet, &arrival.asked);
                }
                return Ok(Greeting::Arrival(Box::new(arrival)));
            }
        }
    }
}

/// What a first packet asks for.
enum Request {
    Encrypt(Encryption),
    Cancel(u32, Vec<u8>),
    /// With the packet, if it is to be remembered once the client is in.
    Enter(Rc<Asked>, Option<Box<[u8]>>),
}

#[derive(PartialEq, Eq)]
enum Encryption {
    Tls,
    Gss,
}

/// Reads a first packet.
fn request(packet: &[u8], worker: &Worker) -> Result<Request, Option<Report>> {
    if let Some(asked) = worker.packets.borrow().asked(packet) {
        return Ok(Request::Enter(asked, None));
    }
    match startup::parse(packet).map_err(|_| malformed())? {
        First::Ssl => Ok(Request::Encrypt(Encryption::Tls)),
        First::Gss => Ok(Request::Encrypt(Encryption::Gss)),
        First::Cancel { pid, key } => Ok(Request::Cancel(pid, key.to_vec())),
        First::Version { major, minor } => Err(Some(Report::fatal(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{MINOR}"),
        ))),
        First::Startup { minor, parameters } => {
            let packet = Packets::keeps(packet).then(|| packet.into());
            Ok(Request::Enter(Rc::new(Asked::read(minor, parameters)?), packet))
        }
    }
}

/// TLS from the first byte on, without asking (libpq's `sslnegotiation=direct`).
async fn greet_directly(
    stream: &mut Stream,
    input: &mut BytesMut,
    worker: &Worker,
) -> Result<(), Option<Report>> {
    let Some(acceptor) = worker.shared.acceptor.load_full() else { return Err(None) };
    Box::pin(secure(stream, &acceptor, input.split())).await?;
    // Whoever speaks another protocol could be made to speak to us instead (ALPACA): PostgreSQL insists, too.
    if stream.tls().and_then(Session::alpn) != Some(ALPN) {
        return Err(Some(Report::fatal(
            sqlstate::PROTOCOL_VIOLATION,
            "received direct SSL connection request without ALPN protocol negotiation extension",
        )));
    }
    Ok(())
}

/// To be boxed: it takes more room than all the rest of a login.
async fn secure(stream: &mut Stream, acceptor: &Acceptor, received: BytesMut) -> Result<(), Option<Report>> {
    let session = acceptor.session().map_err(|_| None)?;
    stream.secure(session, received).await.map_err(|error| {
        tracing::debug!(%error, "a client's TLS handshake failed");
        None
    })
}

async fn arrive(
    stream: &mut Stream,
    address: IpAddr,
    input: &mut BytesMut,
    worker: &Worker,
    asked: Rc<Asked>,
) -> Result<Arrival, Option<Report>> {
    // Room for all that it is told until it is in.
    let mut out = BytesMut::with_capacity(WELCOME);
    out.extend_from_slice(&asked.negotiation);
    let applicant = Applicant {
        address,
        tls: stream.tls().is_some(),
        database: &asked.database,
        user: &asked.user,
        replication: asked.physical,
    };
    let LoggedInAs { role, credential } =
        log_in(stream, input, worker, applicant, &mut out).await.inspect_err(|refused| {
            if let Some(report) = refused {
                // Names are a stranger's text: in quotes, with whatever is not printable escaped.
                tracing::info!(user = ?applicant.user, database = ?applicant.database,
                    address = %applicant.address, sqlstate = %report.sqlstate, "a login was refused");
            }
        })?;
    Ok(Arrival { asked, role, credential, said: out })
}

/// What a client is told when it is in.
pub fn welcome(out: &mut BytesMut, parameters: &mut Parameters, pid: u32, key: &[u8]) {
    let reports = parameters.reports();
    out.reserve(reports.len() + key.len() + 32);
    out.extend_from_slice(reports);
    build::backend_key_data(out, pid, key);
    build::ready_for_query(out, crate::wire::server::Status::Idle);
}

/// Registers a client that has arrived; the handle's key is as long as its protocol has it.
pub fn register(worker: &Worker, key_len: usize) -> (u32, Vec<u8>, Rc<Handle>) {
    let mut key = vec![0; key_len];
    rand::rng().fill_bytes(&mut key);
    let (pid, handle) = worker.handles.borrow_mut().add(worker.number, key.clone());
    (pid, key, handle)
}

/// Waits for more from a client. One that has yet to say something holds no buffer.
pub(super) async fn more(
    stream: &mut Stream,
    input: &mut BytesMut,
    worker: &Worker,
) -> Result<(), Option<Report>> {
    let read = poll_fn(|cx| {
        if input.capacity() == 0 {
            *input = worker.buffers.borrow_mut().take();
        }
        make_room(input);
        let read = stream.poll_read_into(cx, input);
        if read.is_pending() && input.is_empty() {
            worker.buffers.borrow_mut().give(std::mem::take(input));
        }
        read
    });
    match read.await {
        Ok(n) if n > 0 => Ok(()),
        _ => Err(None),
    }
}

pub(super) fn malformed() -> Option<Report> {
    Some(Report::fatal(sqlstate::PROTOCOL_VIOLATION, "invalid length or layout of a startup or login packet"))
}
