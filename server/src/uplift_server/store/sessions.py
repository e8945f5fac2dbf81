"""Sessions of the dashboard, and the one-time links that begin some. Of a cookie only the digest is kept."""

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.people.people import SESSIONS_PER_PERSON_MAX
from uplift_server.core.security.rights import Role
from uplift_server.store import accounts
from uplift_server.store.records import Link, Session
from uplift_server.store.schema_people import links, sessions


def create(connection: Connection, session: Session) -> None:
    """Begin a session. A person's oldest ends where there would be more than SESSIONS_PER_PERSON_MAX."""
    connection.execute(sa.insert(sessions).values(asdict(session)))
    if session.person_seq is None:
        return
    excess = (
        sa.select(sessions.c.digest)
        .where(sessions.c.person_seq == session.person_seq)
        .order_by(sessions.c.created_at.desc())
        .offset(SESSIONS_PER_PERSON_MAX)
        .limit(SESSIONS_PER_PERSON_MAX)
    )
    doomed = list(connection.scalars(excess))
    if doomed:
        connection.execute(sa.delete(sessions).where(sessions.c.digest.in_(doomed)))


def get(connection: Connection, digest: bytes) -> Session | None:
    """The session of this cookie, which may be over."""
    row = connection.execute(sa.select(sessions).where(sessions.c.digest == digest)).first()
    if row is None:
        return None
    return Session(
        digest=row.digest,
        person_seq=row.person_seq,
        account_seq=row.account_seq,
        key_digest=row.key_digest,
        created_at=row.created_at,
        seen_at=row.seen_at,
        confirmed_at=row.confirmed_at,
        ends_at=row.ends_at,
    )


def touch(connection: Connection, digest: bytes, *, now: int) -> None:
    """A session was used."""
    connection.execute(sa.update(sessions).where(sessions.c.digest == digest).values(seen_at=now))


def confirm(connection: Connection, digest: bytes, *, now: int) -> None:
    """The password was given again."""
    connection.execute(sa.update(sessions).where(sessions.c.digest == digest).values(confirmed_at=now, seen_at=now))


def end(connection: Connection, digest: bytes) -> None:
    """End a session; once more does no harm."""
    connection.execute(sa.delete(sessions).where(sessions.c.digest == digest))


def end_of_person(connection: Connection, person_seq: int, *, but: bytes | None = None) -> None:
    """End all of a person's sessions, or all but one."""
    query = sa.delete(sessions).where(sessions.c.person_seq == person_seq)
    connection.execute(query if but is None else query.where(sessions.c.digest != but))


def end_of_key(connection: Connection, key_digest: bytes) -> None:
    """End all sessions of operators that an operator's key stands behind."""
    own = sa.and_(sessions.c.person_seq.is_(None), sessions.c.key_digest == key_digest)
    connection.execute(sa.delete(sessions).where(own))


def add_link(connection: Connection, link: Link) -> Link:
    """Store a one-time link. Raises Conflict where its account was deleted."""
    if link.account_seq is not None:
        accounts.require(connection, link.account_seq)
    connection.execute(sa.insert(links).values({**asdict(link), "role": int(link.role)}))
    return link


def get_link(connection: Connection, link_id: bytes) -> Link | None:
    """A link that was not opened yet; it may be over."""
    row = connection.execute(sa.select(links).where(links.c.id == link_id)).first()
    return None if row is None else _link(row)


def take_link(connection: Connection, link_id: bytes, *, now: int) -> Link | None:
    """Spend a link; None where it is spent or over (`now` in Unix ms)."""
    link = get_link(connection, link_id)
    if link is None or now >= link.expires_at:
        return None
    connection.execute(sa.delete(links).where(links.c.id == link_id))
    return link


def _link(row: sa.Row[Any]) -> Link:
    return Link(row.id, row.account_seq, row.email, Role(row.role), row.key_digest, row.expires_at)
