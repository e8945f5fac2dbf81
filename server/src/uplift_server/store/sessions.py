"""Dashboard sessions and one-time links. The database contains only digests of the session cookies."""

from dataclasses import asdict
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.people.people import SESSIONS_PER_PERSON_MAX
from uplift_server.core.security.rights import Role
from uplift_server.store import accounts
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Link, Member, Page, Session
from uplift_server.store.schema_people import links, sessions

LINK_KEY_NUMBERS: Final = 4
_PART_BYTES: Final = 4
_COLUMNS: Final = [column for column in sessions.c if column is not sessions.c.id_token]
"""The columns of `sessions` that each request reads: all columns except the ID token."""


def create(connection: Connection, session: Session, *, id_token: bytes | None = None) -> None:
    """Store a session. If the person then has more than SESSIONS_PER_PERSON_MAX sessions, end the oldest sessions.

    `id_token` is the encrypted ID token from single sign-on.
    """
    connection.execute(sa.insert(sessions).values({**_values(session), "id_token": id_token}))
    if session.person_seq is None:
        return
    excess = (
        sa.select(sessions.c.digest)
        .where(sessions.c.person_seq == session.person_seq)
        .order_by(sessions.c.created_at.desc())
        .offset(SESSIONS_PER_PERSON_MAX)
        .limit(SESSIONS_PER_PERSON_MAX)
    )
    ended = list(connection.scalars(excess))
    if ended:
        connection.execute(sa.delete(sessions).where(sessions.c.digest.in_(ended)))


def get(connection: Connection, digest: bytes) -> Session | None:
    """Return the session with this digest, if any. The caller must check whether the session has expired."""
    row = connection.execute(sa.select(*_COLUMNS).where(sessions.c.digest == digest)).first()
    if row is None:
        return None
    return Session(
        digest=row.digest,
        person_seq=row.person_seq,
        account_seq=row.account_seq,
        key_digest=_key_digest(row),
        created_at=row.created_at,
        seen_at=row.seen_at,
        confirmed_at=row.confirmed_at,
        ends_at=row.ends_at,
        is_read_only=row.reader_key_digest is not None,
        subject=row.subject,
        operator_name=row.operator_name,
    )


def id_token(connection: Connection, digest: bytes) -> bytes | None:
    """Return the encrypted ID token of a session, or None if the session did not begin with single sign-on."""
    token: bytes | None = connection.scalar(sa.select(sessions.c.id_token).where(sessions.c.digest == digest))
    return token


def touch(connection: Connection, digest: bytes, *, now: int) -> None:
    """Store `now` (Unix ms) as the time when a session was last used."""
    connection.execute(sa.update(sessions).where(sessions.c.digest == digest).values(seen_at=now))


def confirm(connection: Connection, digest: bytes, *, now: int) -> None:
    """Store `now` (Unix ms) as the time when the person last entered the password in this session."""
    connection.execute(sa.update(sessions).where(sessions.c.digest == digest).values(confirmed_at=now, seen_at=now))


def end(connection: Connection, digest: bytes) -> None:
    """End a session. Do nothing if the session does not exist."""
    connection.execute(sa.delete(sessions).where(sessions.c.digest == digest))


def end_all_of_person(connection: Connection, person_seq: int, *, except_digest: bytes | None = None) -> None:
    """End all sessions of a person, except the session with the digest `except_digest`."""
    query = sa.delete(sessions).where(sessions.c.person_seq == person_seq)
    connection.execute(query if except_digest is None else query.where(sessions.c.digest != except_digest))


def end_portal_access(connection: Connection, account_seq: int, member: Member) -> int:
    """End the sessions of a member that show only this account, and delete unused links for the member.

    Return the number of deleted links. For a guest, delete all links for guests with the same role.
    """
    own = sa.and_(sessions.c.person_seq == member.person.seq, sessions.c.account_seq == account_seq)
    connection.execute(sa.delete(sessions).where(own))
    email = member.person.email
    is_guest = sa.and_(links.c.email.is_(None), links.c.role == int(member.role))
    theirs = sa.and_(links.c.account_seq == account_seq, is_guest if email is None else links.c.email == email)
    return connection.execute(sa.delete(links).where(theirs)).rowcount


