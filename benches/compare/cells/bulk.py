"""Bytes in bulk: COPY out, a large result, COPY in."""

import time
from contextlib import contextmanager

from bench import Cell, Fleet
from report import Column
from wire import READY, Session, message, query

ROWS = 2_000_000
# A line of COPY FROM STDIN, and how much of such lines goes into a message, a piece, and all.
LINE = b"1234567\t" + b"0123456789abcdef" * 7 + b"\n"
MESSAGE, PIECE, ALL = 8_192, 1 << 20, 256 << 20


def pieces():
    """A piece of messages, and how many of it make up all."""
    lines = LINE * (MESSAGE // len(LINE))
    piece = message(b"d", lines) * (PIECE // (len(lines) + 5))
    return piece, ALL // len(piece)


class Bulk(Cell):
    """One way to move more than 200 MB, by one client that copies nothing itself."""

    columns = (
        Column("mb_per_s", "MB/s", 0, ("direct", "haproxy", "haproxy-standby", "pgbouncer"), spread=True),
        Column("cpu_s_per_gb", "CPU s per GB", 3, ("haproxy", "haproxy-standby", "pgbouncer"), spread=True),
        Column("peak_mib", "peak memory, MiB", 1, ("haproxy", "pgbouncer")),
    )

    def __init__(self, name, what, statement=None):
        self.name, self.statement = f"bulk {name}", statement
        self.about = (
            f"{what}: throughput at the client, CPU time of the proxy per GB, and its highest resident memory meanwhile."
        )

    def rows(self, bench):
        # Pgpool-II takes four times as long as any other.
        return {name: maker for name, maker in super().rows(bench).items() if name != "pgpool"}

    @contextmanager
    def prepared(self, bench):
        cluster = bench.cluster
        if cluster.sql("SELECT to_regclass('bulk') IS NULL") == "t":
            cluster.sql("CREATE TABLE bulk AS SELECT g AS id, repeat('0123456789abcdef', 7) AS text "
                        f"FROM generate_series(1, {ROWS}) g")
            cluster.sql("CREATE UNLOGGED TABLE sink (id int, text text)")
            # Hint bits are set now rather than by whoever reads first.
            cluster.sql("VACUUM (FREEZE) bulk")
            cluster.wait_replayed()
            for node in range(len(cluster.nodes)):
                cluster.sql("SELECT count(*) FROM bulk", node)
        # Proxies that have just been started: other cells leave memory behind.
        with Fleet(bench) as self.fleet:
            yield

    def measure(self, bench, row):
        target = self.fleet.get(row)
        if not self.statement:
            bench.cluster.sql("TRUNCATE sink")
        try:
            with Session(target.port) as session:
                # Whatever comes with the first statement of a session or server connection.
                session.run("SELECT 1 FROM bulk LIMIT 1")
                target.reset_peak()
                before, began = target.cpu(), time.time()
                size = session.run(self.statement) if self.statement else self.copy_in(session)
                took, used = time.time() - began, target.cpu() - before
        except ConnectionError as error:
            raise OSError(f"{error}") from None
        found = {"mb_per_s": size / took / 1e6}
        if target.pid:
            found.update(cpu_s_per_gb=used / (size / 1e9), peak_mib=target.peak() / 1024)
        return found

    def copy_in(self, session):
        piece, count = pieces()
        session.socket.sendall(query("COPY sink FROM STDIN"))
        # CopyInResponse for two columns of text.
        session.drain(b"\0\2\0\0\0\0")
        for _ in range(count):
            session.socket.sendall(piece)
        session.socket.sendall(message(b"c", b""))
        session.drain(READY)
        return len(piece) * count


def cells():
    return [
        Bulk("copy out", f"COPY bulk TO STDOUT, {ROWS:,} rows of 120 bytes", "COPY bulk TO STDOUT"),
        Bulk("select", f"SELECT * FROM bulk, {ROWS:,} rows of 120 bytes, simple protocol", "SELECT * FROM bulk"),
        Bulk("copy in", f"COPY sink FROM STDIN, {ALL >> 20} MiB in messages of 8 KiB into an unlogged table"),
    ]
