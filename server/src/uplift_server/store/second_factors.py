"""Second factors: people's authenticator apps and recovery codes.

Before you check a code, lock the person's row, so that two requests cannot use the same code.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.records import SecondFactor
from uplift_server.store.schema_people import recovery_codes, second_factors


def get(connection: Connection, person_id: bytes) -> SecondFactor | None:
    """Return a person's second factor."""
    own = sa.select(second_factors).where(second_factors.c.person_id == person_id)
    row = connection.execute(own).first()
    return None if row is None else SecondFactor(row.person_id, row.totp_secret, row.last_step, row.created_at)


def create(connection: Connection, factor: SecondFactor) -> None:
    """Store a person's second factor. The person must not have one already."""
    connection.execute(
        sa.insert(second_factors).values(
            person_id=factor.person_id,
            totp_secret=factor.totp_secret,
            last_step=factor.last_step,
            created_at=factor.created_at,
        )
    )


def use_step(connection: Connection, person_id: bytes, step: int) -> None:
    """Store the time step of a used code. From then on, only codes for later time steps are valid."""
    own = second_factors.c.person_id == person_id
    connection.execute(sa.update(second_factors).where(own).values(last_step=step))


def delete(connection: Connection, person_id: bytes) -> bool:
    """Delete a person's second factor and recovery codes. Return whether the person had a second factor."""
    connection.execute(sa.delete(recovery_codes).where(recovery_codes.c.person_id == person_id))
    return connection.execute(sa.delete(second_factors).where(second_factors.c.person_id == person_id)).rowcount > 0


def replace_recovery_codes(connection: Connection, person_id: bytes, digests: Sequence[bytes]) -> None:
    """Replace all of a person's recovery codes. `digests` are the digests of the new codes."""
    connection.execute(sa.delete(recovery_codes).where(recovery_codes.c.person_id == person_id))
    connection.execute(sa.insert(recovery_codes), [{"digest": each, "person_id": person_id} for each in digests])


def use_recovery_code(connection: Connection, person_id: bytes, digest: bytes) -> bool:
    """Delete the recovery code that a person has used. Return whether the code was valid."""
    own = sa.and_(recovery_codes.c.digest == digest, recovery_codes.c.person_id == person_id)
    return connection.execute(sa.delete(recovery_codes).where(own)).rowcount > 0


def count_recovery_codes(connection: Connection, person_id: bytes) -> int:
    """Return how many unused recovery codes a person has."""
    own = sa.select(sa.func.count()).where(recovery_codes.c.person_id == person_id)
    return connection.scalars(own).one()
