"""On which engine the tests run, and where a test's database lives there.

`pytest --engine postgresql` runs those that have a database on PostgreSQL, `--engine pgbouncer` on PostgreSQL behind a
pooler; by default it is SQLite.
"""

import base64
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
from tests.pooler import Pooler
from tests.postgres import PostgresServer, beside

from uplift_server.store import schema_version
from uplift_server.store.contract import Database
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.postgres.connection import Opener
from uplift_server.store.schema import metadata
from uplift_server.store.sqlite import SqliteDatabase
from uplift_server.store.sqlite.connection import bound, connect

R = TypeVar("R")

SECRET_KEY: Final = base64.b64encode(b"k" * 32).decode()


class Place(Protocol):
    """Where a test's database is."""

    url: str
    environ: Mapping[str, str]
    """What a server is told that uses it."""
    file: Path | None
    """What it is in, where that is a file."""

    def prepare(self, *, now_ms: int = 0) -> None:
        """Make the tables, where they are not there yet."""

    def database(self, *faults: type) -> Database:
        """The engine on it, to be opened; `faults` are laid over its class, the first one on top."""

    def run(self, body: Callable[[sa.Connection], R]) -> R:
        """Run a verb in a transaction, beside whoever uses the database."""

    def look(self, query: str) -> list[tuple[Any, ...]]:
        """The rows that a query finds; nothing is changed by it, were it only a log that waits for a server's start."""

    def contents(self) -> bytes:
        """Every byte that it keeps, in no order."""


class Engine(Protocol):
    """What the tests of a process run on."""

    name: str

    def place(self, folder: Path) -> Place:
        """A database that belongs to a folder: always the same, empty at first."""

    def clear(self, folder: Path) -> None:
        """The folder is used no more, nor is anything within."""

    def close(self) -> None:
        """Nothing is used any more."""


def _made(kind: type, faults: tuple[type, ...], argument: object) -> Any:
    return (type(kind.__name__, (*faults, kind), {}) if faults else kind)(argument)


class SqlitePlace:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.file = path
        self.url = f"sqlite:///{path}"
        self.environ = {"UPLIFT_DATABASE_URL": self.url}

    def prepare(self, *, now_ms: int = 0) -> None:
        """See Place."""
        schema_version.upgrade(self.file, now_ms=now_ms)

    def database(self, *faults: type) -> Database:
        """See Place. As in a server, nobody else opens the file from here on."""
        database: SqliteDatabase = _made(SqliteDatabase, faults, self.file)
        database.lock()
        return database

    def run(self, body: Callable[[sa.Connection], R]) -> R:
        """See Place."""
        with closing(connect(self.file, read_only=False)) as raw, bound(raw) as connection:
            raw.execute("BEGIN IMMEDIATE")
            with raw:
                return body(connection)

    def look(self, query: str) -> list[tuple[Any, ...]]:
        """See Place."""
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as raw:
            return raw.execute(query).fetchall()

    def contents(self) -> bytes:
        """See Place."""
        return b"".join(path.read_bytes() for path in self.file.parent.glob(f"{self.file.name}*"))


class Sqlite:
    """A file in each folder."""

    name = "sqlite"

    def place(self, folder: Path) -> SqlitePlace:
        """See Engine."""
        return SqlitePlace(folder / "uplift.db")

    def clear(self, folder: Path) -> None:
        """See Engine. Pytest removes it."""

    def close(self) -> None:
        """See Engine."""


class PostgresPlace:
    """A database of a server."""

    file = None

    def __init__(self, url: str, direct_url: str) -> None:
        self.url = url
        self.direct_url = direct_url
        """The same without a pooler between."""
        self.environ = {"UPLIFT_DATABASE_URL": url, "UPLIFT_SECRET_KEY": SECRET_KEY}

    def prepare(self, *, now_ms: int = 0) -> None:
        """See Place. It has come with its tables."""

    def database(self, *faults: type) -> Database:
        """See Place."""
        made: Database = _made(PostgresDatabase, faults, self.url)
        return made

    def run(self, body: Callable[[sa.Connection], R]) -> R:
        """See Place."""

        async def run() -> R:
            pair = await Opener(self.direct_url).pair()
            try:
                async with pair.raw.transaction():
                    return await pair.sql.run_sync(body)
            finally:
                await pair.close()

        return beside(run())

    def look(self, query: str) -> list[tuple[Any, ...]]:
        """See Place."""
        return self.run(lambda connection: [tuple(row) for row in connection.exec_driver_sql(query)])

    def contents(self) -> bytes:
        """See Place."""

        def values(connection: sa.Connection) -> list[object]:
            tables = metadata.sorted_tables
            return [value for table in tables for row in connection.execute(sa.select(table)) for value in row]

        return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in self.run(values))


class Postgres:
    """A database for each folder, of one server."""

    name = "postgresql"

    def __init__(self) -> None:
        self._server: PostgresServer | None = None
        self._places: dict[Path, PostgresPlace] = {}

    def reached(self, url: str) -> str:
        """Where a server of ours reaches a database."""
        return url

    @property
    def server(self) -> PostgresServer:
        """The server, started by whoever asks first."""
        if self._server is None:
            self._server = PostgresServer()
        return self._server

    def place(self, folder: Path) -> PostgresPlace:
        """See Engine."""
        if folder not in self._places:
            direct = self.server.new_database()
            self._places[folder] = PostgresPlace(self.reached(direct), direct)
        return self._places[folder]

    def clear(self, folder: Path) -> None:
        """See Engine."""
        for used in [each for each in self._places if each.is_relative_to(folder)]:
            self.server.give_back(self._places.pop(used).direct_url)

    def close(self) -> None:
        """See Engine."""
        if self._server is not None:
            self._server.close()
            self._server = None


class Pooled(Postgres):
    """The same through a pooler that gives every transaction another connection."""

    name = "pgbouncer"

    def __init__(self) -> None:
        super().__init__()
        self._pooler: Pooler | None = None

    def reached(self, url: str) -> str:
        """See Postgres."""
        if self._pooler is None:
            self._pooler = Pooler(self.server.directory)
        return self._pooler.url(url)

    def close(self) -> None:
        """See Engine."""
        if self._pooler is not None:
            self._pooler.close()
            self._pooler = None
        super().close()


ENGINES: Final[Mapping[str, Callable[[], Engine]]] = {each.name: each for each in (Sqlite, Postgres, Pooled)}
_chosen: list[Engine] = [Sqlite()]


def choose(name: str) -> None:
    """Let the tests of this process run on an engine."""
    _chosen[:] = [ENGINES[name]()]


def chosen() -> Engine:
    """What the tests of this process run on."""
    return _chosen[0]
