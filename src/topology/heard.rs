//! What nodes have said of themselves since they were last polled.

use super::node::{Node, NodeId};
use crate::lsn::{Lsn, Ticket};

/// So many reads may be run in vain on a node, two more for each that is not, before it has to be polled for each.
const CREDIT: u8 = 8;

/// What one node has said.
#[derive(Clone, Copy, Debug)]
struct Said {
    /// That of the connection that it was said on: in any other, it is void.
    server_epoch: u32,
    /// The furthest that it has replayed.
    lsn: Lsn,
    /// How many times it may say again that it has not replayed enough.
    credit: u8,
    /// The poll behind the last time that it has said so.
    next: Ticket,
}

impl Said {
    fn nothing(server_epoch: u32) -> Self {
        Self { server_epoch, lsn: Lsn::ZERO, credit: CREDIT, next: Ticket(0) }
    }
}

/// What each node has said in front of reads of how far it has replayed.
#[derive(Clone, Debug, Default)]
pub struct Heard(Vec<Said>);

impl Heard {
    /// A node has told that it has replayed so much, on a connection of that server epoch: less than a read had to show, if
    /// there is a ticket for its next poll.
    pub fn note(&mut self, node: NodeId, server_epoch: u32, lsn: Lsn, in_vain: Option<Ticket>) {
        let at = usize::from(node.0);
        if self.0.len() <= at {
            self.0.resize(at + 1, Said::nothing(server_epoch));
        }
        let Some(said) = self.0.get_mut(at) else { return };
        if said.server_epoch != server_epoch {
            *said = Said::nothing(server_epoch);
        }
        said.lsn = said.lsn.max(lsn);
        match in_vain {
            None => said.credit = said.credit.saturating_add(2).min(CREDIT),
            Some(next) => {
                said.credit = said.credit.saturating_sub(1);
                said.next = next;
            }
        }
    }

    /// How far that node has said it is; zero if it has not in its present server epoch.
    #[must_use]
    pub fn of(&self, node: &Node) -> Lsn {
        self.said(node).map_or(Lsn::ZERO, |said| said.lsn)
    }

    /// Whether a read may be run there on the chance that it is far enough: one that is behind all the time is to be polled
    /// before it is asked again.
    #[must_use]
    pub fn may_ask(&self, node: &Node) -> bool {
        self.said(node).is_none_or(|said| said.credit > 0 || node.polled >= said.next)
    }

    fn said(&self, node: &Node) -> Option<&Said> {
        self.0.get(usize::from(node.id.0)).filter(|said| said.server_epoch == node.server_epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Observer;

    fn node() -> Node {
        Observer::new(&["a".into(), "b".into()]).topology().nodes[1].clone()
    }

    #[test]
    fn what_was_said_in_another_server_epoch_is_void() {
        let (mut node, mut heard) = (node(), Heard::default());
        assert_eq!(heard.of(&node), Lsn::ZERO);
        heard.note(node.id, 0, Lsn(7), None);
        heard.note(node.id, 0, Lsn(5), Some(Ticket(1)));
        assert_eq!(heard.of(&node), Lsn(7));
        node.server_epoch = 1;
        assert_eq!(heard.of(&node), Lsn::ZERO);
        heard.note(node.id, 1, Lsn(3), None);
        assert_eq!(heard.of(&node), Lsn(3));
        heard.note(node.id, 0, Lsn(9), None);
        assert_eq!(heard.of(&node), Lsn::ZERO);
    }

    #[test]
    fn who_is_behind_all_the_time_is_polled_before_it_is_asked_again() {
        let (mut node, mut heard) = (node(), Heard::default());
        for _ in 0..CREDIT {
            assert!(heard.may_ask(&node));
            heard.note(node.id, 0, Lsn(1), Some(Ticket(5)));
        }
        assert!(!heard.may_ask(&node));
        node.polled = Ticket(5);
        assert!(heard.may_ask(&node));
        heard.note(node.id, 0, Lsn(2), Some(Ticket(6)));
        assert!(!heard.may_ask(&node));
        node.polled = Ticket(6);
        heard.note(node.id, 0, Lsn(3), None);
        heard.note(node.id, 0, Lsn(3), Some(Ticket(7)));
        assert!(heard.may_ask(&node), "half of them in vain is worth it");
    }
}
