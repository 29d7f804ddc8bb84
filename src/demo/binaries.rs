//! Where PostgreSQL's server programs are.

use std::io;
use std::path::PathBuf;
use std::process::Command;

/// The directory that holds `initdb`, `pg_ctl`, `postgres` and `pg_basebackup`: that of `pg_config`, else
/// the newest of the usual places.
///
/// # Errors
/// There is none.
pub fn find() -> io::Result<PathBuf> {
    let told = Command::new("pg_config").arg("--bindir").output().ok();
    let told = told.map(|o| PathBuf::from(String::from_utf8_lossy(&o.stdout).trim()));
    let mut usual: Vec<(u32, PathBuf)> = Vec::new();
    for base in
        ["/usr/lib/postgresql", "/usr/libexec/postgresql", "/opt/homebrew/opt", "/usr/local/opt", "/usr"]
    {
        let Ok(entries) = std::fs::read_dir(base) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version =
                name.trim_start_matches(|c: char| !c.is_ascii_digit()).split('.').next().map(str::parse);
            if let Some(Ok(version)) = version {
                usual.push((version, entry.path().join("bin")));
            }
        }
    }
    usual.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    told.into_iter()
        .chain(usual.into_iter().rev().map(|(_, path)| path))
        .chain(std::env::split_paths(&path))
        .find(|dir| ["initdb", "pg_ctl", "postgres", "pg_basebackup"].iter().all(|p| dir.join(p).is_file()))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "PostgreSQL's server programs (initdb, pg_ctl) are not installed: run scripts/ensure, or install your \
                 system's package postgresql",
            )
        })
}
