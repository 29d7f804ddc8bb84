//! The startup packets that came last from clients that were let in.
//!
//! Most clients of an application send the same one, byte for byte: what it asks for need not be found out anew, and those
//! who are in have one copy of it.

use std::rc::Rc;

use super::asked::Asked;

/// Packets that are remembered.
const KEPT: usize = 16;

/// Longer ones are not.
const LONGEST: usize = 1024;

/// The startup packets that came last to a worker, and what they ask for.
#[derive(Debug, Default)]
pub struct Packets {
    kept: Vec<(Box<[u8]>, Rc<Asked>)>,
    /// The place of the one that goes next: the oldest.
    oldest: usize,
}

impl Packets {
    /// What a packet asks for, if it was there before.
    #[must_use]
    pub fn asked(&self, packet: &[u8]) -> Option<Rc<Asked>> {
        self.kept.iter().find(|(known, _)| **known == *packet).map(|(_, asked)| asked.clone())
    }

    /// Whether a packet is to be remembered: few are long.
    #[must_use]
    pub fn keeps(packet: &[u8]) -> bool {
        packet.len() <= LONGEST
    }

    /// Remembers what a packet asks for, instead of the oldest if there are many.
    pub fn remember(&mut self, packet: Box<[u8]>, asked: &Rc<Asked>) {
        // Another one with the same may have been let in meanwhile.
        if self.asked(&packet).is_some() {
            return;
        }
        let new = (packet, asked.clone());
        match self.kept.get_mut(self.oldest) {
            Some(place) => *place = new,
            None => self.kept.push(new),
        }
        self.oldest = (self.oldest + 1) % KEPT;
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::build;
    use crate::wire::startup::{First, parse};

    fn packet(user: &str) -> BytesMut {
        let mut packet = BytesMut::new();
        build::startup(&mut packet, &[("user", user)]);
        packet
    }

    fn remember(packets: &mut Packets, packet: &[u8]) {
        let Ok(First::Startup { minor, parameters }) = parse(packet) else { panic!("{packet:?}") };
        packets.remember(packet.into(), &Rc::new(Asked::read(minor, parameters).unwrap()));
    }

    #[test]
    fn the_last_ones_are_known_byte_for_byte() {
        let mut packets = Packets::default();
        let name = |number: usize| format!("user{number}");
        for number in 0..KEPT + 3 {
            remember(&mut packets, &packet(&name(number)));
            remember(&mut packets, &packet(&name(number)));
        }
        for number in 0..KEPT + 3 {
            let user = packets.asked(&packet(&name(number))).map(|asked| asked.user.to_string());
            assert_eq!(user, (number >= 3).then(|| name(number)));
        }
        assert!(packets.asked(&packet("USER5")).is_none());
        assert_eq!(packets.kept.len(), KEPT);
    }

    #[test]
    fn a_long_one_is_not_to_be_kept() {
        let lengths = [1, LONGEST].map(|length| packet(&"x".repeat(length)));
        assert_eq!(lengths.map(|packet| Packets::keeps(&packet)), [true, false]);
    }
}
