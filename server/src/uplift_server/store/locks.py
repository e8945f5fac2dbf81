"""Locks of ordinary writes on PostgreSQL, which run concurrently at READ COMMITTED.

A write locks the rows that it relies on before it reads them. Statements after a lock see the changes of its earlier
holder. SQLite runs one write at a time and ignores locks.

A transaction takes its locks in this order, so that two transactions do not wait for each other:

1. the named lock (`take`): the catalog, operator keys, partitions, and each prefix of server values;
2. the idempotency key, by its insert into `idempotent_creates`;
3. the uids of accounts (`take`);
4. the account (`accounts.lock`): its limits, the uids of its endpoints, members, invitations and replays;
5. the email (`take`), then people by number: their sessions and password;
6. endpoints by number, before their deliveries by event and endpoint.

If a statement that locks several rows causes a deadlock, PostgreSQL aborts one transaction, and the engine retries it.
"""

from typing import Final
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy import Connection

CATALOG: Final = "event types"
OPERATOR_KEYS: Final = "operator keys"
PARTITIONS: Final = "partitions"
ACCOUNT_UIDS: Final = "uids of accounts"
_CLASS: Final = 0x75706C66
"""The first of the two numbers of these advisory locks ("uplf")."""


def statement(name: str) -> str:
    """Return the statement that takes a named lock until the transaction ends."""
    return f"SELECT pg_advisory_xact_lock({_CLASS}, {crc32(name.encode()) - 2**31})"


def take(connection: Connection, name: str) -> None:
    """Take a named lock until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(statement(name)))
