#!/usr/bin/env python3
"""Counts the instructions that Tidegate runs per transaction, and compares them with the figures that were kept.

A time on a busy machine says little; a count says the same on each run, so that one change that costs the hot path a
tenth shows. Tidegate runs under callgrind in front of a primary and two standbys, pgbench through it, and what the
worker's thread has run is read from callgrind. What makes it repeatable:

  one worker, one client    nothing is batched, and nobody else's work comes in between: two wakeups per round trip
  its thread alone          logins' helpers, timers and HTTP have threads of their own (--separate-threads=yes)
  a difference of two runs  a long one and a short one, so that logins, first sights of a text and whatever else happens
                            once cancel out
  the same seed             both runs, and those of next year, ask for the same accounts
  polls out of the way      their interval is far longer than a run; where sessions wait for them, they are as usual, and what
                            they take is taken off, at the price of one at rest: by some of them less is saved than that,
                            as what wakes the worker serves several, so that these cells come out a little too low
  a median                  over several processes: hash tables are seeded anew in each, and wakeups come as they come

On one machine medians come within 1 % of each other, busy or idle; 9:1 and the poll within 1 % on an idle one and up to 5 %
higher on a busy one, where waits take other turns. Counts depend on the compiler, and a little on libc, which takes the
memcpy that suits the processor: nothing fails where rustc or the architecture is another than that of the figures that
were kept. See --help; `make bench-instructions` installs what is missing and runs it.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compare"))

from cluster import Cluster  # noqa: E402
from host import free_port  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
KEPT = Path(__file__).resolve().parent / "kept.json"

# More than this above its kept figure fails.
TOLERANCE = 1.10

READ = "\\set aid random(1, 100000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
WRITE = (
    "\\set aid random(1, 100000)\n\\set delta random(-5000, 5000)\n"
    "UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;\n"
)

# No poll while anything is counted, at a level that needs none between reads.
QUIET = """
[freshness]
consistency = "read_your_writes"
poll_interval = "600s"
poll_interval_busy = "600s"
poll_timeout = "60s"
"""

# Sessions wait for polls, which come as they do by default.
POLLED = """
[freshness]
poll_timeout = "60s"
"""


class Cell:
    """A workload: pgbench's arguments, and how many transactions the short and the long run have."""

    def __init__(self, name, arguments, few, many):
        self.name, self.arguments, self.few, self.many = name, arguments, few, many


def cells(base):
    (base / "read.sql").write_text(READ)
    (base / "write.sql").write_text(WRITE)
    mix = ["-f", f"{base}/read.sql@9", "-f", f"{base}/write.sql@1"]
    quiet = [Cell(f"select-only {mode}", ["-S", "-M", mode], 200, 1200) for mode in ("simple", "extended", "prepared")]
    quiet += [Cell(f"tpcb-like {mode}", ["-M", mode], 50, 250) for mode in ("simple", "extended")]
    # A transaction of select-only on a connection of its own.
    quiet += [Cell("connect trust", ["-S", "-C"], 50, 250)]
    polled = [Cell(f"9:1 {mode}", [*mix, "-M", mode], 200, 1200) for mode in ("simple", "extended")]
    return quiet, polled


