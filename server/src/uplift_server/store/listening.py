"""Listen sessions, the events they read, and what developers' machines answered."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.listening import LOCAL_RESPONSES_KEPT_MAX, SESSIONS_PER_ACCOUNT_MAX
from uplift_server.core.lifecycle import Trigger
from uplift_server.store import accounts, event_times
from uplift_server.store.errors import Conflict
from uplift_server.store.pages import page_of
from uplift_server.store.records import Page, Stretch
from uplift_server.store.schema import (
    accounts as accounts_table,
)
from uplift_server.store.schema import api_keys, deliveries, events, listen_answers, listen_sessions
from uplift_server.store.stream_position import StreamPosition

WINDOW_EVENTS: Final = 20_000
"""How many of the account's events are looked at at a time for those that are wanted."""


@dataclass(frozen=True, slots=True)
class ListenSession:
    """A developer's stream. Instants are Unix ms."""

    seq: int
    id: bytes
    account_seq: int
    account_id: bytes
    key_id: bytes
    """The API key it was made with, and is to be streamed with."""
    description: str
    event_types: tuple[str, ...]
    """Empty: all."""
    position: int
    """Every event up to this number was handed over."""
    created_at: int
    last_seen_at: int


@dataclass(frozen=True, slots=True)
class Fed:
    """An event on its way to a session."""

    seq: int
    id: bytes
    type_seq: int
    created_at: int
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a developer's machine answered to an event. `seq` is 0 until it is stored."""

    event_id: bytes
    type: str
    at: int
    status_code: int | None
    duration_ms: int
    error: str | None
    body: str
    redelivered: bool
    seq: int = 0


def create(
    connection: Connection,
    *,
    session_id: bytes,
    account_seq: int,
    key_id: bytes,
    description: str,
    event_types: Sequence[str],
    since: int | None,
    after_event: bytes | None,
    horizon: StreamPosition,
    now: int,
) -> ListenSession:
    """Store a session that begins now, behind the events accepted up to an instant (Unix ms), or behind an event.

    Now is no later than the horizon: what is being stored meanwhile comes after it. Raises Conflict where the account
    was deleted or has as many sessions as it may have, and UnknownEvent.
    """
    accounts.require(connection, account_seq)
    check_room(connection, account_seq)
    connection.execute(
        sa.insert(listen_sessions).values(
            id=session_id,
            account_seq=account_seq,
            key_id=key_id,
            description=description,
            event_types=json.dumps(list(event_types)),
            position=_beginning(connection, account_seq, since, after_event, horizon),
            created_at=now,
            last_seen_at=now,
        )
    )
    created = get(connection, account_seq, session_id)
    assert created is not None, "it was stored in this transaction"
    return created


def check_room(connection: Connection, account_seq: int) -> None:
    """Raise Conflict if the account has as many sessions as it may have."""
    own = sa.select(sa.func.count()).where(listen_sessions.c.account_seq == account_seq)
    if connection.scalars(own).one() >= SESSIONS_PER_ACCOUNT_MAX:
        raise Conflict(
            f"An account has at most {SESSIONS_PER_ACCOUNT_MAX} listen sessions. End one. The server removes sessions"
            " without a connection after a day."
        )


class UnknownEvent(Conflict):
    """The account has no such event to begin behind."""


def _beginning(
    connection: Connection, account_seq: int, since: int | None, after_event: bytes | None, horizon: StreamPosition
) -> int:
    if after_event is not None:
        query = sa.select(events.c.seq).where(events.c.id == after_event, events.c.account_seq == account_seq)
        found: int | None = connection.scalar(query)
        if found is None:
            raise UnknownEvent("There is no such event.")
        return found
    newest: int = min(connection.scalar(sa.select(sa.func.max(events.c.seq))) or 0, horizon.events)
    if since is None:
        return newest
    low, _ = event_times.bounds(connection, after=since, before=None)
    query = (
        sa.select(events.c.seq)
        .where(events.c.seq >= low, events.c.account_seq == account_seq, events.c.created_at >= since)
        .order_by(events.c.seq)
        .limit(1)
    )
    first = connection.scalar(query)
    return newest if first is None else min(first - 1, horizon.events)


