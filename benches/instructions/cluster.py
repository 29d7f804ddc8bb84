"""A primary and two standbys in a folder, with pgbench's tables, without fsync: only the proxy is counted."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
from pathlib import Path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def server_bin():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    path = str(found[-1].parent) if found else os.path.dirname(shutil.which("initdb") or "")
    if not path:
        sys.exit("instructions: PostgreSQL's server programs are missing: run `make bench-instructions`")
    return path


class Cluster:
    def __init__(self, base):
        self.bin, self.nodes = server_bin(), []
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(base, account.pw_uid, account.pw_gid)
            base.chmod(0o755)
        try:
            self.build(base)
        except BaseException:
            self.stop()
            raise

    def build(self, base):
        primary, port = base / "primary", free_port()
        self.run("initdb", "-D", primary, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        # Autovacuum would come when it likes, and let a standby fall behind.
        self.configure(primary, port, "fsync=off\nautovacuum=off\nwal_keep_size=512MB\nhot_standby_feedback=on\n"
                       f"listen_addresses='127.0.0.1'\nunix_socket_directories='{base}'\n")
        self.start(primary, port)
        for number in (1, 2):
            data, own = base / f"replica{number}", free_port()
            self.run("pg_basebackup", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-D", data, "-R", "-X", "stream",
                     "-c", "fast", "--no-sync")
            self.configure(data, own, "")
            self.start(data, own)
        subprocess.run(["pgbench", "-i", "-q", "-s", "1", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "postgres"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def run(self, program, *arguments):
        command = [f"{self.bin}/{program}", *map(str, arguments)]
        if self.user:
            command = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *command]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL)

    def configure(self, data, port, text):
        with open(data / "postgresql.conf", "a") as file:
            file.write(f"{text}port={port}\n")

    def start(self, data, port):
        self.run("pg_ctl", "-D", data, "-l", f"{data}.log", "-w", "-s", "start")
        self.nodes.append((data, port))

    def stop(self):
        for data, _ in reversed(self.nodes):
            try:
                self.run("pg_ctl", "-D", data, "-m", "immediate", "-s", "stop")
            except subprocess.CalledProcessError:
                pass

    @property
    def ports(self):
        return [port for _, port in self.nodes]
