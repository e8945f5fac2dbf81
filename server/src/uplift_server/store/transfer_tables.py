"""The tables of a transfer, with their order, row format and checksums."""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final

import sqlalchemy as sa

from uplift_server.store.event_objects import POSTGRES_BUCKET, SQLITE_BUCKET
from uplift_server.store.schema import metadata
from uplift_server.store.schema_objects import event_objects
from uplift_server.store.schema_partitions import event_partitions
from uplift_server.store.schema_processes import commands, directory_changes, duties, processes, told_texts

Row = list[Any]
Key = tuple[Any, ...]

BATCH_ROWS_MAX: Final = 5000
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""The size in bytes at which a batch ends. The batch includes the row that reaches this size."""
_DIGEST_BYTES: Final = 16
_NOT_TRANSFERRED: Final = (processes, duties, directory_changes, told_texts, commands, event_partitions)
"""Tables that are not transferred, because they describe running processes or the database itself."""
REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


class TransferTable:
    """A table to transfer. Its rows are converted to values that are equal in both databases."""

    def __init__(self, table: sa.Table) -> None:
        self.name = table.name
        self.columns = [column.name for column in table.columns]
        key = [column.name for column in table.primary_key]
        self._key = [self.columns.index(name) for name in key]
        self._key_text = ", ".join(map(quoted, key))
        kinds = [column.type for column in table.columns]
        self._booleans = [at for at, kind in enumerate(kinds) if isinstance(kind, sa.Boolean)]
        self._texts = [at for at, kind in enumerate(kinds) if isinstance(kind, sa.Text)]
        self.is_numbered = key == ["seq"]
        """Whether a sequence assigns the numbers of the rows."""

    @cached_property
    def select(self) -> str:
        """The statement that selects all rows of the table, in any order."""
        return f"SELECT {', '.join(map(quoted, self.columns))} FROM {quoted(self.name)}"  # noqa: S608 - contains only constants

    def key_of(self, row: Row) -> Key:
        """Return the primary key of a converted row."""
        return tuple(row[at] for at in self._key)

    def batches(self, source: sqlite3.Connection, after: Key | None) -> Iterator[list[Row]]:
        """Iterate over batches of converted rows, sorted by key.

        Start after the key `after`, or at the first row if `after` is None.
        """
        condition = "" if after is None else f" WHERE ({self._key_text}) > ({', '.join('?' * len(after))})"
        batch: list[Row] = []
        size = 0
        for found in source.execute(f"{self.select}{condition} ORDER BY {self._key_text}", after or ()):
            batch.append(self._portable(found)[0])
            size += sum(len(value) for value in found if isinstance(value, bytes | str))
            if len(batch) >= BATCH_ROWS_MAX or size >= BATCH_BYTES_MAX:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def rows(self, source: sqlite3.Connection) -> Iterator[tuple[Row, int]]:
        """Yield each converted row of the table, and the number of NUL characters that the conversion replaced."""
        return map(self._portable, source.execute(self.select))

    def count(self, source: sqlite3.Connection) -> int:
        """Count the table's rows in a SQLite file."""
        [(count,)] = source.execute(f"SELECT count(*) FROM {quoted(self.name)}")  # noqa: S608 - contains only constants
        return int(count)

    def _portable(self, found: Sequence[Any]) -> tuple[Row, int]:
        row, replaced = list(found), 0
        for at in self._booleans:
            row[at] = None if row[at] is None else bool(row[at])
        for at in self._texts:
            text = row[at]
            # PostgreSQL cannot store NUL in text. In these tables, only human-readable text can contain NUL.
            if text is not None and "\0" in text:
                replaced += text.count("\0")
                row[at] = text.replace("\0", REPLACEMENT)
        return row, replaced


class EventObjects(TransferTable):
    """The index of object IDs, which groups event numbers into buckets.

    The bucket size in PostgreSQL differs from the bucket size in SQLite.
    """

    def key_of(self, row: Row) -> Key:
        """Return the primary key that a converted row has in the SQLite file."""
        _, object_key, event_seq = row
        return event_seq - event_seq % SQLITE_BUCKET, object_key, event_seq

    def _portable(self, found: Sequence[Any]) -> tuple[Row, int]:
        _, object_key, event_seq = found
        return [event_seq - event_seq % POSTGRES_BUCKET, object_key, event_seq], 0


class Checksum:
    """The number of rows, and a checksum that does not depend on the order of the rows."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, row: Sequence[Any]) -> None:
        """Count a row, and include it in the checksum."""
        self.rows += 1
        digest = blake2b(repr(tuple(row)).encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
        self._sum += int.from_bytes(digest.digest(), "big")

    @property
    def text(self) -> str:
        """The checksum in hexadecimal."""
        return f"{self._sum % 2 ** (8 * _DIGEST_BYTES):0{2 * _DIGEST_BYTES}x}"


def quoted(name: str) -> str:
    """Quote the name of a table or column, so that both databases accept the name."""
    return f'"{name}"'


TRANSFER_TABLES: Final = tuple(
    (EventObjects if table is event_objects else TransferTable)(table)
    for table in metadata.sorted_tables
    if table not in _NOT_TRANSFERRED
)
