#!/usr/bin/env python3
"""Compares Tidegate with other proxies: CPU time per transaction, latency, memory, throughput.

Builds a primary and two standbys in a temporary directory, starts every proxy in front of them, and runs pgbench
through each of them in turn, cell by cell and round by round, so that whatever else the machine does hits all alike.
CPU time is that of all of a proxy's processes, from /proc/PID/task/*/schedstat. See --help; `make bench-compare`
installs what is missing and runs it.
"""

import argparse
import datetime
import json
import os
import platform
import pwd
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODES = ("simple", "extended", "prepared")

# Nine reads to one write, each in a transaction of its own: weights for pgbench.
READ = "\\set aid random(1, 100000 * :scale)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
WRITE = (
    "\\set aid random(1, 100000 * :scale)\n\\set delta random(-5000, 5000)\n"
    "UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;\n"
)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def server_bin():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    path = str(found[-1].parent) if found else os.path.dirname(shutil.which("initdb") or "")
    if not path:
        sys.exit("compare: PostgreSQL's server programs are missing: run `make bench-compare`")
    return path


class Cluster:
    """A primary and two standbys, without fsync: only the proxies are measured."""

    def __init__(self, base, scale):
        self.base, self.bin, self.nodes = base, server_bin(), []
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(base, account.pw_uid, account.pw_gid)
            base.chmod(0o755)
        primary = base / "primary"
        self.run("initdb", "-D", primary, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        port = free_port()
        self.configure(primary, port, "fsync=off\nmax_connections=500\nshared_buffers=128MB\nwal_keep_size=512MB\n"
                       "hot_standby_feedback=on\nmax_wal_senders=20\nlisten_addresses='127.0.0.1'\n"
                       f"unix_socket_directories='{base}'\n")
        self.start(primary, port)
        for number in (1, 2):
            data, own = base / f"replica{number}", free_port()
            self.run("pg_basebackup", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-D", data, "-R", "-X", "stream",
                     "-c", "fast", "--no-sync")
            self.configure(data, own, "")
            self.start(data, own)
        subprocess.run(["pgbench", "-i", "-q", "-s", str(scale), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres",
                        "postgres"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def run(self, program, *arguments):
        command = [f"{self.bin}/{program}", *map(str, arguments)]
        if self.user:
            command = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *command]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL)

    def configure(self, data, port, text):
        with open(data / "postgresql.conf", "a") as file:
            file.write(f"{text}port={port}\n")

    def start(self, data, port):
        self.run("pg_ctl", "-D", data, "-l", f"{data}.log", "-w", "-s", "start")
        self.nodes.append((data, port))

    def stop(self):
        for data, _ in reversed(self.nodes):
            try:
                self.run("pg_ctl", "-D", data, "-m", "immediate", "-s", "stop")
            except subprocess.CalledProcessError:
                pass

    @property
    def ports(self):
        return [port for _, port in self.nodes]


def wait_port(port, what):
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"compare: {what} does not answer on port {port}")


