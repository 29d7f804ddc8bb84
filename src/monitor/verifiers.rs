//! Fetches what logins need to know of a role, for all workers, from the control thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::clock::Clock;
use super::lookup::Lookup;
use super::published::Published;
use super::role_query::{Fault, RoleQuery};
use crate::auth::verifier_cache::Known;
use crate::auth::{QueryLine, RoleSecret, VerifierCache};
use crate::config::Settings;
use crate::config::settings::NodeSettings;
use crate::net::timers::{sleep, timeout};
use crate::net::{Connector, Connectors};
use crate::topology::Topology;

/// How long an answer of the database is believed, unless told otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);

/// Names that are remembered.
const MAX_NAMES: usize = 10_000;

/// Logins that may wait for the database at once.
const MAX_WAITING: usize = 10_000;

/// Questions to the database per second, over all workers.
const PER_SECOND: u32 = 1000;

/// The longest that a question stands in line.
const LONGEST_LINE: Duration = Duration::from_secs(2);

/// The longest that a question takes once it is its turn, connecting included.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);

/// After so long without a question the connection is closed and what is old is forgotten.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// No role has a longer name, in bytes: PostgreSQL's own limit is 63, and few have raised it.
const MAX_NAME: usize = 255;

/// Why nothing is known about a role. The texts may be shown to whoever wants to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Too many logins ask at once; later it may go better (53300).
    #[error("too many logins ask for roles' passwords at the same time")]
    Busy,
    /// No node answers (57P03).
    #[error("the database cannot be asked for the role's password")]
    Unavailable,
    /// The database answers, but tells no passwords: the log says why (57P03).
    #[error("the database does not tell roles' passwords")]
    NotSetUp,
}

impl LookupError {
    /// What an operator can do about it.
    #[must_use]
    pub const fn hint(self) -> Option<&'static str> {
        match self {
            Self::NotSetUp => Some("run tidegate check --print-setup"),
            Self::Busy | Self::Unavailable => None,
        }
    }
}

type Answer = Result<Known, LookupError>;

/// A login's question.
struct Wanted {
    user: Arc<str>,
    answer: oneshot::Sender<Answer>,
}

/// Where workers ask for roles.
pub struct Verifiers {
    cache: Arc<Mutex<VerifierCache>>,
    wanted: mpsc::UnboundedSender<Wanted>,
    /// Bounds what stands in that channel and behind it.
    places: Semaphore,
}

impl Verifiers {
    /// Starts to answer, on the local runtime of this thread. `query` is the configured text, which takes the role's name
    /// as its one parameter and returns password, `can_login` (boolean, default true) and seconds left (double
    /// precision, default null: for ever); without one the way is found out. An answer is believed for `ttl`.
    #[must_use]
    pub fn start(
        settings: Arc<Published<Settings>>,
        topology: Arc<Published<Topology>>,
        connectors: Connectors,
        clock: Clock,
        query: Option<String>,
        ttl: Duration,
    ) -> Arc<Self> {
        let cache = Arc::new(Mutex::new(VerifierCache::new(ttl, MAX_NAMES)));
        let (wanted, requests) = mpsc::unbounded_channel();
        let service = Rc::new(Service {
            cache: cache.clone(),
            flights: RefCell::default(),
            line: QueryLine::new(PER_SECOND, LONGEST_LINE).into(),
            lookup: Lookup::new(settings, topology, connectors, clock, query),
            clock,
        });
        tokio::task::spawn_local(serve(service, requests));
        Arc::new(Self { cache, wanted, places: Semaphore::new(MAX_WAITING) })
    }

    /// The role of that name; `None` if there is none. `now` is the time since the process started.
    ///
    /// # Errors
    /// The database was not asked, or did not answer. That is told within about 12 seconds, mostly much sooner.
    pub async fn role(&self, user: &str, now: Duration) -> Result<Option<RoleSecret>, LookupError> {
        // PostgreSQL has no such names, and memory is not for them.
        if user.is_empty() || user.len() > MAX_NAME || user.contains('\0') {
            return Ok(None);
        }
        if let Some(known) = lock(&self.cache).believed(user, now) {
            return Ok(known);
        }
        let Ok(_place) = self.places.try_acquire() else {
            return lock(&self.cache).last_resort(user, now).ok_or(LookupError::Busy);
        };
        let (answer, told) = oneshot::channel();
        // Without a monitor there is nobody to ask.
        self.wanted.send(Wanted { user: user.into(), answer }).map_err(|_| LookupError::Unavailable)?;
        told.await.unwrap_or(Err(LookupError::Unavailable))
    }

