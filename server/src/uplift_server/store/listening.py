"""Listen sessions, the events that the sessions stream, and the responses of developers' local servers."""

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
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Page, StreamPage
from uplift_server.store.schema import (
    accounts as accounts_table,
)
from uplift_server.store.schema import api_keys, deliveries, events, listen_answers, listen_sessions, service_keys
from uplift_server.store.stream_position import StreamPosition

WINDOW_EVENTS: Final = 20_000
"""Maximum number of the account's events that one call to `next_events` scans."""


@dataclass(frozen=True, slots=True)
class ListenSession:
    """A session that streams events to a developer's machine. Timestamps are Unix ms."""

    seq: int
    id: bytes
    account_seq: int
    account_id: bytes
    key_id: bytes
    """The ID of the API key that created the session. Only this key can open the session's stream."""
    description: str
    event_types: tuple[str, ...]
    """The names of the event types to stream. Empty for all types."""
    position: int
    """The event number up to which the session has streamed or omitted all events."""
    created_at: int
    last_seen_at: int


@dataclass(frozen=True, slots=True)
class StreamedEvent:
    """An event that the server streams to a listen session."""

    seq: int
    id: bytes
    type_seq: int
    created_at: int
    body: bytes


@dataclass(frozen=True, slots=True)
class ListenResponse:
    """The response of a developer's local server to a streamed event. `seq` is 0 until the response is stored."""

    event_id: bytes
    type: str
    at: int
    status_code: int | None
    duration_ms: int
    error: str | None
    body: str
    redelivered: bool
    seq: int = 0


_SELECT: Final = sa.select(listen_sessions, accounts_table.c.id.label("account_id")).join(
    accounts_table, accounts_table.c.seq == listen_sessions.c.account_seq
)
_IS_UNUSED: Final = sa.or_(
    listen_sessions.c.last_seen_at < sa.bindparam("before"), accounts_table.c.deleted_at.is_not(None)
)
_LIST_UNUSED: Final = _SELECT.where(_IS_UNUSED).limit(sa.bindparam("limit"))


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
    stream_position: StreamPosition,
    now: int,
) -> ListenSession:
    """Store a session.

    If `after_event` is set, the session starts after this event. Otherwise, the session starts at the timestamp `since`
    (Unix ms). If both are None, the session starts after the newest event up to the stream position. Raises
    UnknownEvent if `after_event` does not exist. Raises Conflict if the account was deleted or has the maximum number
    of sessions.
    """
    accounts.require(connection, account_seq)
    require_capacity(connection, account_seq)
    connection.execute(
        sa.insert(listen_sessions).values(
            id=session_id,
            account_seq=account_seq,
            key_id=key_id,
            description=description,
            event_types=json.dumps(list(event_types)),
            position=_start_position(connection, account_seq, since, after_event, stream_position),
            created_at=now,
            last_seen_at=now,
        )
    )
    created = get(connection, account_seq, session_id)
    assert created is not None, "the session was just stored"
    return created


def require_capacity(connection: Connection, account_seq: int) -> None:
    """Raise Conflict if the account has the maximum number of sessions."""
    own = sa.select(sa.func.count()).where(listen_sessions.c.account_seq == account_seq)
    if connection.scalars(own).one() >= SESSIONS_PER_ACCOUNT_MAX:
        raise Conflict(
            f"An account has at most {SESSIONS_PER_ACCOUNT_MAX} listen sessions. Delete a session, or wait: the server"
            " deletes a session after 1 day without a client."
        )


class UnknownEvent(Conflict):
    """The account has no event with this ID."""


def _start_position(
    connection: Connection,
    account_seq: int,
    since: int | None,
    after_event: bytes | None,
    stream_position: StreamPosition,
) -> int:
    if after_event is not None:
        query = sa.select(events.c.seq).where(events.c.id == after_event, events.c.account_seq == account_seq)
        found: int | None = connection.scalar(query)
        if found is None:
            raise UnknownEvent("The event does not exist.")
        return found
    newest: int = min(connection.scalar(sa.select(sa.func.max(events.c.seq))) or 0, stream_position.events)
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
    return newest if first is None else min(first - 1, stream_position.events)


def get(connection: Connection, account_seq: int | None, session_id: bytes) -> ListenSession | None:
    """Return the session with this ID in an account, or in any account if `account_seq` is None."""
    query = _SELECT.where(listen_sessions.c.id == session_id)
    if account_seq is not None:
        query = query.where(listen_sessions.c.account_seq == account_seq)
    row = connection.execute(query).first()
    return None if row is None else _session(row)


def exists(connection: Connection, session: ListenSession) -> bool:
    """Return whether a session still exists."""
    own = sa.and_(listen_sessions.c.seq == session.seq, listen_sessions.c.id == session.id)
    return bool(connection.scalar(sa.select(sa.exists().where(own))))


def page(connection: Connection, account_seq: int | None, request: PageRequest) -> Page[ListenSession]:
    """List a page of sessions for an account, or for all accounts."""
    query = request.of(_SELECT, listen_sessions.c.seq)
    if account_seq is not None:
        query = query.where(listen_sessions.c.account_seq == account_seq)
    return request.page([_session(row) for row in connection.execute(query)], lambda session: (session.seq,))


def delete(connection: Connection, session: ListenSession) -> bool:
    """Delete a session and its responses. Return whether the session existed.

    The function checks both the number and the ID of the session, because a new session can get the number of a deleted
    session.
    """
    removed = connection.execute(
        sa.delete(listen_sessions).where(listen_sessions.c.seq == session.seq, listen_sessions.c.id == session.id)
    )
    if not removed.rowcount:
        return False
    connection.execute(sa.delete(listen_answers).where(listen_answers.c.session_seq == session.seq))
    return True


