//! The connection on which roles are asked for: to which node, when it is made anew, and what its errors mean.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use super::published::Published;
use super::role_query::{Fault, RoleQuery};
use super::verifiers::LookupError;
use crate::auth::verifier_cache::Known;
use crate::config::Settings;
use crate::net::Connectors;
use crate::net::timers::timeout;
use crate::topology::{NodeId, Role, Topology};

/// How long one attempt to connect may take, with all that is found out then.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Nodes that are tried one after the other, so that all of them fit into the time of one question.
const MAX_CANDIDATES: usize = 3;

/// After a failed attempt to connect everybody is told the same for so long.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A replica stands in for a known primary that takes no connection for so long; then the primary is tried again.
const STAND_IN_LIMIT: Duration = Duration::from_secs(1);

/// How often the same trouble is logged.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Asks the database for roles.
pub(super) struct Lookup {
    settings: Arc<Published<Settings>>,
    topology: Arc<Published<Topology>>,
    connectors: Connectors,
    clock: Clock,
    /// The configured text.
    query: Option<String>,
    session: RefCell<Option<Rc<Session>>>,
    /// Held by whoever connects; the others wait for what comes of it.
    connecting: tokio::sync::Mutex<()>,
    failed: Cell<Option<(Duration, LookupError)>>,
    warned: Cell<Option<(Duration, LookupError)>>,
}

/// A connection that asks.
struct Session {
    query: RoleQuery,
    node: NodeId,
    server_epoch: u32,
    since: Duration,
}

impl Session {
    /// Whether its node is still the one to ask, and still the same server.
    fn is_good(&self, topology: &Topology, now: Duration) -> bool {
        let Some(node) = topology.node(self.node) else { return false };
        let stands_in = || node.role == Role::Replica && now.saturating_sub(self.since) < STAND_IN_LIMIT;
        let right = match topology.primary {
            Some(primary) => primary == self.node || stands_in(),
            None => node.role == Role::Replica,
        };
        right && node.up && node.server_epoch == self.server_epoch && !self.query.is_closed()
    }
}

impl Lookup {
    pub(super) fn new(
        settings: Arc<Published<Settings>>,
        topology: Arc<Published<Topology>>,
        connectors: Connectors,
        clock: Clock,
        query: Option<String>,
    ) -> Self {
        Self {
            settings,
            topology,
            connectors,
            clock,
            query,
            session: RefCell::default(),
            connecting: tokio::sync::Mutex::default(),
            failed: Cell::default(),
            warned: Cell::default(),
        }
    }

    /// What the database says of a role, and when it was asked.
    ///
    /// # Errors
    /// It cannot be asked, or does not tell.
    pub(super) async fn ask(&self, user: &str) -> Result<(Known, Duration), LookupError> {
        let mut first = true;
        loop {
            let session = self.session().await?;
            let asked = self.clock.now();
            let fault = match session.query.ask(user, asked).await {
                Ok(known) => return Ok((known, asked)),
                Err(fault) => fault,
            };
            match fault {
                // Mostly this was found out only by asking: a new connection may know better.
                Fault::Broken(_) if first => self.close(&session),
                Fault::Broken(reason) | Fault::Late(reason) => {
                    self.close(&session);
                    return Err(self.report(LookupError::Unavailable, &reason));
                }
                Fault::Refused(reason) => {
                    // Grants or functions may be others than when it was made.
                    self.close(&session);
                    return Err(self.report(LookupError::NotSetUp, &reason));
                }
                // This may be due to the name: others go on with the connection.
                Fault::Failed(reason) => return Err(self.report(LookupError::NotSetUp, &reason)),
            }
            first = false;
        }
    }

    /// Closes the connection; the next question makes a new one.
    pub(super) fn rest(&self) {
        self.session.replace(None);
    }

    fn close(&self, session: &Rc<Session>) {
        self.session.borrow_mut().take_if(|s| Rc::ptr_eq(s, session));
    }

    /// The connection to ask on; a new one if need be.
    async fn session(&self) -> Result<Rc<Session>, LookupError> {
        if let Some(session) = self.good_session() {
            return Ok(session);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(session) = self.good_session() {
            return Ok(session);
        }
        if let Some((at, error)) = self.failed.get()
            && self.clock.now().saturating_sub(at) < RETRY_AFTER
        {
            return Err(error);
        }
        let made = self.connect().await;
        self.failed.set(made.as_ref().err().map(|error| (self.clock.now(), *error)));
        let session = Rc::new(made?);
        self.session.replace(Some(session.clone()));
        Ok(session)
    }

    fn good_session(&self) -> Option<Rc<Session>> {
        let (topology, now) = (self.topology.load(), self.clock.now());
        self.session.borrow().clone().filter(|s| s.is_good(&topology, now))
    }

    /// Connects to the primary, else to a replica.
    async fn connect(&self) -> Result<Session, LookupError> {
        let (settings, topology) = (self.settings.load_full(), self.topology.load_full());
        let replicas = topology.replicas().filter(|n| n.up).map(|n| n.id);
        let mut trouble = (LookupError::Unavailable, "no node is up".to_owned());
        for id in topology.primary.into_iter().chain(replicas).take(MAX_CANDIDATES) {
            let number = usize::from(id.0);
            let found = settings.nodes.get(number).zip(self.connectors.get(number)).zip(topology.node(id));
            let Some(((target, connector), node)) = found else { continue };
            let limit = settings.connect_timeout.min(CONNECT_LIMIT);
            let open = RoleQuery::open(target, connector, limit, self.query.as_deref());
            let opened = timeout(limit, open).await;
            let (error, reason) = match opened {
                Ok(Ok(query)) => {
                    let since = self.clock.now();
                    return Ok(Session { query, node: id, server_epoch: node.server_epoch, since });
                }
                Ok(Err(Fault::Broken(reason) | Fault::Late(reason))) => (LookupError::Unavailable, reason),
                Ok(Err(Fault::Refused(reason) | Fault::Failed(reason))) => (LookupError::NotSetUp, reason),
                Err(_) => (LookupError::Unavailable, format!("no answer within {limit:?}")),
            };
            trouble = (error, format!("{}: {reason}", target.name));
            // A replica says the same, if not less.
            if error == LookupError::NotSetUp {
                break;
            }
        }
        Err(self.report(trouble.0, &trouble.1))
    }

    /// Logs what an operator needs to know, now and then. No reason holds what a client has sent.
    fn report(&self, error: LookupError, reason: &str) -> LookupError {
        let now = self.clock.now();
        let told = |(at, what)| what == error && now.saturating_sub(at) < WARN_EVERY;
        if !self.warned.get().is_some_and(told) {
            self.warned.set(Some((now, error)));
            let hint = error.hint().unwrap_or("is a node up, and may the user in its URL log in?");
            tracing::warn!(reason, hint, "{error}: logins that need it fail");
        }
        error
    }
}
