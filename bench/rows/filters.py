"""Cost of filters: a second endpoint of each account evaluates a filter of five conditions and rejects the event."""

from typing import Final

from bench.options import Options
from bench.reference import commits
from bench.report import Figure, Report, at_least, at_most
from bench.row import Row
from bench.scene import Scene, conditions

_USUAL_S: Final = 30.0
_ENDPOINTS: Final = 1_000
_FILTER: Final = {
    "object": {
        "id": [{"anything-but": ["athlete-1", "athlete-2"]}],
        "seq": [{"numeric": [">=", 0]}],
        "t": [{"exists": True}],
        "pad": [{"prefix": "x"}],
        "status": ["completed", "failed"],
    }
}


def _measure(row: Row, options: Options) -> Report:
    secs = options.duration(_USUAL_S)
    accounts = 10 if options.smoke else _ENDPOINTS // 2
    with Scene(options) as scene:
        reference = commits(scene.directory, options.duration(2.0))
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(accounts)])
        scene.warm_up()
        without = scene.run("without filters", secs=secs)
        body = {"url": scene.receiver.url("ok/filtered"), "filter": _FILTER}
        for account in scene.accounts:
            scene.server.call("POST", "/v1/endpoints", body, account)
        scene.warm_up()
        found = scene.run("with filters", secs=secs)
        notes = without.trouble + found.trouble + scene.trouble()
    return Report(
        row.name,
        row.title,
        [
            at_least("throughput, compared with no filters", found.per_s / max(without.per_s, 1e-9), "", 0.9),
            at_most("lost", found.lost + without.lost, "events", 0),
            Figure("CPU time of a filter", found.cpu_us - without.cpu_us, "µs per event"),
            Figure("delivered", found.per_s, "events/s"),
            Figure("delivered without filters", without.per_s, "events/s"),
            Figure("CPU time", found.cpu_us, "µs per event"),
        ],
        conditions(options, load=f"{options.connections} connections, closed loop, {secs:g} s")
        | {"endpoints": f"{2 * accounts}, half with a filter that rejects all events"},
        reference,
        {"accept with filters": found.accept_ms, "accept without filters": without.accept_ms},
        notes,
    )


ROW: Final = Row("filters", "throughput with filters that reject events", _measure, 80)
