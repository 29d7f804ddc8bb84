//! The account that PostgreSQL runs under: it refuses to run as root.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// An account to run servers under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Our own.
    Own,
    /// Another one, since ours is root.
    Other {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

impl Account {
    /// Our own account, or `postgres`, or `nobody` if we are root.
    ///
    /// # Errors
    /// We are root, and there is neither `postgres` nor `nobody`.
    pub fn find() -> io::Result<Self> {
        if fs::metadata("/proc/self").map_or(1, |m| m.uid()) != 0 {
            return Ok(Self::Own);
        }
        let passwd = fs::read_to_string("/etc/passwd")?;
        ["postgres", "nobody"].iter().find_map(|name| entry(&passwd, name)).ok_or_else(|| {
            io::Error::other(
                "PostgreSQL does not run as root, and there is neither an account postgres nor nobody",
            )
        })
    }

    /// Makes a command run under the account.
    pub fn apply(self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Makes a directory belong to the account.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn own(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => chown(path, Some(uid), Some(gid)),
        }
    }
}

fn entry(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd.lines().find(|l| l.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Account::Other { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}
