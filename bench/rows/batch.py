"""Accepted events per second in batches of 100."""

from typing import Final

from bench.options import Options
from bench.reference import BATCH, commits
from bench.report import Figure, Report, at_least, at_most
from bench.row import Row
from bench.scene import Scene, conditions

_USUAL_S: Final = 20.0
_CONNECTIONS: Final = 8


def _measure(row: Row, options: Options) -> Report:
    secs = options.duration(_USUAL_S)
    with Scene(options) as scene:
        reference = commits(scene.directory, options.duration(3.0))
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        scene.run("warming up", secs=options.warm_up_s, connections=_CONNECTIONS, batch=BATCH)
        found = scene.run("batches", secs=secs, connections=_CONNECTIONS, batch=BATCH)
        notes = found.trouble + scene.trouble()
    return Report(
        row.name,
        row.title,
        [
            at_least("accepted", found.accepted / found.load["secs"], "events/s", 12_000),
            at_most("lost", found.lost, "events", 0),
            Figure("duplicates", found.duplicates, "events"),
            Figure("delivered, including the drain", found.accepted / (found.load["secs"] + found.drain_s), "events/s"),
            Figure("time to drain", found.drain_s, "s"),
            Figure("CPU time", found.cpu_us, "µs per event"),
            Figure("memory at load", found.memory_mib, "MiB"),
            Figure("accept p50", found.accept_ms.get("p50", 0), "ms per batch"),
            Figure("accept p99", found.accept_ms.get("p99", 0), "ms per batch"),
        ],
        conditions(options, load=f"{_CONNECTIONS} connections, {BATCH} events per request, closed loop, {secs:g} s"),
        reference,
        {"accept a batch": found.accept_ms},
        notes,
    )


ROW: Final = Row("batch", "throughput of batches of 100 events", _measure, 60)
