"""The emitter outbox: a table in an emitter's database whose rows become events.

The emitter inserts a row in the same transaction as its own change. The event has the row's ID, so that the server
accepts the event only once.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final, NamedTuple

from uplift_server.core.limits import EVENT_DATA_BYTES_MAX
from uplift_server.core.problems import Problem

_POSITION: Final = re.compile(r"events\.([0-9]{1,9})(?:\.(.*))?", re.DOTALL)
_NUL: Final = "\0"
"""The character that PostgreSQL's `jsonb` cannot store."""


class OutboxRow(NamedTuple):
    """A row of the emitter outbox."""

    id: str
    account: str | None
    type: str | None
    data: str | None
    """The event's data as JSON text, or None if the data has more than EVENT_DATA_BYTES_MAX bytes."""
    ordering_key: str | None
    expires_at: str | None
    is_locked: bool = True
    """Whether this reader has locked the row. Otherwise, another transaction has locked it."""
    waits_for: str | None = None
    """The ID of a rejected row with the same ordering key, or None.

    The rejected row blocks this row until the rejected row is corrected, is deleted or expires.
    """


class BatchRejection(NamedTuple):
    """The server's response that rejects a batch."""

    status: int
    code: str
    detail: str
    errors: Sequence[Problem] = ()


def in_order(rows: Sequence[OutboxRow]) -> list[OutboxRow]:
    """Return the outbox rows that can be sent now, in the given order.

    Omit rows that another transaction has locked, and rows that must wait for an earlier row with the same ordering
    key.
    """
    held: set[tuple[str | None, str]] = set()
    found: list[OutboxRow] = []
    for row in rows:
        key = None if row.ordering_key is None else (row.account, row.ordering_key)
        if row.is_locked and row.waits_for is None and key not in held:
            found.append(row)
        elif key is not None:
            held.add(key)
    return found


def blocked(rows: Sequence[OutboxRow]) -> list[OutboxRow]:
    """Return the outbox rows that a rejected row with the same ordering key blocks.

    Omit rows that another transaction has locked.
    """
    return [row for row in rows if row.is_locked and row.waits_for is not None]


def batch_body(rows: Sequence[OutboxRow]) -> bytes:
    """Return the request body of `POST /v1/events/batch`. The same rows always result in the same bytes."""
    return f'{{"events":[{",".join(map(_event, rows))}]}}'.encode()


def _event(row: OutboxRow) -> str:
    fields = {"id": row.id, "account": row.account, "type": row.type}
    optional = {"ordering_key": row.ordering_key, "expires_at": row.expires_at}
    fields |= {name: value for name, value in optional.items() if value is not None}
    return f'{json.dumps(fields, ensure_ascii=False)[:-1]}, "data": {row.data}}}'


def oversized(rows: Sequence[OutboxRow]) -> dict[str, str]:
    """Return a problem as JSON for each row whose data is too large for the server. The keys are row IDs."""
    detail = f"`data` has more than {EVENT_DATA_BYTES_MAX} bytes. For larger data, send a URL."
    return {row.id: _problem(BatchRejection(413, "payload_too_large", detail)) for row in rows if row.data is None}


def rejected(rows: Sequence[OutboxRow], rejection: BatchRejection) -> Mapping[str, str]:
    """Return the problems with the rows that a rejection names. The keys are row IDs, and the values are JSON.

    If the rejection names no row and the batch has several rows, return no problems. The caller can then send smaller
    batches to find the invalid row.
    """
    problems: dict[int, list[Problem]] = {}
    for error in rejection.errors:
        match = _POSITION.fullmatch(error.field)
        if match is not None and int(match[1]) < len(rows):
            problems.setdefault(int(match[1]), []).append(Problem(match[2] or "", error.code, error.message))
    if not problems and len(rows) == 1:
        problems[0] = list(rejection.errors)
    return {rows[index].id: _problem(rejection._replace(errors=errors)) for index, errors in problems.items()}


def _problem(rejection: BatchRejection) -> str:
    problem: dict[str, object] = {"status": rejection.status, "code": _storable(rejection.code)}
    if rejection.errors:
        problem["errors"] = [
            {name: _storable(text) for name, text in asdict(each).items()} for each in rejection.errors
        ]
    else:
        # Store the detail only if the rejection lists no errors. Otherwise, it describes the batch, not this event.
        problem["detail"] = _storable(rejection.detail)
    return json.dumps(problem)


def _storable(text: str) -> str:
    return text.replace(_NUL, "")
