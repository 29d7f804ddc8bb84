//! From what polls report to what is known: the one place where a topology changes.

use std::sync::Arc;
use std::time::Duration;

use super::node::{Node, NodeId, Position, Role};
use super::ring::Ring;
use super::snapshot::Topology;
use crate::lsn::{Epoch, Lsn, Ticket, Timeline, WalGeometry};

/// What one poll found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// Primary: insert position as reported. Replica: replay position; zero if it has none.
    pub lsn: Lsn,
    /// Primary: flush position.
    pub flushed: Lsn,
    /// The timeline; `Timeline(0)` if the node cannot tell.
    pub timeline: Timeline,
    /// `system_identifier` of `pg_control_system()`.
    pub system: u64,
    /// Where its WAL pages begin.
    pub geometry: WalGeometry,
}

/// What happened to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A poll returned.
    Polled {
        /// Its number.
        ticket: Ticket,
        /// When it was sent.
        sent: Duration,
        /// When its answer came.
        received: Duration,
        /// What it found.
        report: Report,
    },
    /// The poll connection broke, or a poll took too long.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    in_recovery: bool,
    timeline: Timeline,
    system: u64,
}

/// Turns observations into topologies.
#[derive(Debug)]
pub struct Observer {
    topology: Topology,
    ring: Ring,
    seen: Vec<Option<Seen>>,
    system: Option<u64>,
}

impl Observer {
    /// Nodes of these names, of which nothing is known yet.
    #[must_use]
    pub fn new(names: &[Arc<str>]) -> Self {
        let nodes = names
            .iter()
            .enumerate()
            .map(|(n, name)| Node {
                id: NodeId(u16::try_from(n).unwrap_or(u16::MAX)),
                name: name.clone(),
                role: Role::Unknown,
                up: false,
                server_epoch: 0,
                polled: Ticket(0),
                position: None,
                covered: None,
                behind_since: None,
                lag_bytes: None,
            })
            .collect();
        Self {
            topology: Topology { nodes, ..Topology::default() },
            ring: Ring::default(),
            seen: vec![None; names.len()],
            system: None,
        }
    }

    /// What is known now.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Takes in what happened to a node.
    pub fn observe(&mut self, id: NodeId, observation: Observation) {
        match observation {
            Observation::Lost => self.lost(id),
            Observation::Polled { ticket, sent, received, report } => {
                // A server that is not of this cluster is as good as none.
                if *self.system.get_or_insert(report.system) != report.system {
                    return self.lost(id);
                }
                self.polled(id, ticket, sent, received, report);
            }
        }
        self.find_primary();
        self.measure();
    }

    fn lost(&mut self, id: NodeId) {
        if let Some(seen) = self.seen.get_mut(usize::from(id.0)) {
            *seen = None;
        }
        let Some(node) = self.topology.nodes.get_mut(usize::from(id.0)) else { return };
        node.up = false;
        node.server_epoch = node.server_epoch.wrapping_add(1);
        node.position = None;
        let was_primary = self.topology.primary == Some(id);
        if was_primary {
            self.topology.primary = None;
            self.begin_epoch();
        }
        self.measure();
    }

    fn polled(&mut self, id: NodeId, ticket: Ticket, sent: Duration, received: Duration, report: Report) {
        let Some(node) = self.topology.nodes.get_mut(usize::from(id.0)) else { return };
        let Some(seen) = self.seen.get_mut(usize::from(id.0)) else { return };
        self.topology.geometry = report.geometry;
        *seen =
            Some(Seen { in_recovery: report.in_recovery, timeline: report.timeline, system: report.system });
        let lsn =
            if report.in_recovery { report.lsn } else { report.lsn.before_page_header(report.geometry) };
        let position = Position {
            lsn,
            flushed: if report.in_recovery { lsn } else { report.flushed },
            timeline: report.timeline,
            sent,
            received,
        };
        // A replica that goes backwards within one connection contradicts itself: it is not believed
        // until a new server epoch.
        let backwards = report.in_recovery
            && node.position.is_some_and(|old| old.timeline == position.timeline && old.lsn > position.lsn);
        if backwards {
            node.server_epoch = node.server_epoch.wrapping_add(1);
            node.position = None;
            node.up = false;
            return;
        }
        node.up = true;
        node.polled = ticket;
        node.position = (lsn != Lsn::ZERO).then_some(position);
        if self.topology.primary == Some(id)
            && !report.in_recovery
            && report.timeline == self.topology.timeline
        {
            self.ring.push(sent, lsn);
        }
    }

