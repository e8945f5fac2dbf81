"""Kills the server under load, and checks that every event accepted with 202 is delivered."""

import random
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from bench.options import Options
from bench.progress import bar
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.scene import Scene, conditions
from bench.server import READY_WITHIN_S

_UPTIME_S: Final = (0.2, 2.0)
_SMOKE_KILLS: Final = 1
_SEQ: Final = re.compile(rb'"seq":\s*(\d+)')


def _measure(row: Row, options: Options) -> Report:
    kills = _SMOKE_KILLS if options.smoke else options.kills
    rng = random.Random(options.seed)
    settings = {"UPLIFT_LEASE": "6s", "UPLIFT_ATTEMPT_TIMEOUT": "1s"} if options.smoke else {}
    leased = cut_off = 0
    restarts: list[float] = []
    with Scene(options, settings=settings) as scene:
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        scene.receiver.reset()
        load = scene.begin(secs=0)
        with bar("kill -9", kills) as step:
            for kill in range(kills):
                time.sleep(rng.uniform(*_UPTIME_S))
                scene.server.kill()
                # The receiver counts a request only after it has read it from the socket.
                time.sleep(0.1)
                at_kill = _leased(scene.server.database)
                leased += len(at_kill)
                cut_off += len(at_kill & scene.receiver.seen())
                restarts.append(scene.server.start())
                step(kill + 1, f"{leased:,} leased at kills")
        time.sleep(rng.uniform(*_UPTIME_S))
        load.terminate()
        result, accepted = scene.finish(load)
        began = time.monotonic()
        lost = scene.drain(accepted)
        drained = time.monotonic() - began
        counts = scene.receiver.statistics()["counts"]["ok"]
        notes = [f"To repeat the kills at the same times, use --seed {options.seed}.", *scene.trouble()]
    return Report(
        row.name,
        row.title,
        [
            at_most("lost", len(lost), "events", 0),
            at_most("duplicates", counts["duplicates"], "events", cut_off),
            Figure("sent but not settled at the kills", cut_off, "deliveries"),
            Figure("leased at the kills", leased, "deliveries"),
            Figure("kills", kills),
            Figure("accepted with 202", len(accepted), "events"),
            Figure("delivered", counts["unique"], "events"),
            Figure("interrupted requests", result["codes"].get("0", 0), "requests"),
            Figure("longest time from restart to ready", max(restarts), "s"),
            Figure("time until the last delivery", drained, "s"),
        ],
        conditions(
            options,
            load=f"{options.connections} connections, closed loop",
            kills=f"{kills}, each {_UPTIME_S[0]} to {_UPTIME_S[1]} s after the server was ready",
            restart=f"immediate; ready within {READY_WITHIN_S:g} s",
            **settings,
        ),
        notes=notes,
    )


def _leased(database: Path) -> set[int]:
    """Return the numbers of the events that were leased when the server was killed.

    Opens the file read-only, so that the server, not this process, recovers the write-ahead log.
    """
    statement = (
        "SELECT e.body FROM deliveries d JOIN events e ON e.seq = d.event_seq WHERE d.status = 0 AND d.lease_owner <> 0"
    )
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        found = (_SEQ.search(body) for (body,) in connection.execute(statement))
        return {int(match[1]) for match in found if match is not None}


ROW: Final = Row("kill", "kill -9 under load: no accepted event is lost", _measure, 150)
