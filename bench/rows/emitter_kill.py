"""Kills the server while the library's emitter sends, and checks that the server stores each event once, in order."""

import re
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Final

from bench.load import TYPE
from bench.options import Options
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.scene import Scene, conditions
from bench.server import KEY
from uplift_webhooks import Emitter

_EVENTS: Final = 10_000
_SMOKE_EVENTS: Final = 300
_PER_S: Final = 250.0
_BETWEEN_KILLS_S: Final = 5.0
_NUMBER: Final = re.compile(rb'"number":\s*(\d+)')


def _measure(row: Row, options: Options) -> Report:
    events = _SMOKE_EVENTS if options.smoke else _EVENTS
    between_s = 0.5 if options.smoke else _BETWEEN_KILLS_S
    kills: list[float] = []
    with Scene(options) as scene:
        scene.server.start()
        scene.add(["ok/0"])
        [account] = scene.accounts
        began = time.monotonic()
        with Emitter(f"http://127.0.0.1:{scene.server.port}", KEY, account) as emitter, ThreadPoolExecutor(1) as pool:
            sending = pool.submit(_send, emitter, events)
            # Kill the server only while calls are waiting. Later kills could keep it down until the emitter gives up.
            while wait([sending], between_s).not_done:
                scene.server.kill()
                kills.append(scene.server.start())
            sending.result()
        took = time.monotonic() - began
        stored = _stored(scene.server.database)
        notes = scene.trouble()
    return Report(
        row.name,
        row.title,
        [
            at_most("lost", events - len(set(stored)), "events", 0),
            at_most("duplicates", len(stored) - len(set(stored)), "events", 0),
            at_most("out of order", sum(a > b for a, b in pairwise(stored)), "events", 0),
            Figure("accepted", emitter.accepted, "events"),
            Figure("kills", len(kills)),
            Figure("longest time from restart to ready", max(kills, default=0.0), "s"),
            Figure("time until the last response", took, "s"),
        ],
        conditions(
            options,
            payload="a few bytes per event",
            endpoints="1",
            load=f"{events:,} calls of Emitter.send, {_PER_S:g} per second, one account",
            kills=f"every {between_s:g} s",
        ),
        notes=notes,
    )


def _send(emitter: Emitter, events: int) -> None:
    began = time.monotonic()
    for number in range(events):
        emitter.send(TYPE, {"object": {"id": "a"}, "number": number})
        time.sleep(max(0.0, began + number / _PER_S - time.monotonic()))


def _stored(database: Path) -> list[int]:
    """Return the numbers of the stored events, in the order of acceptance."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        found = (_NUMBER.search(body) for (body,) in connection.execute("SELECT body FROM events ORDER BY seq"))
        return [int(match[1]) for match in found if match is not None]


ROW: Final = Row("emitter-kill", "kill -9 while the emitter sends: every event once, in order", _measure, 60)
