"""What a person may choose for a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SMOKE_S: Final = 0.3


@dataclass(frozen=True)
class Options:
    """The command line, with the figures' own conditions as defaults."""

    directory: Path
    """Where databases are made: on the disk that is to be measured."""
    secs: float | None = None
    smoke: bool = False
    """Only show that it runs: everything tiny."""
    rate: float | None = None
    """Events a second of the rows at half load, instead of half of what is measured first."""
    connections: int = 64
    endpoints: int = 20
    waiting: int = 1_000_000
    kills: int = 50
    seed: int = 0
    server: Path | None = None
    """Another build's `uplift-server`."""

    def duration(self, usual: float) -> float:
        """How many seconds to measure where `usual` is the figure's own duration."""
        if self.smoke:
            return min(self.secs or _SMOKE_S, _SMOKE_S)
        return self.secs or usual

    @property
    def warm_up_s(self) -> float:
        """How long to load before anything is measured."""
        return 0.1 if self.smoke else 2.0
