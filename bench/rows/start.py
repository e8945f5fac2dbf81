"""Startup time of the server, from the command until /readyz first responds with 200."""

from statistics import median
from typing import Final

from bench.options import Options
from bench.prefill import copy_endpoints, prefill
from bench.progress import bar
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.scene import BODY_BYTES, Scene, conditions

_TIMES: Final = 5
_ENDPOINTS: Final = 100_000


def _measure(row: Row, options: Options) -> Report:
    times, count = 1 if options.smoke else _TIMES, 2000 if options.smoke else options.waiting
    many = 200 if options.smoke else _ENDPOINTS
    fresh, again = [], []
    with bar("starts", times * 3) as step:
        for number in range(times):
            with Scene(options) as scene:
                fresh.append(scene.server.start())
                scene.server.stop()
                again.append(scene.server.start())
            step(2 * (number + 1), f"{fresh[-1]:.2f} s")
    with Scene(options) as scene:
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        scene.server.stop()
        prefill(scene.server.database, count, BODY_BYTES)
        filled = []
        for _ in range(times):
            filled.append(scene.server.start())
            scene.server.kill()
        notes = scene.trouble()
    with Scene(options) as scene:
        scene.server.start()
        scene.add(["ok/0"])
        scene.server.stop()
        copy_endpoints(scene.server.database, many)
        crowded = []
        for _ in range(times):
            crowded.append(scene.server.start())
            scene.server.kill()
        notes += scene.trouble()
    return Report(
        row.name,
        row.title,
        [
            at_most("first start, creates the tables", median(fresh), "s", 2),
            at_most("empty database", median(again), "s", 2),
            at_most(f"{count:,} waiting deliveries", median(filled), "s", 2),
            at_most(f"{many:,} endpoints", median(crowded), "s", 2),
            Figure("maximum of all starts", max(fresh + again + filled + crowded), "s"),
        ],
        conditions(
            options, runs=f"median of {times}", waiting=f"{count:,} deliveries; server killed before each start"
        ),
        notes=notes,
    )


ROW: Final = Row("start", "time from the command to ready", _measure, 120)
