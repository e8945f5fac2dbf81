"""Sealing anew what is sealed at rest, with another key."""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import encryption_upgrade
from uplift_server.store.encryption import COLUMNS, Cipher, Column, WrongSecretKey, is_unbound
from uplift_server.store.schema import endpoints

ROWS: Final = 300


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """How many sealed values there are, and how many of them were sealed with the old key until now."""

    values: int
    changed: int


def reseal(connection: Connection, old: Cipher, new: Cipher) -> Reencrypted:
    """Encrypt every value with the new key in this transaction, unless this was done before.

    Raises WrongSecretKey if neither key decrypts a value.
    """
    columns = [endpoints.c[name] for name in COLUMNS]
    change = (
        sa.update(endpoints)
        .where(endpoints.c.seq == sa.bindparam("at"))
        .values({name: sa.bindparam(f"new_{name}") for name in COLUMNS})
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
            anew = [
                None if each is None else _resealed(each, endpoint_id, column, old, new)
                for column, each in zip(COLUMNS, sealed, strict=True)
            ]
            values += sum(each is not None for each in sealed)
            count = sum(was != now for was, now in zip(sealed, anew, strict=True))
            if count:
                changed += count
                changes.append({"at": seq} | {f"new_{name}": each for name, each in zip(COLUMNS, anew, strict=True)})
        if changes:
            connection.execute(change, changes)
        if len(rows) < ROWS:
            encryption_upgrade.end(connection)
            return Reencrypted(values, changed)
        after = rows[-1].seq


def _resealed(sealed: bytes, endpoint_id: bytes, column: Column, old: Cipher, new: Cipher) -> bytes:
    try:
        text = new.decrypt(sealed, endpoint_id, column)
    except WrongSecretKey:
        text = old.decrypt(sealed, endpoint_id, column)
    else:
        if not is_unbound(sealed):
            return sealed
    return new.encrypt(text, endpoint_id, column)
