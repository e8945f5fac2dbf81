"""CPU instructions per event of this build and of another build (`--server`), counted by Valgrind.

On a quiet machine, the count of a build repeats within 0.2%, so it shows differences that are lost in the noise of CPU
times. It does not show waits and cache misses. Without `--server`, the row measures only this build.
"""

import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.options import Options
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.scene import Measurement, Scene, conditions
from bench.server import ServerFailed

_USUAL_S: Final = 30.0
_IDLE_S: Final = 10.0
_VALGRIND: Final = ("valgrind", "--tool=callgrind", "--instr-atstart=no")
_TOTAL: Final = "totals: "


def _measure(row: Row, options: Options) -> Report:
    if shutil.which("valgrind") is None:
        raise ServerFailed("this row needs valgrind: on Debian, run `apt-get install valgrind`")
    this, measured = _count(replace(options, server=None))
    figures, lost = [Figure("instructions of this build", this, "per event")], measured.lost
    if options.server is not None:
        other, measured = _count(options)
        figures = [
            at_most("instructions per event, compared with the other build", this / other, "", 1.03),
            Figure("instructions of the other build", other, "per event"),
            *figures,
        ]
        lost += measured.lost
    load = f"{options.connections} connections, closed loop, {options.duration(_USUAL_S):g} s, in Valgrind"
    figures.append(at_most("lost", lost, "events", 0))
    return Report(row.name, row.title, figures, conditions(options, load=load))


def _count(options: Options) -> tuple[float, Measurement]:
    """Return the instructions per event, without those of an idle server, and the measurement."""
    secs, idle_s = options.duration(_USUAL_S), options.duration(_IDLE_S)
    # With a random hash seed, counts of the same build differ by 0.5%.
    with Scene(replace(options, prefix=_VALGRIND), settings={"PYTHONHASHSEED": "0"}) as scene:
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        scene.warm_up()
        _control(scene, "--instr=on")
        scene.warm_up()
        _control(scene, "--zero")
        began = time.monotonic()
        time.sleep(idle_s)
        idle_per_s = _counted(scene, 1) / (time.monotonic() - began)
        if options.smoke:  # The idle time of a smoke run is so short that it measures the start of the server.
            idle_per_s = 0.0
        began = time.monotonic()
        measured = scene.run("in Valgrind", secs=secs)
        used = _counted(scene, 2) - idle_per_s * (time.monotonic() - began)
    return used / max(1, measured.delivered), measured


def _control(scene: Scene, option: str) -> None:
    command = ["callgrind_control", option, str(scene.server.pid)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _counted(scene: Scene, number: int) -> int:
    """Return the instructions since the last call. `number` counts the calls from 1."""
    _control(scene, "--dump")
    lines = Path(scene.directory, f"callgrind.out.{scene.server.pid}.{number}").read_text().splitlines()
    return int(next(line for line in reversed(lines) if line.startswith(_TOTAL)).removeprefix(_TOTAL))


ROW: Final = Row("instructions", "instructions per event of this build and another one, in Valgrind", _measure, 150)
