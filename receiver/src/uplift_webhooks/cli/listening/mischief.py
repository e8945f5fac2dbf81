"""Simulated faults that test whether a receiver is idempotent."""

import random
from dataclasses import dataclass, field
from typing import Final

SHUFFLED_SECONDS: Final = 0.5
"""How long an event may wait to be reordered."""
RETRY_SECONDS: Final = (0.5, 2.0)
"""The range of the delay before a deliberately failed event is forwarded again."""


@dataclass(frozen=True)
class Mischief:
    """The simulated faults of a session. By default, there are none."""

    duplicate: bool = False
    """Forward every event twice."""
    shuffle: bool = False
    """Forward waiting events in random order."""
    fail: float = 0.0
    """The share of events that fail the first time and are forwarded again."""
    chance: random.Random = field(default_factory=random.Random, repr=False)

    def fails(self) -> bool:
        """Decide whether the next event fails."""
        return self.chance.random() < self.fail

    def retry_seconds(self) -> float:
        """Choose the delay in seconds before the listener forwards an event again."""
        return self.chance.uniform(*RETRY_SECONDS)

    def chosen(self, count: int) -> int:
        """Choose the index of the next of `count` waiting events."""
        return self.chance.randrange(count) if self.shuffle else 0


NONE: Final = Mischief()
