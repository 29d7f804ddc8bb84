"""The servers behind the proxies: a primary and two standbys in a temporary directory."""

import os
import pwd
import subprocess
import time
from pathlib import Path

from host import free_port, server_bin
from processes import tree

# A role that has to prove itself by SCRAM-SHA-256, and its password. `postgres` needs none.
ROLE = "bench"

# So many addresses has every server, those of a standby in a network of its own: to a proxy each is a node of its own.
ADDRESSES = 11

TICK = os.sysconf("SC_CLK_TCK")


def hosts(number):
    """Where the primary, which is number 0, or a standby listens."""
    return [f"127.0.{number}.{n}" for n in range(1, ADDRESSES + 1)]


class Cluster:
    """A primary and two standbys, without fsync: only the proxies are measured."""

    def __init__(self, base, scale, settings=""):
        # Of each server its directory, host and port.
        self.base, self.bin, self.nodes = base, server_bin(), []
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(base, account.pw_uid, account.pw_gid)
            base.chmod(0o755)
        try:
            self.build(scale, settings)
        except BaseException:
            self.stop()
            raise

    def build(self, scale, settings):
        primary, port = self.base / "primary", free_port()
        self.run("initdb", "-D", primary, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        self.configure(primary, 0, port, "fsync=off\nmax_connections=700\nshared_buffers=128MB\nwal_keep_size=512MB\n"
                       "max_wal_size=4GB\nhot_standby_feedback=on\nmax_wal_senders=20\n"
                       f"{settings}")
        (primary / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.0/8 trust\nhost replication postgres 127.0.0.0/8 trust\n"
            "host all all all scram-sha-256\n")
        self.start(primary, 0, port)
        # The standbys share a port, for proxies that have one for all hosts.
        shared = free_port()
        for number in (1, 2):
            data = self.base / f"replica{number}"
            self.run("pg_basebackup", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-D", data, "-R", "-X", "stream",
                     "-c", "fast", "--no-sync")
            self.configure(data, number, shared, "")
            self.start(data, number, shared)
        subprocess.run(["pgbench", "-i", "-q", "-s", str(scale), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres",
                        "postgres"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ROLE}")

    def run(self, program, *arguments):
        command = [f"{self.bin}/{program}", *map(str, arguments)]
        if self.user:
            command = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *command]
        # In a session of its own: Ctrl-C is for us, and we stop the servers.
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, start_new_session=True)

    def configure(self, data, number, port, text):
        with open(data / "postgresql.conf", "a") as file:
            file.write(f"{text}listen_addresses='{','.join(hosts(number))}'\nunix_socket_directories=''\nport={port}\n")

    def start(self, data, number, port):
        self.nodes.append((data, hosts(number)[0], port))
        self.run("pg_ctl", "-D", data, "-l", f"{data}.log", "-w", "-s", "start")

    def stop(self):
        for data, _, _ in reversed(self.nodes):
            try:
                self.run("pg_ctl", "-D", data, "-m", "immediate", "-s", "stop")
            except subprocess.CalledProcessError:
                pass

    def sql(self, text, node=0):
        """What psql prints, from the primary or the standby of that number."""
        _, host, port = self.nodes[node]
        command = ["psql", "-XqAt", "-h", host, "-p", str(port), "-U", "postgres", "-c", text]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def wait_replayed(self):
        """Waits until the standbys have all that the primary has written so far."""
        end = self.sql("SELECT pg_current_wal_lsn()")
        for node in range(1, len(self.nodes)):
            while self.sql(f"SELECT pg_last_wal_replay_lsn() >= '{end}'", node) != "t":
                time.sleep(0.1)

    def cpu(self):
        """Seconds of CPU time of all servers so far, with those of their processes that have ended."""
        total = 0
        for data, _, _ in self.nodes:
            postmaster = int((data / "postmaster.pid").read_text().split()[0])
            for pid in tree(postmaster):
                try:
                    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                total += sum(map(int, fields[11:15 if pid == postmaster else 13]))
        return total / TICK

    @property
    def port(self):
        """The primary's, at 127.0.0.1."""
        return self.nodes[0][2]

    @property
    def addresses(self):
        """Of each server one as "host:port"."""
        return [f"{host}:{port}" for _, host, port in self.nodes]

    @property
    def all_addresses(self):
        """All of the standbys'."""
        return [f"{host}:{port}" for n in range(ADDRESSES) for number, (_, _, port) in enumerate(self.nodes)
                if number for host in hosts(number)[n:n + 1]]