    /// A login by what is known of the role has failed, for whatever reason: it may just have been changed. The next
    /// login asks the database, but not more than once a second.
    pub fn login_failed(&self, user: &str, now: Duration) {
        lock(&self.cache).doubt(user, now);
    }
}

fn lock(cache: &Mutex<VerifierCache>) -> MutexGuard<'_, VerifierCache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The side of the control thread.
struct Service {
    cache: Arc<Mutex<VerifierCache>>,
    /// The names that are being asked for, each once, and who waits for them.
    flights: RefCell<HashMap<Arc<str>, Vec<oneshot::Sender<Answer>>>>,
    line: RefCell<QueryLine>,
    lookup: Lookup,
    clock: Clock,
}

async fn serve(service: Rc<Service>, mut requests: mpsc::UnboundedReceiver<Wanted>) {
    loop {
        match timeout(IDLE_LIMIT, requests.recv()).await {
            Ok(Some(wanted)) => service.take(wanted),
            Ok(None) => return,
            Err(_) => {
                service.lookup.rest();
                lock(&service.cache).forget_old(service.clock.now());
            }
        }
    }
}

impl Service {
    /// Answers at once, joins those who wait for the same name, or sends for it.
    fn take(self: &Rc<Self>, Wanted { user, answer }: Wanted) {
        let now = self.clock.now();
        // It may have come while this question was on its way.
        let known = lock(&self.cache).believed(&user, now);
        if let Some(known) = known {
            // Who has left needs no answer, here and below.
            let _ = answer.send(Ok(known));
            return;
        }
        let mut flights = self.flights.borrow_mut();
        if let Some(waiting) = flights.get_mut(&user) {
            waiting.push(answer);
            return;
        }
        let Some(turn) = self.line.borrow_mut().join(now) else {
            let _ = answer.send(self.without_database(&user, LookupError::Busy));
            return;
        };
        flights.insert(user.clone(), vec![answer]);
        tokio::task::spawn_local(self.clone().fly(user, turn));
    }

    /// Asks for one name when it is its turn, and tells all who wait.
    async fn fly(self: Rc<Self>, user: Arc<str>, turn: Duration) {
        let pause = turn.saturating_sub(self.clock.now());
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let answer = if self.is_awaited(&user) {
            self.ask(&user).await
        } else {
            // All have left while they stood in line.
            Err(LookupError::Unavailable)
        };
        for waiting in self.flights.borrow_mut().remove(&user).into_iter().flatten() {
            let _ = waiting.send(answer.clone());
        }
    }

    fn is_awaited(&self, user: &str) -> bool {
        self.flights.borrow().get(user).is_some_and(|all| all.iter().any(|w| !w.is_closed()))
    }

    async fn ask(&self, user: &str) -> Answer {
        match timeout(LOOKUP_LIMIT, self.lookup.ask(user)).await {
            Ok(Ok((known, asked))) => {
                lock(&self.cache).store(user, asked, known.clone());
                Ok(known)
            }
            Ok(Err(error)) => self.without_database(user, error),
            Err(_) => self.without_database(user, LookupError::Unavailable),
        }
    }

    fn without_database(&self, user: &str, error: LookupError) -> Answer {
        lock(&self.cache).last_resort(user, self.clock.now()).ok_or(error)
    }
}

/// Whether a node lets its monitor ask for roles' stored passwords, for `tidegate check`.
///
/// # Errors
/// Why it does not.
pub async fn can_ask(
    node: &NodeSettings,
    connector: &Connector,
    limit: Duration,
    query: Option<&str>,
) -> Result<(), String> {
    match RoleQuery::open(node, connector, limit, query).await {
        Ok(_) => Ok(()),
        Err(Fault::Broken(reason) | Fault::Late(reason) | Fault::Refused(reason) | Fault::Failed(reason)) => {
            Err(reason)
        }
    }
}
