"""Limits on failed attempts, such as wrong passwords.

Each key, such as an email address or a network, has its own count.
"""

from typing import Final

KEYS_MAX: Final = 10_000
"""Maximum number of keys in memory. If all keys in memory have recent failures, attempts with a new key must wait."""


class Failures:
    """Limits the failed attempts with each key: at most `most` within `within_ms` milliseconds.

    The counts exist only in memory. A key that has a recent failure is never evicted. Therefore, failures with other
    keys cannot reset its count.
    """

    def __init__(self, most: int, within_ms: int, *, keys_max: int = KEYS_MAX) -> None:
        self._most = most
        self._within_ms = within_ms
        self._keys_max = keys_max
        self._times: dict[str, list[int]] = {}
        """The failure times for each key. The key with the latest failure comes last."""

    def wait_ms(self, key: str, now_ms: int) -> int:
        """Return the time, in ms, until another attempt with the key is allowed. 0 means no wait."""
        recent = self._recent(key, now_ms)
        if len(recent) >= self._most:
            return recent[-self._most] + self._within_ms - now_ms
        while len(self._times) >= self._keys_max and key not in self._times:
            first = next(iter(self._times))
            if self._recent(first, now_ms):
                return self._times[first][-1] + self._within_ms - now_ms
            del self._times[first]
        return 0

    def note(self, key: str, now_ms: int) -> None:
        """Count an attempt with a key as failed. Call this method only after `wait_ms` returned 0.

        If the attempt does not fail, call `forgive` to remove the attempt from the key's count.
        """
        recent = self._recent(key, now_ms)
        self._times.pop(key, None)
        self._times[key] = [*recent, now_ms]

    def forgive(self, key: str) -> None:
        """Remove the latest attempt with a key from the key's count."""
        times = self._times.get(key)
        if times is None:
            return
        times.pop()
        if not times:
            del self._times[key]

    def forget(self, key: str) -> None:
        """Reset the count of a key."""
        self._times.pop(key, None)

    def _recent(self, key: str, now_ms: int) -> list[int]:
        return [at for at in self._times.get(key, ()) if 0 <= now_ms - at < self._within_ms]
