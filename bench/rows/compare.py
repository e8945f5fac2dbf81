"""Comparison of this build with another build (`--server`) at full load.

The row measures the builds in turn. While it measures one build, the server of the other build is idle. Without
`--server`, the row compares this build with itself, which shows the error of the measurement.
"""

import statistics
from dataclasses import replace
from typing import Final

from bench.options import Options
from bench.pairs import alternate, error_of_median, paired, ratios
from bench.report import Figure, Report, at_least, at_most
from bench.row import Row
from bench.scene import Scene, conditions


def _measure(row: Row, options: Options) -> Report:
    with Scene(options) as other, Scene(replace(options, server=None)) as this:
        for scene in (other, this):
            scene.server.start()
            scene.add([f"ok/{number}" for number in range(options.endpoints)])
        pairs = alternate(options, other, this)
        notes = other.trouble() + this.trouble()
    cpu, speed = ratios(pairs, lambda run: run.cpu_us), ratios(pairs, lambda run: run.per_s)
    return Report(
        row.name,
        row.title,
        [
            at_most("CPU time per event, compared with the other build", statistics.median(cpu), "", 1.03),
            at_least("throughput, compared with the other build", statistics.median(speed), "", 0.97),
            at_most("lost", sum(run.lost for pair in pairs for run in pair), "events", 0),
            Figure("standard error of the CPU time", error_of_median(cpu)),
            Figure("standard error of the throughput", error_of_median(speed)),
            Figure("CPU time of the other build", statistics.median(run.cpu_us for run, _ in pairs), "µs per event"),
            Figure("CPU time of this build", statistics.median(run.cpu_us for _, run in pairs), "µs per event"),
        ],
        conditions(
            options,
            load=f"{options.connections} connections, closed loop, {paired(options)}",
        ),
        notes=notes,
    )


ROW: Final = Row("compare", "this build compared with another one, in turn", _measure, 230)
