"""Throughput of the server's HTTP sender alone, compared with `wrk` on the same receiver."""

import json
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Final

from bench.options import Options
from bench.processes import running
from bench.progress import bar
from bench.reference import Posted, client, cores, pinned, wrk, wrk_installed
from bench.report import Figure, Report, at_least
from bench.row import Row
from bench.scene import workspace

_USUAL_S: Final = 5.0
_ROUNDS: Final = 3
_CONNECTIONS: Final = 100


def _measure(row: Row, options: Options) -> Report:
    secs, rounds = options.duration(_USUAL_S), 1 if options.smoke else _ROUNDS
    available = cores()
    core, receiver_core = available[0], available[-1]
    with ExitStack() as stack:
        directory = workspace(options, stack)
        command = pinned([sys.executable, "-m", "bench.clients.plain"], receiver_core)
        process = stack.enter_context(running(command, stdin=subprocess.PIPE))
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())
        clients = {
            "sender": partial(client, "sender", port, "/", secs, _CONNECTIONS, core, "--signed"),
            "sender without signing": partial(client, "sender", port, "/", secs, _CONNECTIONS, core),
            "bare": partial(client, "bare", port, "/", secs, _CONNECTIONS, core),
        }
        if wrk_installed():
            clients["wrk"] = partial(wrk, port, "/", directory, secs, _CONNECTIONS, core)
        found: dict[str, list[Posted]] = {name: [] for name in clients}
        with bar("sender and references", rounds * len(clients)) as step:
            for _ in range(rounds):
                for name, post in clients.items():
                    found[name].append(post())
                    step(sum(map(len, found.values())), f"{found[name][-1].per_s:,.0f} requests/s")
    each = {name: median(posted.per_cpu_s for posted in runs) for name, runs in found.items()}
    figures = [
        Figure("sender with signing", each["sender"], "requests per CPU second"),
        Figure("sender without signing", each["sender without signing"], "requests per CPU second"),
        Figure("CPU time with signing", 1e6 / each["sender"], "µs per request"),
        Figure("throughput with signing", median(posted.per_s for posted in found["sender"]), "requests/s on one core"),
        Figure("relative to a bare Python client", each["sender"] / each["bare"] * 100, "%"),
    ]
    notes = []
    if "wrk" in each:
        figures.insert(0, at_least("relative to wrk", each["sender"] / each["wrk"] * 100, "%", 45))
    else:
        notes.append("wrk is not installed, so the comparison with wrk is missing. On Debian, run: apt-get install wrk")
    return Report(
        row.name,
        row.title,
        figures,
        {
            "payload": "1024 bytes and the headers of a delivery",
            "load": f"{_CONNECTIONS} connections, keep-alive, {secs:g} s each, median of {rounds}",
            "cores": f"client on {core}, receiver on {receiver_core}",
            "durability": "none",
        },
        {f"{name} requests per CPU second": round(each[name]) for name in ("wrk", "bare") if name in each},
        {},
        notes,
    )


ROW: Final = Row("sender", "throughput of the sender alone on one core, compared with wrk", _measure, 70)
