"""What this machine has and gives: programs, ports, open files, and the machine itself in one line."""

import os
import platform
import resource
import shutil
import socket
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What `make release` builds, and users get.
TIDEGATE = ROOT / "target" / "pgo" / "tidegate"


class Failed(Exception):
    """Something could not be measured: shown in the table in place of figures."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, what, child=None):
    """Waits until somebody listens on the port, or until the child that should has ended."""
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if child and child.poll() is not None:
                break
            time.sleep(0.05)
    raise Failed(f"{what} does not answer on port {port}")


def server_bin():
    """Where initdb, pg_ctl and the others are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    path = str(found[-1].parent) if found else os.path.dirname(shutil.which("initdb") or "")
    if not path:
        raise Failed("PostgreSQL's server programs are missing: run `make bench-compare`")
    return path


def raise_open_files():
    """As many files as the hard limit allows, for us and all that we start. Returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def machine():
    return f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
