"""Load by pgbench, and what its log tells."""

import os
import re
import subprocess

from cluster import ROLE
from host import Failed


def quantile(values, part):
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


class Pgbench:
    """One run of it. To be used with `with`: what runs longer than that is ended."""

    def __init__(self, base, target, *arguments, role="postgres", nice=0, log=None):
        self.base = base
        for old in base.glob("log.*"):
            old.unlink()
        command = ["nice", "-n", str(nice), "pgbench", "-h", "127.0.0.1", "-p", str(target.port), "-U", role, "-n",
                   *map(str, arguments)]
        if log:
            command += ["--log", f"--log-prefix={base}/log", f"--sampling-rate={log}"]
        self.child = subprocess.Popen([*command, "postgres"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      env={**os.environ, "PGPASSWORD": ROLE, "PGSSLMODE": "disable"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.kill()
        self.child.communicate()

    def finish(self, limit=None):
        """Transactions, and how many per second. With -C, `connecting` is how many ms a login took on average."""
        try:
            out, err = self.child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"pgbench had not ended {limit:.0f} s after its start") from None
        count = re.search(r"actually processed: (\d+)", out)
        failed = re.search(r"failed transactions: (\d+)", out)
        if self.child.returncode != 0 or not count or int(count[1]) == 0 or (failed and int(failed[1])):
            # The last line only says that the run was cut short.
            why = [line for line in err.splitlines() if "error" in line.lower() or "fatal" in line.lower()]
            raise Failed((why or err.strip().splitlines() or ["no transactions"])[0])
        connecting = re.search(r"average connection time = ([\d.]+)", out)
        self.connecting = float(connecting[1]) if connecting else None
        return int(count[1]), float(re.search(r"tps = ([\d.]+)", out)[1])

    def log(self):
        """Of each transaction in the log the time it ended, as time.time() has it, and how long it took, in ms."""
        found = []
        for file in self.base.glob("log.*"):
            # What pgbench was writing when it was ended is no line.
            for line in file.read_text().split("\n")[:-1]:
                fields = line.split()
                found.append((int(fields[4]) + int(fields[5]) / 1e6, int(fields[2]) / 1000))
        return found