def end_all_of_operator(connection: Connection, key_digest: bytes, subject: str) -> None:
    """End all sessions of an operator who signed in with single sign-on. `subject` identifies the operator.

    `key_digest` is the digest of the settings that make the person an operator.
    """
    connection.execute(sa.delete(sessions).where(_is_started_by(key_digest), sessions.c.subject == subject))


def end_all_of_key(connection: Connection, key_digest: bytes) -> None:
    """End all sessions that started with this operator key."""
    connection.execute(sa.delete(sessions).where(_is_started_by(key_digest)))


def _is_started_by(key_digest: bytes) -> sa.ColumnElement[bool]:
    own = sa.or_(sessions.c.key_digest == key_digest, sessions.c.reader_key_digest == key_digest)
    return sa.and_(sessions.c.person_seq.is_(None), own)


def add_link(connection: Connection, link: Link) -> Link:
    """Store a one-time link. Raises Conflict if the link's account was deleted."""
    if link.account_seq is not None:
        accounts.require(connection, link.account_seq)
    connection.execute(sa.insert(links).values({**_values(link), "role": int(link.role)}))
    return link


def get_link(connection: Connection, link_id: bytes) -> Link | None:
    """Return the unused link with this ID, if any. The caller must check whether the link has expired."""
    row = connection.execute(sa.select(links).where(links.c.id == link_id)).first()
    return None if row is None else _link(row)


def page_of_links(connection: Connection, account_seq: int, request: PageRequest, *, now: int) -> Page[Link]:
    """List a page of an account's unused and unexpired links. `now` is in Unix ms."""
    query = sa.select(links).where(links.c.account_seq == account_seq, links.c.expires_at > now)
    if request.key is not None:
        link_id = _link_id(request.key)
        query = query.where(links.c.id > link_id if request.reads_up else links.c.id < link_id)
    order = links.c.id.asc() if request.reads_up else links.c.id.desc()
    found = connection.execute(query.order_by(order).limit(request.limit + 1))
    return request.page([_link(row) for row in found], lambda link: _parts(link.id))


def _parts(link_id: bytes) -> tuple[int, ...]:
    """Split a link's ID into LINK_KEY_NUMBERS numbers, which form a row key."""
    return tuple(int.from_bytes(link_id[at : at + _PART_BYTES], "big") for at in range(0, len(link_id), _PART_BYTES))


def _link_id(key: tuple[int, ...]) -> bytes:
    """Convert a row key back to a link's ID.

    Limit the result to 16 bytes, because a cursor from another list can contain larger numbers.
    """
    number = sum(part << 8 * _PART_BYTES * place for place, part in enumerate(reversed(key)))
    return max(0, min(number, 2**128 - 1)).to_bytes(16, "big")


def revoke_link(connection: Connection, account_seq: int, link_id: bytes, *, now: int) -> Link | None:
    """Delete one of an account's unused and unexpired links.

    Return the link, or None if there is no such link. `now` is in Unix ms.
    """
    own = sa.and_(links.c.id == link_id, links.c.account_seq == account_seq, links.c.expires_at > now)
    row = connection.execute(sa.delete(links).where(own).returning(links)).first()
    return None if row is None else _link(row)


def consume_link(connection: Connection, link_id: bytes, *, now: int) -> Link | None:
    """Delete a link, so that it cannot be used again.

    Return the link, or None if it was already used or has expired. `now` is in Unix ms.
    """
    query = sa.delete(links).where(links.c.id == link_id, links.c.expires_at > now).returning(links)
    row = connection.execute(query).first()
    return None if row is None else _link(row)


def _link(row: sa.Row[Any]) -> Link:
    is_read_only = row.reader_key_digest is not None
    return Link(row.id, row.account_seq, row.email, Role(row.role), _key_digest(row), row.expires_at, is_read_only)


def _values(record: Session | Link) -> dict[str, Any]:
    """Return the column values of a session or link. The key digests of read-only operators have a separate column."""
    values = asdict(record)
    if values.pop("is_read_only"):
        values |= {"key_digest": None, "reader_key_digest": record.key_digest}
    return values


def _key_digest(row: sa.Row[Any]) -> bytes | None:
    digest: bytes | None = row.key_digest if row.reader_key_digest is None else row.reader_key_digest
    return digest
