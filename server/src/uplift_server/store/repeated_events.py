"""Detects repeated events, which have the same idempotency key or emitter-chosen ID as an earlier event."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from uplift_server.core.events import envelope
from uplift_server.store.hot_records import Appended, IdempotencyConflict, NewEvent


class StoredEvent:
    """An event in the database, or an earlier event in the same transaction."""

    __slots__ = ("body", "created_at", "expires_at", "id", "ordering_key", "seq", "type_seq")

    def __init__(
        self,
        seq: int,
        event_id: bytes,
        created_at: int,
        type_seq: int,
        expires_at: int | None,
        ordering_key: str | None,
        body: bytes,
    ) -> None:
        self.seq = seq
        self.id = event_id
        self.created_at = created_at
        self.type_seq = type_seq
        self.expires_at = expires_at
        self.ordering_key = ordering_key
        self.body = body

    def has_same_content(self, event: NewEvent) -> bool:
        """Whether `event` and this stored event have the same type, expiry, ordering key and bytes of `data`."""
        return self.matches(event.type_seq, event.expires_at, event.ordering_key, event.data)

    def matches(self, type_seq: int, expires_at: int | None, ordering_key: str | None, data: bytes) -> bool:
        """Whether this stored event has the given type, expiry, ordering key and `data`."""
        return (
            self.type_seq == type_seq
            and self.expires_at == expires_at
            and self.ordering_key == ordering_key
            and envelope.data_of(self.body) == data
        )


class Match(NamedTuple):
    """An earlier event with the same idempotency key or chosen ID."""

    field: str
    """The field that both events share: `idempotency_key` or `id`."""
    stored: StoredEvent


class KnownEvents:
    """Earlier events, by account number and idempotency key, and by account number and ID."""

    def __init__(self) -> None:
        self.by_key: dict[tuple[int, str], StoredEvent] = {}
        self.by_id: dict[tuple[int, bytes], StoredEvent] = {}

    def add(self, event: NewEvent, seq: int) -> None:
        """Add an event, so that `find` recognizes repeats of the event in the same transaction."""
        stored = StoredEvent(
            seq, event.id, event.created_at, event.type_seq, event.expires_at, event.ordering_key, event.body
        )
        if event.idempotency_key is not None:
            self.by_key[event.account_seq, event.idempotency_key] = stored
        self.by_id[event.account_seq, event.id] = stored

    def find(self, event: NewEvent) -> Match | None:
        """Return the earlier event that has the same idempotency key or chosen ID, if any."""
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


def may_repeat(group: Sequence[NewEvent]) -> bool:
    """Whether an event of the group can be a repeat, because it has an idempotency key or a chosen ID."""
    return any(event.idempotency_key is not None or event.caller_chose_id for event in group)


def check(
    group: Sequence[NewEvent], numbers: Sequence[int], *earlier: Find
) -> tuple[list[Appended], list[tuple[NewEvent, int]]] | IdempotencyConflict:
    """Find the repeated events in a group of new events.

    Return a result for each event, and a list of the events to store with their numbers. The numbers come from
    `numbers`, in order. The functions in `earlier` find earlier events outside the group. Return IdempotencyConflict if
    the content of a repeated event differs from the content of the earlier event.
    """
    results: list[Appended] = []
    fresh: list[tuple[NewEvent, int]] = []
    # An event can repeat an earlier event in the same group.
    own = KnownEvents()
    for index, event in enumerate(group):
        match = next((found for find in (own.find, *earlier) if (found := find(event)) is not None), None)
        if match is None:
            seq = numbers[len(fresh)]
            own.add(event, seq)
            fresh.append((event, seq))
            results.append(Appended(seq, event.id, event.created_at))
        elif not match.stored.has_same_content(event):
            return IdempotencyConflict(index, match.field, match.stored.id)
        else:
            stored = match.stored
            results.append(Appended(stored.seq, stored.id, stored.created_at, duplicate=True))
    return results, fresh
