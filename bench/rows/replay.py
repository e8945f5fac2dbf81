"""Effect of a large replay on new traffic, and the time to cancel the replay."""

import time
from collections.abc import Sequence
from typing import Final

from bench.half import half_rate
from bench.options import Options
from bench.pairs import p99_times
from bench.prefill import prefill
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.rows.half_load import CONNECTIONS_MAX
from bench.scene import BODY_BYTES, Measurement, Scene, conditions

_USUAL_S: Final = 10.0
_PAIRS: Final = 5
_LIGHT_RATE: Final = 300.0
_COUNT: Final = 100_000
_RATE: Final = 500
_ENDED_WITHIN_S: Final = 30.0
_LOOK_S: Final = 0.01

_Pair = tuple[Measurement, Measurement]
"""Two measurements of the same load: with a paused replay, then with a running replay."""


def _measure(row: Row, options: Options) -> Report:
    secs, count = options.duration(_USUAL_S), 2000 if options.smoke else _COUNT
    paths = [f"ok/{number}" for number in range(options.endpoints)]
    with Scene(options) as scene:
        scene.server.start()
        scene.add(paths)
        scene.server.stop()
        prefill(scene.server.database, count, BODY_BYTES, exhausted=True)
        scene.server.start()
        rate, words = half_rate(scene, options)
        endpoint = scene.server.call("GET", "/v1/endpoints?limit=500")["data"][-1]["id"]
        job = scene.server.call("POST", "/v1/replays", {"endpoint": endpoint, "rate_per_second": _RATE})["id"]
        pairs = 1 if options.smoke else _PAIRS
        half = [_pair(scene, job, "half load", secs, rate) for _ in range(pairs)]
        light = [_pair(scene, job, f"{_LIGHT_RATE:g} events/s", secs, _LIGHT_RATE) for _ in range(pairs)]
        sent, ended_s = _cancel(scene, job)
        runs = [run for pair in half + light for run in pair]
        notes = list(dict.fromkeys(note for run in runs for note in run.trouble)) + scene.trouble()
    alone, beside = _median(half)
    return Report(
        row.name,
        row.title,
        [
            *_figures("half load", half),
            *_figures(f"{_LIGHT_RATE:g} events/s", light),
            Figure("replayed", sent, "deliveries"),
            at_most("time from cancel to end", ended_s, "s", 1),
            at_most("lost", sum(run.lost for run in runs), "events", 0),
        ],
        conditions(
            options,
            replay=f"{count:,} failed deliveries of one endpoint, {_RATE} per second",
            load=f"{words}, and {_LIGHT_RATE:g} events/s, {secs:g} s each",
        ),
        {},
        {"half load": alone.received_ms, "half load during a replay": beside.received_ms},
        notes,
    )


def _figures(load: str, pairs: Sequence[_Pair]) -> list[Figure]:
    """Return the figures for p99 with and without the replay."""
    alone, beside = _median(pairs)
    times = sorted(map(p99_times, pairs))
    return [
        at_most(
            f"p99 at {load} during a replay, relative to no replay, median", p99_times((alone, beside)), "times", 1.2
        ),
        Figure(f"p99 at {load} during a replay, relative to no replay, minimum", times[0], "times"),
        Figure(f"p99 at {load} during a replay, relative to no replay, maximum", times[-1], "times"),
        Figure(f"accepted → received p99 at {load} during a replay", beside.received_ms.get("p99", 0), "ms"),
        Figure(f"accepted → received p99 at {load} with a paused replay", alone.received_ms.get("p99", 0), "ms"),
    ]


def _median(pairs: Sequence[_Pair]) -> _Pair:
    return sorted(pairs, key=p99_times)[len(pairs) // 2]


def _pair(scene: Scene, job: str, load: str, secs: float, rate: float) -> _Pair:
    """Run the load with a paused replay, then with a running one. The machine's speed changes little in between."""
    scene.server.call("POST", f"/v1/replays/{job}/pause")
    alone = scene.run(load, secs=secs, rate=rate, connections=CONNECTIONS_MAX)
    scene.server.call("POST", f"/v1/replays/{job}/resume")
    return alone, scene.run(f"{load} during a replay", secs=secs, rate=rate, connections=CONNECTIONS_MAX)


def _cancel(scene: Scene, job: str) -> tuple[int, float]:
    """Cancel the replay. Return the number of sent deliveries and the seconds until the replay ended."""
    began = time.monotonic()
    found = scene.server.call("GET", f"/v1/replays/{job}")
    if found["state"] == "running":
        began = time.monotonic()
        found = scene.server.call("POST", f"/v1/replays/{job}/cancel")
    while found["completed_at"] is None and time.monotonic() < began + _ENDED_WITHIN_S:
        time.sleep(_LOOK_S)
        found = scene.server.call("GET", f"/v1/replays/{job}")
    return found["sent"], time.monotonic() - began


ROW: Final = Row("replay", "latency of new traffic during a replay of 100,000 deliveries", _measure, 220)
