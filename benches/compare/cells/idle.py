"""What a client costs that is in and has nothing to say, and what is left of it when it has gone."""

import time

from bench import Cell
from crowd import Crowd
from report import Column

CLIENTS = 10_000
WAVES = 3
# Clients that log in at a time: what logins need for a moment is another matter.
AT_ONCE = 100
# Seconds between the last one's leaving and the look at what is left: who gives memory back waits whether it is needed
# again.
REST = 30


class Idle(Cell):
    """Waves of clients that log in, ask one thing and wait, through a proxy that has just been started."""

    name = "idle"
    about = (
        f"{CLIENTS:,} clients log in, {AT_ONCE} at a time, run `SELECT 1` and stay: resident memory of the proxy beyond "
        "what it had before the first of them came, by client. Then all leave; and all that "
        f"{WAVES} times. `left` is what the proxy has {REST} s after each leaving beyond what it had at the start: if it "
        "grows from wave to wave, something leaks."
    )
    columns = (
        Column("client_kib", "KiB per client", 2, ("pgbouncer",), spread=True),
        Column("last_kib", "in last wave", 2, ("pgbouncer",)),
        Column("start_mib", "at start, MiB", 1),
        Column("full_mib", "with all, MiB", 1),
        *(Column(f"left{number}_mib", f"left after {number}, MiB", 1) for number in range(1, WAVES + 1)),
        Column("login_us", "all in, us per client", 0, ("pgbouncer",)),
    )
    without = {name: "holds a server process for each client" for name in ("direct", "haproxy", "pgpool")}

    def rounds(self, bench):
        # Memory hardly differs from round to round.
        return 1

    def measure(self, bench, row):
        with bench.start(row) as target:
            with Crowd(target, 10, "SELECT 1") as few:
                # Catalogs are read and pools are there.
                few.arrive()
            time.sleep(1)
            start = target.rss()
            waves = [self.wave(target) for _ in range(WAVES)]
        first, last = waves[0], waves[-1]
        return {
            "client_kib": (first["full"] - start) / CLIENTS, "last_kib": (last["full"] - start) / CLIENTS,
            "start_mib": start / 1024, "full_mib": first["full"] / 1024,
            **{f"left{number}_mib": (wave["left"] - start) / 1024 for number, wave in enumerate(waves, 1)},
            "login_us": first["took"] / CLIENTS * 1e6,
        }

    def wave(self, target):
        with Crowd(target, CLIENTS, "SELECT 1", at_once=AT_ONCE) as crowd:
            began, ended = crowd.arrive()
            time.sleep(1)
            full = target.rss()
            crowd.leave()
        time.sleep(REST)
        return {"full": full, "left": target.rss(), "took": ended - began}


def cells():
    return [Idle()]
