"""What a storm of connections does to those who are in."""

import time

from bench import Cell
from crowd import Crowd
from host import Failed
from load import Pgbench, quantile
from report import Column

STORM = 5_000
CLIENTS = 4
# Queries per second of those who are in, so that a machine of two cores is not full without a storm.
RATE = 2_000
# Seconds before the storm, whose first is not counted.
CALM = 4
# Seconds that are left for the storm.
LONGEST = 12


class Accept(Cell):
    """Connections that are opened all at once, beside a steady load."""

    name = "accept"
    about = (
        f"{CLIENTS} clients run pgbench's select-only at {RATE:,} queries a second, latencies count from when a query "
        f"was due. After {CALM} s {STORM:,} others connect and log in by trust, all at once, by one process with nice "
        "10. Latencies before the storm, and of queries that were due while it lasted; and the time until all are in."
    )
    columns = (
        Column("calm_p50_ms", "calm p50, ms", 2),
        Column("calm_p99_ms", "p99", 2),
        Column("calm_max_ms", "max", 1),
        Column("storm_p50_ms", "storm p50, ms", 2, ("pgbouncer",)),
        Column("storm_p99_ms", "p99", 2, ("pgbouncer",)),
        Column("storm_max_ms", "max", 1, ("pgbouncer",)),
        Column("p50_growth", "p50, storm / calm", 1),
        Column("p99_growth", "p99, storm / calm", 1),
        Column("in_s", "all in, s", 2, ("pgbouncer",), spread=True),
        Column("cpu_us", "CPU per login, us", 1, ("pgbouncer",)),
    )
    without = {name: "holds a server process for each client" for name in ("direct", "haproxy", "pgpool")}

    def measure(self, bench, row):
        target = bench.running(row)
        with Pgbench(bench.base, target, "-S", "-c", CLIENTS, "-j", 2, "-R", RATE, "-T", CALM + LONGEST, log=1) as load:
            time.sleep(CALM)
            before = target.cpu()
            with Crowd(target, STORM, nice=10) as crowd:
                began, ended = crowd.arrive()
                used = target.cpu() - before
                # Those that were due in it have their answer.
                time.sleep(1)
                if load.child.poll() is not None:
                    raise Failed(f"the load ended before the storm did, which took {ended - began:.1f} s")
                load.child.terminate()
                load.child.wait()
            log = load.log()
        due = [(end - took / 1000, took) for end, took in log]
        calm = [took for at, took in due if began - CALM + 1 <= at < began]
        storm = [took for at, took in due if began <= at <= ended]
        if not calm or not storm:
            raise Failed("no query ran" + (" in the storm" if calm else ""))
        found = {"in_s": ended - began, "cpu_us": used / STORM * 1e6}
        for name, latencies in (("calm", calm), ("storm", storm)):
            found.update({f"{name}_p50_ms": quantile(latencies, 0.5), f"{name}_p99_ms": quantile(latencies, 0.99),
                          f"{name}_max_ms": max(latencies)})
        for part in ("p50", "p99"):
            found[f"{part}_growth"] = found[f"storm_{part}_ms"] / found[f"calm_{part}_ms"]
        return found


def cells():
    return [Accept()]
