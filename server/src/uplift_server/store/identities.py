"""People's identities at identity providers. An issuer and a subject identify each identity.

An identity belongs to one person, and a person has at most one identity for each issuer. If the email changes at the
provider, the identity still belongs to the same person. Therefore, a changed email cannot give one person access to
the accounts of another person.
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import people
from uplift_server.store.records import Person
from uplift_server.store.schema_people import identities


def find_person(connection: Connection, issuer: str, subject: str) -> Person | None:
    """Return the person with this identity, if any."""
    own = sa.and_(identities.c.issuer == issuer, identities.c.subject == subject)
    person_id = connection.scalar(sa.select(identities.c.person_id).where(own))
    return None if person_id is None else people.find_by_id(connection, person_id)


def is_linked(connection: Connection, issuer: str, person: Person) -> bool:
    """Return whether a person has an identity from this issuer."""
    own = sa.and_(identities.c.person_id == person.id, identities.c.issuer == issuer)
    return connection.execute(sa.select(identities.c.seq).where(own)).first() is not None


def link(connection: Connection, issuer: str, subject: str, person: Person, *, now: int) -> None:
    """Link an identity to a person. Delete the earlier link of the identity, if any."""
    connection.execute(sa.delete(identities).where(identities.c.issuer == issuer, identities.c.subject == subject))
    values = {"issuer": issuer, "subject": subject, "person_id": person.id}
    connection.execute(sa.insert(identities).values(created_at=now, **values))


def unlink(connection: Connection, issuer: str, person: Person) -> bool:
    """Delete a person's identity from this issuer. Return whether the person had one."""
    own = sa.and_(identities.c.person_id == person.id, identities.c.issuer == issuer)
    return connection.execute(sa.delete(identities).where(own)).rowcount > 0
