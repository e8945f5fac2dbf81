"""How often somebody may be wrong: failures counted by key, such as a mail address, within a time."""

from typing import Final

KEYS_MAX: Final = 10_000
"""So many keys are remembered; beyond, the one that began first is forgotten."""


class Failures:
    """Failures of the last `within_ms`, of which each key may have `most`. Bounded in memory, kept nowhere else."""

    def __init__(self, most: int, within_ms: int, *, keys_max: int = KEYS_MAX) -> None:
        self._most = most
        self._within_ms = within_ms
        self._keys_max = keys_max
        self._instants: dict[str, list[int]] = {}

    def wait_ms(self, key: str, now_ms: int) -> int:
        """How long a key has to wait before it may try again; 0: not at all."""
        instants = self._recent(key, now_ms)
        return 0 if len(instants) < self._most else instants[-self._most] + self._within_ms - now_ms

    def note(self, key: str, now_ms: int) -> None:
        """A key begins to try, which counts as failed until it is `forgiven`: many at once are no way around."""
        instants = self._recent(key, now_ms)
        self._instants.pop(key, None)
        while len(self._instants) >= self._keys_max:
            del self._instants[next(iter(self._instants))]
        self._instants[key] = [*instants, now_ms]

    def forgive(self, key: str) -> None:
        """The last try of a key was none."""
        instants = self._instants.get(key)
        if instants:
            instants.pop()

    def forget(self, key: str) -> None:
        """A key was right: it begins anew."""
        self._instants.pop(key, None)

    def _recent(self, key: str, now_ms: int) -> list[int]:
        return [at for at in self._instants.get(key, ()) if 0 <= now_ms - at < self._within_ms]
