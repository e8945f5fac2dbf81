"""Cost of filters: each account has a second endpoint, whose filter with five conditions matches no event."""

import statistics
from typing import Final

from bench.options import Options
from bench.pairs import alternate, error_of_median, paired, ratios
from bench.reference import commits
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.scene import Scene, conditions

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
    accounts = 10 if options.smoke else _ENDPOINTS // 2
    with Scene(options) as without, Scene(options) as beside:
        reference = commits(without.directory, options.duration(2.0))
        for scene in (without, beside):
            scene.server.start()
            scene.add([f"ok/{number}" for number in range(accounts)])
        body = {"url": beside.receiver.url("ok/filtered"), "filter": _FILTER}
        for account in beside.accounts:
            beside.server.call("POST", "/v1/endpoints", body, account)
        pairs = alternate(options, without, beside)
        notes = without.trouble() + beside.trouble()
    cpu, speed = ratios(pairs, lambda run: run.cpu_us), ratios(pairs, lambda run: run.per_s)
    return Report(
        row.name,
        row.title,
        [
            at_most("CPU time per event, compared with no filters", statistics.median(cpu), "", 1.1),
            at_most("lost", sum(run.lost for pair in pairs for run in pair), "events", 0),
            Figure("throughput, compared with no filters", statistics.median(speed)),
            Figure("standard error of the CPU time", error_of_median(cpu)),
            Figure("CPU time without filters", statistics.median(run.cpu_us for run, _ in pairs), "µs per event"),
            Figure("CPU time with filters", statistics.median(run.cpu_us for _, run in pairs), "µs per event"),
        ],
        conditions(
            options,
            load=f"{options.connections} connections, closed loop, {paired(options)}",
        )
        | {"endpoints": f"{2 * accounts}, half with a filter that rejects all events"},
        reference,
        notes=notes,
    )


ROW: Final = Row("filters", "throughput with filters that reject events", _measure, 250)
