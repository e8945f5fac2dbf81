"""Options of `bench/run`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SMOKE_S: Final = 0.3


@dataclass(frozen=True)
class Options:
    """The command-line options. The defaults are the conditions of the published figures."""

    directory: Path
    """Directory for temporary databases, on the disk to measure."""
    secs: float | None = None
    smoke: bool = False
    """Whether to only check that the rows work, with tiny sizes."""
    rate: float | None = None
    """Load of the rows at half load and of the row `stream-outage`, in events/s. None means the default of the row."""
    connections: int = 64
    endpoints: int = 20
    waiting: int = 1_000_000
    kills: int = 50
    seed: int = 0
    server: Path | None = None
    """Path of the `uplift-server` to measure, such as an older build. None means this build."""
    prefix: tuple[str, ...] = ()
    """Words before the server's command, such as a profiler with its options."""

    def duration(self, usual: float) -> float:
        """Return the duration of a measurement in seconds. `usual` is the default of the row."""
        if self.smoke:
            return min(self.secs or _SMOKE_S, _SMOKE_S)
        return self.secs or usual

    @property
    def warm_up_s(self) -> float:
        """Seconds of load before the measurement."""
        return 0.1 if self.smoke else 2.0
