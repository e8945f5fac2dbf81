"""Latency at a low rate of 300 events/s."""

from typing import Final

from bench.options import Options
from bench.reference import commits
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.scene import Scene, conditions

_USUAL_S: Final = 30.0
_RATE: Final = 300.0


def _measure(row: Row, options: Options) -> Report:
    secs = options.duration(_USUAL_S)
    with Scene(options) as scene:
        reference = commits(scene.directory, options.duration(2.0))
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        scene.run("warming up", secs=options.warm_up_s, rate=_RATE)
        found = scene.run(f"{_RATE:g} events/s", secs=secs, rate=_RATE)
        notes = found.trouble + scene.trouble()
    return Report(
        row.name,
        row.title,
        [
            at_most("accepted → received p50", found.received_ms.get("p50", 0), "ms", 1.2),
            at_most("accepted → received p99", found.received_ms.get("p99", 0), "ms", 4),
            Figure("accept p50", found.accept_ms.get("p50", 0), "ms"),
            Figure("accept p99", found.accept_ms.get("p99", 0), "ms"),
            at_most("lost", found.lost, "events", 0),
            Figure("duplicates", found.duplicates, "events"),
            Figure("CPU time", found.cpu_us, "µs per event"),
            Figure("generator delay p99", found.load["late_ms"].get("p99", 0), "ms"),
        ],
        conditions(options, load=f"{_RATE:g} events/s, open loop, {secs:g} s"),
        reference,
        {
            f"accept at {_RATE:g}/s": found.accept_ms,
            f"accepted → received at {_RATE:g}/s": found.received_ms,
        },
        notes,
    )


ROW: Final = Row("latency", "latency from acceptance to the receiver at 300 events/s", _measure, 40)
