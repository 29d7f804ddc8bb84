"""What must not make transactions dearer: many statements, many shapes, many nodes, many who wait.

Each cell has the same load twice for each proxy, without and with what it is about, in turn; the ratio is that of the
second to the first. The load is pgbench with 8 clients. Proxies get some seconds to see each statement on each server
connection before anything counts: what is measured is the steady state.
"""

import time
from contextlib import ExitStack, contextmanager

from bench import Cell, Fleet
from crowd import Crowd
from host import Failed
from load import Pgbench
from proxies import How
from report import ITSELF, Column

CLIENTS = 8
# Statements in a script, and how many scripts there are: pgbench takes 128.
EACH = 100
STATEMENTS, SHAPES = 1_000, 10_000
NODES = 20
WAITING = 1_000
# Seconds without load.
REST = 2

COLUMNS = (
    Column("cpu_us", "CPU per statement, us", 2, (ITSELF,), spread=True),
    Column("per_s", "statements per s", 0, (ITSELF,)),
    Column("rss_mib", "memory, MiB", 1, (ITSELF,)),
)


def scripts(base, name, count, statement):
    """Files for pgbench that hold `count` statements altogether, each with a random account."""
    each, files = min(count, EACH), []
    for first in range(0, count, each):
        path = base / f"{name}-{first}.sql"
        account = "\\set aid random(1, 100000)\n"
        path.write_text("".join(f"{account}{statement(number)};\n" for number in range(first, first + each)))
        files += ["-f", path]
    return files, each


def plain(number):
    return "SELECT abalance FROM pgbench_accounts WHERE aid = :aid"


def renamed(number):
    """A statement like no other, whatever literals are worth."""
    return f"SELECT abalance AS shape{number:05} FROM pgbench_accounts WHERE aid = :aid"


def steady(bench, target, files, each, mode, warm):
    """CPU time per statement and statements per second, once `warm` seconds are over."""
    seconds = bench.options.seconds
    with Pgbench(bench.base, target, *files, "-M", mode, "-c", CLIENTS, "-j", 2, "-T", warm + seconds + 1, log=1) as load:
        time.sleep(warm + 0.5)
        before, began = target.cpu(), time.time()
        time.sleep(seconds)
        used, ended = target.cpu() - before, time.time()
        load.finish(60)
        count = each * sum(began <= at < ended for at, _ in load.log())
    if not count:
        raise Failed("no script ended in time: the statements are too slow")
    return {"cpu_us": used / count * 1e6, "per_s": count / (ended - began), "rss_mib": target.rss() / 1024}


def builds(bench):
    """All builds of Tidegate."""
    return [maker for maker in bench.makers if hasattr(maker, "workers")]


def others(bench, *names):
    return [maker for maker in bench.makers if maker.name in names]


class Flat(Cell):
    """Rows without and with what the cell is about, for each of some proxies."""

    what = ""

    columns = COLUMNS

    def proxies(self, bench):
        return builds(bench)

    def rows(self, bench):
        found = {}
        for maker in self.proxies(bench):
            found[maker.name] = (maker, False)
            found[f"{maker.name}, {self.what}"] = (maker, True)
        return found


