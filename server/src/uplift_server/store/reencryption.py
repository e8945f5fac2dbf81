"""Encrypts all stored values with a new key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import encryption_upgrade
from uplift_server.store.encryption import COLUMNS, TOTP_SECRET, Cipher, Column, WrongSecretKey, is_unbound
from uplift_server.store.schema import endpoints
from uplift_server.store.schema_people import second_factors

BATCH_ROWS: Final = 300


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """The total number of encrypted values, and the number of values that were re-encrypted with the new key."""

    values: int
    changed: int


def reencrypt(connection: Connection, old: Cipher, new: Cipher) -> Reencrypted:
    """Encrypt all values with the new key, in the current transaction.

    Skip values that are already encrypted with the new key and bound to their column. Then record that the upgrade in
    `store.encryption_upgrade` is complete. Raises WrongSecretKey if neither key decrypts a value.
    """
    factors = second_factors.c
    found = [
        _reencrypt(connection, endpoints.c.id, COLUMNS, endpoints.c.deleted_at.is_(None), old, new),
        _reencrypt(connection, factors.person_id, (TOTP_SECRET,), sa.true(), old, new),
    ]
    encryption_upgrade.mark_complete(connection)
    return Reencrypted(sum(each.values for each in found), sum(each.changed for each in found))


def _reencrypt(
    connection: Connection,
    owner: sa.Column[bytes],
    names: Sequence[Column],
    condition: sa.ColumnElement[bool],
    old: Cipher,
    new: Cipher,
) -> Reencrypted:
    """Encrypt columns of one table with the new key. `owner` is the column with the ID of the endpoint or person."""
    table = owner.table
    change = (
        sa.update(table)
        .where(table.c.seq == sa.bindparam("at"))
        .values({name: sa.bindparam(f"new_{name}") for name in names})
    )
    total, changed, after = 0, 0, 0
    while True:
        rows = connection.execute(
            sa.select(table.c.seq, owner, *(table.c[name] for name in names))
            .where(table.c.seq > after, condition)
            .order_by(table.c.seq)
            .limit(BATCH_ROWS)
            .with_for_update()
        ).all()
        changes = []
        for seq, owner_id, *values in rows:
            new_values = [
                None if each is None else _reencrypted(each, owner_id, column, old, new)
                for column, each in zip(names, values, strict=True)
            ]
            total += sum(each is not None for each in values)
            count = sum(was != now for was, now in zip(values, new_values, strict=True))
            if count:
                changed += count
                changes.append(
                    {"at": seq} | {f"new_{name}": each for name, each in zip(names, new_values, strict=True)}
                )
        if changes:
            connection.execute(change, changes)
        if len(rows) < BATCH_ROWS:
            return Reencrypted(total, changed)
        after = rows[-1].seq


def _reencrypted(value: bytes, owner_id: bytes, column: Column, old: Cipher, new: Cipher) -> bytes:
    try:
        text = new.decrypt(value, owner_id, column)
    except WrongSecretKey:
        text = old.decrypt(value, owner_id, column)
    else:
        if not is_unbound(value):
            return value
    return new.encrypt(text, owner_id, column)
