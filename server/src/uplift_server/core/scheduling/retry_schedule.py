"""The retry schedule, its jitter, and the `Retry-After` header."""

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from uplift_server.core.limits import RETRY_AFTER_MS_MAX

JITTER: Final = 0.1
"""Maximum random change to a delay, as a fraction of the delay. The changes are uniformly distributed."""


_SECONDS: Final = re.compile(r"([0-9]+)(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """The delays after attempts 1, 2, 3 and so on, in ms. A schedule with n delays allows n + 1 attempts."""

    delays_ms: tuple[int, ...]

    @property
    def attempts_max(self) -> int:
        """The number of attempts that the schedule allows."""
        return len(self.delays_ms) + 1

    def delay_ms(self, attempts_made: int, draw: float) -> int | None:
        """Return the delay in ms after `attempts_made` attempts (at least 1), or None if the retries are exhausted.

        `draw` in [0, 1) selects the jitter.
        """
        assert attempts_made >= 1
        if attempts_made > len(self.delays_ms):
            return None
        delay = self.delays_ms[attempts_made - 1]
        return round(delay * (1 - JITTER + 2 * JITTER * draw))


def retry_after_ms(value: str | None, now_ms: int) -> int | None:
    """Return the wait in ms that a Retry-After header requests (RFC 9110, section 10.2.3), at most 24 hours.

    The value is an HTTP date or a number of seconds. The function also accepts fractions of a second, although the RFC
    does not allow fractions. Return None if the header is not valid, and 0 for a date in the past.
    """
    if value is None:
        return None
    text = value.strip()
    if (seconds := _SECONDS.fullmatch(text)) is not None:
        # Treat a number with hundreds of digits as a long wait, not as an error.
        return RETRY_AFTER_MS_MAX if len(seconds[1]) > 9 else min(round(float(text) * 1000), RETRY_AFTER_MS_MAX)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    wait = int(date.timestamp() * 1000) - now_ms
    return max(0, min(wait, RETRY_AFTER_MS_MAX))
