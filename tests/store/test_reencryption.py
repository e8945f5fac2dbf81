"""Encryption of all values with a new key: atomic and repeatable."""

import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from uplift_server.store import endpoints, reencryption, second_factors
from uplift_server.store.encryption import COLUMNS, ERASED, TOTP_SECRET, Cipher, Column, WrongSecretKey
from uplift_server.store.records import SecondFactor
from uplift_server.store.reencryption import Reencrypted, reencrypt
from uplift_server.store.schema import accounts, metadata
from uplift_server.store.schema import endpoints as table

OLD, NEW, OTHER = (Cipher(byte * 32) for byte in (b"o", b"n", b"x"))


@pytest.fixture
def connection(connection: sa.Connection) -> sa.Connection:
    """A connection to a database with an account."""
    values = {"seq": 1, "id": b"a" * 16, "name": "a", "contact_emails": "[]", "created_at": 1, "updated_at": 1}
    connection.execute(sa.insert(accounts).values(**values))
    return connection


def endpoint(connection: sa.Connection, number: int, cipher: Cipher = OLD) -> Any:
    """Store an endpoint. Every third one also has a previous secret, and every fifth one headers and authentication."""
    endpoint_id = number.to_bytes(16, "big")
    created = endpoints.create(
        connection,
        endpoint_id=endpoint_id,
        account_seq=1,
        url="https://example.com/",
        description="",
        event_types=(),
        secret=cipher.encrypt(f"secret {number}", endpoint_id, "secret"),
        headers=cipher.encrypt(json.dumps({"x-team": str(number)}), endpoint_id, "headers")
        if number % 5 == 0
        else None,
        auth=cipher.encrypt(f"auth {number}", endpoint_id, "auth") if number % 5 == 0 else None,
        now=1,
    )
    if number % 3 == 0:
        pair = created.secrets.rotated(cipher.encrypt(f"new secret {number}", endpoint_id, "secret"), 2, 1000)
        pair = replace(pair, previous=cipher.encrypt(f"secret {number}", endpoint_id, "previous_secret"))
        created = endpoints.set_secrets(connection, created, pair, now=2)
    return created


def encrypted_values(connection: sa.Connection) -> list[tuple[bytes, bytes, Column]]:
    """Return every encrypted value, with the endpoint's ID and the column."""
    rows = connection.execute(sa.select(table.c.id, *(table.c[name] for name in COLUMNS)).order_by(table.c.seq))
    return [(value, row[0], column) for row in rows for column, value in zip(COLUMNS, row[1:], strict=True) if value]


def decrypt_all(connection: sa.Connection, cipher: Cipher) -> list[str]:
    """Return the plain text of every encrypted value."""
    return [cipher.decrypt(*each) for each in encrypted_values(connection)]


def test_values_are_decrypted_with_the_new_key_only(connection: sa.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reencryption, "BATCH_ROWS", 10)
    count = 20
    for number in range(count):
        endpoint(connection, number)
    # Deleting an endpoint erases its encrypted values.
    endpoints.delete(connection, None, (15).to_bytes(16, "big"), now=3)
    before = decrypt_all(connection, OLD)
    assert len(before) == count + len(range(0, count, 3)) + 2 * len(range(0, count, 5)) - 4
    assert reencrypt(connection, OLD, NEW) == Reencrypted(len(before), len(before))
    assert decrypt_all(connection, NEW) == before
    for each in encrypted_values(connection):
        with pytest.raises(WrongSecretKey):
            OLD.decrypt(*each)
    # Nothing else has changed.
    found = endpoints.get(connection, 1, bytes(16))
    assert found is not None
    assert (found.url, found.updated_at, found.previous_expires_at) == ("https://example.com/", 2, 1002)


def test_values_encrypted_with_the_new_key_stay(connection: sa.Connection) -> None:
    endpoint(connection, 0)
    reencrypt(connection, OLD, NEW)
    endpoint(connection, 15)
    before = encrypted_values(connection)[:4]
    assert reencrypt(connection, OLD, NEW) == Reencrypted(8, 4)
    assert encrypted_values(connection)[:4] == before
    assert reencrypt(connection, OLD, NEW) == reencrypt(connection, NEW, NEW) == Reencrypted(8, 0)


def test_second_factors_are_encrypted_again(connection: sa.Connection) -> None:
    endpoint(connection, 0)
    person_id = b"p" * 16
    factor = SecondFactor(person_id, OLD.encrypt("a key", person_id, TOTP_SECRET), 7, 1)
    second_factors.create(connection, factor)
    assert reencrypt(connection, OLD, NEW) == Reencrypted(5, 5)
    found = second_factors.get(connection, person_id)
    assert found is not None
    assert NEW.decrypt(found.totp_secret, person_id, TOTP_SECRET) == "a key"
    assert replace(found, totp_secret=b"") == replace(factor, totp_secret=b"")
    with pytest.raises(WrongSecretKey):
        NEW.decrypt(found.totp_secret, b"q" * 16, TOTP_SECRET)


def test_a_value_that_neither_key_decrypts_is_an_error(connection: sa.Connection) -> None:
    endpoint(connection, 0)
    endpoint(connection, 1, OTHER)
    with pytest.raises(WrongSecretKey):
        reencrypt(connection, OLD, NEW)


def test_an_empty_database_has_nothing_to_encrypt(connection: sa.Connection) -> None:
    assert reencrypt(connection, OLD, NEW) == Reencrypted(0, 0)


def test_every_encrypted_column_is_included() -> None:
    """Every column that the schema describes as encrypted is encrypted again."""
    found = {
        (each.name, column.name)
        for each in metadata.tables.values()
        for column in each.columns
        if (column.comment or "").startswith("encrypted")
    }
    of_endpoints = {("endpoints", name) for name in COLUMNS}
    assert found == of_endpoints | {("second_factors", TOTP_SECRET)}
    assert of_endpoints == {("endpoints", name) for name in ERASED}
