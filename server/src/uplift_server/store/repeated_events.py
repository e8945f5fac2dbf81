"""Events that come again: under the key or the id of an earlier one, they are that one, or contradict it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from uplift_server.core.events import envelope
from uplift_server.store.hot_records import Appended, IdempotencyConflict, NewEvent


class Stored:
    """An event that was stored before, or is about to be in this transaction."""

    __slots__ = ("body", "created_at", "expires_at", "id", "seq", "type_seq")

    def __init__(
        self, seq: int, event_id: bytes, created_at: int, type_seq: int, expires_at: int | None, body: bytes
    ) -> None:
        self.seq = seq
        self.id = event_id
        self.created_at = created_at
        self.type_seq = type_seq
        self.expires_at = expires_at
        self.body = body

    def same_content(self, event: NewEvent) -> bool:
        """Whether a repeat says the same: its type, its expiry and its data, to the byte."""
        return (
            self.type_seq == event.type_seq
            and self.expires_at == event.expires_at
            and envelope.data_of(self.body) == event.data
        )


class Match(NamedTuple):
    """By which of its fields an event is an earlier one."""

    field: str
    """`idempotency_key` or `id`."""
    stored: Stored


class Known:
    """Events by key and by id."""

    def __init__(self) -> None:
        self.by_key: dict[tuple[int, str], Stored] = {}
        self.by_id: dict[tuple[int, bytes], Stored] = {}

    def remember(self, event: NewEvent, seq: int) -> None:
        """Let later events of the transaction find this one."""
        stored = Stored(seq, event.id, event.created_at, event.type_seq, event.expires_at, event.body)
        if event.idempotency_key is not None:
            self.by_key[event.account_seq, event.idempotency_key] = stored
        self.by_id[event.account_seq, event.id] = stored

    def find(self, event: NewEvent) -> Match | None:
        """The one among these that has the event's key or chosen id."""
        if event.idempotency_key is not None:
            stored = self.by_key.get((event.account_seq, event.idempotency_key))
            if stored is not None:
                return Match("idempotency_key", stored)
        if event.caller_chose_id:
            stored = self.by_id.get((event.account_seq, event.id))
            if stored is not None:
                return Match("id", stored)
        return None


Find = Callable[[NewEvent], Match | None]


def is_checked(group: Sequence[NewEvent]) -> bool:
    """Whether an event of a group may be an earlier one."""
    return any(event.idempotency_key is not None or event.caller_chose_id for event in group)


def check(
    group: Sequence[NewEvent], numbers: Sequence[int], *earlier: Find
) -> tuple[list[Appended], list[tuple[NewEvent, int]]] | IdempotencyConflict:
    """What becomes of each event of a group, and which are to be stored, under the first of the numbers."""
    results: list[Appended] = []
    fresh: list[tuple[NewEvent, int]] = []
    # Events of this very group may repeat each other.
    own = Known()
    for index, event in enumerate(group):
        match = next((found for find in (own.find, *earlier) if (found := find(event)) is not None), None)
        if match is None:
            seq = numbers[len(fresh)]
            own.remember(event, seq)
            fresh.append((event, seq))
            results.append(Appended(seq, event.id, event.created_at))
        elif not match.stored.same_content(event):
            return IdempotencyConflict(index, match.field, match.stored.id)
        else:
            stored = match.stored
            results.append(Appended(stored.seq, stored.id, stored.created_at, duplicate=True))
    return results, fresh
