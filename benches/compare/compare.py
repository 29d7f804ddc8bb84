#!/usr/bin/env python3
"""Compares Tidegate with other proxies: CPU time per transaction, latency, memory, throughput.

Builds a primary and two standbys in a temporary directory, starts every proxy in front of them, and measures each of them
in turn, cell by cell and round by round, so that whatever else the machine does hits all alike.

  select-only, tpcb-like, 9:1   pgbench, by protocol and number of clients      cells/transactions.py
  connect                       logins, by trust and by SCRAM                   cells/transactions.py
  idle                          memory by client that is in and says nothing    cells/idle.py
  accept                        5,000 connections at once, beside a load        cells/accept.py
  bulk                          COPY out and in, a large result                 cells/bulk.py
  flat                          many statements, shapes, nodes, who wait        cells/flat.py

See --help; `make bench-compare` installs what is missing and runs it, with ARGS="--cells idle" for one of them.
"""

import argparse
import datetime
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import Bench
from cells import accept, bulk, flat, idle, transactions
from host import ROOT, TIDEGATE, Failed, machine, raise_open_files, server_bin
from proxies import Direct, HAProxy, HAProxyStandby, PgBouncer, PgBouncerStandbys, PgBouncerTwice, Pgpool, Running, Tidegate
from report import head, markdown, plain, table

CELLS = [cell for kind in (transactions, idle, accept, bulk, flat) for cell in kind.cells()]


def versions(makers):
    """The first line that each program says of itself."""
    found = []
    # Each once.
    names = dict.fromkeys(maker.program for maker in makers if isinstance(maker, (PgBouncer, HAProxy, Pgpool)))
    commands = [[name, "-v" if name == "haproxy" else "--version"] for name in names]
    for command in ([f"{server_bin()}/postgres", "--version"], *commands):
        done = subprocess.run(command, capture_output=True, text=True)
        # As "postgres (PostgreSQL) 15.18 (Debian ...)" or "HAProxy version 2.6.12-1 2026/10/17".
        name, number = re.match(r"(?:postgres \()?([\w-]+)\)?(?: version)? (\S+)", (done.stdout or done.stderr)).groups()
        found.append(f"{name} {number}")
    return ", ".join(found)


def makers(options):
    """The proxies that are wanted and there, in the order of the tables."""
    counts = [int(n) for n in options.workers.split(",") if n]
    own = [Tidegate(f"tidegate-{n}-workers", options.tidegate, n) for n in counts] or [Tidegate(binary=options.tidegate)]
    bouncers = [kind(options.pgbouncer) for kind in (PgBouncer, PgBouncerTwice, PgBouncerStandbys)]
    known = [Direct(), *bouncers, HAProxy(), HAProxyStandby(), Pgpool(), *own]
    wanted, found = options.proxies.split(","), []
    for maker in known:
        if maker.name.split("-")[0] not in wanted:
            continue
        if isinstance(maker, (PgBouncer, HAProxy, Pgpool)) and not shutil.which(maker.program):
            print(f"compare: {maker.name} is not installed, and left out", file=sys.stderr)
        else:
            found.append(maker)
    found += [Tidegate(*spec.split("=", 1), own[0].workers) for spec in options.binary]
    return found + [Running(*spec.split(":")) for spec in options.add]


def parse():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--seconds", type=int, default=2, help="length of one run of pgbench (default 2)")
    parse.add_argument("--rounds", type=int, default=3, help="runs of each cell and proxy (default 3)")
    parse.add_argument("--scale", type=int, default=10, help="pgbench's scale (default 10)")
    parse.add_argument("--cells", default="", help="only cells whose name matches this expression, as 'select-only|idle'")
    parse.add_argument("--list", action="store_true", help="say what cells there are, and do nothing")
    parse.add_argument("--workers", default="", metavar="N,N",
                       help="run Tidegate once with each of these numbers of workers (default: its own)")
    parse.add_argument("--proxies", default="direct,pgbouncer,haproxy,pgpool,tidegate", help="which of them to run")
    parse.add_argument("--add", action="append", default=[], metavar="NAME:PORT:PID",
                       help="one more proxy that is running already")
    parse.add_argument("--pgbouncer", default="pgbouncer", metavar="PATH",
                       help="another PgBouncer than that on the search path, as of benches/compare/newer-pgbouncer")
    parse.add_argument("--tidegate", default=str(TIDEGATE), metavar="PATH",
                       help="the build of Tidegate (default: that of `make release`)")
    parse.add_argument("--binary", action="append", default=[], metavar="NAME=PATH",
                       help="one more build of Tidegate to compare with")
    parse.add_argument("--out", default=str(ROOT / "target" / "compare"), help="where report.md and report.json go")
    return parse.parse_args()


def measure(options, base, report):
    """All cells that are wanted, each printed when it is there."""
    with Bench(base, makers(options), options) as bench:
        for cell in CELLS:
            if re.search(options.cells, cell.name):
                report["cells"][cell.name] = cell.run(bench)
                print(table(cell.name, report["cells"][cell.name]), flush=True)


def write(options, report):
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(markdown(report))
    (out / "report.json").write_text(json.dumps(plain(report), indent=1))
    print(f"written: {out}/report.md and report.json")


def stop(*_):
    # Once: what is stopped from here on is to be stopped to its end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main():
    options = parse()
    if options.list:
        return print("\n".join(cell.name for cell in CELLS))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    raise_open_files()
    base = Path(tempfile.mkdtemp(prefix="tidegate-compare-"))
    report = {
        "date": datetime.date.today().isoformat(), "machine": machine(), "versions": versions(makers(options)),
        "rounds": options.rounds, "seconds": options.seconds, "cells": {},
    }
    try:
        print(head(report), flush=True)
        measure(options, base, report)
    except KeyboardInterrupt:
        sys.exit("compare: stopped")
    except Failed as error:
        sys.exit(f"compare: {error}")
    finally:
        if report["cells"]:
            write(options, report)
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
