"""pgbench's own loads, and logins: CPU time per transaction, latency, throughput and memory."""

from contextlib import contextmanager

from bench import Cell, Fleet
from cluster import ROLE
from load import Pgbench, quantile
from proxies import How
from report import Column

MODES = ("simple", "extended", "prepared")

# Nine reads to one write, each in a transaction of its own: weights for pgbench.
READ = "\\set aid random(1, 100000 * :scale)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
WRITE = (
    "\\set aid random(1, 100000 * :scale)\n\\set delta random(-5000, 5000)\n"
    "UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;\n"
)


class Transactions(Cell):
    """One of pgbench's scripts, in one protocol, by so many clients."""

    columns = (
        Column("cpu_us", "CPU, us", 1, ("pgbouncer", "pgbouncer-standbys"), spread=True),
        Column("p50_ms", "p50, ms", 3, ("pgbouncer", "pgbouncer-standbys")),
        Column("p99_ms", "p99, ms", 3, ("pgbouncer", "pgbouncer-standbys")),
        Column("tps", "tps", 0, ("direct",)),
        Column("rss_mib", "memory, MiB", 1),
    )

    def __init__(self, script, mode, clients):
        self.script, self.mode, self.clients = script, mode, clients
        self.name = f"{script} {mode} {clients}"
        self.about = f"pgbench, {script}, protocol {mode}, {clients} clients: CPU time of the proxy per transaction."

    def arguments(self, bench):
        kind = {"select-only": ["-S"], "tpcb-like": []}.get(self.script)
        if kind is None:
            (bench.base / "read.sql").write_text(READ)
            (bench.base / "write.sql").write_text(WRITE)
            files = [f"{bench.base}/read.sql@9", "-f", f"{bench.base}/write.sql@1"]
            kind = ["-D", f"scale={bench.options.scale}", "-f", *files]
        return [*kind, "-M", self.mode]

    def measure(self, bench, row):
        return self.load(bench, bench.running(row))

    def load(self, bench, target):
        seconds = bench.options.seconds
        before = target.cpu()
        clients = ["-c", self.clients, "-j", min(2, self.clients)]
        with Pgbench(bench.base, target, *self.arguments(bench), *clients, "-T", seconds, log=0.25) as run:
            count, rate = run.finish(seconds + 20)
            used = target.cpu() - before
            latencies = [took for _, took in run.log()]
        found = {"p50_ms": quantile(latencies, 0.50), "p99_ms": quantile(latencies, 0.99), "tps": rate}
        if target.pid:
            found.update(cpu_us=used / count * 1e6, rss_mib=target.rss() / 1024)
        return found


class Logins(Cell):
    """A login, a read and a goodbye, again and again (pgbench -C)."""

    columns = (
        Column("cpu_us", "CPU per login, us", 1, ("pgbouncer", "pgbouncer-standbys"), spread=True),
        Column("login_ms", "connecting, ms", 2, ("pgbouncer",)),
        Column("per_s", "logins per s", 0, ("pgbouncer", "pgbouncer-standbys", "direct")),
        Column("rss_mib", "memory, MiB", 1),
    )

    def __init__(self, clients, auth):
        self.clients, self.how = clients, How(auth=auth)
        self.role = ROLE if auth == "scram" else "postgres"
        self.name = f"connect {auth} {clients}"
        self.about = f"pgbench -C -S, {clients} clients with a thread each: a login by {auth}, one read, and a goodbye."
        if auth == "scram":
            self.about += (
                " The clients' hashing takes most of the machine, and is the same for all. PgBouncer has the stored "
                "verifier in its userlist, Tidegate asks the database for it; both log in to the server with the key "
                "that the client's proof leaves. HAProxy passes the login on to the server. Pgpool-II has the clear "
                "password in a file."
            )

    @contextmanager
    def prepared(self, bench):
        if self.how == How():
            self.fleet = bench.usual
            yield
        else:
            with Fleet(bench) as self.fleet:
                yield

    def measure(self, bench, row):
        return self.load(bench, self.fleet.get(row, self.how))

    def load(self, bench, target):
        seconds = bench.options.seconds
        before = target.cpu()
        clients = ["-c", self.clients, "-j", self.clients]
        with Pgbench(bench.base, target, "-S", "-C", *clients, "-T", seconds, role=self.role) as run:
            count, rate = run.finish(seconds + 20)
        used = target.cpu() - before
        found = {"login_ms": run.connecting, "per_s": rate}
        if target.pid:
            found.update(cpu_us=used / count * 1e6, rss_mib=target.rss() / 1024)
        return found


def cells():
    found = [Transactions("select-only", mode, clients) for mode in MODES for clients in (1, 16, 64)]
    found += [Transactions("tpcb-like", mode, 16) for mode in MODES]
    found += [Transactions("9:1", mode, 16) for mode in MODES]
    return [*found, Logins(8, "trust"), Logins(8, "scram")]
