"""Notices: the outbox of mails. Each is added in the transaction of what it tells: neither is without the other."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.notices import Notice, NoticeKind
from uplift_server.store.schema import notices


def add(
    connection: Connection,
    kind: NoticeKind,
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
class NoticeResult:
    """What became of an attempt to send a notice. Without `due_at` it is done with: sent, or given up."""

    seq: int
    attempts_made: int
    sent_at: int | None = None
    due_at: int | None = None
    last_error: str | None = None


def due(connection: Connection, *, now: int, limit: int) -> list[Notice]:
    """Notices whose instant has come (Unix ms), those that wait longest first."""
    rows = connection.execute(
        sa.select(notices).where(notices.c.due_at <= now).order_by(notices.c.due_at, notices.c.seq).limit(limit)
    )
    return [
        Notice(
            row.seq,
            row.id,
            NoticeKind(row.kind),
            row.recipient,
            json.loads(row.facts),
            row.created_at,
            row.attempts_made,
        )
        for row in rows
    ]


def settle(connection: Connection, results: Sequence[NoticeResult]) -> None:
    """Write what became of notices; once more does no harm."""
    for result in results:
        values = {name: value for name, value in asdict(result).items() if name != "seq"}
        connection.execute(sa.update(notices).where(notices.c.seq == result.seq).values(values))


def none_sent_yet(connection: Connection, endpoint_seq: int, kind: NoticeKind, *, since: int) -> bool:
    """Whether mails of a kind about an endpoint are still being tried, and none owed since (Unix ms) was sent."""
    owed = sa.select(notices.c.seq).where(notices.c.endpoint_seq == endpoint_seq, notices.c.kind == int(kind))
    if connection.execute(owed.where(notices.c.due_at.is_not(None)).limit(1)).first() is None:
        return False
    sent = owed.where(notices.c.created_at >= since, notices.c.sent_at.is_not(None))
    return connection.execute(sent.limit(1)).first() is None
