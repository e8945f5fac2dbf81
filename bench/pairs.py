"""Measures an effect in pairs of runs, without and with the effect, so that changes in machine speed cancel out."""

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from bench.options import Options
from bench.scene import Measurement, Scene

Pair = tuple[Measurement, Measurement]

_PAIRS: Final = 12
_USUAL_S: Final = 3.0


def paired(options: Options) -> str:
    """Describe the pairs of `alternate`."""
    return f"{1 if options.smoke else _PAIRS} pairs of {options.duration(_USUAL_S):g} s"


def alternate(options: Options, without: Scene, beside: Scene) -> list[Pair]:
    """Run the load on two scenes in turn. Each scene is first in every other pair.

    The servers start anew for each pair: the same build differs by several percent from one process to the next.
    """
    secs, found = options.duration(_USUAL_S), []
    for number in range(1 if options.smoke else _PAIRS):
        for scene in (without, beside):
            if number:
                scene.server.stop()
                scene.server.start()
            scene.warm_up()
        scenes = [(0, "without", without), (1, "with", beside)]
        if number % 2:
            scenes.reverse()
        runs = {index: scene.run(f"pair {number + 1}, {label}", secs=secs) for index, label, scene in scenes}
        found.append((runs[0], runs[1]))
    return found


def ratios(pairs: Sequence[Pair], figure: Callable[[Measurement], float]) -> list[float]:
    """Return a figure of the run with the effect, divided by the figure of the run without it, for each pair."""
    return [figure(beside) / max(figure(without), 1e-9) for without, beside in pairs]


def error_of_median(values: Sequence[float]) -> float:
    """Estimate the standard error of a median. It is 25% larger than the error of a mean."""
    return 1.25 * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def p99_times(pair: Pair) -> float:
    """Return the p99 of the run with the effect, divided by the p99 of the run without it."""
    alone, beside = (run.received_ms.get("p99", 0.0) for run in pair)
    return beside / max(alone, 1e-9)