def get(connection: Connection, account_seq: int | None, session_id: bytes) -> ListenSession | None:
    """The account's session with this id (without an account: anybody's)."""
    query = _select().where(listen_sessions.c.id == session_id)
    if account_seq is not None:
        query = query.where(listen_sessions.c.account_seq == account_seq)
    row = connection.execute(query).first()
    return None if row is None else _session(row)


def is_there(connection: Connection, session: ListenSession) -> bool:
    """Whether a session was not removed."""
    own = sa.and_(listen_sessions.c.seq == session.seq, listen_sessions.c.id == session.id)
    return bool(connection.scalar(sa.select(sa.exists().where(own))))


def page(
    connection: Connection, account_seq: int | None, *, limit: int, before: tuple[int, ...] | None = None
) -> Page[ListenSession]:
    """The account's sessions (without an account: everybody's), newest first."""
    query = _select().order_by(listen_sessions.c.seq.desc()).limit(limit + 1)
    if account_seq is not None:
        query = query.where(listen_sessions.c.account_seq == account_seq)
    if before is not None:
        query = query.where(listen_sessions.c.seq < before[0])
    return page_of([_session(row) for row in connection.execute(query)], limit, lambda session: (session.seq,))


def delete(connection: Connection, session: ListenSession) -> bool:
    """Remove a session with its answers; whether it was there. Its number may then be another's."""
    removed = connection.execute(
        sa.delete(listen_sessions).where(listen_sessions.c.seq == session.seq, listen_sessions.c.id == session.id)
    )
    if not removed.rowcount:
        return False
    connection.execute(sa.delete(listen_answers).where(listen_answers.c.session_seq == session.seq))
    return True


def unused(connection: Connection, *, before: int, limit: int) -> list[ListenSession]:
    """Sessions that nobody was connected to since an instant (Unix ms), or whose account is gone."""
    query = _select().where(_is_unused(before)).limit(limit)
    return [_session(row) for row in connection.execute(query)]


def delete_unused(connection: Connection, session: ListenSession, *, before: int) -> bool:
    """Remove a session of `unused` with its answers, unless somebody has connected to it meanwhile; whether it was."""
    still = _select().where(listen_sessions.c.seq == session.seq, _is_unused(before))
    return connection.execute(still).first() is not None and delete(connection, session)


def see(connection: Connection, session: ListenSession, *, now: int) -> int | None:
    """Note that somebody connects to a session at an instant (Unix ms), or a little later: after all who have before.

    Gives that instant; None where the session is not there, its key was revoked, or its account deleted.
    """
    own = sa.and_(listen_sessions.c.seq == session.seq, listen_sessions.c.id == session.id)
    # The operator's key that the settings give is not stored.
    revoked = sa.exists().where(api_keys.c.id == session.key_id, api_keys.c.revoked_at.is_not(None))
    account = sa.exists().where(accounts_table.c.seq == session.account_seq, accounts_table.c.deleted_at.is_(None))
    seen = sa.update(listen_sessions).where(own, ~revoked, account).values(last_seen_at=_no_earlier(now, by=1))
    instant: int | None = connection.scalar(seen.returning(listen_sessions.c.last_seen_at))
    return instant


def _no_earlier(now: int, *, by: int = 0) -> sa.ColumnElement[int]:
    """An instant, or when somebody was connected last and so much (ms) later: processes' clocks are not quite alike."""
    last = listen_sessions.c.last_seen_at + by
    return sa.case((last > now, last), else_=now)


