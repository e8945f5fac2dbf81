"""People who sign in to the dashboard, and their memberships.

When a person has no membership left, the server deletes the person and all of the person's sessions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.people.people import ACCOUNTS_PER_PERSON_MAX
from uplift_server.core.security.rights import Role
from uplift_server.store import locks
from uplift_server.store.records import Person
from uplift_server.store.schema_people import (
    identities,
    invitations,
    links,
    members,
    people,
    recovery_codes,
    second_factors,
    sessions,
)


class AccountMembership(NamedTuple):
    """One person's membership in an account."""

    member_id: bytes
    account_seq: int
    role: Role


def find(connection: Connection, email: str, *, lock: bool = False) -> Person | None:
    """Return the person with this email, which must be in lower case.

    With `lock`, no other transaction can create or change a person with this email until this transaction ends.
    """
    if lock:
        locks.take(connection, f"email {email}")
    return _one(connection, people.c.email == email, lock=lock)


def find_by_id(connection: Connection, person_id: bytes, *, lock: bool = False) -> Person | None:
    """Return the person with this ID."""
    return _one(connection, people.c.id == person_id, lock=lock)


def get(connection: Connection, seq: int, *, lock: bool = False) -> Person | None:
    """Return the person with this internal number."""
    return _one(connection, people.c.seq == seq, lock=lock)


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
    """Store a new person. The email address must not belong to another person."""
    query = sa.insert(people).values(
        id=person_id, email=email, name=name, password_hash=password_hash, proved=proved, created_at=now
    )
    seq = connection.scalars(query.returning(people.c.seq)).one()
    return Person(seq, person_id, email, name, password_hash, proved, now)


def update(connection: Connection, person: Person) -> None:
    """Store a person's name and password hash, and whether the person's email is verified."""
    connection.execute(
        sa.update(people)
        .where(people.c.seq == person.seq)
        .values(name=person.name, password_hash=person.password_hash, proved=person.proved)
    )


def memberships(connection: Connection, person_seq: int) -> list[AccountMembership]:
    """List up to ACCOUNTS_PER_PERSON_MAX of a person's memberships, oldest account first."""
    own = sa.select(members).where(members.c.person_seq == person_seq)
    query = own.order_by(members.c.account_seq).limit(ACCOUNTS_PER_PERSON_MAX)
    return [AccountMembership(row.id, row.account_seq, Role(row.role)) for row in connection.execute(query)]


def delete_non_members(connection: Connection, person_seqs: Sequence[int]) -> None:
    """Delete the given people who have no membership, and their sessions, identities and second factors."""
    those = sa.select(people.c.seq).where(people.c.seq.in_(person_seqs))
    connection.execute(those.order_by(people.c.seq).with_for_update())
    is_member = sa.exists().where(members.c.person_seq == people.c.seq)
    gone = list(connection.scalars(sa.select(people.c.seq).where(people.c.seq.in_(person_seqs), ~is_member)))
    gone_ids = sa.select(people.c.id).where(people.c.seq.in_(gone))
    connection.execute(sa.delete(sessions).where(sessions.c.person_seq.in_(gone)))
    for table in (identities, second_factors, recovery_codes):
        connection.execute(sa.delete(table).where(table.c.person_id.in_(gone_ids)))
    connection.execute(sa.delete(people).where(people.c.seq.in_(gone)))


def remove_from_account(connection: Connection, account_seq: int) -> None:
    """Delete the members, invitations and links of an account, and the people who have no other membership."""
    own = members.c.account_seq == account_seq
    person_seqs = list(connection.scalars(sa.select(members.c.person_seq).where(own)))
    connection.execute(sa.delete(members).where(own))
    connection.execute(sa.delete(invitations).where(invitations.c.account_seq == account_seq))
    connection.execute(sa.delete(links).where(links.c.account_seq == account_seq))
    delete_non_members(connection, person_seqs)


def person_from_row(row: sa.Row[Any], *, seq: int, person_id: bytes, created_at: int) -> Person:
    """Create a person from a row.

    The other arguments are the person's values in columns whose names are ambiguous in a join.
    """
    return Person(seq, person_id, row.email, row.name, row.password_hash, row.proved, created_at)


def _one(connection: Connection, condition: sa.ColumnElement[bool], *, lock: bool = False) -> Person | None:
    query = sa.select(people).where(condition)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else person_from_row(row, seq=row.seq, person_id=row.id, created_at=row.created_at)
