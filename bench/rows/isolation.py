"""Latency of healthy endpoints while other endpoints never respond."""

from typing import Final

from bench.half import half_rate
from bench.options import Options
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.rows.half_load import CONNECTIONS_MAX
from bench.scene import Measurement, Scene, conditions

_USUAL_S: Final = 60.0
_ENDPOINTS: Final = 500
_EVERY_NTH_HANGS: Final = 5


def _measure(row: Row, options: Options) -> Report:
    secs, count = options.duration(_USUAL_S), 20 if options.smoke else _ENDPOINTS
    with Scene(options) as scene:
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(count)])
        rate, words = half_rate(scene, options)
        without = _run(scene, options, secs, rate, "all respond")
    with Scene(options) as scene:
        scene.server.start()
        scene.add([f"{'hang' if number % _EVERY_NTH_HANGS == 0 else 'ok'}/{number}" for number in range(count)])
        found = _run(scene, options, secs, rate, "20% hang")
        notes = found.trouble + scene.trouble()
    p99, p99_without = found.received_ms.get("p99", 0), without.received_ms.get("p99", 0)
    return Report(
        row.name,
        row.title,
        [
            at_most("healthy p99, relative to the run in which none hang", p99 / max(p99_without, 0.001), "times", 1.5),
            Figure("healthy p99", p99, "ms"),
            Figure("healthy p99 in the run in which none hang", p99_without, "ms"),
            Figure("healthy p50", found.received_ms.get("p50", 0), "ms"),
            Figure("healthy p50 in the run in which none hang", without.received_ms.get("p50", 0), "ms"),
            at_most("lost for healthy endpoints", found.lost, "events", 0),
            Figure("duplicates", found.duplicates, "events"),
            Figure("accept p99", found.accept_ms.get("p99", 0), "ms"),
            Figure("CPU time", found.cpu_us, "µs per event of a healthy endpoint"),
            Figure("memory", found.memory_mib, "MiB"),
        ],
        conditions(options, load=f"{words}, open loop, {secs:g} s each")
        | {"endpoints": f"{count}, of which {count // _EVERY_NTH_HANGS} never respond (timeout 15 s)"},
        {},
        {"half load, none hang": without.received_ms, "half load, 20% hang": found.received_ms},
        notes,
    )


def _run(scene: Scene, options: Options, secs: float, rate: float, label: str) -> Measurement:
    scene.run("warming up", secs=options.warm_up_s, rate=rate, connections=CONNECTIONS_MAX)
    return scene.run(label, secs=secs, rate=rate, connections=CONNECTIONS_MAX)


ROW: Final = Row("isolation", "latency of healthy endpoints while 20% of 500 endpoints hang", _measure, 180)
