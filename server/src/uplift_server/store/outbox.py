"""The email outbox. Add an email in the same transaction as the change that the email reports."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.people.notifications import (
    LATE_AFTER_MS,
    Notification,
    NotificationKind,
    NotificationState,
    endpoint_count,
    with_endpoint,
    without_endpoint,
)
from uplift_server.store.pages import page_of
from uplift_server.store.records import Page
from uplift_server.store.schema import accounts, endpoints, notices

WINDOW_ROWS: Final = 10_000
"""Maximum number of emails to scan for one page if no index supports the filter.

If few of these emails match, the page is shorter than requested.
"""

ABOUT_ENDPOINTS: Final = (
    NotificationKind.ENDPOINT_WARNED,
    NotificationKind.ENDPOINT_DISABLED,
    NotificationKind.ENDPOINT_RECOVERED,
    NotificationKind.CERTIFICATE_EXPIRING,
)
"""The kinds of emails to an account's contacts."""
GROUP_MARGIN_MS: Final = 1_000
"""The minimum time in ms between the last change to an email and its due time.

If less time is left, the server does not add another endpoint to the email.
"""


def add(
    connection: Connection,
    kind: NotificationKind,
    *,
    account_seq: int | None,
    endpoint_seq: int | None,
    recipients: Sequence[tuple[bytes, str]],
    facts: Mapping[str, object],
    now: int,
    wait_ms: int = 0,
) -> None:
    """Add an email for each recipient, due after `wait_ms`.

    A recipient is a pair of a new ID (16 bytes) and an email address.
    """
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
            "due_at": now + wait_ms,
        }
        for notice_id, recipient in recipients
    ]
    if rows:
        connection.execute(sa.insert(notices), rows)


