"""What all cells share: the cluster, the proxies in front of it, and the rounds."""

import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

from cluster import Cluster
from host import Failed
from proxies import How
from report import merge, ratios


class Fleet:
    """Proxies that are started when they are first asked for, and stopped together. To be used with `with`."""

    def __init__(self, bench):
        self.bench, self.stack, self.there = bench, ExitStack(), {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def get(self, maker, how=How()):
        """That proxy, configured like that. Raises Failed, time and again, if it does not start."""
        key = maker.name, how
        if key not in self.there:
            try:
                self.there[key] = self.stack.enter_context(self.bench.start(maker, how))
            except Failed as error:
                self.there[key] = error
        if isinstance(self.there[key], Failed):
            raise self.there[key]
        return self.there[key]


class Bench:
    """The cluster, and the proxies that all cells share which want nothing special. To be used with `with`."""

    def __init__(self, base, makers, options):
        self.base, self.makers, self.options = base, makers, options
        self.stack = ExitStack()

    def __enter__(self):
        self.cluster = Cluster(self.base, self.options.scale)
        self.stack.callback(self.cluster.stop)
        self.usual = self.stack.enter_context(Fleet(self))
        return self

    def __exit__(self, *_):
        self.stack.close()

    @contextmanager
    def start(self, maker, how=How()):
        """A proxy of one's own."""
        target = maker.start(self.cluster, self.base, how)
        try:
            time.sleep(1)
            yield target
        finally:
            target.stop()

    def running(self, maker):
        """The one of it that all cells share. Raises Failed."""
        return self.usual.get(maker)


class Cell:
    """One thing that is measured, for one row after the other, round by round.

    What is measured of a row is `measure(bench, row)`: a dict with a number for each column, or Failed.
    """

    name = ""
    # One sentence or two: what is done, and what stands in the columns.
    about = ""
    columns = ()
    # Names of proxies that cannot be measured here, and why.
    without = {}

    def rows(self, bench):
        """The names of the rows, and what `measure` needs to know of each: by default the proxies themselves."""
        return {maker.name: maker for maker in bench.makers if self.name.startswith(getattr(maker, "cells", ""))}

    def rounds(self, bench):
        return bench.options.rounds

    @contextmanager
    def prepared(self, bench):
        """Around all rounds."""
        yield

    def measure(self, bench, row):
        raise NotImplementedError

    def run(self, bench):
        """All rounds: what the report has of this cell."""
        rows = self.rows(bench)
        runs = {name: [] for name in rows}
        try:
            with self.prepared(bench):
                for number in range(self.rounds(bench)):
                    # Another one begins in every round.
                    turn = number % len(rows)
                    for name in [*rows][turn:] + [*rows][:turn]:
                        runs[name].append(self.attempt(bench, name, rows[name]))
        except TROUBLE as error:
            print(f"compare: {self.name}: {explain(error)}", file=sys.stderr)
            for found in runs.values():
                found.append({"error": f"failed: {explain(error)}"})
        results = {name: merge(found) for name, found in runs.items()}
        ratios(self.columns, runs, results)
        return {"about": self.about, "columns": self.columns, "results": results}

    def attempt(self, bench, name, row):
        if name in self.without:
            return {"error": f"not measured: {self.without[name]}"}
        try:
            return self.measure(bench, row)
        except TROUBLE as error:
            print(f"compare: {self.name}: {name}: {explain(error)}", file=sys.stderr)
            return {"error": f"failed: {explain(error)}"}


# What ends one row's figures and nothing else.
TROUBLE = (Failed, OSError, subprocess.SubprocessError)


def explain(error):
    """The first line of what went wrong; of a program that failed, its own."""
    said = getattr(error, "stderr", None)
    return ((said if isinstance(said, str) else "").strip() or str(error)).splitlines()[0]
