"""The database engine of the tests, and the database of each test.

`pytest --engine postgresql` runs the tests on PostgreSQL, and `--engine pgbouncer` on PostgreSQL behind a pooler. The
default is SQLite.
"""

import base64
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
from tests.pooler import Pooler
from tests.postgres import PostgresServer, run_in_thread

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
    """The location of a test's database."""

    url: str
    environ: Mapping[str, str]
    """The environment variables of a server that uses the database."""
    file: Path | None
    """The SQLite file, if any."""

    def prepare(self, *, now_ms: int = 0) -> None:
        """Create the tables if they do not exist."""

    def database(self, *faults: type) -> Database:
        """Return the database, not open yet. `faults` are mixins for its class, the first with the highest priority."""

    def run(self, body: Callable[[sa.Connection], R]) -> R:
        """Run a function in its own transaction."""

    def query(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query, without changing any file."""

    def contents(self) -> bytes:
        """Return all bytes of the database, in any order."""


class Engine(Protocol):
    """A database engine for the tests of a process."""

    name: str

    def place(self, folder: Path) -> Place:
        """Return the database of a directory, which is empty at first."""

    def clear(self, folder: Path) -> None:
        """Clean up the database of a directory that is no longer used."""

    def close(self) -> None:
        """Stop all servers."""


def _new_database(base: type, faults: tuple[type, ...], argument: object) -> Any:
    return (type(base.__name__, (*faults, base), {}) if faults else base)(argument)


@cache
def _new_file() -> bytes:
    """Return the content of a file with empty tables. Copying it is faster than creating the tables for each test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "uplift.db"
        schema_version.upgrade(path, now_ms=0)
        return path.read_bytes()


class SqlitePlace:
    """A SQLite file."""

    def __init__(self, path: Path) -> None:
        self.file = path
        self.url = f"sqlite:///{path}"
        self.environ = {"UPLIFT_DATABASE_URL": self.url}

    def prepare(self, *, now_ms: int = 0) -> None:
        """See Place."""
        if self.file.exists():
            schema_version.upgrade(self.file, now_ms=now_ms)
        else:
            self.file.write_bytes(_new_file())

    def database(self, *faults: type) -> Database:
        """See Place. Lock the file as a server does, so that no other process can open it."""
        database: SqliteDatabase = _new_database(SqliteDatabase, faults, self.file)
        database.lock()
        return database

    def run(self, body: Callable[[sa.Connection], R]) -> R:
        """See Place."""
        with closing(connect(self.file, read_only=False)) as raw, bound(raw) as connection:
            raw.execute("BEGIN IMMEDIATE")
            with raw:
                return body(connection)

    def query(self, query: str) -> list[tuple[Any, ...]]:
        """See Place."""
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as raw:
            return raw.execute(query).fetchall()

    def contents(self) -> bytes:
        """See Place."""
        return b"".join(path.read_bytes() for path in self.file.parent.glob(f"{self.file.name}*"))


class Sqlite:
    """SQLite, with a file in each directory."""

    name = "sqlite"

    def place(self, folder: Path) -> SqlitePlace:
        """See Engine."""
        return SqlitePlace(folder / "uplift.db")

    def clear(self, folder: Path) -> None:
        """See Engine. pytest deletes the file."""

    def close(self) -> None:
        """See Engine."""


class PostgresPlace:
    """A database of a PostgreSQL server."""

    file = None

    def __init__(self, url: str, direct_url: str) -> None:
        self.url = url
        self.direct_url = direct_url
        """The URL without the pooler."""
        self.environ = {"UPLIFT_DATABASE_URL": url, "UPLIFT_SECRET_KEY": SECRET_KEY}

    def prepare(self, *, now_ms: int = 0) -> None:
        """See Place. The tables already exist."""

    def database(self, *faults: type) -> Database:
        """See Place."""
        database: Database = _new_database(PostgresDatabase, faults, self.url)
        return database

    def run(self, body: Callable[[sa.Connection], R]) -> R:
        """See Place."""

        async def run() -> R:
            pair = await Opener(self.direct_url).pair()
            try:
                async with pair.raw.transaction():
                    return await pair.sql.run_sync(body)
            finally:
                await pair.close()

        return run_in_thread(run())

    def query(self, query: str) -> list[tuple[Any, ...]]:
        """See Place."""
        return self.run(lambda connection: [tuple(row) for row in connection.exec_driver_sql(query)])

    def contents(self) -> bytes:
        """See Place."""

        def values(connection: sa.Connection) -> list[object]:
            tables = metadata.sorted_tables
            return [value for table in tables for row in connection.execute(sa.select(table)) for value in row]

        return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in self.run(values))


class Postgres:
    """PostgreSQL, with a database for each directory."""

    name = "postgresql"

    def __init__(self) -> None:
        self._server: PostgresServer | None = None
        self._places: dict[Path, PostgresPlace] = {}

    def reached(self, url: str) -> str:
        """Return the URL that a server uses for a database."""
        return url

    @property
    def server(self) -> PostgresServer:
        """The server, started on first use."""
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
        for released in [each for each in self._places if each.is_relative_to(folder)]:
            self.server.reuse_database(self._places.pop(released).direct_url)

    def close(self) -> None:
        """See Engine."""
        if self._server is not None:
            self._server.close()
            self._server = None


class Pooled(Postgres):
    """PostgreSQL behind a pooler that uses another connection for every transaction."""

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
    """Choose the engine of the tests in this process."""
    _chosen[:] = [ENGINES[name]()]


def chosen() -> Engine:
    """Return the engine of the tests in this process."""
    return _chosen[0]