    /// Of those which say that they take writes, the one with the highest timeline does; of two with the same,
    /// none. One below the timeline of the last primary never is: timelines only grow, so it was replaced, and
    /// that its successor cannot be reached right now does not make its old data good.
    fn find_primary(&mut self) {
        let least = self.topology.timeline;
        let writers = || {
            self.seen.iter().enumerate().filter_map(|(n, seen)| {
                let seen = seen.as_ref().filter(|s| !s.in_recovery && Some(s.system) == self.system)?;
                (seen.timeline >= least).then_some((n, seen.timeline))
            })
        };
        let highest = writers().map(|(_, timeline)| timeline).max();
        let mut candidates = writers().filter(|(_, timeline)| Some(*timeline) == highest);
        let (first, second) = (candidates.next(), candidates.next());
        let primary = match (first, second) {
            (Some((n, timeline)), None) => Some((NodeId(u16::try_from(n).unwrap_or(u16::MAX)), timeline)),
            _ => None,
        };
        if primary != self.topology.primary.map(|id| (id, self.topology.timeline)) {
            let first_ever = self.topology.epoch == Epoch::default() && self.topology.primary.is_none();
            if primary.is_some() || self.topology.primary.is_some() {
                self.begin_epoch();
            }
            self.topology.primary = primary.map(|(id, _)| id);
            if let Some((id, timeline)) = primary {
                self.topology.switched |= !first_ever && self.topology.timeline != timeline;
                self.topology.timeline = timeline;
                if let Some(p) = self.topology.node(id).and_then(|n| n.position) {
                    self.ring.push(p.sent, p.lsn);
                }
            }
        }
        for (node, seen) in self.topology.nodes.iter_mut().zip(&self.seen) {
            node.role = match seen {
                // What a node was stays on its label while it is down.
                None => node.role,
                Some(seen) if seen.in_recovery => Role::Replica,
                Some(_) if self.topology.primary == Some(node.id) => Role::Primary,
                Some(_) => Role::Unknown,
            };
        }
    }

    fn begin_epoch(&mut self) {
        self.topology.epoch = Epoch(self.topology.epoch.0.wrapping_add(1));
        self.ring.clear();
    }

