"""Sessions and one-time links in the store."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from uplift_server.core.security.rights import Role
from uplift_server.store import accounts, sessions
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Link, Session

SESSION = Session(b"", 1, None, None, 0, 0, 0, 10)


def begin(connection: sa.Connection, number: int, person_seq: int | None = 1) -> bytes:
    """Start a session at the time `number`. Return its digest."""
    digest = number.to_bytes(32, "big") if person_seq is not None else b"o" * 31 + bytes([number])
    sessions.create(connection, replace(SESSION, digest=digest, person_seq=person_seq, created_at=number))
    return digest


def test_the_oldest_sessions_of_a_person_end_above_the_limit(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_PER_PERSON_MAX", 3)
    other = begin(connection, 1, person_seq=2)
    operators = [begin(connection, number, person_seq=None) for number in range(5)]
    made = [begin(connection, number) for number in range(10, 16)]
    left = [digest for digest in made if sessions.get(connection, digest)]
    assert left == made[-3:]
    assert sessions.get(connection, other)
    assert all(sessions.get(connection, digest) for digest in operators)


def test_ending_a_session_can_be_repeated(connection: sa.Connection) -> None:
    digest = begin(connection, 1)
    for _ in range(2):
        sessions.end(connection, digest)
        sessions.touch(connection, digest, now=5)
        sessions.confirm(connection, digest, now=5)
        assert sessions.get(connection, digest) is None


def test_a_link_is_used_once_and_not_after_its_expiry(connection: sa.Connection) -> None:
    account = accounts.create(connection, account_id=b"a" * 16, name="a", contact_emails=(), now=1)
    link = sessions.add_link(connection, Link(b"l" * 16, account.seq, "a@example.com", Role.ADMIN, None, 10))
    assert sessions.get_link(connection, link.id) == link
    assert sessions.consume_link(connection, link.id, now=10) is None
    assert sessions.consume_link(connection, link.id, now=9) == link
    assert sessions.consume_link(connection, link.id, now=9) is None


def test_earlier_releases_find_no_key_of_a_read_only_operator(connection: sa.Connection) -> None:
    key = b"k" * 32
    session = replace(SESSION, digest=b"r" * 32, person_seq=None, key_digest=key, is_read_only=True)
    sessions.create(connection, session)
    link = sessions.add_link(connection, Link(b"l" * 16, None, None, Role.MEMBER, key, 10, True))

    assert sessions.get(connection, session.digest) == session
    assert sessions.get_link(connection, link.id) == link
    for table in ("sessions", "links"):
        assert connection.scalar(sa.text(f"SELECT key_digest FROM {table}")) is None
    sessions.end_all_of_key(connection, key)
    assert sessions.get(connection, session.digest) is None


def test_no_link_is_created_for_a_deleted_account(connection: sa.Connection) -> None:
    with pytest.raises(Conflict):
        sessions.add_link(connection, Link(b"l" * 16, 7, None, Role.MEMBER, None, 10))
