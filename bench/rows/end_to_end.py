"""Events per second from `POST /v1/events` to the receiver, at full load."""

from typing import Final

from bench.options import Options
from bench.reference import commits, requests
from bench.report import Figure, Report, at_least, at_most
from bench.row import Row
from bench.scene import Scene, conditions

_USUAL_S: Final = 60.0


def _measure(row: Row, options: Options) -> Report:
    secs = options.duration(_USUAL_S)
    with Scene(options) as scene:
        reference = commits(scene.directory, options.duration(3.0)) | requests(
            scene.receiver.port, scene.directory, options.duration(3.0), options.connections
        )
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        scene.warm_up()
        found = scene.run("end to end", secs=secs)
        notes = found.trouble + scene.trouble()
    return Report(
        row.name,
        row.title,
        [
            at_least("delivered", found.per_s, "events/s", 7000, ", aim 10,000"),
            at_most("lost", found.lost, "events", 0),
            Figure("duplicates", found.duplicates, "events"),
            at_most("CPU time", found.cpu_us, "µs per event", 135, ", aim 100"),
            at_most("memory at load", found.memory_mib, "MiB", 250),
            Figure("accepted", found.accepted / found.load["secs"], "events/s"),
            Figure("time to drain", found.drain_s, "s"),
            Figure("cores used by the server", found.cores),
            Figure("accept p50", found.accept_ms.get("p50", 0), "ms"),
            Figure("accept p99", found.accept_ms.get("p99", 0), "ms"),
            Figure("accepted → received p50", found.received_ms.get("p50", 0), "ms"),
            Figure("accepted → received p99", found.received_ms.get("p99", 0), "ms"),
        ],
        conditions(options, load=f"{options.connections} connections, closed loop, {secs:g} s"),
        reference,
        {"accept at full load": found.accept_ms, "accepted → received at full load": found.received_ms},
        notes,
    )


ROW: Final = Row("end-to-end", "throughput of single events at full load, on SQLite", _measure, 75)