    /// How far each replica is behind.
    fn measure(&mut self) {
        let newest = self.ring.newest();
        for node in &mut self.topology.nodes {
            let comparable = node.role == Role::Replica && node.up;
            let lsn = node.position.map(|p| p.lsn).filter(|_| comparable);
            node.covered = lsn.and_then(|lsn| self.ring.covered(lsn));
            node.behind_since = lsn.and_then(|lsn| self.ring.uncovered(lsn));
            node.lag_bytes = lsn.and_then(|lsn| newest.map(|n| n.bytes_ahead_of(lsn)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: NodeId = NodeId(0);
    const REPLICA: NodeId = NodeId(1);

    fn observer() -> Observer {
        Observer::new(&["p".into(), "r".into()])
    }

    fn poll(o: &mut Observer, id: NodeId, n: u64, in_recovery: bool, lsn: u64, timeline: u32) {
        let at = Duration::from_millis(n);
        o.observe(
            id,
            Observation::Polled {
                ticket: Ticket(n),
                sent: at,
                received: at,
                report: Report {
                    in_recovery,
                    lsn: Lsn(lsn),
                    flushed: Lsn(lsn),
                    timeline: Timeline(timeline),
                    system: 7,
                    geometry: WalGeometry::default(),
                },
            },
        );
    }

    #[test]
    fn roles_and_lag_are_found_out() {
        let mut o = observer();
        poll(&mut o, REPLICA, 1, true, 100, 1);
        assert_eq!(o.topology().primary, None);
        poll(&mut o, PRIMARY, 2, false, 100, 1);
        poll(&mut o, PRIMARY, 3, false, 150, 1);
        let t = o.topology();
        assert_eq!((t.primary, t.timeline, t.epoch), (Some(PRIMARY), Timeline(1), Epoch(1)));
        let r = t.node(REPLICA).unwrap();
        assert_eq!((r.role, r.lag_bytes), (Role::Replica, Some(50)));
        assert_eq!(r.covered, Some(Duration::from_millis(2)));
        assert_eq!(r.behind_since, Some(Duration::from_millis(3)));
    }

    #[test]
    fn a_lost_poll_connection_takes_the_position_away() {
        let mut o = observer();
        poll(&mut o, PRIMARY, 1, false, 100, 1);
        poll(&mut o, REPLICA, 1, true, 100, 1);
        o.observe(REPLICA, Observation::Lost);
        let r = o.topology().node(REPLICA).unwrap();
        assert_eq!((r.up, r.position, r.server_epoch), (false, None, 1));
        assert_eq!(o.topology().epoch, Epoch(1));
        o.observe(PRIMARY, Observation::Lost);
        assert_eq!((o.topology().primary, o.topology().epoch), (None, Epoch(2)));
    }

    #[test]
    fn of_two_primaries_the_higher_timeline_wins_and_of_equals_none() {
        let mut o = observer();
        poll(&mut o, PRIMARY, 1, false, 100, 1);
        poll(&mut o, REPLICA, 1, false, 90, 2);
        assert_eq!((o.topology().primary, o.topology().timeline), (Some(REPLICA), Timeline(2)));
        assert!(o.topology().switched);
        assert_eq!(o.topology().node(PRIMARY).unwrap().role, Role::Unknown);
        poll(&mut o, PRIMARY, 2, false, 100, 2);
        assert_eq!(o.topology().primary, None);
    }

    #[test]
    fn a_primary_that_was_replaced_does_not_come_back_when_its_successor_is_lost() {
        let mut o = observer();
        poll(&mut o, PRIMARY, 1, false, 100, 1);
        poll(&mut o, REPLICA, 1, false, 90, 2);
        o.observe(REPLICA, Observation::Lost);
        poll(&mut o, PRIMARY, 2, false, 100, 1);
        assert_eq!(o.topology().primary, None);
        poll(&mut o, REPLICA, 2, false, 90, 2);
        assert_eq!(o.topology().primary, Some(REPLICA));
    }

    #[test]
    fn a_stranger_is_nobody() {
        let mut o = observer();
        poll(&mut o, PRIMARY, 1, false, 100, 1);
        let report = Report {
            in_recovery: true,
            lsn: Lsn(100),
            flushed: Lsn(100),
            timeline: Timeline(1),
            system: 8,
            geometry: WalGeometry::default(),
        };
        let zero = Duration::ZERO;
        o.observe(REPLICA, Observation::Polled { ticket: Ticket(1), sent: zero, received: zero, report });
        assert!(!o.topology().node(REPLICA).unwrap().up);
    }

    #[test]
    fn a_replica_that_goes_backwards_is_not_believed() {
        let mut o = observer();
        poll(&mut o, PRIMARY, 1, false, 100, 1);
        poll(&mut o, REPLICA, 1, true, 100, 1);
        poll(&mut o, REPLICA, 2, true, 90, 1);
        assert_eq!(o.topology().node(REPLICA).unwrap().position, None);
        assert_eq!(o.topology().node(REPLICA).unwrap().server_epoch, 1);
    }
}
