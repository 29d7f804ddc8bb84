//! A unit gets a connection to the node that it is to run on.

use std::time::Duration;

use super::accept::Entrance;
use super::lease::{NoLease, lease, obtain};
use super::place::{Look, Place, look, wait};
use super::serve::Client;
use crate::config::Settings;
use crate::config::settings::OverBudget;
use crate::pool::pools::Step;
use crate::pool::{Lease, Refused};
use crate::route::eligible::is_candidate;
use crate::route::{Ask, RouteHint, Want, Why};
use crate::session::Unit;
use crate::topology::{NodeId, Role};
use crate::wire::build::{Report, Severity};
use crate::wire::sqlstate;

/// The most nodes that one unit is tried on.
const MAX_TRIES: u8 = 8;

/// So many further connections are taken where one has just ended: those that ended before are seen when they are taken.
const MAX_ENDED: u8 = 3;

/// What earlier tries to run a unit have taught. A berth has room for it all its life.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// It must run on the primary, for that reason.
    pub(super) forced: Option<Why>,
    made: u8,
    /// Connections that ended before anything of it was sent.
    ended: u8,
    /// There is nothing of this most times.
    failed: Option<Box<Failed>>,
}

/// What has been tried in vain.
#[derive(Debug, Default)]
struct Failed {
    /// Nodes that need not be tried again.
    nodes: Vec<NodeId>,
    /// When it was run on a replica that had not replayed what it must show.
    unproven: Option<Duration>,
    /// What a replica has said that did not let the role in, where no primary stands in for it.
    not_let_in: Option<Report>,
}

impl Tries {
    /// It must run on the primary, for that reason.
    pub(super) fn on_primary(why: Why) -> Self {
        Self { forced: Some(why), ..Self::default() }
    }

    /// That node need not be tried again.
    pub(super) fn avoid(&mut self, node: NodeId) {
        self.failed.get_or_insert_default().nodes.push(node);
    }

    /// It was run on a replica that had not replayed what it must show: none is to be asked for that again.
    pub(super) fn ran_in_vain(&mut self, now: Duration) {
        self.failed.get_or_insert_default().unproven = Some(now);
    }

    /// When it was run in vain, if it was.
    pub(super) fn unproven(&self) -> Option<Duration> {
        self.failed.as_ref().and_then(|failed| failed.unproven)
    }

    fn avoided(&self) -> &[NodeId] {
        self.failed.as_ref().map_or(&[], |failed| &failed.nodes)
    }

    /// Whether another connection is to be taken for one that had ended before it was of any use.
    pub(super) fn may_take_another(&mut self) -> bool {
        self.ended = self.ended.saturating_add(1);
        self.ended <= MAX_ENDED
    }

    /// Whether a replica has not let the role in, where no primary stands in for it.
    fn was_not_let_in(&self) -> bool {
        self.failed.as_ref().is_some_and(|failed| failed.not_let_in.is_some())
    }

    /// That there is no node says less than a replica that has not let the role in.
    fn or_refusal(&mut self, report: Report) -> Report {
        let nowhere = report.sqlstate == sqlstate::CANNOT_CONNECT_NOW;
        let said = self.failed.as_mut().and_then(|failed| failed.not_let_in.take());
        said.filter(|_| nowhere).unwrap_or(report)
    }
}

impl Client {
    /// A connection to where the unit is to run.
    ///
    /// # Errors
    /// What the client is to be told.
    pub(super) async fn reach(&mut self, unit: &Unit, tries: &mut Tries) -> Result<(Lease, Place), Report> {
        let now = self.worker.now();
        let found = self.find(unit, tries, now)?;
        self.reach_in_time(unit, tries, now, found).await
    }

