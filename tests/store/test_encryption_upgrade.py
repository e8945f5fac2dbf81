"""Encrypted values are bound to their endpoint and their column; those of earlier releases are upgraded once."""

import os
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from uplift_server.store import encryption_upgrade, endpoints, server_values
from uplift_server.store.encryption import COLUMNS, Cipher, Column, WrongSecretKey
from uplift_server.store.encryption_upgrade import VALUE_NAME, accepts_unbound, bind_batch, finish, must_bind
from uplift_server.store.reencryption import reencrypt
from uplift_server.store.schema import accounts
from uplift_server.store.schema import endpoints as table

KEY, NEW_KEY = b"k" * 32, b"n" * 32
VALUES: dict[Column, str] = {"secret": "whsec_a", "previous_secret": "whsec_b", "headers": '{"x-jwt": "c"}'}


def encrypt_as_0_1_1(value: str, endpoint_id: bytes, key: bytes = KEY) -> bytes:
    """Encrypt in the form that releases up to 0.1.1 read and write."""
    nonce = os.urandom(12)
    return b"\x01" + nonce + AESGCM(key).encrypt(nonce, value.encode(), endpoint_id)


@pytest.fixture
def connection(connection: sa.Connection) -> sa.Connection:
    """A connection to a database with an account, just upgraded from the earlier release."""
    values = {"seq": 1, "id": b"a" * 16, "name": "a", "contact_emails": "[]", "created_at": 1, "updated_at": 1}
    connection.execute(sa.insert(accounts).values(**values))
    server_values.replace(connection, VALUE_NAME, {VALUE_NAME: 1})
    return connection


def endpoint(connection: sa.Connection, number: int, key: bytes = KEY) -> bytes:
    """Store an endpoint as the earlier release does. Return its ID."""
    endpoint_id = number.to_bytes(16, "big")
    values = {column: encrypt_as_0_1_1(f"{text}{number}", endpoint_id, key) for column, text in VALUES.items()}
    endpoints.create(
        connection,
        endpoint_id=endpoint_id,
        account_seq=1,
        url="https://example.com/",
        description="",
        event_types=(),
        secret=values["secret"],
        headers=values["headers"] if number % 2 else None,
        now=1,
    )
    change = sa.update(table).where(table.c.id == endpoint_id)
    connection.execute(change.values(previous_secret=values["previous_secret"]))
    return endpoint_id


def stored(connection: sa.Connection, column: Column) -> dict[bytes, Any]:
    rows = connection.execute(sa.select(table.c.id, table.c[column]).order_by(table.c.seq))
    return {endpoint_id: value for endpoint_id, value in rows}  # noqa: C416 - rows are not tuples to mypy


def decrypt_all(connection: sa.Connection, cipher: Cipher) -> list[str]:
    """Return all values in plain text."""
    return sorted(
        cipher.decrypt(value, endpoint_id, column)
        for column in COLUMNS
        for endpoint_id, value in stored(connection, column).items()
        if value
    )


def test_a_value_cannot_be_moved_to_another_column_or_endpoint() -> None:
    cipher, lenient = Cipher(KEY), Cipher(KEY, accepts_unbound=True)
    for column, text in VALUES.items():
        value = cipher.encrypt(text, b"e" * 16, column)
        for reader in (cipher, lenient):
            assert reader.decrypt(value, b"e" * 16, column) == text
            for other in set(COLUMNS) - {column}:
                with pytest.raises(WrongSecretKey):
                    reader.decrypt(value, b"e" * 16, other)
            for moved in (b"f" * 16, b"e" * 15, b""):
                with pytest.raises(WrongSecretKey):
                    reader.decrypt(value, moved, column)
            # With the version byte of the earlier form, the value is not accepted either.
            with pytest.raises(WrongSecretKey):
                reader.decrypt(b"\x01" + value[1:], b"e" * 16, column)


