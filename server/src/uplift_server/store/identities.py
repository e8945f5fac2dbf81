"""Identities: the people that an identity provider names by issuer and subject.

An identity belongs to one person, and a person has one identity for each issuer. A later change of the email at the
provider does not change the person of an identity. Therefore, such a change cannot give one person the access of
another person.
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import people
from uplift_server.store.records import Person
from uplift_server.store.schema_people import identities


def find_person(connection: Connection, issuer: str, subject: str) -> Person | None:
    """Return the person with this identity."""
    own = sa.and_(identities.c.issuer == issuer, identities.c.subject == subject)
    person_id = connection.scalar(sa.select(identities.c.person_id).where(own))
    return None if person_id is None else people.find_by_id(connection, person_id)


def is_linked(connection: Connection, issuer: str, person: Person) -> bool:
    """Whether a person has an identity of this issuer."""
    own = sa.and_(identities.c.person_id == person.id, identities.c.issuer == issuer)
    return connection.execute(sa.select(identities.c.seq).where(own)).first() is not None


def link(connection: Connection, issuer: str, subject: str, person: Person, *, now: int) -> None:
    """Link an identity to a person. If the identity belongs to a deleted person, replace it."""
    connection.execute(sa.delete(identities).where(identities.c.issuer == issuer, identities.c.subject == subject))
    values = {"issuer": issuer, "subject": subject, "person_id": person.id}
    connection.execute(sa.insert(identities).values(created_at=now, **values))


def unlink(connection: Connection, issuer: str, person: Person) -> bool:
    """Remove the identity of a person. Return whether the person had an identity."""
    own = sa.and_(identities.c.person_id == person.id, identities.c.issuer == issuer)
    return connection.execute(sa.delete(identities).where(own)).rowcount > 0
