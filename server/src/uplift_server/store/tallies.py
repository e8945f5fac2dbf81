"""Tallies: the counts that a batch adds to statistics rows.

The module also calculates the new values of these rows.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import add
from typing import NamedTuple

from uplift_server.core.operations.statistics import COUNT_FIELDS, parse_sparse, sparse_text


class RowKey(NamedTuple):
    """The key of a statistics row: a scope, and the start of the hour or minute (Unix ms).

    The fields are in the same order as KEY_COLUMNS.
    """

    account_seq: int
    endpoint_seq: int
    at: int


StoredRow = tuple[Sequence[int], str, str]
"""The counts, outcomes and durations of a stored row."""


class Tally:
    """The counts that a batch adds to a row.

    Tallies contain plain lists and dictionaries to save time and memory, because a batch has thousands of tallies.
    """

    __slots__ = ("counts", "durations", "moves", "outcomes")

    def __init__(self) -> None:
        self.counts = [0] * len(COUNT_FIELDS)
        self.moves = [0] * len(COUNT_FIELDS)
        """The changes to `counts` that result from status changes of deliveries that were counted earlier."""
        self.outcomes: dict[int, int] = {}
        self.durations: dict[int, int] = {}

    @classmethod
    def sum(cls, parts: Sequence["Tally"]) -> "Tally":
        """Return the sum of the tallies. If there is only one tally, return that tally without a copy."""
        if len(parts) == 1:
            return parts[0]
        found = cls()
        found.counts = [*map(sum, zip(*[each.counts for each in parts], strict=True))]
        found.moves = [*map(sum, zip(*[each.moves for each in parts], strict=True))]
        for each in parts:
            add_to(found.outcomes, each.outcomes)
            add_to(found.durations, each.durations)
        return found

    @property
    def adds(self) -> bool:
        """Whether the tally may create a statistics row.

        If a tally contains only moves between statuses and its row is missing, retention has deleted the row. Such a
        tally must not create the row again.
        """
        return any(self.counts)

    def added_to(self, before: StoredRow | None) -> tuple[int | str, ...]:
        """Return the values of a row after this tally is added.

        `before` is the stored row, or None if there is none.
        """
        if before is None:
            # Add `moves` too: if a replay created the deliveries of a new row, their status may have changed since.
            return (*map(add, self.counts, self.moves), sparse_text(self.outcomes), sparse_text(self.durations))
        counts, outcomes, durations = before
        return (
            *map(add, map(add, counts, self.counts), self.moves),
            _merged(outcomes, self.outcomes),
            _merged(durations, self.durations),
        )


def summed(parts: Iterable[tuple[RowKey, Tally]]) -> dict[RowKey, Tally]:
    """Sum the tallies that have the same key. Return one tally for each key."""
    grouped: defaultdict[RowKey, list[Tally]] = defaultdict(list)
    for key, tally in parts:
        grouped[key].append(tally)
    return {key: Tally.sum(each) for key, each in grouped.items()}


def add_to(counts: dict[int, int], more: Mapping[int, int]) -> None:
    """Add the counts in `more` to `counts`."""
    for number, count in more.items():
        counts[number] = counts.get(number, 0) + count


def _merged(text: str, more: Mapping[int, int]) -> str:
    if not more:
        return text
    counts = parse_sparse(text)
    add_to(counts, more)
    return sparse_text(counts)


class NewRows:
    """The new values of statistics rows, encoded as JSON for a statement.

    The caller encodes the rows in parts, so that the event loop is not blocked.
    """

    def __init__(self, tallies: Mapping[RowKey, Tally], stored: Mapping[RowKey, StoredRow]) -> None:
        self._stored = stored
        self._left = [(key, tally) for key, tally in tallies.items() if key in stored or tally.adds]
        self._encoded: list[str] = []

    def encode(self, count: int) -> bool:
        """Encode up to `count` more rows. Return whether rows are left to encode."""
        part, self._left = self._left[-count:], self._left[:-count]
        if part:
            rows = [(*key, *tally.added_to(self._stored.get(key))) for key, tally in part]
            self._encoded.append(json.dumps(rows)[1:-1])
        return bool(self._left)

    def json(self) -> str | None:
        """Return all rows as a JSON list, or None if there are no rows. Each row is a list of its key and values."""
        self.encode(len(self._left))
        return f"[{','.join(self._encoded)}]" if self._encoded else None
