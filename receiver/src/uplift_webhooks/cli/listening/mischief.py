"""What a listener does to events on purpose, so that a receiver's idempotency can be tested."""

import random
from dataclasses import dataclass, field
from typing import Final

SHUFFLED_SECONDS: Final = 0.5
"""How long an event may wait for others to change places with."""
RETRY_SECONDS: Final = (0.5, 2.0)
"""How much later an event that is said to have failed comes again: behind others, as a retry does."""


@dataclass(frozen=True)
class Mischief:
    """By default, none."""

    duplicate: bool = False
    """Hand every event over twice."""
    shuffle: bool = False
    """Change the order of those that wait."""
    fail: float = 0.0
    """The share of events that are handed over again later, as if the first time had failed."""
    chance: random.Random = field(default_factory=random.Random, repr=False)

    def fails(self) -> bool:
        """Whether this event is to be taken for failed."""
        return self.chance.random() < self.fail

    def retry_seconds(self) -> float:
        """How much later it comes again."""
        return self.chance.uniform(*RETRY_SECONDS)

    def chosen(self, count: int) -> int:
        """Which of so many waiting events comes next."""
        return self.chance.randrange(count) if self.shuffle else 0


NONE: Final = Mischief()