    /// A connection to a replica that may serve the unit now; `None` if there is none to be had without waiting in line.
    pub(super) async fn reach_replica(&mut self, unit: &Unit, tries: &Tries) -> Option<(Lease, Place)> {
        let topology = self.worker.topology();
        let ask = self.ask(unit, tries, &self.worker.settings()).ok()?;
        let now = self.worker.now();
        let Look::Go(place) = look(&self.worker, &topology, &mut self.session, &ask, now).ok()? else {
            return None;
        };
        if place.role != Role::Replica {
            return None;
        }
        let (worker, node) = (&self.worker, place.node);
        let step = Some(worker.pools.borrow_mut().take_at_hand(node, self.key, &topology)?);
        drop(topology);
        match obtain(worker, step, node, self.key, &self.identity, &self.handle).await {
            Ok(lease) if self.is_void(&lease, &place) => self.give_back(lease),
            Ok(lease) => return Some((lease, place)),
            Err(NoLease::NotLetIn(report)) => self.not_let_in(node, &report.message),
            Err(NoLease::Unreachable(why)) => self.unreachable(node, &why),
            Err(NoLease::Refused(_)) => {}
        }
        None
    }

    /// Before the first try. A replica that has just given the role no connection need not be asked, if another node may serve
    /// the unit instead.
    pub(super) fn tries(&self, unit: &Unit) -> Tries {
        let refusals = self.worker.refusals.borrow();
        if refusals.is_empty() {
            return Tries::default();
        }
        let has_idle = |node| self.worker.pools.borrow().has_idle(node, self.key);
        let avoid = refusals.of(self.key, self.worker.now(), has_idle);
        if avoid.is_empty() {
            return Tries::default();
        }
        let topology = self.worker.topology();
        let replica = self.entrance == Entrance::Replica || self.route(unit) == Some(RouteHint::Replica);
        let others = || topology.replicas().any(|node| node.up && !avoid.contains(&node.id));
        if (replica || topology.primary.is_none()) && !others() {
            return Tries::default();
        }
        let failed = Failed { nodes: avoid, ..Failed::default() };
        Tries { failed: Some(Box::new(failed)), ..Tries::default() }
    }

    /// A replica has refused the session's role or database.
    fn not_let_in(&self, node: NodeId, said: &str) {
        let worker = &self.worker;
        if worker.refusals.borrow_mut().note(node, self.key, Refused::NotLetIn, worker.now()) {
            let (node, user, database) = (self.node_name(node), &self.identity.user, &self.identity.database);
            tracing::warn!(
                node,
                ?user,
                ?database,
                ?said,
                "a replica does not let a role in: its reads pass it by"
            );
        }
    }

    /// A replica has taken no connection, though it may answer polls.
    fn unreachable(&self, node: NodeId, why: &str) {
        let worker = &self.worker;
        worker.polls.kick(node);
        if worker.refusals.borrow_mut().note(node, self.key, Refused::NoneTaken, worker.now()) {
            let node = self.node_name(node);
            tracing::warn!(node, ?why, "a replica takes no new connections: reads pass it by");
        }
    }

    /// Looks for a place, and for a connection there if there is one: both by the same topology.
    #[inline]
    pub(super) fn find(
        &mut self,
        unit: &Unit,
        tries: &Tries,
        now: Duration,
    ) -> Result<(Look, Option<Step>), Report> {
        let topology = self.worker.topology();
        let ask = self.ask(unit, tries, &self.worker.settings())?;
        let found = look(&self.worker, &topology, &mut self.session, &ask, now)?;
        let step = match found {
            Look::Go(place) => self.worker.pools.borrow_mut().take(place.node, self.key, &topology),
            Look::Wait { .. } => None,
        };
        Ok((found, step))
    }

