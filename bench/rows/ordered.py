"""Events per second to one endpoint, with ordering by key and without ordering."""

from typing import Final

from bench.options import Options
from bench.reference import commits
from bench.report import Figure, Report, at_least, at_most
from bench.row import Row
from bench.scene import Scene, conditions

_USUAL_S: Final = 20.0
_KEYS: Final = 256


def _measure(row: Row, options: Options) -> Report:
    secs = options.duration(_USUAL_S)
    with Scene(options) as scene:
        reference = commits(scene.directory, options.duration(3.0))
        scene.server.start()
        scene.add(["ok/0"])
        scene.warm_up()
        [account] = scene.accounts
        plain = scene.run("unordered", secs=secs)
        [endpoint] = scene.server.call("GET", "/v1/endpoints", account=account)["data"]
        scene.server.call("PATCH", f"/v1/endpoints/{endpoint['id']}", {"ordering": "key"}, account)
        ordered = scene.run("ordered by key", secs=secs, keys=_KEYS)
        notes = plain.trouble + ordered.trouble + scene.trouble()
    return Report(
        row.name,
        row.title,
        [
            Figure("delivered, unordered", plain.per_s, "events/s"),
            Figure("delivered, ordered", ordered.per_s, "events/s"),
            at_least("ratio", ordered.per_s / max(plain.per_s, 1e-9), "", 0.5),
            at_most("lost", plain.lost + ordered.lost, "events", 0),
            Figure("duplicates", plain.duplicates + ordered.duplicates, "events"),
            Figure("CPU time, unordered", plain.cpu_us, "µs per event"),
            Figure("CPU time, ordered", ordered.cpu_us, "µs per event"),
            Figure("time to drain, ordered", ordered.drain_s, "s"),
        ],
        conditions(options, load=f"{options.connections} connections, closed loop, {secs:g} s; {_KEYS} keys"),
        reference,
        {"accepted → received, ordered": ordered.received_ms},
        notes,
    )


ROW: Final = Row("ordered", "throughput of one endpoint that is ordered by key", _measure, 75)
