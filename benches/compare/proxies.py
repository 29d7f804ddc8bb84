"""How each proxy is configured and started. All get 100 server connections, and as many clients as anybody brings."""

import os
import re
import subprocess
from dataclasses import dataclass

from cluster import ROLE
from host import TIDEGATE, Failed, free_port, wait_port
from processes import Target

POOL = 100
CLIENTS = 12000
# Prepared statements that a server connection may have.
STATEMENTS = 100


@dataclass(frozen=True)
class How:
    """What a cell wants otherwise than usual."""

    # "trust", or "scram": then ROLE logs in with its password.
    auth: str = "trust"
    # Prepared statements per server connection, where a proxy has a limit.
    statements: int = STATEMENTS
    # Tidegate's nodes as "address:port"; None for the cluster's servers.
    nodes: tuple = None
    # Further lines of Tidegate's configuration.
    freshness: str = ""


def start(name, port, command, base, as_user=None):
    log = open(base / f"{name}.log", "ab")
    if as_user and os.geteuid() == 0:
        command = ["setpriv", f"--reuid={as_user}", f"--regid={as_user}", "--clear-groups", *command]
    child = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, start_new_session=True, cwd="/")
    target = Target(name, port, child)
    try:
        wait_port(port, name, child)
    except BaseException:
        target.stop()
        raise
    return target


def verifier(cluster):
    """What PostgreSQL stores of ROLE's password."""
    return cluster.sql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'")


