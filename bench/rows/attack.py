"""Latency of other accounts while some accounts attack the server."""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Final

from bench.attacks import Plan
from bench.options import Options
from bench.processes import start, stop
from bench.receiving import Receiver
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.scene import Scene, conditions
from bench.server import KEY, ServerFailed

_USUAL_S: Final = 30.0
_RATE: Final = 50.0
_ENDPOINTS: Final = 20
_BEGIN_S: Final = 5.0
"""Time from the start of the attacks to the start of the measurement, in seconds."""
_SMOKE_SCALE: Final = 0.02
_NICENESS: Final = 10
"""Niceness of the attackers and their receiver. In production, they would not use the server's CPU."""


def _measure(row: Row, options: Options) -> Report:
    secs = options.duration(_USUAL_S)
    with Scene(options) as scene, Receiver(_NICENESS) as attacked:
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(_ENDPOINTS)])
        plan = Plan(scene.server.port, KEY, attacked.port, _SMOKE_SCALE if options.smoke else 1.0)
        file = scene.directory / "attacks.json"
        file.write_text(json.dumps(asdict(plan)))
        attacks = start([sys.executable, "-m", "bench.attacks", file], stdin=subprocess.PIPE, niceness=_NICENESS)
        try:
            assert attacks.stdout is not None
            assert attacks.stdin is not None
            if attacks.stdout.readline() != b"prepared\n":
                raise ServerFailed("cannot prepare the attacks")
            scene.run("warming up", secs=options.warm_up_s, rate=_RATE)
            quiet = scene.run(f"{_RATE:g} events/s, no attack", secs=secs, rate=_RATE)
            attacks.stdin.write(b"\n")
            attacks.stdin.flush()
            time.sleep(0.5 if options.smoke else _BEGIN_S)
            found = scene.run(f"{_RATE:g} events/s, under attack", secs=secs, rate=_RATE)
            attacks.terminate()
            out, _ = attacks.communicate(timeout=60)
        finally:
            stop(attacks)
        responses: dict[str, dict[str, int]] = json.loads(out or b"{}")
    notes = found.trouble + [f"Responses to {name}: {counts}" for name, counts in sorted(responses.items())]
    return Report(
        row.name,
        row.title,
        [
            at_most("accept p99 under attack", found.accept_ms.get("p99", 0), "ms", 250),
            at_most("accepted → received p99 under attack", found.received_ms.get("p99", 0), "ms", 250),
            at_most("memory under attack", found.memory_mib, "MiB", 400),
            at_most("lost", found.lost, "events", 0),
            Figure("accept p99 without attacks", quiet.accept_ms.get("p99", 0), "ms"),
            Figure("accepted → received p99 without attacks", quiet.received_ms.get("p99", 0), "ms"),
            Figure("duplicates", found.duplicates, "events"),
        ],
        conditions(options, load=f"{_RATE:g} events/s to {_ENDPOINTS} accounts, open loop, {secs:g} s each"),
        {},
        {"no attack": quiet.received_ms, "under attack": found.received_ms},
        notes,
    )


ROW: Final = Row("attack", "latency of other accounts while some accounts attack the server", _measure, 90)
