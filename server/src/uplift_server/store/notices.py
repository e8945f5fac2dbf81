"""Notices: the outbox of mails. Each is added in the transaction of what it tells: neither is without the other."""

import json
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.notices import NoticeKind
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
