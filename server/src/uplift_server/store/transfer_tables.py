"""The tables that are moved from one database to another: in what order, in what form, and how both are compared."""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final

import sqlalchemy as sa

from uplift_server.store.schema import metadata
from uplift_server.store.schema_partitions import event_partitions
from uplift_server.store.schema_processes import commands, directory_changes, duties, processes, told_texts

Row = list[Any]
Key = tuple[Any, ...]

ROWS_MAX: Final = 5000
BYTES_MAX: Final = 4 * 1024 * 1024
"""What one bite has at most, its last row aside: bodies have up to 256 KiB."""
_DIGEST_BYTES: Final = 16
_OWN: Final = (processes, duties, directory_changes, told_texts, commands, event_partitions)
"""What running processes tell each other, which is worth nothing without them, and what a database tells of itself."""
REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


class TransferTable:
    """One table, as rows of values that are the same whichever database they come from."""

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
        """Whether its rows are numbered by a sequence."""

    @cached_property
    def select(self) -> str:
        """The statement that gives all rows, in no order."""
        return f"SELECT {', '.join(map(quoted, self.columns))} FROM {quoted(self.name)}"  # noqa: S608 - of our own texts

    def key_of(self, row: Row) -> Key:
        """What a row is ordered by."""
        return tuple(row[at] for at in self._key)

    def bites(self, source: sqlite3.Connection, after: Key | None) -> Iterator[list[Row]]:
        """The rows behind a key (None: all) in the order of their keys, as SQLite orders them."""
        behind = "" if after is None else f" WHERE ({self._key_text}) > ({', '.join('?' * len(after))})"
        bite: list[Row] = []
        size = 0
        for found in source.execute(f"{self.select}{behind} ORDER BY {self._key_text}", after or ()):
            bite.append(self._portable(found)[0])
            size += sum(len(value) for value in found if isinstance(value, bytes | str))
            if len(bite) >= ROWS_MAX or size >= BYTES_MAX:
                yield bite
                bite, size = [], 0
        if bite:
            yield bite

    def rows(self, source: sqlite3.Connection) -> Iterator[tuple[Row, int]]:
        """All rows of a SQLite file, each with how many characters of it PostgreSQL cannot hold."""
        return map(self._portable, source.execute(self.select))

    def count(self, source: sqlite3.Connection) -> int:
        """How many rows a SQLite file has."""
        [(count,)] = source.execute(f"SELECT count(*) FROM {quoted(self.name)}")  # noqa: S608 - of our own texts
        return int(count)

    def _portable(self, found: Sequence[Any]) -> tuple[Row, int]:
        row, replaced = list(found), 0
        for at in self._booleans:
            row[at] = None if row[at] is None else bool(row[at])
        for at in self._texts:
            text = row[at]
            # PostgreSQL's texts hold every character but this one. Ours that may are of others, for people to read.
            if text is not None and "\0" in text:
                replaced += text.count("\0")
                row[at] = text.replace("\0", REPLACEMENT)
        return row, replaced


class Checksum:
    """How many rows there are, and a number that follows from all of them, in whatever order they come."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, row: Sequence[Any]) -> None:
        """Count a row in."""
        self.rows += 1
        digest = blake2b(repr(tuple(row)).encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
        self._sum += int.from_bytes(digest.digest(), "big")

    @property
    def text(self) -> str:
        """The number in hexadecimal digits."""
        return f"{self._sum % 2 ** (8 * _DIGEST_BYTES):0{2 * _DIGEST_BYTES}x}"


def quoted(name: str) -> str:
    """A name of ours as both databases read it, even where it is one of their words."""
    return f'"{name}"'


MOVED: Final = tuple(TransferTable(table) for table in metadata.sorted_tables if table not in _OWN)