class Tidegate:
    """One build of it; with as many workers as it likes, if nothing else is said."""

    def __init__(self, name="tidegate", binary=TIDEGATE, workers=None):
        self.name, self.binary, self.workers = name, binary, workers

    def start(self, cluster, base, how=How()):
        port, http = free_port(), free_port()
        command = [self.binary, "run", "--listen", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{http}"]
        if how.auth == "trust":
            command += ["--auth", "trust"]
        for node in how.nodes or cluster.addresses:
            command += ["--node", f"postgres://postgres@{node}/postgres"]
        config = base / f"{self.name}-{port}.toml"
        lines = [
            f"workers = {self.workers}" if self.workers else "", "[freshness]",
            how.freshness, "[pool]", f"size = {POOL}", f"max_clients = {CLIENTS}",
            f"prepared_statements = {how.statements}",
        ]
        config.write_text("\n".join(lines) + "\n")
        target = start(self.name, port, [*command, "--config", config], base)
        target.http = http
        return target


class PgBouncer:
    """In transaction mode, in front of the primary."""

    name = "pgbouncer"
    # What the names of the cells begin with that it is measured in.
    cells = ("",)
    # Server connections per process, and further lines of its configuration.
    pool, further = POOL, ()

    def __init__(self, program="pgbouncer"):
        self.program = program

    def servers(self, cluster):
        return f"host=127.0.0.1 port={cluster.port}"

    def start(self, cluster, base, how=How()):
        port = free_port()
        config, users = base / f"{self.name}-{port}.ini", base / f"userlist-{port}.txt"
        users.write_text('"postgres" ""\n' if how.auth == "trust" else f'"{ROLE}" "{verifier(cluster)}"\n')
        auth = "trust" if how.auth == "trust" else "scram-sha-256"
        lines = [
            "[databases]", f"* = {self.servers(cluster)}", "[pgbouncer]", "listen_addr = 127.0.0.1",
            f"listen_port = {port}", "listen_backlog = 4096", "unix_socket_dir =", f"auth_type = {auth}",
            f"auth_file = {users}", "pool_mode = transaction", f"default_pool_size = {self.pool}",
            f"max_client_conn = {CLIENTS}", "log_connections = 0", "log_disconnections = 0",
            "ignore_startup_parameters = extra_float_digits", *self.further,
        ]
        # Before that prepared statements do not work through it.
        if self.version() >= (1, 21):
            lines.append(f"max_prepared_statements = {how.statements}")
        config.write_text("\n".join(lines) + "\n")
        return self.launch(port, config, base)

    def version(self):
        """As (1, 25, 0)."""
        said = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout
        return tuple(int(part) for part in re.search(r"(\d+(?:\.\d+)+)", said)[1].split("."))

    def launch(self, port, config, base):
        return start(self.name, port, [self.program, config], base, "postgres")


class PgBouncerTwice(PgBouncer):
    """Two processes that share a port, as many as Tidegate has workers on two cores: the kernel deals the clients."""

    name = "pgbouncer-twice"
    cells = ("select-only", "tpcb-like", "9:1", "connect")

    pool, further = POOL // 2, ("so_reuseport = 1",)

    def launch(self, port, config, base):
        # The shell is the one child whose descendants count.
        command = f"{self.program} {config} & {self.program} {config} & wait"
        target = start(self.name, port, ["sh", "-c", command], base, "postgres")
        if len(target.pids()) != 3:
            target.stop()
            raise Failed("one of the two has ended")
        return target


class PgBouncerStandbys(PgBouncer):
    """In front of the standbys, which it takes in turn: it reads where Tidegate reads, and cannot write."""

    name = "pgbouncer-standbys"
    cells = ("select-only", "connect")

    def servers(self, cluster):
        _, first, second = cluster.addresses
        host, port = second.split(":")
        return f"host={first.split(':')[0]},{host} port={port}"


class HAProxy:
    """As a tunnel to the primary: a server connection for each client."""

    name = program = "haproxy"

    def server(self, cluster):
        return f"127.0.0.1:{cluster.port}"

    def start(self, cluster, base, how=How()):
        port = free_port()
        config = base / f"{self.name}-{port}.cfg"
        config.write_text(
            "global\n maxconn 9000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n"
            f"frontend f\n bind 127.0.0.1:{port}\n default_backend b\n"
            f"backend b\n server s {self.server(cluster)}\n")
        return start(self.name, port, ["haproxy", "-f", config], base)


class HAProxyStandby(HAProxy):
    """To a standby, where Tidegate reads."""

    name = "haproxy-standby"
    cells = ("bulk copy out", "bulk select")

    def server(self, cluster):
        return cluster.addresses[1]


class Pgpool:
    """With reads on the standbys, as Tidegate has them: a process and server connections for each client."""

    name = program = "pgpool"

    def start(self, cluster, base, how=How()):
        port = free_port()
        folder = base / f"pgpool-{port}"
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        config = folder / "pgpool.conf"
        lines = [
            "backend_clustering_mode = 'streaming_replication'", "listen_addresses = '127.0.0.1'", f"port = {port}",
            f"unix_socket_directories = '{folder}'", f"pcp_socket_dir = '{folder}'", f"pcp_port = {free_port()}",
            "num_init_children = 80", "load_balance_mode = on", "sr_check_period = 1", "sr_check_user = 'postgres'",
            "sr_check_database = 'postgres'", "health_check_period = 0", f"pid_file_name = '{folder}/pgpool.pid'",
            f"logdir = '{folder}'", "memory_cache_enabled = off",
        ]
        if how.auth == "scram":
            # It needs the clear password: SCRAM cannot be passed on to several servers.
            (folder / "pool_passwd").write_text(f"{ROLE}:TEXT{ROLE}\n")
            (folder / "pool_hba.conf").write_text(f"host all {ROLE} 127.0.0.0/8 scram-sha-256\n")
            lines += ["enable_pool_hba = on", "pool_passwd = 'pool_passwd'"]
        else:
            lines += ["enable_pool_hba = off", "pool_passwd = ''"]
        for number, node in enumerate(cluster.addresses):
            host, own = node.split(":")
            lines += [f"backend_hostname{number} = '{host}'", f"backend_port{number} = {own}",
                      f"backend_weight{number} = 1", f"backend_flag{number} = 'ALLOW_TO_FAILOVER'"]
        config.write_text("\n".join(lines) + "\n")
        command = ["pgpool", "-n", "-f", config, "-a", folder / "pool_hba.conf"]
        return start(self.name, port, command, base, "postgres")


class Direct:
    """PostgreSQL's primary itself."""

    name = "direct"

    def start(self, cluster, base, how=How()):
        return Target(self.name, cluster.port)


class Running:
    """A proxy that somebody else has started, and will stop."""

    def __init__(self, name, port, pid):
        self.name, self.port, self.pid = name, int(port), int(pid)

    def start(self, cluster, base, how=How()):
        if how != How():
            raise Failed("runs already, and not as this cell wants it")
        return Target(self.name, self.port, pid=self.pid)