    /// Goes on where nothing was to be had at once: waits for freshness, for a connection, or makes one, and tries
    /// another node if one takes no connections.
    pub(super) async fn reach_in_time(
        &mut self,
        unit: &Unit,
        tries: &mut Tries,
        began: Duration,
        found: (Look, Option<Step>),
    ) -> Result<(Lease, Place), Report> {
        // Used up by the first turn.
        let mut found = Some(found);
        while tries.made < MAX_TRIES {
            tries.made += 1;
            let found = match found.take() {
                Some(found) => found,
                None => match self.find(unit, tries, self.worker.now()) {
                    Ok(found) => found,
                    Err(report) => return Err(tries.or_refusal(report)),
                },
            };
            let (place, leased) = match found {
                (Look::Go(place), step) => {
                    let (worker, node) = (&self.worker, place.node);
                    (place, obtain(worker, step, node, self.key, &self.identity, &self.handle).await)
                }
                (Look::Wait { .. }, _) => {
                    let ask = self.ask(unit, tries, &self.worker.settings())?;
                    if tries.was_not_let_in() && !self.has_candidate(&ask) {
                        break;
                    }
                    let (worker, handle) = (&self.worker, &self.handle);
                    let waited = wait(worker, &mut self.session, handle, ask, worker.about_now()).await;
                    let place = match waited {
                        Ok(place) => place,
                        Err(report) => return Err(tries.or_refusal(report)),
                    };
                    (place, lease(worker, place.node, self.key, &self.identity, handle).await)
                }
            };
            match leased {
                // The server has crashed or been replaced while the unit waited in line: what was known of it is void.
                Ok(lease) if self.is_void(&lease, &place) => self.give_back(lease),
                Ok(lease) => {
                    self.worker.metrics.added_latency(self.worker.now().saturating_sub(began));
                    return Ok((lease, place));
                }
                // The primary has let the client in: it is the replica that has yet to hear of the role or the database, or of
                // a new password; or that is set up otherwise.
                Err(NoLease::NotLetIn(report)) if place.role == Role::Replica => {
                    self.not_let_in(place.node, &report.message);
                    tries.avoid(place.node);
                    if place.why == Why::Hint || self.worker.topology().primary.is_none() {
                        let said = Report { severity: Severity::Error, ..report };
                        tries.failed.get_or_insert_default().not_let_in = Some(said);
                    }
                }
                Err(NoLease::Refused(report) | NoLease::NotLetIn(report)) => return Err(report),
                Err(NoLease::Unreachable(why)) if place.role == Role::Replica => {
                    self.unreachable(place.node, &why);
                    tries.avoid(place.node);
                }
                Err(NoLease::Unreachable(why)) => {
                    self.worker.polls.kick(place.node);
                    let name = self.node_name(place.node);
                    let message = format!("node {name} takes no connections: {why}");
                    return Err(Report::error(sqlstate::CANNOT_CONNECT, message));
                }
            }
        }
        let nowhere = Report::error(sqlstate::CANNOT_CONNECT_NOW, "no node could finish this statement");
        Err(tries.or_refusal(nowhere))
    }

    fn has_candidate(&self, ask: &Ask<'_>) -> bool {
        let topology = self.worker.topology();
        topology.nodes.iter().any(|node| is_candidate(node, &topology, ask))
    }

    /// Where the client wants the unit: by its own hint, else by the session's.
    pub(super) fn route(&self, unit: &Unit) -> Option<RouteHint> {
        unit.verdict.hint.route.unwrap_or(self.session.route)
    }

    #[inline]
    fn ask<'a>(&self, unit: &Unit, tries: &'a Tries, settings: &Settings) -> Result<Ask<'a>, Report> {
        let verdict = &unit.verdict;
        let want = match tries.forced {
            Some(why) => Want::Primary(why),
            None => self.want(unit, self.route(unit))?,
        };
        Ok(Ask {
            want,
            level: verdict.hint.level.unwrap_or(self.session.level),
            max_staleness: settings.max_staleness,
            replica_wait: settings.replica_wait,
            wait_over_budget: settings.over_budget == OverBudget::Wait,
            deadline: settings.pool_timeout,
            waited_since: None,
            may_prove: tries.unproven().is_none() && self.may_prove(unit, want),
            avoid: tries.avoided(),
        })
    }

    /// Whether the node has become something else since it was chosen, or the replica that was chosen is not the one, in
    /// time, that the connection leads to.
    fn is_void(&self, lease: &Lease, place: &Place) -> bool {
        let Some((role, epoch)) = self.worker.topology().node(place.node).map(|n| (n.role, n.server_epoch))
        else {
            return true;
        };
        let same = lease.connection.epoch == place.server_epoch && epoch == place.server_epoch;
        role != place.role || (role == Role::Replica && !same)
    }
}
