"""Write attempt outcomes on PostgreSQL."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from uplift_server.core.lifecycle import Status
from uplift_server.store.hot_records import AttemptRow, HealthRow, Settlement
from uplift_server.store.postgres import statements
from uplift_server.store.postgres.connection import Raw, storable_texts, transaction
from uplift_server.store.postgres.order_groups import lock_order

Column = Sequence[Any]

_NO_ATTEMPT: Final = (None,) * len(AttemptRow._fields)
_ATTEMPT_TEXTS: Final = ("error", "location", "remote_address")
_HEALTH_TEXTS: Final = ("last_error", "last_location")
"""Columns with text from receivers and libraries. The text may contain characters that PostgreSQL cannot store."""


async def settle(
    raw: Raw, settlements: Sequence[Settlement], health: Sequence[HealthRow], *, process_id: int = 0
) -> frozenset[tuple[int, int]]:
    """Write attempt outcomes and endpoint health.

    Skip the settlements that are not valid (see `store.contract`). Return the event and endpoint numbers of their
    deliveries.

    As in `append`, the commit waits for the disk. Otherwise, the server would repeat finished attempts after a crash.
    Settlements that arrive during the wait form the next batch, so the wait costs little.
    """
    settlements = sorted(settlements, key=itemgetter(0, 1))
    settled = _columns(Settlement._fields, settlements)
    attempted = _columns(AttemptRow._fields, [s.attempt or _NO_ATTEMPT for s in settlements])
    for name in _ATTEMPT_TEXTS:
        attempted[name] = storable_texts(attempted[name])
    parameters: list[Any] = [
        *(_shortened(settled[name]) for name in statements.SETTLEMENT_COLUMNS),
        *(_shortened(attempted[name]) for name in statements.ATTEMPT_COLUMNS),
    ]
    if health:
        noted = _columns(HealthRow._fields, sorted(health))
        for name in _HEALTH_TEXTS:
            noted[name] = storable_texts(noted[name])
        parameters += [*noted.values(), process_id]
    statement = statements.SETTLE[any(replay is not None for replay in settled["replay_seq"]), bool(health)]
    # Lock the delivery order for settlements whose triggers unblock ordered deliveries or count failed deliveries.
    locked = [s.endpoint_seq for s in settlements if s.order_group is not None or s.status is Status.FAILED]
    if locked:
        async with transaction(raw):
            await lock_order(raw, locked)
            places = await raw.fetchval(statement, *parameters) or ()
    else:
        places = await raw.fetchval(statement, *parameters) or ()
    if len(places) == len(settlements):
        return frozenset()
    written = set(places)
    return frozenset((s.event_seq, s.endpoint_seq) for place, s in enumerate(settlements, 1) if place not in written)


def _columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Column]:
    """Return the columns of these rows, by name."""
    return dict(zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True))


def _shortened(column: Column) -> Column:
    """Return the column, or an empty column if all values are NULL, so that the statement sends less data."""
    return () if column.count(None) == len(column) else column
