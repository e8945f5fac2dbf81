"""Effect of a million waiting deliveries on new traffic."""

from typing import Final

from bench.half import half_rate
from bench.options import Options
from bench.prefill import prefill
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.rows.half_load import CONNECTIONS_MAX
from bench.scene import BODY_BYTES, Measurement, Scene, conditions

_USUAL_S: Final = 30.0
_ENDPOINTS: Final = 100


def _measure(row: Row, options: Options) -> Report:
    secs, count = options.duration(_USUAL_S), 2000 if options.smoke else options.waiting
    paths = [f"ok/{number}" for number in range(20 if options.smoke else _ENDPOINTS)]
    with Scene(options) as scene:
        scene.server.start()
        scene.add(paths)
        rate, words = half_rate(scene, options)
        full, half = _run(scene, secs, rate)
    with Scene(options) as scene:
        scene.server.start()
        scene.add(paths)
        scene.server.stop()
        prefill(scene.server.database, count, BODY_BYTES)
        ready = scene.server.start()
        scene.warm_up()
        waiting_full, waiting_half = _run(scene, secs, rate)
        notes = waiting_full.trouble + waiting_half.trouble + scene.trouble()
    slowdown = (1 - waiting_full.per_s / max(full.per_s, 1e-9)) * 100
    return Report(
        row.name,
        row.title,
        [
            at_most("slowdown of new traffic", slowdown, "%", 10),
            Figure("delivered", waiting_full.per_s, "events/s"),
            Figure("delivered, empty database", full.per_s, "events/s"),
            Figure("CPU time", waiting_full.cpu_us, "µs per event"),
            Figure("CPU time, empty database", full.cpu_us, "µs per event"),
            Figure("accepted → received p50 at half load", waiting_half.received_ms.get("p50", 0), "ms"),
            Figure("accepted → received p50 at half load, empty database", half.received_ms.get("p50", 0), "ms"),
            Figure("accepted → received p99 at half load", waiting_half.received_ms.get("p99", 0), "ms"),
            Figure("accepted → received p99 at half load, empty database", half.received_ms.get("p99", 0), "ms"),
            at_most("memory at load", max(waiting_full.memory_mib, waiting_half.memory_mib), "MiB", 300),
            at_most("lost", waiting_full.lost + waiting_half.lost, "events", 0),
            Figure("duplicates", waiting_full.duplicates + waiting_half.duplicates, "events"),
            Figure("start to ready", ready, "s"),
        ],
        conditions(
            options,
            waiting=f"{count:,} deliveries of {len(paths)} endpoints, failed once, due in 12 hours",
            load=f"full load with {options.connections} connections, then {words}, {secs:g} s each",
        )
        | {"endpoints": str(len(paths))},
        {},
        {
            "half load, empty database": half.received_ms,
            f"half load, {count:,} waiting": waiting_half.received_ms,
        },
        notes,
    )


def _run(scene: Scene, secs: float, rate: float) -> tuple[Measurement, Measurement]:
    full = scene.run("full load", secs=secs)
    return full, scene.run("half load", secs=secs, rate=rate, connections=CONNECTIONS_MAX)


ROW: Final = Row("waiting", "throughput and latency of new traffic with 1,000,000 waiting deliveries", _measure, 300)
