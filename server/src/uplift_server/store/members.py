"""Stored account members: the people who have access to an account, each with a role."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.people.people import MEMBERS_PER_ACCOUNT_MAX
from uplift_server.core.security.rights import Role
from uplift_server.store import accounts, people
from uplift_server.store.errors import Conflict
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Member, Page, Person
from uplift_server.store.schema_people import identities, members, second_factors
from uplift_server.store.schema_people import people as people_table


def add(connection: Connection, *, member_id: bytes, account_seq: int, person: Person, role: Role, now: int) -> Member:
    """Add a person as a member. Raises Conflict if the account was deleted or has too many members."""
    accounts.require(connection, account_seq)
    count = sa.select(sa.func.count()).where(members.c.account_seq == account_seq)
    if connection.scalars(count).one() >= MEMBERS_PER_ACCOUNT_MAX:
        raise Conflict(f"The account has {MEMBERS_PER_ACCOUNT_MAX} members, which is the limit. Remove a member first.")
    values = {"id": member_id, "account_seq": account_seq, "person_seq": person.seq}
    query = sa.insert(members).values(role=int(role), created_at=now, **values)
    seq = connection.scalars(query.returning(members.c.seq)).one()
    return Member(seq, member_id, account_seq, role, now, person)


def page(connection: Connection, account_seq: int, request: PageRequest) -> Page[Member]:
    """List a page of an account's members."""
    query = request.of(_query(members.c.account_seq == account_seq), members.c.seq)
    return request.page([_member(row) for row in connection.execute(query)], lambda member: (member.seq,))


def get(connection: Connection, account_seq: int, member_id: bytes) -> Member | None:
    """Return the member with this ID in an account."""
    return _one(connection, members.c.id == member_id, members.c.account_seq == account_seq)


def find_by_person(connection: Connection, account_seq: int, person_seq: int) -> Member | None:
    """Return a person's membership in an account."""
    return _one(connection, members.c.person_seq == person_seq, members.c.account_seq == account_seq)


def find(connection: Connection, account_seq: int, email: str) -> Member | None:
    """Return the member with this email in an account. The email must be in lower case."""
    return _one(connection, people_table.c.email == email, members.c.account_seq == account_seq)


def find_guest(connection: Connection, account_seq: int, role: Role) -> Member | None:
    """Return the account's portal guest with this role.

    Portal links with this role and without an email sign people in as this guest.
    """
    # `coalesce` keeps the database from searching the email index for NULL, which would find all accounts' guests.
    nameless = sa.func.coalesce(people_table.c.email, "") == ""
    query = _query(members.c.account_seq == account_seq, nameless, members.c.role == int(role))
    query = query.order_by(members.c.seq).limit(1)
    row = connection.execute(query).first()
    return None if row is None else _member(row)


def set_role(connection: Connection, member: Member, role: Role) -> None:
    """Change a member's role."""
    connection.execute(sa.update(members).where(members.c.seq == member.seq).values(role=int(role)))


def remove(connection: Connection, member: Member) -> None:
    """Remove a member. Delete the person if the person has no other membership."""
    connection.execute(sa.delete(members).where(members.c.seq == member.seq))
    people.delete_non_members(connection, [member.person.seq])


def has_other_owner(connection: Connection, member: Member) -> bool:
    """Return whether the account has an owner other than this member."""
    query = sa.select(members.c.seq).where(
        members.c.account_seq == member.account_seq, members.c.role == int(Role.OWNER), members.c.seq != member.seq
    )
    return connection.execute(query.limit(1)).first() is not None


def _query(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    persons = people_table.c
    return (
        sa.select(
            members,
            persons.id.label("person_id"),
            persons.email,
            persons.name,
            persons.password_hash,
            persons.proved,
            persons.created_at.label("person_created_at"),
            sa.exists().where(identities.c.person_id == persons.id).label("has_identity"),
            sa.exists().where(second_factors.c.person_id == persons.id).label("has_second_factor"),
        )
        .join(people_table, persons.seq == members.c.person_seq)
        .where(*conditions)
    )


def _one(connection: Connection, *conditions: sa.ColumnElement[bool]) -> Member | None:
    row = connection.execute(_query(*conditions)).first()
    return None if row is None else _member(row)


def _member(row: sa.Row[Any]) -> Member:
    person = people.person_from_row(row, seq=row.person_seq, person_id=row.person_id, created_at=row.person_created_at)
    role, identity, second_factor = Role(row.role), row.has_identity, row.has_second_factor
    return Member(row.seq, row.id, row.account_seq, role, row.created_at, person, identity, second_factor)
