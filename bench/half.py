"""Half load: half of the measured maximum throughput, at which several rows measure latency."""

from typing import Final

from bench.options import Options
from bench.scene import Scene

_USUAL_S: Final = 10.0
_SMOKE_RATE: Final = 200.0


def half_rate(scene: Scene, options: Options) -> tuple[float, str]:
    """Return half of the maximum throughput of the scene, in events/s, and its description."""
    if options.rate:
        return options.rate, f"{options.rate:,.0f} events/s (given)"
    if options.smoke:
        return _SMOKE_RATE, f"{_SMOKE_RATE:g} events/s (smoke run)"
    scene.warm_up()
    full = scene.run("measuring full load", secs=options.duration(_USUAL_S)).per_s
    rate = max(10.0, round(full / 2))
    return rate, f"{rate:,.0f} events/s (half of {full:,.0f} measured before)"
