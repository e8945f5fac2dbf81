"""Simulated faults that test whether a receiver is idempotent."""

import random
from dataclasses import dataclass, field
from typing import Final

SHUFFLED_SECONDS: Final = 0.5
"""How long an event waits for later events that can overtake it, in seconds."""
RETRY_SECONDS: Final = (0.5, 2.0)
"""Shortest and longest delay before a retry after a simulated failure, in seconds."""


@dataclass(frozen=True)
class Mischief:
    """The faults to simulate in a session. By default, there are no faults."""

    duplicate: bool = False
    """Whether to forward every event twice."""
    shuffle: bool = False
    """Whether to forward waiting events in random order."""
    fail: float = 0.0
    """The share of events (0 to 1) whose first response counts as a failure. The listener forwards these events again.
    """
    chance: random.Random = field(default_factory=random.Random, repr=False)

    def fails(self) -> bool:
        """Decide at random whether an event's first response counts as a failure."""
        return self.chance.random() < self.fail

    def retry_seconds(self) -> float:
        """Choose the delay in seconds before the listener forwards an event again."""
        return self.chance.uniform(*RETRY_SECONDS)

    def chosen(self, count: int) -> int:
        """Return the index of the event to forward next, from 0 to `count` - 1.

        The index is random with `--shuffle`, otherwise 0.
        """
        return self.chance.randrange(count) if self.shuffle else 0


NONE: Final = Mischief()