class Proxy:
    """One proxy under test: a name, a port and the processes whose time counts."""

    def __init__(self, name, port, child=None, pid=None):
        self.name, self.port, self.child = name, port, child
        self.pid = pid or (child.pid if child else None)

    def pids(self):
        """The process and all that it has started."""
        if not self.pid:
            return []
        children = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        found, todo = [], [self.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo.extend(children.get(pid, []))
        return found

    def cpu(self):
        """Seconds of CPU time so far."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    total += int(task.read_text().split()[0])
                except (OSError, IndexError, ValueError):
                    pass
        return total / 1e9

    def rss(self):
        """Resident memory in KiB, shared pages of several processes counted once each."""
        total = 0
        for pid in self.pids():
            try:
                text = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            total += int(re.search(r"VmRSS:\s+(\d+)", text)[1])
        return total

    def stop(self):
        if self.child and self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)


def start(name, port, command, base, as_user=None):
    log = open(base / f"{name}.log", "wb")
    if as_user and os.geteuid() == 0:
        command = ["setpriv", f"--reuid={as_user}", f"--regid={as_user}", "--clear-groups", *command]
    child = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, start_new_session=True, cwd="/")
    wait_port(port, name)
    return Proxy(name, port, child)


def tidegate(name, binary, cluster, base, workers):
    port, http = free_port(), free_port()
    command = [binary, "run", "--auth", "trust", "--listen", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{http}"]
    for node in cluster.ports:
        command += ["--node", f"postgres://postgres@127.0.0.1:{node}/postgres"]
    config = base / f"{name}.toml"
    config.write_text(f"workers = {workers}\n[pool]\nsize = 100\n")
    proxy = start(name, port, [*command, "--config", config], base)
    proxy.http = http
    return proxy


def pgbouncer(cluster, base):
    port = free_port()
    config = base / "pgbouncer.ini"
    (base / "userlist.txt").write_text('"postgres" ""\n')
    config.write_text(
        f"[databases]\n* = host=127.0.0.1 port={cluster.ports[0]}\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
        f"listen_port={port}\nunix_socket_dir=\nauth_type=trust\nauth_file={base}/userlist.txt\npool_mode=transaction\n"
        "default_pool_size=100\nmax_client_conn=15000\nmax_prepared_statements=100\nlog_connections=0\n"
        "log_disconnections=0\nignore_startup_parameters=extra_float_digits\n"
    )
    if b"max_prepared_statements" not in Path(shutil.which("pgbouncer")).read_bytes():
        # Before 1.21: prepared statements do not work through it.
        config.write_text(config.read_text().replace("max_prepared_statements=100\n", ""))
    return start("pgbouncer", port, ["pgbouncer", config], base, "postgres")


def haproxy(cluster, base):
    port = free_port()
    config = base / "haproxy.cfg"
    config.write_text(
        "global\n maxconn 9000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n"
        f"frontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server p 127.0.0.1:{cluster.ports[0]}\n"
    )
    return start("haproxy", port, ["haproxy", "-f", config], base)


def pgpool(cluster, base):
    port = free_port()
    config = base / "pgpool.conf"
    lines = [
        "backend_clustering_mode = 'streaming_replication'", "listen_addresses = '127.0.0.1'", f"port = {port}",
        f"unix_socket_directories = '{base}'", f"pcp_socket_dir = '{base}'", f"pcp_port = {free_port()}",
        "num_init_children = 80", "load_balance_mode = on", "sr_check_period = 1", "sr_check_user = 'postgres'",
        "sr_check_database = 'postgres'", "health_check_period = 0", "enable_pool_hba = off",
        f"pid_file_name = '{base}/pgpool.pid'", f"logdir = '{base}'", "memory_cache_enabled = off",
    ]
    for number, node in enumerate(cluster.ports):
        lines += [f"backend_hostname{number} = '127.0.0.1'", f"backend_port{number} = {node}",
                  f"backend_weight{number} = 1", f"backend_flag{number} = 'ALLOW_TO_FAILOVER'"]
    config.write_text("\n".join(lines) + "\n")
    return start("pgpool", port, ["pgpool", "-n", "-f", config], base, "postgres")


class Cell:
    """One workload: pgbench's script, protocol and number of clients."""

    def __init__(self, script, mode, clients, extra=()):
        self.script, self.mode, self.clients, self.extra = script, mode, clients, extra

    @property
    def name(self):
        return f"{self.script} {self.mode} {self.clients}"

    def arguments(self, base, scale):
        kind = {"select-only": ["-S"], "tpcb-like": [], "connect": ["-S", "-C"]}.get(self.script)
        if kind is None:
            (base / "read.sql").write_text(READ)
            (base / "write.sql").write_text(WRITE)
            kind = ["-D", f"scale={scale}", "-f", f"{base}/read.sql@9", "-f", f"{base}/write.sql@1"]
        threads = min(2, self.clients)
        return [*kind, "-n", "-M", self.mode, "-c", str(self.clients), "-j", str(threads)]


def quantile(values, part):
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def bench(cell, proxy, base, seconds, scale):
    """One run: transactions, CPU time per transaction (us), latencies (ms), throughput, memory."""
    logs = base / "log"
    for old in base.glob("log.*"):
        old.unlink()
    command = ["pgbench", "-h", "127.0.0.1", "-p", str(proxy.port), "-U", "postgres", *cell.arguments(base, scale),
               "-T", str(seconds), "--log", f"--log-prefix={logs}", "--sampling-rate=0.25", "postgres"]
    before = proxy.cpu()
    done = subprocess.run(command, capture_output=True, text=True)
    used = proxy.cpu() - before
    count = re.search(r"actually processed: (\d+)", done.stdout)
    failed = re.search(r"failed transactions: (\d+)", done.stdout)
    if done.returncode != 0 or not count or int(count[1]) == 0 or (failed and int(failed[1])):
        return {"error": (done.stderr.strip().splitlines() or ["no transactions"])[-1]}
    latencies = []
    for file in base.glob("log.*"):
        for line in file.read_text().splitlines():
            latencies.append(int(line.split()[2]) / 1000)
    transactions = int(count[1])
    return {
        "cpu_us": used / transactions * 1e6 if proxy.pid else 0.0,
        "p50_ms": quantile(latencies, 0.50),
        "p99_ms": quantile(latencies, 0.99),
        "tps": float(re.search(r"tps = ([\d.]+) \(", done.stdout)[1]),
        "rss_kib": proxy.rss(),
    }


def merge(runs):
    good = [run for run in runs if "error" not in run]
    if not good:
        return {"error": runs[0]["error"]}
    merged = {}
    for key in good[0]:
        values = [run[key] for run in good if run[key] is not None]
        if values:
            merged[key] = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return merged


def markdown(report):
    lines = [f"{report['date']}, {report['machine']}; {report['rounds']} rounds of {report['seconds']} s each, "
             "interleaved; medians (lowest to highest). CPU is the proxy's own, per transaction.", ""]
    for cell, results in report["cells"].items():
        lines += [f"### {cell}", "", "| proxy | CPU, us | x PgBouncer | p50, ms | p99, ms | tps | x direct | memory, MiB |",
                  "|---|---:|---:|---:|---:|---:|---:|---:|"]
        bouncer = results.get("pgbouncer", {}).get("cpu_us", {}).get("median")
        direct = results.get("direct", {}).get("tps", {}).get("median")
        for name, result in results.items():
            if "error" in result:
                lines.append(f"| {name} | failed: {result['error'][:60]} | | | | | | |")
                continue
            cpu, tps = result["cpu_us"], result["tps"]["median"]
            has_cpu = cpu["median"] > 0
            of = lambda value, base: f"{value / base:.2f}" if base else ""
            lines.append(
                f"| {name} | " + (f"{cpu['median']:.1f} ({cpu['low']:.1f} to {cpu['high']:.1f})" if has_cpu else "")
                + f" | {of(cpu['median'], bouncer) if has_cpu else ''} | {result['p50_ms']['median']:.3f} | "
                f"{result['p99_ms']['median']:.3f} | {tps:.0f} | {of(tps, direct)} | "
                + (f"{result['rss_kib']['median'] / 1024:.1f}" if has_cpu else "") + " |")
        lines.append("")
    return "\n".join(lines)


def cells(chosen):
    everything = [Cell("select-only", mode, clients) for mode in MODES for clients in (1, 16, 64)]
    everything += [Cell("tpcb-like", mode, 16) for mode in MODES]
    everything += [Cell("9:1", mode, 16) for mode in MODES]
    everything.append(Cell("connect", "simple", 8))
    return [cell for cell in everything if not chosen or re.search(chosen, cell.name)]


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--seconds", type=int, default=4, help="length of one run (default 4)")
    parse.add_argument("--rounds", type=int, default=5, help="runs of each cell and proxy (default 5)")
    parse.add_argument("--scale", type=int, default=10, help="pgbench's scale (default 10)")
    parse.add_argument("--cells", default="", help="only cells whose name matches this expression, as 'select-only'")
    parse.add_argument("--workers", type=int, default=2, help="Tidegate's workers (default 2)")
    parse.add_argument("--proxies", default="direct,pgbouncer,haproxy,pgpool,tidegate", help="which of them to run")
    parse.add_argument("--add", action="append", default=[], metavar="NAME:PORT:PID",
                       help="one more proxy that is running already")
    parse.add_argument("--binary", action="append", default=[], metavar="NAME=PATH",
                       help="one more build of Tidegate to compare with")
    parse.add_argument("--out", default=str(ROOT / "target" / "compare"), help="where report.md and report.json go")
    options = parse.parse_args()
    base = Path(tempfile.mkdtemp(prefix="tidegate-compare-"))
    cluster, proxies = None, []
    try:
        cluster = Cluster(base, options.scale)
        wanted = options.proxies.split(",")
        for name, make in (("pgbouncer", pgbouncer), ("haproxy", haproxy), ("pgpool", pgpool)):
            if name in wanted:
                if shutil.which(name):
                    proxies.append(make(cluster, base))
                else:
                    print(f"compare: {name} is not installed, and left out", file=sys.stderr)
        if "direct" in wanted:
            proxies.insert(0, Proxy("direct", cluster.ports[0]))
        if "tidegate" in wanted:
            binary = ROOT / "target" / "release" / "tidegate"
            proxies.append(tidegate("tidegate", binary, cluster, base, options.workers))
        for spec in options.binary:
            name, path = spec.split("=", 1)
            proxies.append(tidegate(name, path, cluster, base, options.workers))
        for spec in options.add:
            name, port, pid = spec.split(":")
            proxies.append(Proxy(name, int(port), pid=int(pid)))
        time.sleep(2)
        report = {
            "date": datetime.date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
            "rounds": options.rounds, "seconds": options.seconds, "cells": {},
        }
        for cell in cells(options.cells):
            runs = {proxy.name: [] for proxy in proxies}
            for number in range(options.rounds):
                # Another one begins in every round.
                turn = number % len(proxies)
                for proxy in proxies[turn:] + proxies[:turn]:
                    runs[proxy.name].append(bench(cell, proxy, base, options.seconds, options.scale))
            report["cells"][cell.name] = {name: merge(found) for name, found in runs.items()}
            one = markdown({**report, "cells": {cell.name: report["cells"][cell.name]}})
            print(one.split("\n", 2)[2], flush=True)
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(markdown(report))
        (out / "report.json").write_text(json.dumps(report, indent=1))
        print(f"written: {out}/report.md and report.json")
    finally:
        for proxy in proxies:
            proxy.stop()
        if cluster:
            cluster.stop()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