def feed(
    connection: Connection,
    account_seq: int,
    unwanted: Sequence[int],
    horizon: StreamPosition,
    *,
    after: int,
    limit: int,
    body_bytes_max: int,
    now: int,
) -> Stretch[Fed]:
    """The account's next events of all but these types behind a number, in the order of acceptance up to the horizon.

    Without those that have expired and the tests of endpoints, which are nobody else's. The last one's body may exceed
    the bytes.
    """
    newest = connection.scalar(sa.select(sa.func.max(events.c.seq)).where(events.c.account_seq == account_seq)) or 0
    if min(newest, horizon.events) <= after:
        return Stretch([], (after,), more=newest > after)
    through = connection.scalar(
        sa.select(events.c.seq)
        .where(events.c.account_seq == account_seq, events.c.seq > after)
        .order_by(events.c.seq)
        .offset(WINDOW_EVENTS)
        .limit(1)
    )
    high = min(newest if through is None else through, horizon.events)
    tests = sa.exists().where(deliveries.c.event_seq == events.c.seq, deliveries.c.trigger == int(Trigger.TEST))
    query = (
        sa.select(events.c.seq, events.c.id, events.c.type_seq, events.c.created_at, events.c.body)
        .where(
            events.c.account_seq == account_seq,
            events.c.seq > after,
            events.c.seq <= high,
            events.c.type_seq.not_in(list(unwanted)),
            sa.or_(events.c.expires_at.is_(None), events.c.expires_at > now),
            ~tests,
        )
        .order_by(events.c.seq)
        .limit(limit)
    )
    found: list[Fed] = []
    body_bytes = 0
    for row in connection.execute(query):
        found.append(Fed(*row))
        body_bytes += len(row.body)
        if body_bytes >= body_bytes_max:
            break
    if len(found) == limit or body_bytes >= body_bytes_max:
        return Stretch(found, (found[-1].seq,), more=True)
    return Stretch(found, (high,), more=high < newest)


def save_progress(
    connection: Connection, progress: Sequence[tuple[ListenSession, int | None, Sequence[StoredAnswer]]], *, now: int
) -> None:
    """Remember how far sessions have come, and what was answered to them; the oldest answers make room.

    Without a position only the answers are new.
    What is known of a session that was removed meanwhile is forgotten: the next one may have its number already.
    """
    for session, position, answers in progress:
        session_seq = session.seq
        known = connection.execute(
            sa.update(listen_sessions)
            .where(listen_sessions.c.seq == session_seq, listen_sessions.c.id == session.id)
            .values(last_seen_at=_no_earlier(now), **({} if position is None else {"position": position}))
        )
        if not answers or not known.rowcount:
            continue
        rows = [
            {
                "session_seq": session_seq,
                "event_id": answer.event_id,
                "type": answer.type,
                "at": answer.at,
                "status_code": answer.status_code,
                "duration_ms": answer.duration_ms,
                "error": answer.error,
                "body": answer.body,
                "redelivered": answer.redelivered,
            }
            for answer in answers
        ]
        connection.execute(sa.insert(listen_answers), rows)
        last_kept = (
            sa.select(listen_answers.c.seq)
            .where(listen_answers.c.session_seq == session_seq)
            .order_by(listen_answers.c.seq.desc())
            .offset(LOCAL_RESPONSES_KEPT_MAX)
            .limit(1)
        )
        too_old = connection.scalar(last_kept)
        if too_old is not None:
            connection.execute(
                sa.delete(listen_answers).where(
                    listen_answers.c.session_seq == session_seq, listen_answers.c.seq <= too_old
                )
            )


def page_of_answers(
    connection: Connection, session_seq: int, *, limit: int, before: tuple[int, ...] | None = None
) -> Page[StoredAnswer]:
    """What was answered to a session's events, newest first."""
    query = (
        sa.select(listen_answers)
        .where(listen_answers.c.session_seq == session_seq)
        .order_by(listen_answers.c.seq.desc())
        .limit(limit + 1)
    )
    if before is not None:
        query = query.where(listen_answers.c.seq < before[0])
    found = [
        StoredAnswer(
            event_id=row.event_id,
            type=row.type,
            at=row.at,
            status_code=row.status_code,
            duration_ms=row.duration_ms,
            error=row.error,
            body=row.body,
            redelivered=row.redelivered,
            seq=row.seq,
        )
        for row in connection.execute(query)
    ]
    return page_of(found, limit, lambda answer: (answer.seq,))


def _select() -> sa.Select[Any]:
    return sa.select(listen_sessions, accounts_table.c.id.label("account_id")).join(
        accounts_table, accounts_table.c.seq == listen_sessions.c.account_seq
    )


def _is_unused(before: int) -> sa.ColumnElement[bool]:
    return sa.or_(listen_sessions.c.last_seen_at < before, accounts_table.c.deleted_at.is_not(None))


def _session(row: sa.Row[Any]) -> ListenSession:
    return ListenSession(
        seq=row.seq,
        id=row.id,
        account_seq=row.account_seq,
        account_id=row.account_id,
        key_id=row.key_id,
        description=row.description,
        event_types=tuple(json.loads(row.event_types)),
        position=row.position,
        created_at=row.created_at,
        last_seen_at=row.last_seen_at,
    )
