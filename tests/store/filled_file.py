"""A SQLite file with rows in every table, and functions that read all rows of SQLite and PostgreSQL databases."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import sqlalchemy as sa

from uplift_server.store import schema_version
from uplift_server.store.schema import metadata
from uplift_server.store.schema_partitions import event_partitions
from uplift_server.store.schema_processes import commands, directory_changes, duties, processes, told_texts

OWN = (processes, duties, directory_changes, told_texts, commands, event_partitions)
TABLES = [each for each in metadata.sorted_tables if each not in OWN]
ROWS = 23
UNIQUE = ("id", "number", "person_seq", "person_id", "subject", "event_seq")
"""Names of columns that need a different value in each row, because they are in unique indexes."""
TEXTS = ("", "plain", "Ünïcode 🦆 \u2028", "a\0b\0", "\\N", "'quoted'\t\n")


def value(column: sa.Column[Any], at: int) -> Any:
    """Return a value for a column of row number `at`. Values differ between rows if the column must be unique."""
    is_key = column.primary_key or column.unique or column.name in UNIQUE
    if column.name == "first_seq":
        return 0  # The start of the first bucket is the same in both databases.
    if column.nullable and at % 3 == 0:
        return None
    match column.type:
        case sa.Boolean():
            return at % 2
        case sa.LargeBinary():
            return at.to_bytes(16, "big") if is_key else bytes([at % 256, 0, 255]) * (at % 5)
        case sa.Text():
            return f"{at}-{TEXTS[2]}" if is_key else TEXTS[at % len(TEXTS)]
        case sa.SmallInteger():
            return at % 4
        case sa.Integer():
            return at
        case sa.BigInteger():
            return at if is_key else 1_764_000_000_000 + at * 7_919 * (-1) ** at
    raise AssertionError(column.type)


def create_file(path: Path) -> Path:
    """Create the file."""
    schema_version.upgrade(path, now_ms=0)
    with closing(sqlite3.connect(path)) as raw:
        for table in TABLES:
            # Numbers have gaps, because retention deletes old rows.
            rows = [[value(column, at * 3) for column in table.columns] for at in range(1, ROWS + 1)]
            marks = ", ".join("?" * len(table.columns))
            raw.executemany(f'INSERT INTO "{table.name}" VALUES ({marks})', rows)
        raw.commit()
    return path


def rows_in_sqlite(path: Path) -> dict[str, list[str]]:
    """Return every row of every table, as expected in PostgreSQL."""
    found = {}
    with closing(sqlite3.connect(path)) as raw:
        for table in TABLES:
            rows = []
            for row in raw.execute(f'SELECT {_columns(table)} FROM "{table.name}"'):
                each = list(row)
                for at, column in enumerate(table.columns):
                    if isinstance(column.type, sa.Boolean) and each[at] is not None:
                        each[at] = each[at] == 1
                    if isinstance(each[at], str):
                        each[at] = each[at].replace("\0", "\ufffd")
                rows.append(str(each))
            found[table.name] = sorted(rows)
    return found


async def rows_in_postgres(url: str) -> dict[str, list[str]]:
    """Return every row of every table in PostgreSQL."""
    connection = await asyncpg.connect(url)
    try:
        return {
            table.name: sorted(
                str(list(row)) for row in await connection.fetch(f'SELECT {_columns(table)} FROM "{table.name}"')
            )
            for table in TABLES
        }
    finally:
        await connection.close()


def _columns(table: sa.Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)
