//! Positions in the primary's write-ahead log, and what a session must be able to see.
//!
//! A bare [`Lsn`] orders positions on one timeline only. After a promotion two servers can
//! hold different rows below the same number, so everything that outlives one poll is a
//! [`Token`], which carries the epoch and the timeline that its LSN belongs to.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// Default `wal_block_size`, in bytes. `SHOW wal_block_size` tells a server's own.
pub const DEFAULT_WAL_BLOCK_SIZE: u64 = 8192;

/// Default `wal_segment_size`, in bytes. `SHOW wal_segment_size` tells a server's own.
pub const DEFAULT_WAL_SEGMENT_SIZE: u64 = 16 * 1024 * 1024;

/// `SizeOfXLogShortPHD` in PostgreSQL's `access/xlog_internal.h`: the header of a WAL page.
const SHORT_PAGE_HEADER: u64 = 24;

/// `SizeOfXLogLongPHD` in PostgreSQL's `access/xlog_internal.h`: the header of a segment's first page.
const LONG_PAGE_HEADER: u64 = 40;

/// A number for the time between two changes of primary, as this process counts them.
///
/// A lost or replaced primary begins a new epoch: positions of two epochs are never compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// A PostgreSQL timeline id (`TimeLineID`); 0 stands for one that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(pub u32);

/// The number of one poll of one node: "the first poll of that node sent after now".
///
/// A ticket turns into a position when the poll of that number, or a later one, has returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a session must be able to see: a position together with where it is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// The epoch in which the position was read.
    pub epoch: Epoch,
    /// The timeline that the position lies on.
    pub timeline: Timeline,
    /// The position itself.
    pub lsn: Lsn,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.epoch.0, self.timeline.0, self.lsn)
    }
}

/// A byte position in the write-ahead log, as PostgreSQL's type `pg_lsn`.
///
/// Compare two of them only where both are known to be of one timeline: see [`Token`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position that every server has reached; PostgreSQL's `InvalidXLogRecPtr`.
    pub const ZERO: Self = Self(0);

    /// Steps back over a page header that this *insert* position may stand behind.
    ///
    /// `pg_current_wal_insert_lsn()` tells where the next record would start. If the last
    /// record ended at the very end of a page, that is behind the next page's header, where
    /// no standby's replay position can get until more is written: on a quiet server a wait
    /// of 15 s. No record ends inside a page header, so nothing is lost by stepping back.
    #[must_use]
    pub fn before_page_header(self, geometry: WalGeometry) -> Self {
        let in_segment = self.0 % geometry.segment_size;
        let in_block = self.0 % geometry.block_size;
        if in_segment == LONG_PAGE_HEADER {
            Self(self.0 - LONG_PAGE_HEADER)
        } else if in_block == SHORT_PAGE_HEADER {
            Self(self.0 - SHORT_PAGE_HEADER)
        } else {
            self
        }
    }

    /// How many bytes `self` is ahead of `behind`; 0 if it is not ahead.
    #[must_use]
    pub fn bytes_ahead_of(self, behind: Self) -> u64 {
        self.0.saturating_sub(behind.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not of the form `XXXXXXXX/XXXXXXXX` (one to eight hexadecimal digits each).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLsnError;

impl fmt::Display for ParseLsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a WAL position of the form 16/B374D848")
    }
}

impl std::error::Error for ParseLsnError {}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    /// Reads what `pg_lsn_in` (`pg_lsn.c`) reads: one to eight hexadecimal digits, a slash, the same again.
    fn from_str(text: &str) -> Result<Self, ParseLsnError> {
        let (high, low) = text.split_once('/').ok_or(ParseLsnError)?;
        Ok(Self((half(high)? << 32) | half(low)?))
    }
}

fn half(digits: &str) -> Result<u64, ParseLsnError> {
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ParseLsnError);
    }
    u64::from_str_radix(digits, 16).map_err(|_| ParseLsnError)
}

/// The sizes that decide where WAL page headers stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalGeometry {
    /// `wal_block_size`, in bytes; a power of two.
    pub block_size: u64,
    /// `wal_segment_size`, in bytes; a power of two of at least 1 MiB.
    pub segment_size: u64,
}

impl WalGeometry {
    /// Takes a server's own sizes; `None` unless both are powers of two and a segment holds whole blocks.
    #[must_use]
    pub fn new(block_size: u64, segment_size: u64) -> Option<Self> {
        let sound = block_size.is_power_of_two()
            && segment_size.is_power_of_two()
            && block_size > LONG_PAGE_HEADER
            && segment_size >= block_size;
        sound.then_some(Self { block_size, segment_size })
    }
}

impl Default for WalGeometry {
    fn default() -> Self {
        Self { block_size: DEFAULT_WAL_BLOCK_SIZE, segment_size: DEFAULT_WAL_SEGMENT_SIZE }
    }
}

/// How far a replica must have replayed for a read, which it is asked for in front of it: unless it says so, nobody is to see
/// its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof(NonZeroU64);

impl Proof {
    /// That it has replayed so much; `None` if that is nothing.
    #[must_use]
    pub fn of(need: Lsn) -> Option<Self> {
        NonZeroU64::new(need.0).map(Self)
    }

    /// Whether it is given by what the replica has said.
    #[must_use]
    pub fn is_given(self, said: Option<Lsn>) -> bool {
        said.is_some_and(|lsn| lsn.0 >= self.0.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().map(|l| l.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("0/00000028".parse(), Ok(Lsn(0x28)));
    }

    #[test]
    fn what_postgres_refuses_is_refused() {
        for text in ["", "/", "0/", "/0", "0", "g/0", "0/123456789", "+1/0", "0 /0", "0/0/0"] {
            assert_eq!(text.parse::<Lsn>(), Err(ParseLsnError), "{text}");
        }
    }

    #[test]
    fn a_position_behind_a_page_header_steps_back_to_the_boundary() {
        let geometry = WalGeometry::default();
        // Both pairs were seen on a real server: after pg_switch_wal(), and a record ending at a page end.
        assert_eq!(Lsn(0x500_0028).before_page_header(geometry), Lsn(0x500_0000));
        assert_eq!(Lsn(0x500_2018).before_page_header(geometry), Lsn(0x500_2000));
        assert_eq!(Lsn(0x500_2028).before_page_header(geometry), Lsn(0x500_2028));
        assert_eq!(Lsn(0x500_2000).before_page_header(geometry), Lsn(0x500_2000));
    }

    #[test]
    fn what_was_not_said_is_not_proven() {
        let proof = Proof::of(Lsn(7)).unwrap();
        assert!(proof.is_given(Some(Lsn(7))) && proof.is_given(Some(Lsn(8))));
        assert!(!proof.is_given(Some(Lsn(6))) && !proof.is_given(None));
        assert_eq!(Proof::of(Lsn::ZERO), None);
    }
}
