"""Encryption of all stored values with a new key."""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import encryption_upgrade
from uplift_server.store.encryption import COLUMNS, Cipher, Column, WrongSecretKey, is_unbound
from uplift_server.store.schema import endpoints

BATCH_ROWS: Final = 300


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """The number of encrypted values, and how many of them were re-encrypted."""

    values: int
    changed: int


def reencrypt(connection: Connection, old: Cipher, new: Cipher) -> Reencrypted:
    """Encrypt every value with the new key in this transaction, unless this was done before.

    Raises WrongSecretKey if neither key decrypts a value.
    """
    columns = [endpoints.c[name] for name in COLUMNS]
    change = (
        sa.update(endpoints)
        .where(endpoints.c.seq == sa.bindparam("at"))
        .values({name: sa.bindparam(f"new_{name}") for name in COLUMNS})
    )
    total, changed, after = 0, 0, 0
    while True:
        rows = connection.execute(
            sa.select(endpoints.c.seq, endpoints.c.id, *columns)
            .where(endpoints.c.seq > after, endpoints.c.deleted_at.is_(None))
            .order_by(endpoints.c.seq)
            .limit(BATCH_ROWS)
            .with_for_update()
        ).all()
        changes = []
        for seq, endpoint_id, *values in rows:
            new_values = [
                None if each is None else _reencrypted(each, endpoint_id, column, old, new)
                for column, each in zip(COLUMNS, values, strict=True)
            ]
            total += sum(each is not None for each in values)
            count = sum(was != now for was, now in zip(values, new_values, strict=True))
            if count:
                changed += count
                changes.append(
                    {"at": seq} | {f"new_{name}": each for name, each in zip(COLUMNS, new_values, strict=True)}
                )
        if changes:
            connection.execute(change, changes)
        if len(rows) < BATCH_ROWS:
            encryption_upgrade.mark_complete(connection)
            return Reencrypted(total, changed)
        after = rows[-1].seq


def _reencrypted(value: bytes, endpoint_id: bytes, column: Column, old: Cipher, new: Cipher) -> bytes:
    try:
        text = new.decrypt(value, endpoint_id, column)
    except WrongSecretKey:
        text = old.decrypt(value, endpoint_id, column)
    else:
        if not is_unbound(value):
            return value
    return new.encrypt(text, endpoint_id, column)
