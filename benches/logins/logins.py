#!/usr/bin/env python3
"""What a login with SCRAM costs, and what a storm of logins does to those who are in.

Builds the cluster of benches/compare/compare.py, whose servers demand SCRAM of everybody except the monitor, and
measures PostgreSQL itself and Tidegate in front of it in turn, round by round, so that whatever else the machine does
hits both alike:

  logins   8 clients that log in, ask `SELECT 1` and leave, again and again (pgbench -C): logins per second, and the
           CPU time of Tidegate's and of the servers' processes per login
  calm     8 clients that are in and run `SELECT 1` at a fixed rate; latencies count from when a query was due
  storm    the same while 500 more log in again and again, each on a thread of its own
  nearby   the same while those log in to another Tidegate: the machine is as busy, and what is measured is not

The clients' own hashing takes most of a small machine, which hurts everybody on it: what storm adds to nearby is what
logins do to those who are in. The storm's clients run with nice 10. See --help; `make bench-logins` runs it.
"""

import argparse
import datetime
import json
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches" / "compare"))

from cluster import ROLE, Cluster  # noqa: E402
from host import TIDEGATE, Failed, machine  # noqa: E402
from load import Pgbench, quantile  # noqa: E402
from processes import Target  # noqa: E402
from proxies import How, Tidegate  # noqa: E402
from report import merge  # noqa: E402


def pgbench(base, target, *arguments, **how):
    (base / "one.sql").write_text("SELECT 1;\n")
    return Pgbench(base, target, "-f", f"{base}/one.sql", *arguments, role=ROLE, **how)


def logins(cluster, target, base, seconds):
    before = cluster.cpu(), target.cpu()
    with pgbench(base, target, "-C", "-c", 8, "-j", 8, "-T", seconds) as run:
        count, rate = run.finish()
    servers, proxy = cluster.cpu() - before[0], target.cpu() - before[1]
    return {"per_second": rate, "servers_cpu_us": servers / count * 1e6, "proxy_cpu_us": proxy / count * 1e6}


def steady(target, base, seconds, rate, storm=0, where=None):
    """Latencies of those who are in, and how many logins there were per second beside them."""
    found = {}
    with ExitStack() as stack:
        if storm:
            # It begins before those who are measured, and ends after them.
            crowd = stack.enter_context(pgbench(base, where, "-C", "-c", storm, "-j", storm, "-T", seconds + 3, nice=10))
            time.sleep(2)
        run = stack.enter_context(pgbench(base, target, "-c", 8, "-j", 8, "-T", seconds, "-R", rate, log=1))
        run.finish()
        if storm:
            found["logins_per_second"] = crowd.finish()[1]
        latencies = [took for _, took in run.log()]
    return {"p50_ms": quantile(latencies, 0.5), "p99_ms": quantile(latencies, 0.99), "max_ms": max(latencies), **found}


def markdown(report):
    lines = [f"{report['date']}, {report['machine']}; {report['rounds']} rounds of {report['seconds']} s each, "
             "interleaved; medians (lowest to highest).", "",
             "| | PostgreSQL | through Tidegate | ratio |", "|---|---:|---:|---:|"]
    for cell, results in report["cells"].items():
        for key in results["tidegate"]:
            both = [results[name][key] for name in ("direct", "tidegate")]
            shown = [f"{v['median']:.2f} ({v['low']:.2f} to {v['high']:.2f})" for v in both]
            base = both[0]["median"]
            lines.append(f"| {cell}: {key} | {shown[0]} | {shown[1]} | " + (f"{both[1]['median'] / base:.2f}" if base else "") + " |")
    for name in ("direct", "tidegate"):
        for other in ("calm", "nearby"):
            before, after = (report["cells"][cell][name] for cell in (other, "storm"))
            ratios = [f"{key[:3]} {after[key]['median'] / before[key]['median']:.1f}" for key in ("p50_ms", "p99_ms", "max_ms")]
            lines.append(f"\n{name}, storm over {other}: {', '.join(ratios)}.")
    return "\n".join(lines)


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--seconds", type=int, default=5, help="length of one run (default 5)")
    parse.add_argument("--rounds", type=int, default=5, help="runs of each kind (default 5)")
    parse.add_argument("--storm", type=int, default=500, help="clients of the storm (default 500)")
    parse.add_argument("--rate", type=int, default=400, help="queries per second of those who are in (default 400)")
    parse.add_argument("--binary", default=str(TIDEGATE), help="the build to measure")
    parse.add_argument("--out", default=str(ROOT / "target" / "logins"), help="where report.md and report.json go")
    options = parse.parse_args()
    base = Path(tempfile.mkdtemp(prefix="tidegate-logins-"))
    cluster, proxies = None, []
    try:
        cluster = Cluster(base, 1)
        proxies = [Tidegate(name, options.binary).start(cluster, base, How(auth="scram")) for name in ("tidegate", "other")]
        targets = {"direct": Target("direct", cluster.port), "tidegate": proxies[0]}
        time.sleep(2)
        runs = {cell: {name: [] for name in targets} for cell in ("logins", "calm", "nearby", "storm")}
        for number in range(options.rounds):
            # The other one begins in every round.
            for name in list(targets)[:: 1 if number % 2 == 0 else -1]:
                target = targets[name]
                runs["logins"][name].append(logins(cluster, target, base, options.seconds))
                for cell, storm in (("calm", ()), ("nearby", (options.storm, proxies[1])), ("storm", (options.storm, target))):
                    runs[cell][name].append(steady(target, base, options.seconds, options.rate, *storm))
                print(f"{number} {name}: " + " ".join(str(runs[cell][name][-1]) for cell in runs), file=sys.stderr)
        report = {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "rounds": options.rounds, "seconds": options.seconds,
            "cells": {cell: {name: merge(found) for name, found in names.items()} for cell, names in runs.items()},
        }
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(markdown(report))
        (out / "report.json").write_text(json.dumps(report, indent=1))
        print(f"{markdown(report)}\n\nwritten: {out}/report.md and report.json")
    except Failed as error:
        sys.exit(f"logins: {error}")
    finally:
        for proxy in proxies:
            proxy.stop()
        if cluster:
            cluster.stop()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
