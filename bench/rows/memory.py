"""Memory of the server when it is idle, at full load, and with a million waiting deliveries."""

import time
from typing import Final

from bench.meter import memory_mib
from bench.options import Options
from bench.prefill import prefill
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.scene import BODY_BYTES, Scene, conditions

_USUAL_S: Final = 30.0
_REST_S: Final = 3.0


def _measure(row: Row, options: Options) -> Report:
    secs, count = options.duration(_USUAL_S), 2000 if options.smoke else options.waiting
    rest = options.duration(_REST_S)
    with Scene(options) as scene:
        scene.server.start()
        time.sleep(rest)
        idle = memory_mib(scene.server.pid)
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        scene.warm_up()
        load = scene.run("full load", secs=secs)
        time.sleep(rest)
        after = memory_mib(scene.server.pid)
        scene.server.stop()
        prefill(scene.server.database, count, BODY_BYTES)
        scene.server.start()
        time.sleep(rest)
        waiting_idle = memory_mib(scene.server.pid)
        waiting = scene.run("full load", secs=secs)
        notes = load.trouble + waiting.trouble + scene.trouble()
    return Report(
        row.name,
        row.title,
        [
            at_most("idle", idle, "MiB", 90),
            at_most("at load", load.memory_mib, "MiB", 250),
            at_most(f"at load, {count:,} waiting", waiting.memory_mib, "MiB", 300),
            Figure("after load", after, "MiB"),
            Figure(f"idle, {count:,} waiting", waiting_idle, "MiB"),
            Figure("throughput", load.per_s, "events/s"),
            Figure(f"throughput, {count:,} waiting", waiting.per_s, "events/s"),
        ],
        conditions(
            options,
            load=f"{options.connections} connections, closed loop, {secs:g} s",
            memory="proportional set size of all processes, maximum of one sample per second",
        ),
        notes=notes,
    )


ROW: Final = Row("memory", "memory when idle, at full load, and with 1,000,000 waiting deliveries", _measure, 200)