def test_earlier_values_are_read_and_written_until_the_upgrade_ends(
    connection: sa.Connection,
) -> None:
    cipher = Cipher(KEY, accepts_unbound=accepts_unbound(connection))
    endpoint_id = endpoint(connection, 1)
    assert decrypt_all(connection, cipher) == sorted(f"{text}1" for text in VALUES.values())
    assert not must_bind(connection, cipher)
    nonce_and_rest = cipher.encrypt("a", endpoint_id, "secret", bound=False)
    assert AESGCM(KEY).decrypt(nonce_and_rest[1:13], nonce_and_rest[13:], endpoint_id) == b"a"

    assert finish(connection, cipher)
    assert must_bind(connection, cipher)
    assert not finish(connection, cipher)
    assert not accepts_unbound(connection)
    assert decrypt_all(connection, Cipher(KEY)) == sorted(f"{text}1" for text in VALUES.values())


def test_a_moved_value_is_rejected_after_the_upgrade(connection: sa.Connection) -> None:
    endpoint_id = endpoint(connection, 1)
    earlier = stored(connection, "headers")[endpoint_id]
    finish(connection, Cipher(KEY, accepts_unbound=True))
    cipher = Cipher(KEY, accepts_unbound=accepts_unbound(connection))
    for headers in (stored(connection, "headers")[endpoint_id], earlier):
        connection.execute(sa.update(table).values(secret=headers))
        with pytest.raises(WrongSecretKey):
            cipher.decrypt(stored(connection, "secret")[endpoint_id], endpoint_id, "secret")


def test_the_upgrade_resumes_after_an_interruption(connection: sa.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption_upgrade, "BATCH_ROWS", 3)
    cipher = Cipher(KEY, accepts_unbound=True)
    for number in range(10):
        endpoint(connection, number)
    endpoints.delete(connection, None, (5).to_bytes(16, "big"), now=3)
    before = decrypt_all(connection, cipher)

    first = bind_batch(connection, cipher, 0)
    assert first is not None
    done = dict(list(stored(connection, "secret").items())[:3])
    assert [value[:1] for value in stored(connection, "secret").values()] == [b"\x02"] * 3 + [b"\x01"] * 2 + [b""] + [
        b"\x01"
    ] * 4
    assert decrypt_all(connection, cipher) == before
    # Meanwhile, a server of release 0.1.1 still writes the earlier form, even to an upgraded endpoint.
    connection.execute(
        sa.update(table).where(table.c.seq == 2).values(secret=encrypt_as_0_1_1("late", b"\0" * 15 + b"\1"))
    )
    assert finish(connection, cipher)
    after = stored(connection, "secret")
    assert {after[owner] == value for owner, value in done.items() if owner != b"\0" * 15 + b"\1"} == {True}
    assert decrypt_all(connection, Cipher(KEY)) == sorted([*(text for text in before if text != "whsec_a1"), "late"])


def test_a_value_that_cannot_be_decrypted_stops_the_upgrade(connection: sa.Connection) -> None:
    cipher = Cipher(KEY, accepts_unbound=True)
    endpoint(connection, 1)
    endpoint(connection, 2, b"x" * 32)
    with pytest.raises(WrongSecretKey):
        finish(connection, cipher)
    assert accepts_unbound(connection)


def test_a_new_key_finishes_the_upgrade(connection: sa.Connection) -> None:
    """This includes values with the new key, from a key rotation that was interrupted in the earlier release."""
    endpoint(connection, 1)
    endpoint(connection, 2, NEW_KEY)
    old, new = (Cipher(key, accepts_unbound=True) for key in (KEY, NEW_KEY))
    assert reencrypt(connection, old, new).changed == 5
    assert not accepts_unbound(connection)
    texts = [f"{text}1" for text in VALUES.values()] + ["whsec_a2", "whsec_b2"]
    assert decrypt_all(connection, Cipher(NEW_KEY)) == sorted(texts)