class Statements(Flat):
    """Prepared statements: one on each connection, or a thousand."""

    name, what = "flat statements", f"{STATEMENTS:,} statements"
    about = (
        f"One prepared statement per connection, or {STATEMENTS:,} in random runs of {EACH}. Proxies may keep "
        f"{2 * STATEMENTS:,} on a server connection (Tidegate's pool.prepared_statements, PgBouncer's "
        "max_prepared_statements), so that none has to be prepared again; `evicting` is with room for "
        f"{STATEMENTS // 2} only, which is Tidegate's default."
    )

    def proxies(self, bench):
        # HAProxy, which looks at nothing, shows what the load alone makes of it; PgBouncer before 1.21 fails.
        return others(bench, "pgbouncer", "haproxy") + builds(bench)

    def rows(self, bench):
        found = super().rows(bench)
        return found | {f"{maker.name}, evicting": (maker, None) for maker in builds(bench)}

    @contextmanager
    def prepared(self, bench):
        self.one = scripts(bench.base, "one", 1, plain)
        self.many = scripts(bench.base, "many", STATEMENTS, renamed)
        with Fleet(bench) as self.fleet:
            yield

    def measure(self, bench, row):
        maker, many = row
        target = self.fleet.get(maker, How(statements=STATEMENTS // 2 if many is None else 2 * STATEMENTS))
        files, each = self.one if many is False else self.many
        return steady(bench, target, files, each, "prepared", 4)


class Shapes(Flat):
    """Texts of the simple protocol: one, or ten thousand."""

    name, what = "flat shapes", f"{SHAPES:,} shapes"
    about = (
        f"Simple protocol: one text but for its literal, or {SHAPES:,} that differ in a column's alias besides "
        f"(fingerprints of their own), in random runs of {EACH}."
    )

    def proxies(self, bench):
        return others(bench, "pgbouncer") + builds(bench)

    @contextmanager
    def prepared(self, bench):
        self.one = scripts(bench.base, "one", 1, plain)
        self.many = scripts(bench.base, "shapes", SHAPES, renamed)
        yield

    def measure(self, bench, row):
        maker, many = row
        files, each = self.many if many else self.one
        return steady(bench, bench.running(maker), files, each, "simple", 1)


class Nodes(Flat):
    """Nodes: three, or twenty."""

    name, what = "flat nodes", f"{NODES} nodes"
    about = (
        f"Prepared statements through 3 nodes, or {NODES}: the primary once, and the two standbys at all the "
        "addresses where they listen. Each address is a node to Tidegate, with polls and connections "
        "of its own, although two servers stand behind the 19."
    )

    @contextmanager
    def prepared(self, bench):
        nodes = [bench.cluster.addresses[0], *bench.cluster.all_addresses]
        self.how = How(nodes=tuple(nodes[:NODES]))
        self.one = scripts(bench.base, "one", 1, plain)
        with Fleet(bench) as self.fleet:
            yield

    def measure(self, bench, row):
        maker, many = row
        target = self.fleet.get(maker, self.how if many else How())
        return steady(bench, target, *self.one, "prepared", 2)


class Waiting(Flat):
    """Sessions that wait for freshness: none, or a thousand."""

    name, what = "flat waiting", f"{WAITING:,} wait"
    about = (
        f"Prepared statements of sessions that have written nothing, while none or {WAITING:,} other sessions that "
        "have written wait to read: replay is paused on both standbys in both rows, and freshness.replica_wait is 10 "
        "min. `without load` is the CPU time for nothing but their waiting. Those who wait get their answers once "
        "replay goes on: that all do is looked at."
    )
    columns = (
        *COLUMNS,
        Column("rest_percent", "CPU without load, % of a core", 1, (ITSELF,)),
        Column("freed_s", "all answered after, s", 2),
    )

    @contextmanager
    def prepared(self, bench):
        bench.cluster.sql("CREATE TABLE IF NOT EXISTS written (id bigserial)")
        bench.cluster.wait_replayed()
        self.one = scripts(bench.base, "one", 1, plain)
        with Fleet(bench) as self.fleet:
            yield

    def measure(self, bench, row):
        maker, many = row
        target = self.fleet.get(maker, How(freshness='replica_wait = "10min"'))
        with self.paused(bench.cluster):
            with ExitStack() as stack:
                crowd = stack.enter_context(Crowd(target, WAITING, "INSERT INTO written DEFAULT VALUES")) if many else None
                if crowd:
                    crowd.arrive()
                    crowd.say("SELECT count(*) FROM written WHERE id < 10")
                rest = self.at_rest(target)
                found = {**steady(bench, target, *self.one, "prepared", 2), "rest_percent": rest}
                if crowd:
                    found["freed_s"] = self.free(bench.cluster, crowd)
        return found

    def at_rest(self, target):
        """What it takes while nothing is asked of it, in percent of a core."""
        time.sleep(1)
        before, began = target.cpu(), time.time()
        time.sleep(REST)
        return (target.cpu() - before) / (time.time() - began) * 100

    @contextmanager
    def paused(self, cluster):
        cluster.wait_replayed()
        self.replay(cluster, "pause")
        try:
            yield
        finally:
            self.replay(cluster, "resume")
            cluster.wait_replayed()

    def replay(self, cluster, what):
        for node in range(1, len(cluster.nodes)):
            cluster.sql(f"SELECT pg_wal_replay_{what}()", node)

    def free(self, cluster, crowd):
        """Lets replay go on. Seconds until all have their answers."""
        answered, _ = crowd.answered()
        if answered:
            raise Failed(f"{answered} of {WAITING} did not wait")
        self.replay(cluster, "resume")
        began = time.time()
        while True:
            answered, refused = crowd.answered()
            if answered == WAITING:
                return time.time() - began
            if refused or time.time() > began + 30:
                raise Failed(f"30 s after replay went on {answered} had an answer, {refused} an error, of {WAITING}")
            time.sleep(0.02)


def cells():
    return [Statements(), Shapes(), Nodes(), Waiting()]
