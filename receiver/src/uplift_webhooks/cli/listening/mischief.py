"""Deliberate disturbances to test a receiver's idempotency."""

import random
from dataclasses import dataclass, field
from typing import Final

SHUFFLED_SECONDS: Final = 0.5
"""How long an event may wait to be reordered."""
RETRY_SECONDS: Final = (0.5, 2.0)
"""When a deliberately failed event comes again: after others, like a retry."""


@dataclass(frozen=True)
class Mischief:
    """The default is none."""

    duplicate: bool = False
    """Deliver every event twice."""
    shuffle: bool = False
    """Change the order of waiting events."""
    fail: float = 0.0
    """The share of events that fail the first time and come again."""
    chance: random.Random = field(default_factory=random.Random, repr=False)

    def fails(self) -> bool:
        """Whether this event fails."""
        return self.chance.random() < self.fail

    def retry_seconds(self) -> float:
        """The wait before it comes again."""
        return self.chance.uniform(*RETRY_SECONDS)

    def chosen(self, count: int) -> int:
        """The index of the next of these waiting events."""
        return self.chance.randrange(count) if self.shuffle else 0


NONE: Final = Mischief()
