//! How many files may be open: every client and every server connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::client::logins::LINE;
use crate::config::Settings;

/// Files besides those of clients and pools: 128 of HTTP, and entrances, the catalogs of some databases, whatever is opened
/// for a moment.
const OWN: u64 = 192;

/// Those by which a worker hears of events and sends.
const WORKER: u64 = 6;

/// Files for a node besides the pool's connections: the monitor's and its timer, that for roles, cancel requests.
const BESIDE_POOL: u64 = 8;

/// Raises the limit as far as an unprivileged process may. Shells and service managers set a low one for the sake of
/// programs that use `select(2)`, and leave the rest to whoever does not.
pub(super) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
}

/// Lets in no more clients than there are files for: whoever comes then is told so. At the limit itself nobody would be
/// accepted or told anything, and no server could be dialled for those who are in. Servers may have half of them: who wants
/// more would have nobody to use them.
pub(super) fn fit(settings: &mut Settings, nodes: usize, workers: usize) {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    let wanted = Room { clients: settings.max_clients, logins: settings.auth.max_logins };
    let others = (OWN + WORKER.saturating_mul(count(workers)))
        .saturating_add(count(nodes).saturating_mul(count(settings.pool_size).saturating_add(BESIDE_POOL)));
    let room = wanted.within(limit.saturating_sub(others.min(limit / 2)));
    let needed = others.saturating_add(wanted.files());
    if room.clients < wanted.clients {
        tracing::warn!(
            limit,
            needed,
            max_clients = room.clients,
            max_logins = room.logins,
            "the limit on open files leaves room for fewer clients: raise it (ulimit -n, LimitNOFILE=), or lower \
             pool.max_clients, auth.max_logins or pool.size"
        );
    } else if room != wanted {
        tracing::info!(
            limit,
            needed,
            max_logins = room.logins,
            "the limit on open files leaves room for fewer who log in, or wait to"
        );
    }
    (settings.max_clients, settings.auth.max_logins) = (room.clients, room.logins);
}

/// Who may be there at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    clients: usize,
    logins: usize,
}

impl Room {
    /// The files that they take, with those who wait to log in.
    fn files(self) -> u64 {
        count(self.clients).saturating_add(count(self.logins).saturating_mul(1 + count(LINE)))
    }

    /// As much of it as so many files are enough for: a quarter is left to those who are not in yet, or what clients leave.
    fn within(self, files: u64) -> Self {
        if self.files() <= files {
            return self;
        }
        let for_logins = (files / 4).max(files.saturating_sub(count(self.clients)));
        let logins = self.logins.min(number(for_logins / (1 + count(LINE)))).max(1);
        let left = files.saturating_sub(Self { clients: 0, logins }.files());
        Self { clients: self.clients.min(number(left)).max(1), logins }
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn number(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_come_in_fits_into_the_files_there_are() {
        let usual = Room { clients: 10_000, logins: 1_000 };
        assert_eq!(usual.files(), 21_000);
        for files in [21_000, 1_000_000, u64::MAX] {
            assert_eq!(usual.within(files), usual);
        }
        for files in [20_999, 10_000, 4_000, 1_000, 100, 12] {
            let room = usual.within(files);
            assert!(room.files() <= files && room.files() + 44 > files, "{files}: {room:?}");
            assert!(room.clients >= room.logins, "{files}: {room:?}");
        }
        // Somebody has to be let in, whatever comes of it.
        assert_eq!(usual.within(0), Room { clients: 1, logins: 1 });
        // What is wanted is not exceeded.
        let few = Room { clients: 5, logins: 2_000 };
        assert_eq!(few.within(10_000), Room { clients: 5, logins: 908 });
    }

    #[test]
    fn the_limit_is_raised_to_what_it_may_be() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