def list_unused(connection: Connection, *, before: int, limit: int) -> list[ListenSession]:
    """List the sessions that no client has used since `before` (Unix ms), and the sessions of deleted accounts."""
    rows = connection.execute(_LIST_UNUSED, {"before": before, "limit": limit})
    return [_session(row) for row in rows]


def delete_unused(connection: Connection, session: ListenSession, *, before: int) -> bool:
    """Delete a session that `list_unused` returned, unless a client has connected in the meantime.

    Return whether the session was deleted.
    """
    still = _SELECT.where(listen_sessions.c.seq == session.seq, _IS_UNUSED).with_for_update(of=listen_sessions)
    return connection.execute(still, {"before": before}).first() is not None and delete(connection, session)


def record_connection(connection: Connection, session: ListenSession, *, now: int) -> int | None:
    """Record that a client connected at `now` (Unix ms).

    If the client's last recorded activity was at the same time or later, record a time 1 ms after this activity. Return
    the recorded time. Return None if the session or its account was deleted, or if the session's key was revoked.
    """
    own = sa.and_(listen_sessions.c.seq == session.seq, listen_sessions.c.id == session.id)
    # Check for a revoked key, not for a missing one: the operator key from the settings is not in the database.
    revoked = sa.or_(
        *(
            sa.exists().where(keys.c.id == session.key_id, keys.c.revoked_at.is_not(None))
            for keys in (api_keys, service_keys)
        )
    )
    account = sa.exists().where(accounts_table.c.seq == session.account_seq, accounts_table.c.deleted_at.is_(None))
    seen = sa.update(listen_sessions).where(own, ~revoked, account).values(last_seen_at=_no_earlier(now, later_ms=1))
    recorded: int | None = connection.scalar(seen.returning(listen_sessions.c.last_seen_at))
    return recorded


def _no_earlier(now: int, *, later_ms: int = 0) -> sa.ColumnElement[int]:
    """Return the SQL expression for the later of two times: `now`, and the last activity time plus `later_ms`.

    The last activity time can be later than `now`, because the clocks of processes can differ.
    """
    last = listen_sessions.c.last_seen_at + later_ms
    return sa.case((last > now, last), else_=now)


def next_events(
    connection: Connection,
    account_seq: int,
    unwanted: Sequence[int],
    stream_position: StreamPosition,
    *,
    after: int,
    limit: int,
    body_bytes_max: int,
    now: int,
) -> StreamPage[StreamedEvent]:
    """Return up to `limit` of the account's events with numbers higher than `after`, up to the stream position.

    Omit expired events, test events, and events whose type is in `unwanted`. Stop when the total size of the bodies
    reaches `body_bytes_max`.
    """
    newest = connection.scalar(sa.select(sa.func.max(events.c.seq)).where(events.c.account_seq == account_seq)) or 0
    if min(newest, stream_position.events) <= after:
        return StreamPage([], (after,), more=newest > after)
    through = connection.scalar(
        sa.select(events.c.seq)
        .where(events.c.account_seq == account_seq, events.c.seq > after)
        .order_by(events.c.seq)
        .offset(WINDOW_EVENTS)
        .limit(1)
    )
    high = min(newest if through is None else through, stream_position.events)
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
    found: list[StreamedEvent] = []
    body_bytes = 0
    for row in connection.execute(query):
        found.append(StreamedEvent(*row))
        body_bytes += len(row.body)
        if body_bytes >= body_bytes_max:
            break
    if len(found) == limit or body_bytes >= body_bytes_max:
        return StreamPage(found, (found[-1].seq,), more=True)
    return StreamPage(found, (high,), more=high < newest)


def save_progress(
    connection: Connection, progress: Sequence[tuple[ListenSession, int | None, Sequence[ListenResponse]]], *, now: int
) -> None:
    """Save the positions of sessions, and store new responses, except responses to erased events.

    If a position is None, the stored position does not change. Skip deleted sessions. If a session has more than
    LOCAL_RESPONSES_KEPT_MAX responses, delete the oldest ones.
    """
    for session, position, responses in sorted(progress, key=lambda each: each[0].seq):
        session_seq = session.seq
        known = connection.execute(
            sa.update(listen_sessions)
            .where(listen_sessions.c.seq == session_seq, listen_sessions.c.id == session.id)
            .values(last_seen_at=_no_earlier(now), **({} if position is None else {"position": position}))
        )
        if not responses or not known.rowcount:
            continue
        erased = _erased_among(connection, session.account_seq, responses)
        rows = [
            {
                "session_seq": session_seq,
                "event_id": response.event_id,
                "type": response.type,
                "at": response.at,
                "status_code": response.status_code,
                "duration_ms": response.duration_ms,
                "error": response.error,
                "body": response.body,
                "redelivered": response.redelivered,
            }
            for response in responses
            if response.event_id not in erased
        ]
        if rows:
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


def _erased_among(connection: Connection, account_seq: int, responses: Sequence[ListenResponse]) -> set[bytes]:
    """Return the IDs of the erased events to which these responses belong.

    Lock the events of all these responses until the transaction ends, so that an erasure waits until the responses are
    stored.
    """
    own = (events.c.id.in_({response.event_id for response in responses}), events.c.account_seq == account_seq)
    query = sa.select(events.c.id, events.c.erased_at).where(*own).with_for_update(read=True)
    return {row.id for row in connection.execute(query) if row.erased_at is not None}


def page_of_responses(connection: Connection, session_seq: int, request: PageRequest) -> Page[ListenResponse]:
    """List a page of a session's stored responses."""
    query = request.of(
        sa.select(listen_answers).where(listen_answers.c.session_seq == session_seq), listen_answers.c.seq
    )
    found = [
        ListenResponse(
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
    return request.page(found, lambda response: (response.seq,))


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
