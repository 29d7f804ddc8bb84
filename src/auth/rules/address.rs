//! The addresses that a rule is for.

use std::net::{IpAddr, Ipv6Addr};

/// A set of client addresses. An IPv4 address that is written as IPv6 (`::ffff:10.0.0.1`) is the
/// IPv4 address: a socket that listens on `::` shows clients that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// `all`.
    All,
    /// IPv4 addresses that agree with `net` in the bits of `mask`.
    V4 {
        /// An address of the set.
        net: u32,
        /// The bits that count; PostgreSQL lets them be any.
        mask: u32,
    },
    /// The same for IPv6.
    V6 {
        /// An address of the set.
        net: u128,
        /// The bits that count.
        mask: u128,
    },
}

/// The first 96 bits, in which an IPv4 address that is written as IPv6 has no choice.
const MAPPED: u128 = u128::MAX << 32;

impl Addresses {
    /// An address with the number of its bits that count, in decimal (`pg_sockaddr_cidr_mask`).
    /// `None` if it is no number, or too large.
    #[must_use]
    pub fn cidr(address: IpAddr, bits: &str) -> Option<Self> {
        let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        let bits: u32 = digits.then(|| bits.parse().ok())??;
        match address {
            IpAddr::V4(net) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                Some(Self::V4 { net: net.to_bits(), mask })
            }
            IpAddr::V6(net) if bits <= 128 => Self::v6(net, u128::MAX.checked_shl(128 - bits).unwrap_or(0)),
            _ => None,
        }
    }

    /// An address with a mask. `None` if they are of different families.
    #[must_use]
    pub fn masked(address: IpAddr, mask: IpAddr) -> Option<Self> {
        match (address, mask) {
            (IpAddr::V4(net), IpAddr::V4(mask)) => {
                Some(Self::V4 { net: net.to_bits(), mask: mask.to_bits() })
            }
            (IpAddr::V6(net), IpAddr::V6(mask)) => Self::v6(net, mask.to_bits()),
            _ => None,
        }
    }

    /// `None` for IPv4 written as IPv6 with a mask that says less than "IPv4": such clients count as
    /// IPv4, and would pass by the rule.
    fn v6(net: Ipv6Addr, mask: u128) -> Option<Self> {
        match net.to_ipv4_mapped() {
            None => Some(Self::V6 { net: net.to_bits(), mask }),
            Some(net) if mask & MAPPED == MAPPED => Some(Self::V4 { net: net.to_bits(), mask: low(mask) }),
            Some(_) => None,
        }
    }

    /// Whether an address is among them. As in PostgreSQL, no IPv4 address is in an IPv6 range,
    /// nor the other way round.
    #[must_use]
    pub fn hold(self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::All, _) => true,
            (Self::V4 { net, mask }, IpAddr::V4(address)) => (address.to_bits() ^ net) & mask == 0,
            (Self::V6 { net, mask }, IpAddr::V6(address)) => (address.to_bits() ^ net) & mask == 0,
            _ => false,
        }
    }
}

/// The last 32 bits.
const fn low(bits: u128) -> u32 {
    let [.., a, b, c, d] = bits.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn bits_and_masks_say_the_same() {
        for (address, bits, mask, inside, outside) in [
            ("10.1.2.3", "8", "255.0.0.0", "10.255.0.0", "11.0.0.0"),
            ("10.1.2.3", "32", "255.255.255.255", "10.1.2.3", "10.1.2.2"),
            ("10.1.2.3", "0", "0.0.0.0", "255.255.255.255", "::"),
            ("fe80::1", "10", "ffc0::", "febf::", "fec0::"),
            ("fe80::1", "128", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::1", "fe80::2"),
            ("::", "0", "::", "ffff::", "0.0.0.0"),
            ("::ffff:10.0.0.0", "104", "ffff:ffff:ffff:ffff:ffff:ffff:ff00:0", "10.9.9.9", "11.0.0.0"),
        ] {
            let set = Addresses::cidr(ip(address), bits).unwrap();
            assert_eq!(Some(set), Addresses::masked(ip(address), ip(mask)), "{address}/{bits}");
            assert!(set.hold(ip(inside)), "{address}/{bits}");
            assert!(!set.hold(ip(outside)), "{address}/{bits}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for (address, bits) in [
            ("10.0.0.0", "33"),
            ("::", "129"),
            ("::", ""),
            ("::", "+8"),
            ("::", "-1"),
            ("::", "8 "),
            ("::", "x"),
        ] {
            assert_eq!(Addresses::cidr(ip(address), bits), None, "{address}/{bits}");
        }
        assert_eq!(Addresses::masked(ip("10.0.0.0"), ip("ff00::")), None);
        // It would look like all of IPv4, and hold none of it.
        assert_eq!(Addresses::cidr(ip("::ffff:0.0.0.0"), "90"), None);
    }

    proptest! {
        #[test]
        fn ipv4_is_the_same_in_both_writings(net: u32, address: u32, bits in 0_u32..=32) {
            let (net, address) = (Ipv4Addr::from_bits(net), Ipv4Addr::from_bits(address));
            let plain = Addresses::cidr(net.into(), &bits.to_string()).unwrap();
            let mapped = Addresses::cidr(net.to_ipv6_mapped().into(), &(bits + 96).to_string()).unwrap();
            prop_assert_eq!(plain, mapped);
            prop_assert!(plain.hold(net.into()));
            prop_assert_eq!(plain.hold(address.into()), plain.hold(address.to_ipv6_mapped().into()));
            let agree = (net.to_bits() ^ address.to_bits()).leading_zeros() >= bits;
            prop_assert_eq!(plain.hold(address.into()), agree);
        }
    }
}