class Proxy:
    """Tidegate under callgrind."""

    def __init__(self, binary, cluster, base, settings):
        self.base, self.port, self.http, self.dumps = base, free_port(), free_port(), 0
        base.mkdir()
        config = base / "tidegate.toml"
        config.write_text(f"workers = 1\n{settings}")
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes",
                   f"--callgrind-out-file={base}/out", binary, "run", "--auth", "trust", "--config", config,
                   "--listen", f"127.0.0.1:{self.port}", "--http", f"127.0.0.1:{self.http}"]
        for node in cluster.addresses:
            command += ["--node", f"postgres://postgres@{node}/postgres"]
        self.log = open(base / "log", "wb")
        self.child = subprocess.Popen(list(map(str, command)), stdout=self.log, stderr=self.log, cwd=base)
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def page(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=30) as answer:
            return answer.read().decode()

    def wait_ready(self):
        for _ in range(600):
            if self.child.poll() is not None:
                sys.exit(f"instructions: Tidegate has ended:\n{(self.base / 'log').read_text()}")
            try:
                self.page("/ready")
                if self.page("/metrics").count("\ntidegate_replica_lag_seconds{") == 2:
                    return
            except (OSError, urllib.error.URLError):
                pass
            time.sleep(0.1)
        sys.exit("instructions: Tidegate does not become ready")

    def polls(self):
        return sum(float(n) for n in re.findall(r"^tidegate_polls_total\{.*\} (\S+)$", self.page("/metrics"), re.M))

    def control(self, *arguments):
        done = subprocess.run(["callgrind_control", *arguments, str(self.child.pid)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"instructions: callgrind_control {arguments[0]} failed: {done.stderr or done.stdout}")

    def threads(self):
        """Names of the threads in the order in which they were made: valgrind numbers them like that."""
        tasks = sorted(Path(f"/proc/{self.child.pid}/task").iterdir(), key=lambda t: int(t.name))
        return [(task / "comm").read_text().strip() for task in tasks]

    def counted(self, thread, work):
        """What that thread runs while `work` is done."""
        number = self.threads().index(thread) + 1
        self.control("-z")
        work()
        self.dumps += 1
        self.control("-d")
        dump = Path(f"{self.base}/out.{self.dumps}-{number:02}")
        found = re.search(r"^(?:summary|totals): (\d+)", dump.read_text(), re.M) if dump.exists() else None
        if not found:
            sys.exit(f"instructions: no count in {dump}")
        return int(found[1])

    def bench(self, cell, transactions):
        command = ["pgbench", "-n", *cell.arguments, "-c", "1", "-t", str(transactions), "--random-seed=1", "-h",
                   "127.0.0.1", "-p", str(self.port), "-U", "postgres", "postgres"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or f"processed: {transactions}/" not in done.stdout:
            sys.exit(f"instructions: pgbench failed: {done.stderr.strip() or done.stdout}")

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.log.close()


def more(proxy, little, much):
    """What the worker runs for `much` more than for `little`, and how many polls are among that: it polls, too."""
    found = []
    for work in (little, much):
        before = proxy.polls()
        found.append((proxy.counted("worker-0", work), proxy.polls() - before))
    (few, polls), (many, more_polls) = found
    return many - few, more_polls - polls


def per_transaction(proxy, cell, poll):
    """Without the polls that come meanwhile, each of which takes `poll`: they come by time, which callgrind stretches."""
    # Connections are made, and every text has been seen.
    proxy.bench(cell, cell.few)
    count, polls = more(proxy, lambda: proxy.bench(cell, cell.few), lambda: proxy.bench(cell, cell.many))
    return (count - polls * poll) / (cell.many - cell.few)


def per_poll(proxy):
    """With what else the worker does at rest."""
    count, polls = more(proxy, lambda: time.sleep(1), lambda: time.sleep(4))
    return count / polls


def count(options, base, cluster):
    quiet, polled = cells(base)
    wanted = lambda name: re.search(options.cells, name)
    found = {}
    for number in range(options.rounds):
        for kind, chosen, settings in (("quiet", quiet, QUIET), ("polled", polled, POLLED)):
            chosen, poll = [cell for cell in chosen if wanted(cell.name)], 0
            polls = kind == "polled" and (chosen or wanted("poll"))
            if not chosen and not polls:
                continue
            proxy = Proxy(options.binary, cluster, base / f"{kind}{number}", settings)
            try:
                proxy.control("-i", "on")
                if polls:
                    poll = per_poll(proxy)
                    found.setdefault("poll", []).append(poll)
                for cell in chosen:
                    found.setdefault(cell.name, []).append(per_transaction(proxy, cell, poll))
            finally:
                proxy.stop()
    return found


def rustc():
    return subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--rounds", type=int, default=3, help="processes that are counted (default 3)")
    parse.add_argument("--cells", default="", help="only cells whose name matches this expression, as 'select-only'")
    parse.add_argument("--binary", default=str(ROOT / "target" / "release" / "tidegate"), help="another build")
    parse.add_argument("--keep", action="store_true", help="keep what is found as the figures to compare with")
    options = parse.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {"cells": {}}
    base = Path(tempfile.mkdtemp(prefix="tidegate-instructions-"))
    cluster = None
    try:
        # Autovacuum would come when it likes, and let a standby fall behind.
        cluster = Cluster(base, 1, "autovacuum=off\n")
        found = count(options, base, cluster)
    finally:
        if cluster:
            cluster.stop()
        shutil.rmtree(base, ignore_errors=True)
    own = {"rustc": rustc(), "machine": platform.machine()}
    alike = all(kept.get(key) == value for key, value in own.items())
    print(f"{'instructions per':<22}{'now':>9}{'low':>9}{'high':>9}{'kept':>9}{'ratio':>7}")
    failed = []
    for name, runs in found.items():
        now, before = round(statistics.median(runs)), kept["cells"].get(name)
        ratio = now / before if before else None
        failed += [name] if ratio and ratio > TOLERANCE else []
        print(f"{name:<22}{now:>9}{round(min(runs)):>9}{round(max(runs)):>9}{before or '':>9}"
              f"{f'{ratio:.2f}' if ratio else '':>7}")
        if options.keep:
            kept["cells"][name] = now
    if options.keep:
        kept = {"date": datetime.date.today().isoformat(), **own, "cells": kept["cells"]}
        KEPT.write_text(json.dumps(kept, indent=2) + "\n")
        print(f"kept in {KEPT.relative_to(ROOT)}")
    elif not alike:
        print(f"nothing can fail: the kept figures are of {kept.get('rustc', 'no rustc')} on "
              f"{kept.get('machine', 'no machine')}, these of {own['rustc']} on {own['machine']}")
    elif failed:
        sys.exit(f"instructions: more than {TOLERANCE - 1:.0%} above the kept figure: {', '.join(failed)}. If that is "
                 "worth it, keep the new figures, with the reason in the commit: make bench-instructions ARGS=--keep")


if __name__ == "__main__":
    main()
