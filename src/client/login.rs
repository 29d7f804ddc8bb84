//! A client proves who it is: by the rule that it falls under, against what is stored for its role.

use bytes::{Buf, BytesMut};
use rand::Rng;

use super::handshake::{MAX_LOGIN_MESSAGE, malformed, more};
use super::worker::Worker;
use crate::auth::{
    Applicant, AuthError, Claimant, ClientLogin, ClientStep, Credential, EndPoint, LoggedIn, Method, Nonce,
    Random, RoleSecret, RuleMethod, Start, Stored, User,
};
use crate::monitor::LookupError;
use crate::net::unblock::unblock;
use crate::net::{Certificate, Stream};
use crate::wire::Frame;
use crate::wire::build::Report;
use crate::wire::sqlstate;

/// Lets a client prove what it says in its startup packet. `out` is what it is to be sent first. Gives what servers
/// take as proof, if the login leaves any.
///
/// # Errors
/// What the client is to be told; `None` if it is gone.
pub async fn log_in(
    stream: &mut Stream,
    input: &mut BytesMut,
    worker: &Worker,
    applicant: Applicant<'_>,
    out: &mut BytesMut,
) -> Result<LoggedInAs, Option<Report>> {
    let settings = worker.settings();
    let denied = |denial: crate::auth::Denial| Some(denial.report(&applicant));
    if settings.tls.as_ref().is_some_and(|tls| tls.required) && !applicant.tls {
        return Err(denied(crate::auth::Denial::NoEntry));
    }
    let (rule, method) = settings.auth.rules.admit(&applicant).map_err(denied)?;
    let certificate = stream.tls().and_then(|tls| tls.peer());
    rule.before_login(certificate.is_some()).map_err(denied)?;
    let role = find(worker, applicant.user, rule.method).await?;
    let done = prove(stream, input, worker, method, &role, applicant.user, out).await?;
    if !role.can_login {
        return Err(Some(not_permitted(applicant.user)));
    }
    let name = certificate.as_ref().and_then(Certificate::common_name);
    rule.after_login(&settings.auth.maps, name.as_deref(), applicant.user).map_err(denied)?;
    out.extend_from_slice(&done.messages);
    Ok(LoggedInAs { role: role.oid, credential: done.credential })
}

/// The end of a login that succeeded.
pub struct LoggedInAs {
    /// The role's oid, if the database has told it.
    pub role: Option<u32>,
    /// What servers take as proof.
    pub credential: Option<Credential>,
}

/// A role, as far as its login needs it.
struct Role {
    user: User,
    can_login: bool,
    oid: Option<u32>,
}

/// What the configuration has of a role, or else the database. Where a password decides, a role that is not there is
/// asked like any other.
async fn find(worker: &Worker, name: &str, method: RuleMethod) -> Result<Role, Option<Report>> {
    let now = worker.now();
    let configured = worker.users().get(name).cloned();
    let by_password = matches!(method, RuleMethod::Scram | RuleMethod::Md5 | RuleMethod::Password);
    let found = match worker.shared.verifiers.role(name, now).await {
        Ok(found) => found,
        // What has to be proven stands elsewhere, and servers will say whether there is such a role.
        Err(_) if configured.is_some() || !by_password => {
            return Ok(Role { user: configured.unwrap_or_default(), can_login: true, oid: None });
        }
        Err(error) => return Err(Some(unknown(error))),
    };
    if found.is_none() && !by_password {
        // It may be about to be made.
        worker.shared.verifiers.login_failed(name, now);
        let message = format!("role \"{name}\" does not exist");
        return Err(Some(Report::fatal(sqlstate::INVALID_AUTHORIZATION, message)));
    }
    let can_login = found.as_ref().is_none_or(|role: &RoleSecret| role.can_login);
    let oid = found.as_ref().and_then(|role| role.oid);
    let stored = || Stored::parse(found.as_ref().and_then(|role| role.usable_password(now)));
    Ok(Role { user: configured.unwrap_or_else(|| User::from_stored(stored())), can_login, oid })
}

async fn prove(
    stream: &mut Stream,
    input: &mut BytesMut,
    worker: &Worker,
    method: Method,
    role: &Role,
    name: &str,
    out: &mut BytesMut,
) -> Result<LoggedIn, Option<Report>> {
    let refused = |error: AuthError| {
        if matches!(error, AuthError::Password { .. }) {
            // It may have been changed just now.
            worker.shared.verifiers.login_failed(name, worker.now());
        }
        Some(error.report())
    };
    let users = worker.users();
    let end_point = stream.tls().and_then(|tls| tls.end_point()).as_deref().and_then(EndPoint::new);
    let claimant = Claimant { name, user: &role.user, mock: users.mock(), end_point };
    let (mut login, message) = match ClientLogin::start(method, claimant, random).map_err(refused)? {
        Start::Done(done) => return Ok(done),
        Start::Ask { login, message } => (login, message),
    };
    out.extend_from_slice(&message);
    loop {
        stream.write_all(out).await.map_err(|_| None)?;
        out.clear();
        let frame = loop {
            if let Some(frame) = Frame::peek(input).map_err(|_| malformed())? {
                if frame.len > MAX_LOGIN_MESSAGE.min(login.max_body() + crate::wire::frame::HEADER) {
                    return Err(malformed());
                }
                if input.len() >= frame.len {
                    break frame;
                }
            }
            more(stream, input, worker).await?;
        };
        let mut step = login.on_message(frame.tag, frame.body(input).unwrap_or_default()).map_err(refused)?;
        input.advance(frame.len);
        if let ClientStep::Hash(job) = step {
            // A millisecond and more: others are not to wait for it.
            let _turn = worker.shared.hashing.acquire().await.map_err(|_| None)?;
            let hashed = unblock(move || job.run()).await.map_err(|_| None)?;
            step = login.on_hashed(hashed).map_err(refused)?;
        }
        match step {
            ClientStep::Send(message) => out.extend_from_slice(&message),
            ClientStep::Done(done) => return Ok(done),
            // One password, one hash.
            ClientStep::Hash(_) => return Err(malformed()),
        }
    }
}

fn random() -> Random {
    let (mut nonce, mut md5_salt) = ([0; Nonce::RAW_LEN], [0; 4]);
    rand::rng().fill_bytes(&mut nonce);
    rand::rng().fill_bytes(&mut md5_salt);
    Random { nonce: Nonce::new(nonce), md5_salt }
}

fn not_permitted(user: &str) -> Report {
    Report::fatal(sqlstate::INVALID_AUTHORIZATION, format!("role \"{user}\" is not permitted to log in"))
}

fn unknown(error: LookupError) -> Report {
    let sqlstate = match error {
        LookupError::Busy => sqlstate::TOO_MANY_CONNECTIONS,
        LookupError::Unavailable | LookupError::NotSetUp => sqlstate::CANNOT_CONNECT_NOW,
    };
    let report = Report::fatal(sqlstate, error.to_string());
    match error.hint() {
        Some(hint) => report.hint(hint),
        None => report,
    }
}
