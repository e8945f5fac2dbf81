"""People who sign in to the dashboard, and where they are members.

Whoever is no member of any account any more is forgotten, with all sessions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.people.people import ACCOUNTS_PER_PERSON_MAX
from uplift_server.core.security.rights import Role
from uplift_server.store.records import Person
from uplift_server.store.schema_people import invitations, links, members, people, sessions


class Place(NamedTuple):
    """A membership, as its person sees it."""

    member_id: bytes
    account_seq: int
    role: Role


def find(connection: Connection, email: str) -> Person | None:
    """The person with this mail address, in lower case."""
    return _one(connection, people.c.email == email)


def find_id(connection: Connection, person_id: bytes) -> Person | None:
    """The person with this id."""
    return _one(connection, people.c.id == person_id)


def get(connection: Connection, seq: int) -> Person | None:
    """The person with this number."""
    return _one(connection, people.c.seq == seq)


def create(
    connection: Connection,
    *,
    person_id: bytes,
    email: str | None,
    name: str,
    password_hash: str | None,
    proved: bool,
    now: int,
) -> Person:
    """Store a new person, whose mail address nobody has."""
    query = sa.insert(people).values(
        id=person_id, email=email, name=name, password_hash=password_hash, proved=proved, created_at=now
    )
    seq = connection.scalars(query.returning(people.c.seq)).one()
    return Person(seq, person_id, email, name, password_hash, proved, now)


def update(connection: Connection, person: Person) -> None:
    """Write a person's name, password and whether the mail address is proved."""
    connection.execute(
        sa.update(people)
        .where(people.c.seq == person.seq)
        .values(name=person.name, password_hash=person.password_hash, proved=person.proved)
    )


def places(connection: Connection, person_seq: int) -> list[Place]:
    """Where a person is a member, the oldest account first; the first ACCOUNTS_PER_PERSON_MAX of them."""
    own = sa.select(members).where(members.c.person_seq == person_seq)
    query = own.order_by(members.c.account_seq).limit(ACCOUNTS_PER_PERSON_MAX)
    return [Place(row.id, row.account_seq, Role(row.role)) for row in connection.execute(query)]


def forget_unplaced(connection: Connection, person_seqs: Sequence[int]) -> None:
    """Forget those of these people who are members of no account."""
    placed = sa.exists().where(members.c.person_seq == people.c.seq)
    gone = list(connection.scalars(sa.select(people.c.seq).where(people.c.seq.in_(person_seqs), ~placed)))
    connection.execute(sa.delete(sessions).where(sessions.c.person_seq.in_(gone)))
    connection.execute(sa.delete(people).where(people.c.seq.in_(gone)))


def close_account(connection: Connection, account_seq: int) -> None:
    """Let an account's members go, with its invitations and links."""
    own = members.c.account_seq == account_seq
    person_seqs = list(connection.scalars(sa.select(members.c.person_seq).where(own)))
    connection.execute(sa.delete(members).where(own))
    connection.execute(sa.delete(invitations).where(invitations.c.account_seq == account_seq))
    connection.execute(sa.delete(links).where(links.c.account_seq == account_seq))
    forget_unplaced(connection, person_seqs)


def of_row(row: sa.Row[Any], *, seq: int, person_id: bytes, created_at: int) -> Person:
    """A person from a row with their columns; those that other tables have, too, are given apart."""
    return Person(seq, person_id, row.email, row.name, row.password_hash, row.proved, created_at)


def _one(connection: Connection, condition: sa.ColumnElement[bool]) -> Person | None:
    row = connection.execute(sa.select(people).where(condition)).first()
    return None if row is None else of_row(row, seq=row.seq, person_id=row.id, created_at=row.created_at)
