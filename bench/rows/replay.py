"""What a replay of very many deliveries costs fresh traffic, and how soon it ends when it is cancelled."""

import time
from typing import Final

from bench.half import half_rate
from bench.options import Options
from bench.prefill import prefill
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.rows.half_load import CONNECTIONS_MAX
from bench.scene import BODY_BYTES, Measurement, Scene, conditions

_USUAL_S: Final = 10.0
_PAIRS: Final = 5
_COUNT: Final = 100_000
_RATE: Final = 500
_ENDED_WITHIN_S: Final = 30.0
_LOOK_S: Final = 0.01


def _measure(row: Row, options: Options) -> Report:
    secs, count = options.duration(_USUAL_S), 2000 if options.smoke else _COUNT
    paths = [f"ok/{number}" for number in range(options.endpoints)]
    with Scene(options) as scene:
        scene.server.start()
        scene.add(paths)
        scene.server.stop()
        prefill(scene.server.database, count, BODY_BYTES, failed_for_good=True)
        scene.server.start()
        rate, words = half_rate(scene, options)
        endpoint = scene.server.call("GET", "/v1/endpoints?limit=500")["data"][-1]["id"]
        job = scene.server.call("POST", "/v1/replays", {"endpoint": endpoint, "rate_per_second": _RATE})["id"]
        pairs = [_pair(scene, job, secs, rate) for _ in range(1 if options.smoke else _PAIRS)]
        sent, ended_s = _cancel(scene, job)
        runs = [run for pair in pairs for run in pair]
        notes = list(dict.fromkeys(note for run in runs for note in run.trouble)) + scene.trouble()
    pairs.sort(key=_times)
    alone, beside = pairs[len(pairs) // 2]
    times = [_times(pair) for pair in pairs]
    return Report(
        row.name,
        row.title,
        [
            at_most("p99 beside a replay, the median pair", times[len(times) // 2], "times", 1.2),
            Figure("the pair in which it grew least", times[0], "times"),
            Figure("the pair in which it grew most", times[-1], "times"),
            Figure("accepted → received p99 beside a replay", beside.received_ms.get("p99", 0), "ms"),
            Figure("the same while it is paused", alone.received_ms.get("p99", 0), "ms"),
            Figure("replayed", sent, "deliveries"),
            at_most("from cancel to end", ended_s, "s", 1),
            at_most("lost", sum(run.lost for run in runs), "events", 0),
        ],
        conditions(
            options,
            replay=f"{count:,} failed deliveries of one endpoint, {_RATE} a second",
            load=f"{words}, {secs:g} s each",
        ),
        {},
        {"half load": alone.received_ms, "half load beside a replay": beside.received_ms},
        notes,
    )


def _pair(scene: Scene, job: str, secs: float, rate: float) -> tuple[Measurement, Measurement]:
    """The same load while the replay is paused, and while it runs: what the machine does meanwhile changes slowly."""
    scene.server.call("POST", f"/v1/replays/{job}/pause")
    alone = scene.run("half load", secs=secs, rate=rate, connections=CONNECTIONS_MAX)
    scene.server.call("POST", f"/v1/replays/{job}/resume")
    return alone, scene.run("half load beside a replay", secs=secs, rate=rate, connections=CONNECTIONS_MAX)


def _times(pair: tuple[Measurement, Measurement]) -> float:
    alone, beside = (run.received_ms.get("p99", 0.0) for run in pair)
    return beside / max(alone, 1e-9)


def _cancel(scene: Scene, job: str) -> tuple[int, float]:
    """How many it had sent, and the seconds until it had nothing in hand any more."""
    began = time.monotonic()
    found = scene.server.call("GET", f"/v1/replays/{job}")
    if found["state"] == "running":
        began = time.monotonic()
        found = scene.server.call("POST", f"/v1/replays/{job}/cancel")
    while found["completed_at"] is None and time.monotonic() < began + _ENDED_WITHIN_S:
        time.sleep(_LOOK_S)
        found = scene.server.call("GET", f"/v1/replays/{job}")
    return found["sent"], time.monotonic() - began


ROW: Final = Row("replay", "fresh traffic while 100,000 deliveries are replayed", _measure, 120)
