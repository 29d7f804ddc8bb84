"""A target of the measurements: a port, and the processes behind it with their CPU time and memory."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path


def tree(pid):
    """The process and all that it has started."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo.extend(children.get(pid, []))
    return found


class Target:
    """A proxy, or PostgreSQL itself, which has no process here: only proxies' time and memory count."""

    def __init__(self, name, port, child=None, pid=None):
        self.name, self.port, self.child = name, port, child
        self.pid = pid or (child.pid if child else None)

    def pids(self):
        return tree(self.pid) if self.pid else []

    def cpu(self):
        """Seconds of CPU time so far, with those of threads that have ended."""
        total = 0
        for pid in self.pids():
            try:
                # The clock of another process, as clock_getcpuclockid(3) makes it.
                total += time.clock_gettime(~pid << 3 | 2)
            except OSError:
                pass
        return total

    def rss(self):
        """Resident memory in KiB. Of several processes, each has its part of what they share (Pss in proc(5))."""
        pids = self.pids()
        return self.read(pids, "smaps_rollup", "Pss") if len(pids) > 1 else self.read(pids, "status", "VmRSS")

    def reset_peak(self):
        """Lets the highest resident memory begin anew (proc(5), clear_refs)."""
        for pid in self.pids():
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            except OSError:
                pass

    def peak(self):
        """The highest resident memory in KiB since then; what several processes share counts once for each."""
        return self.read(self.pids(), "status", "VmHWM")

    def read(self, pids, file, key):
        total = 0
        for pid in pids:
            try:
                total += int(re.search(rf"^{key}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)[1])
            except (OSError, TypeError):
                # It has ended meanwhile.
                continue
        return total

    def stop(self):
        if self.child and self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGTERM)
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait(5)
            # What the child had started, and has not ended.
            try:
                os.killpg(self.child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
