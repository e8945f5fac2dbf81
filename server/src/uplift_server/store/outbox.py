"""Notices: the outbox of mails. Each is added in the transaction of what it tells: neither is without the other."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.people.notifications import Notification, NotificationKind, NotificationState
from uplift_server.store.pages import page_of
from uplift_server.store.records import Page
from uplift_server.store.schema import accounts, endpoints, notices

WINDOW_ROWS: Final = 10_000
"""How many mails a list looks at for one page where no index leads to those wanted; then the page ends early."""


def add(
    connection: Connection,
    kind: NotificationKind,
    *,
    account_seq: int | None,
    endpoint_seq: int | None,
    recipients: Sequence[tuple[bytes, str]],
    facts: Mapping[str, object],
    now: int,
) -> None:
    """Owe a mail to each of the recipients (a new id of 16 bytes, and a mail address); due at once."""
    text = json.dumps(dict(facts))
    rows = [
        {
            "id": notice_id,
            "kind": int(kind),
            "account_seq": account_seq,
            "endpoint_seq": endpoint_seq,
            "recipient": recipient,
            "facts": text,
            "created_at": now,
            "due_at": now,
        }
        for notice_id, recipient in recipients
    ]
    if rows:
        connection.execute(sa.insert(notices), rows)


@dataclass(frozen=True, slots=True)
class EmailResult:
    """What became of an attempt to send a notice. Without `due_at` it is done with: sent, or given up."""

    seq: int
    attempts_made: int
    sent_at: int | None = None
    due_at: int | None = None
    last_error: str | None = None


def due(connection: Connection, *, now: int, limit: int) -> list[Notification]:
    """Notices whose instant has come (Unix ms), those that wait longest first."""
    rows = connection.execute(
        sa.select(notices).where(notices.c.due_at <= now).order_by(notices.c.due_at, notices.c.seq).limit(limit)
    )
    return [
        Notification(
            row.seq,
            row.id,
            NotificationKind(row.kind),
            row.recipient,
            json.loads(row.facts),
            row.created_at,
            row.attempts_made,
        )
        for row in rows
    ]


def settle(connection: Connection, results: Sequence[EmailResult]) -> None:
    """Write what became of notices; once more does no harm, nor does it late, after another process has tried again."""
    for result in results:
        values = {name: value for name, value in asdict(result).items() if name != "seq"}
        change = sa.update(notices).where(notices.c.seq == result.seq, notices.c.sent_at.is_(None)).values(values)
        if result.sent_at is None:
            still = notices.c.due_at.is_not(None), notices.c.attempts_made < result.attempts_made
            change = change.where(*still)
        connection.execute(change)


@dataclass(frozen=True, slots=True)
class DueEmail:
    """A mail in the outbox as operators see it, without what it tells. Instants are Unix ms."""

    seq: int
    kind: NotificationKind
    recipient: str
    account_id: bytes | None
    """None: to the operator."""
    endpoint_id: bytes | None
    created_at: int
    due_at: int | None
    attempts_made: int
    sent_at: int | None
    last_error: str | None

    @property
    def state(self) -> NotificationState:
        """What became of it."""
        if self.due_at is not None:
            return NotificationState.WAITING
        return NotificationState.GIVEN_UP if self.sent_at is None else NotificationState.SENT


def page(
    connection: Connection, wanted: NotificationState | None, *, limit: int, before: tuple[int, ...] | None = None
) -> Page[DueEmail]:
    """The outbox, newest first; of what waits, what is tried next comes first."""
    if wanted is NotificationState.WAITING:
        return _waiting(connection, limit=limit, after=before)
    newest = connection.scalar(sa.select(sa.func.max(notices.c.seq))) or 0
    high = newest if before is None else before[0] - 1
    low = max(0, high - WINDOW_ROWS + 1)
    keys = sa.select(notices.c.seq).where(notices.c.seq.between(low, high))
    if wanted is not None:
        keys = keys.where(
            notices.c.due_at.is_(None),
            notices.c.sent_at.is_not(None) if wanted is NotificationState.SENT else notices.c.sent_at.is_(None),
        )
    keys = keys.order_by(notices.c.seq.desc()).limit(limit + 1)
    rows = connection.execute(_shown().where(notices.c.seq.in_(keys)).order_by(notices.c.seq.desc()))
    found = page_of([_mail(row) for row in rows], limit, lambda mail: (mail.seq,))
    # What is older than the window may still have some: the next page begins where this one stopped looking.
    return Page(found.items, (low,)) if found.next_key is None and low > 1 else found


def _waiting(connection: Connection, *, limit: int, after: tuple[int, ...] | None) -> Page[DueEmail]:
    query = _shown().where(sa.text("notices.due_at IS NOT NULL"))
    if after is not None:
        query = query.where(sa.tuple_(notices.c.due_at, notices.c.seq) > sa.tuple_(*map(sa.literal, after)))
    rows = connection.execute(query.order_by(notices.c.due_at, notices.c.seq).limit(limit + 1))
    return page_of([_mail(row) for row in rows], limit, lambda mail: (mail.due_at or 0, mail.seq))


def _shown() -> sa.Select[Any]:
    return (
        sa.select(notices, accounts.c.id.label("account_id"), endpoints.c.id.label("endpoint_id"))
        .outerjoin(accounts, accounts.c.seq == notices.c.account_seq)
        .outerjoin(endpoints, endpoints.c.seq == notices.c.endpoint_seq)
    )


def _mail(row: sa.Row[Any]) -> DueEmail:
    return DueEmail(
        row.seq,
        NotificationKind(row.kind),
        row.recipient,
        row.account_id,
        row.endpoint_id,
        row.created_at,
        row.due_at,
        row.attempts_made,
        row.sent_at,
        row.last_error,
    )


def none_sent_yet(connection: Connection, endpoint_seq: int, kind: NotificationKind, *, since: int) -> bool:
    """Whether mails of a kind about an endpoint are still being tried, and none owed since (Unix ms) was sent."""
    owed = sa.select(notices.c.seq).where(notices.c.endpoint_seq == endpoint_seq, notices.c.kind == int(kind))
    if connection.execute(owed.where(notices.c.due_at.is_not(None)).limit(1)).first() is None:
        return False
    sent = owed.where(notices.c.created_at >= since, notices.c.sent_at.is_not(None))
    return connection.execute(sent.limit(1)).first() is None