def add_about_endpoint(
    connection: Connection,
    kind: NotificationKind,
    *,
    account_seq: int,
    endpoint_seq: int,
    recipients: Sequence[tuple[bytes, str]],
    facts: Mapping[str, object],
    now: int,
    group_ms: int,
) -> None:
    """Add an endpoint to the account's emails of this kind that are not due yet.

    Recipients without such an email get a new email, due after `group_ms`. The caller must lock the account first, so
    that concurrent transactions add endpoints to the same emails.
    """
    # Skip emails that may be due according to another process's clock, because that process may be sending them.
    due_after = now + min(GROUP_MARGIN_MS, group_ms // 2)
    query = sa.select(notices.c.seq, notices.c.recipient, notices.c.facts).where(
        notices.c.due_at > due_after,
        notices.c.account_seq == account_seq,
        notices.c.kind == int(kind),
        notices.c.attempts_made == 0,
    )
    # Lock the emails, because another transaction may withdraw them without a lock on the account.
    query = query.order_by(notices.c.seq).with_for_update()
    waiting = {row.recipient: row for row in connection.execute(query)}
    for _, recipient in recipients:
        if recipient in waiting:
            row = waiting[recipient]
            text = json.dumps(with_endpoint(json.loads(row.facts), facts))
            connection.execute(sa.update(notices).where(notices.c.seq == row.seq).values(facts=text))
    add(
        connection,
        kind,
        account_seq=account_seq,
        endpoint_seq=endpoint_seq,
        recipients=[each for each in recipients if each[1] not in waiting],
        facts=facts,
        now=now,
        wait_ms=group_ms,
    )


def delete_unsent(
    connection: Connection,
    account_seq: int,
    *,
    kinds: Collection[NotificationKind] = tuple(NotificationKind),
    recipients: Collection[str] | None = None,
) -> None:
    """Delete an account's emails that the server has not sent yet, by default to all recipients."""
    unsent = sa.delete(notices).where(
        notices.c.account_seq == account_seq,
        notices.c.due_at.is_not(None),
        notices.c.kind.in_([int(kind) for kind in kinds]),
    )
    connection.execute(unsent if recipients is None else unsent.where(notices.c.recipient.in_(recipients)))


def withdraw_warnings(connection: Connection, account_seq: int, endpoint: str) -> None:
    """Remove an endpoint (a public ID) from the account's unsent warnings. Delete a warning without other endpoints."""
    query = sa.select(notices.c.seq, notices.c.facts).where(
        notices.c.due_at.is_not(None),
        notices.c.account_seq == account_seq,
        notices.c.kind == int(NotificationKind.ENDPOINT_WARNED),
        notices.c.facts.contains(f'"{endpoint}"', autoescape=True),
    )
    for row in connection.execute(query.order_by(notices.c.seq).with_for_update()).all():
        facts = without_endpoint(json.loads(row.facts), endpoint)
        if facts is None:
            connection.execute(sa.delete(notices).where(notices.c.seq == row.seq))
        else:
            connection.execute(sa.update(notices).where(notices.c.seq == row.seq).values(facts=json.dumps(facts)))


def hand_over_unsent(
    connection: Connection,
    account_seq: int,
    *,
    removed: Collection[str],
    added: Collection[str],
    new_id: Callable[[], bytes],
    now: int,
) -> None:
    """Replace the unsent emails about endpoints to removed contacts by emails to the added contacts, due immediately.

    An added contact gets each email once, and no email that the contact received before. Lock the account first.
    """
    of_account = notices.c.account_seq == account_seq
    unsent = sa.select(notices).where(
        of_account,
        notices.c.due_at.is_not(None),
        notices.c.kind.in_([int(kind) for kind in ABOUT_ENDPOINTS]),
        notices.c.recipient.in_(removed),
    )
    found = connection.execute(unsent.order_by(notices.c.seq).with_for_update()).all()
    emails = {(row.kind, row.endpoint_seq, row.created_at): row for row in found}
    query = sa.select(notices).where(
        of_account,
        notices.c.due_at.is_(None),
        notices.c.sent_at.is_not(None),
        notices.c.created_at.in_([created_at for _, _, created_at in emails]),
        notices.c.recipient.in_(added),
    )
    sent = {(row.kind, row.endpoint_seq, row.created_at, row.recipient) for row in connection.execute(query)}
    rows = [
        {
            "id": new_id(),
            "kind": row.kind,
            "account_seq": account_seq,
            "endpoint_seq": row.endpoint_seq,
            "recipient": recipient,
            "facts": row.facts,
            "created_at": row.created_at,
            "due_at": now,
        }
        for email, row in emails.items()
        for recipient in added
        if (*email, recipient) not in sent
    ]
    if rows:
        connection.execute(sa.insert(notices), rows)
    connection.execute(sa.delete(notices).where(notices.c.seq.in_([row.seq for row in found])))


@dataclass(frozen=True, slots=True)
class EmailResult:
    """The result of an attempt to send an email. If `due_at` is None, the server does not retry the email."""

    seq: int
    attempts_made: int
    sent_at: int | None = None
    due_at: int | None = None
    last_error: str | None = None
    id: bytes | None = None
    """The email's ID, because SQLite can give the number of a deleted email to another email."""


def due(connection: Connection, *, now: int, limit: int) -> list[Notification]:
    """Return the emails due at `now` (Unix ms), longest overdue first."""
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
    """Store the results of attempts to send emails.

    A repeated or late call does not overwrite the result of a later attempt.
    """
    for result in results:
        values = {name: value for name, value in asdict(result).items() if name not in {"seq", "id"}}
        change = sa.update(notices).where(notices.c.seq == result.seq, notices.c.sent_at.is_(None)).values(values)
        if result.id is not None:
            change = change.where(notices.c.id == result.id)
        if result.sent_at is None:
            outdates = notices.c.due_at.is_not(None), notices.c.attempts_made < result.attempts_made
            change = change.where(*outdates)
        connection.execute(change)


@dataclass(frozen=True, slots=True)
class DueEmail:
    """An email in the outbox without its content, for operators. Timestamps are Unix ms."""

    seq: int
    kind: NotificationKind
    recipient: str
    account_id: bytes | None
    """The ID of the account. None for emails to the operator."""
    endpoint_id: bytes | None
    endpoints: int
    """The number of endpoints that the email describes. Only meaningful for an email about endpoints."""
    created_at: int
    due_at: int | None
    attempts_made: int
    sent_at: int | None
    last_error: str | None

    @property
    def state(self) -> NotificationState:
        """The state of the email: waiting, sent or failed."""
        if self.due_at is not None:
            return NotificationState.WAITING
        return NotificationState.GIVEN_UP if self.sent_at is None else NotificationState.SENT


def page(
    connection: Connection, wanted: NotificationState | None, *, limit: int, before: tuple[int, ...] | None = None
) -> Page[DueEmail]:
    """List a page of all emails, or of the emails in one state, newest first.

    If `wanted` is WAITING, the emails are sorted by their next attempt time.
    """
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
    rows = connection.execute(_select().where(notices.c.seq.in_(keys)).order_by(notices.c.seq.desc()))
    found = page_of([_email(row) for row in rows], limit, lambda email: (email.seq,))
    # Older emails can also match, so the next page starts where this scan ended.
    return Page(found.items, (low,)) if found.next_key is None and low > 1 else found


def _waiting(connection: Connection, *, limit: int, after: tuple[int, ...] | None) -> Page[DueEmail]:
    query = _select().where(sa.text("notices.due_at IS NOT NULL"))
    if after is not None:
        query = query.where(sa.tuple_(notices.c.due_at, notices.c.seq) > sa.tuple_(*map(sa.literal, after)))
    rows = connection.execute(query.order_by(notices.c.due_at, notices.c.seq).limit(limit + 1))
    return page_of([_email(row) for row in rows], limit, lambda email: (email.due_at or 0, email.seq))


def _select() -> sa.Select[Any]:
    return (
        sa.select(notices, accounts.c.id.label("account_id"), endpoints.c.id.label("endpoint_id"))
        .outerjoin(accounts, accounts.c.seq == notices.c.account_seq)
        .outerjoin(endpoints, endpoints.c.seq == notices.c.endpoint_seq)
    )


def _email(row: sa.Row[Any]) -> DueEmail:
    return DueEmail(
        row.seq,
        NotificationKind(row.kind),
        row.recipient,
        row.account_id,
        row.endpoint_id,
        endpoint_count(json.loads(row.facts)),
        row.created_at,
        row.due_at,
        row.attempts_made,
        row.sent_at,
        row.last_error,
    )


def is_unsent(
    connection: Connection, account_seq: int, endpoint: str, kind: NotificationKind, *, since: int, until: int
) -> bool:
    """Return whether an email of this kind about the endpoint is waiting, and no such email was sent.

    `endpoint` is the public ID. Only emails that were added from `since` to `until` (Unix ms) are considered. An email
    that does not list all of its endpoints is assumed to be about the endpoint.
    """
    emails = _about_endpoint(account_seq, endpoint, kind, since=since, until=until)
    if connection.execute(emails.where(notices.c.due_at.is_not(None)).limit(1)).first() is None:
        return False
    return _last_sent(connection, emails) is None


def sent_late_at(
    connection: Connection, account_seq: int, endpoint: str, kind: NotificationKind, *, since: int, until: int
) -> int | None:
    """Return when the last email of this kind about the endpoint was sent (Unix ms), if it was late. Otherwise None.

    The parameters are those of `is_unsent`.
    """
    row = _last_sent(connection, _about_endpoint(account_seq, endpoint, kind, since=since, until=until))
    return None if row is None or row.sent_at <= row.created_at + LATE_AFTER_MS else row.sent_at


def _about_endpoint(
    account_seq: int, endpoint: str, kind: NotificationKind, *, since: int, until: int
) -> sa.Select[tuple[int, int]]:
    is_about = sa.or_(*(notices.c.facts.contains(text, autoescape=True) for text in (f'"{endpoint}"', '"more": ')))
    return sa.select(notices.c.created_at, notices.c.sent_at).where(
        notices.c.account_seq == account_seq,
        notices.c.kind == int(kind),
        notices.c.created_at.between(since, until),
        is_about,
    )


def _last_sent(connection: Connection, emails: sa.Select[tuple[int, int]]) -> sa.Row[tuple[int, int]] | None:
    sent = emails.where(notices.c.due_at.is_(None), notices.c.sent_at.is_not(None))
    return connection.execute(sent.order_by(notices.c.sent_at.desc()).limit(1)).first()
