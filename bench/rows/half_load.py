"""Latency at half of the maximum throughput."""

from typing import Final

from bench.half import half_rate
from bench.options import Options
from bench.reference import commits
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.scene import Scene, conditions

_USUAL_S: Final = 30.0
CONNECTIONS_MAX: Final = 512


def _measure(row: Row, options: Options) -> Report:
    secs = options.duration(_USUAL_S)
    with Scene(options) as scene:
        reference = commits(scene.directory, options.duration(2.0))
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        rate, words = half_rate(scene, options)
        scene.run("warming up", secs=options.warm_up_s, rate=rate, connections=CONNECTIONS_MAX)
        found = scene.run("half load", secs=secs, rate=rate, connections=CONNECTIONS_MAX)
        notes = found.trouble + scene.trouble()
    return Report(
        row.name,
        row.title,
        [
            at_most("accept p99", found.accept_ms.get("p99", 0), "ms", 15),
            at_most("accepted → received p50", found.received_ms.get("p50", 0), "ms", 5),
            at_most("accepted → received p99", found.received_ms.get("p99", 0), "ms", 30),
            Figure("accept p50", found.accept_ms.get("p50", 0), "ms"),
            Figure("rate", rate, "events/s"),
            at_most("lost", found.lost, "events", 0),
            Figure("duplicates", found.duplicates, "events"),
            Figure("CPU time", found.cpu_us, "µs per event"),
            Figure("generator delay p99", found.load["late_ms"].get("p99", 0), "ms"),
        ],
        conditions(options, load=f"{words}, open loop, {secs:g} s"),
        reference,
        {"accept at half load": found.accept_ms, "accepted → received at half load": found.received_ms},
        notes,
    )


ROW: Final = Row("half-load", "latency at half of the maximum load", _measure, 60)
