"""The locks that ordinary writes take on PostgreSQL, where writes run concurrently at READ COMMITTED.

A write locks the rows that it relies on before it reads them. Statements that run after a lock is taken see the changes
of its previous holder. SQLite runs one write at a time and ignores locks.

To prevent deadlocks, a transaction takes its locks in this order (the data that a lock protects follows the colon):

1. a named lock (`take`): the catalog, operator keys, partitions, or the server values whose names share a prefix;
2. the idempotency key, by its insert into `idempotent_creates`;
3. the uids of accounts (`take`);
4. the account (`accounts.lock`): its limits, the uids of its endpoints, members, invitations and replays;
5. the email (`take`), then people by number: their sessions and password;
6. the delivery order (`take_order`), by endpoint;
7. endpoints by number, before their deliveries by event and endpoint.

A transaction that stores ordered deliveries, or that ends deliveries of an endpoint, takes lock 6 before it reads them.
Otherwise, one transaction could store a delivery as blocked while another ends the delivery that blocks it. The trigger
that unblocks the next delivery also takes lock 6. A transaction with failed deliveries of several endpoints takes lock
6 first, because the trigger that counts them can lock the counts in a different order.

If a statement that locks several rows causes a deadlock, PostgreSQL aborts one transaction, and the engine retries it.
"""

from collections.abc import Iterable
from typing import Final
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy import Connection

CATALOG: Final = "event types"
OPERATOR_KEYS: Final = "operator keys"
PARTITIONS: Final = "partitions"
ACCOUNT_UIDS: Final = "uids of accounts"
_CLASS: Final = 0x75706C66
"""The first of the two numbers that identify a named advisory lock: "uplf" in ASCII.

The second number is a checksum of the name.
"""
ORDER_CLASS: Final = 0x6F726465
"""The first of the two numbers that identify an advisory lock for the delivery order: "orde" in ASCII.

The second number comes from `order_slots`.
"""
ORDER_SLOTS: Final = 1024
"""The number of advisory locks for the delivery order, which all endpoints share.

Without this limit, a large batch could use up PostgreSQL's memory for locks.
"""
TAKE_ORDER: Final = f"SELECT pg_advisory_xact_lock({ORDER_CLASS}, slot) FROM unnest($1::int[]) slot"  # noqa: S608 - contains only constants
"""The statement that takes the locks for the delivery order. Its parameter is the result of `order_slots`."""


def statement(name: str) -> str:
    """Return the statement that takes a named lock until the transaction ends."""
    return f"SELECT pg_advisory_xact_lock({_CLASS}, {crc32(name.encode()) - 2**31})"


def take(connection: Connection, name: str) -> None:
    """Take a named lock until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(statement(name)))


def order_slots(endpoint_seqs: Iterable[int]) -> list[int]:
    """Return the second number of each advisory lock that protects the delivery order of these endpoints.

    The first number is ORDER_CLASS. Take the locks in the returned order.
    """
    return sorted({endpoint_seq % ORDER_SLOTS for endpoint_seq in endpoint_seqs})


def take_order(connection: Connection, endpoint_seqs: Iterable[int]) -> None:
    """Lock the delivery order of endpoints until the transaction ends."""
    if connection.dialect.name == "postgresql":
        for slot in order_slots(endpoint_seqs):
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ORDER_CLASS, slot)))
