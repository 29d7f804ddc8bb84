//! The demo, as a user runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidegate::demo::cluster::wait_until;

use crate::support::proxy::signal;

fn demo(temporary: &Path) -> Command {
    fs::create_dir_all(temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("demo").env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

/// A place that the servers' account may enter, whoever runs the test.
fn place(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("tidegate-test-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&dir, all).unwrap();
    dir
}

#[test]
fn an_unattended_run_ends_with_one_json_object_and_leaves_nothing_behind() {
    let dir = place("json");
    let out = demo(&dir).args(["--seconds", "4", "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(out.status.code(), Some(0), "{last}");
    for key in ["reads", "reads_on_replicas", "writes"] {
        assert!(last[key].as_u64().unwrap() > 0, "{key}: {last}");
    }
    for key in ["stale_reads", "errors"] {
        assert_eq!(last[key], 0, "{last}");
    }
    assert!(last["reads_on_primary"].is_object(), "{last}");
    assert!(last["max_lag_seconds"].as_f64().unwrap() > 0.1, "one replica lags on purpose: {last}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "all is cleaned up");
    fs::remove_dir(&dir).unwrap();
}

#[test]
fn whatever_ends_the_demo_ends_all_that_it_started() {
    for end in ["-INT", "-KILL"] {
        let dir = place(&format!("end{end}"));
        let mut child = demo(&dir).stdout(Stdio::null()).spawn().unwrap();
        let guarded = || {
            let cluster = fs::read_dir(&dir).ok()?.next()?.ok()?.path();
            let proxy = fs::read_dir(cluster.join("guarded")).ok()?.next()?.ok()?.path();
            let pids = [proxy, cluster.join("primary/postmaster.pid")].map(|file| {
                fs::read_to_string(file).ok().and_then(|text| Some(text.lines().next()?.to_owned()))
            });
            Some((pids[0].clone()?, pids[1].clone()?))
        };
        wait_until("the demo runs", || guarded().is_some()).unwrap();
        let (proxy, server) = guarded().unwrap();
        signal(end, child.id());
        child.wait().unwrap();
        let is_there = |pid: &str| {
            // A process that has ended and that nobody has asked about is gone, too.
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        wait_until("everything is gone", || {
            !is_there(&proxy) && !is_there(&server) && fs::read_dir(&dir).unwrap().count() == 0
        })
        .unwrap();
        fs::remove_dir(&dir).unwrap();
    }
}
