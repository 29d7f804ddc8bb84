#!/usr/bin/env python3
"""Gives a build that counts what it runs (rustc -C profile-generate) something typical to run: see scripts/release.

In front of a primary and two standbys: reads and transactions in three protocols by few clients and by several, logins,
texts that nobody has sent before, errors, settings, wide and long results, COPY both ways. What is seldom run here is
laid out for size rather than for speed, so whatever is to be fast must be in it, and nothing so often that the rest
looks seldom.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compare"))

from bench import Bench  # noqa: E402
from cells.transactions import MODES, Logins, Transactions  # noqa: E402
from cluster import ROLE  # noqa: E402
from host import raise_open_files  # noqa: E402
from proxies import How, Tidegate  # noqa: E402

LOADS = [(script, clients) for script in ("select-only", "tpcb-like", "9:1") for clients in (1, 16)]

# As applications and tools speak.
STATEMENTS = r"""
SET application_name = 'training'; SET search_path = public; SHOW server_version; RESET ALL;
BEGIN; INSERT INTO trained VALUES (1, 'x'); SAVEPOINT s; UPDATE trained SET t = 'y'; ROLLBACK TO s; COMMIT;
BEGIN READ ONLY; SELECT count(*) FROM pgbench_tellers; COMMIT;
BEGIN; SELECT 1 / 0; ROLLBACK; SELECT * FROM nowhere;
SELECT * FROM pgbench_accounts ORDER BY aid LIMIT 500;
COPY (SELECT * FROM pgbench_accounts LIMIT 2000) TO STDOUT;
CREATE TEMP TABLE mine AS SELECT 1; DROP TABLE mine;
SHOW tidegate.last_route;
"""


def texts(number):
    """Reads and a few writes that differ in more than numbers, as a report or an ORM makes them."""
    for n in range(number):
        yield (f"SELECT a.aid AS a{n}, b.bbalance, coalesce(t.tbalance, 0) + {n} FROM pgbench_accounts a "
               f"JOIN pgbench_branches b USING (bid) LEFT JOIN pgbench_tellers t ON t.bid = b.bid AND t.tid <> {n} "
               f"WHERE a.aid IN ({n + 1}, {n + 2}) AND (a.filler IS NOT NULL OR lower('X{n}') = 'x') "
               "ORDER BY 1 DESC LIMIT 20 OFFSET 0;")
        yield f"WITH w{n} AS (SELECT count(*) AS n FROM pgbench_tellers) SELECT n, now() FROM w{n}; -- {n}"
        yield f"SELECT \"aid\" FROM \"pgbench_accounts\" AS \"T{n}\" WHERE \"T{n}\".\"aid\" = {n} /* {n} */;"
        if n % 8 == 0:
            yield f"UPDATE trained SET t = 'it''s {n}' WHERE id = {n} RETURNING id AS r{n};"


def psql(port, text, role="postgres"):
    command = ["psql", "-Xq", "-h", "127.0.0.1", "-p", str(port), "-U", role, "postgres"]
    environment = {**os.environ, "PGPASSWORD": ROLE, "PGSSLMODE": "disable"}
    # Some of the statements are meant to fail.
    subprocess.run(command, input=text, text=True, env=environment, check=True, timeout=120,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def train(bench, maker):
    bench.cluster.sql("CREATE TABLE trained (id int, t text)")
    lines = "".join(f"{n}\tline {n}\n" for n in range(2000))
    with bench.start(maker) as target:
        for script, clients in LOADS:
            for mode in MODES:
                print(f"  {script} {mode} {clients}", flush=True)
                Transactions(script, mode, clients).load(bench, target)
        Logins(8, "trust").load(bench, target)
        print("  statements", flush=True)
        psql(target.port, "\n".join(texts(300)))
        for _ in range(20):
            psql(target.port, STATEMENTS)
            psql(target.port, f"COPY trained FROM STDIN;\n{lines}\\.\n")
    with bench.start(maker, How(auth="scram")) as target:
        print("  logins by SCRAM", flush=True)
        Logins(8, "scram").load(bench, target)


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("binary", type=Path, help="the build that counts")
    options = parse.parse_args()
    options.seconds, options.scale = 2, 1
    raise_open_files()
    base = Path(tempfile.mkdtemp(prefix="tidegate-profile-"))
    try:
        maker = Tidegate("training", options.binary.resolve(), 1)
        with Bench(base, [maker], options) as bench:
            train(bench, maker)
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
