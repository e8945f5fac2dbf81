"""Sealing anew what is sealed at rest, with another key."""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.schema import endpoints
from uplift_server.store.sealing import ERASED, Sealer, WrongSecretKey

ROWS: Final = 300
SEALED: Final = tuple(ERASED)
"""The columns of endpoints that hold sealed values until they are deleted; nothing else is sealed."""


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many sealed values there are, and how many of them were sealed with the old key until now."""

    values: int
    changed: int


def reseal(connection: Connection, old: Sealer, new: Sealer) -> Resealed:
    """Seal everything with the new key, whole or not at all; what is so already stays.

    Raises WrongSecretKey where a value opens with neither.
    """
    columns = [endpoints.c[name] for name in SEALED]
    change = (
        sa.update(endpoints)
        .where(endpoints.c.seq == sa.bindparam("at"))
        .values({name: sa.bindparam(f"new_{name}") for name in SEALED})
    )
    values, changed, after = 0, 0, 0
    while True:
        rows = connection.execute(
            sa.select(endpoints.c.seq, endpoints.c.id, *columns)
            .where(endpoints.c.seq > after, endpoints.c.deleted_at.is_(None))
            .order_by(endpoints.c.seq)
            .limit(ROWS)
        ).all()
        changes = []
        for seq, endpoint_id, *sealed in rows:
            anew = [None if each is None else _resealed(each, endpoint_id, old, new) for each in sealed]
            values += sum(each is not None for each in sealed)
            count = sum(was != now for was, now in zip(sealed, anew, strict=True))
            if count:
                changed += count
                changes.append({"at": seq} | {f"new_{name}": each for name, each in zip(SEALED, anew, strict=True)})
        if changes:
            connection.execute(change, changes)
        if len(rows) < ROWS:
            return Resealed(values, changed)
        after = rows[-1].seq


def _resealed(sealed: bytes, endpoint_id: bytes, old: Sealer, new: Sealer) -> bytes:
    try:
        new.open(sealed, endpoint_id)
    except WrongSecretKey:
        return new.seal(old.open(sealed, endpoint_id), endpoint_id)
    return sealed
