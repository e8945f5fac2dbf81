"""Reads the schema revision of a SQLite file, and upgrades the schema.

The caller of `upgrade` must hold the file lock.
"""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy import Connection

import uplift_server.store.schema_erasures
import uplift_server.store.schema_objects
import uplift_server.store.schema_operational
import uplift_server.store.schema_ordering
import uplift_server.store.schema_partitions
import uplift_server.store.schema_people
import uplift_server.store.schema_processes
import uplift_server.store.schema_rejected_events
import uplift_server.store.schema_statistics
import uplift_server.store.schema_traces  # noqa: F401 - their tables are among those of `metadata`
from uplift_server.store.schema import metadata
from uplift_server.store.sqlite import copying
from uplift_server.store.sqlite.connection import bound, connect, unavailable

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS: Final = "uplift_server.store:migrations"
_SQLITE_URL: Final = "sqlite:///"
HEAD: Final = max(path.name[:4] for path in Path(__file__).with_name("migrations").glob("versions/[0-9]*.py"))
"""The newest schema revision, read from the file names of the migrations.

Alembic would load every migration to find it.
"""
_OF_STATEMENTS: Final = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT)
"""SQLite's result codes for invalid statements in a migration. A retry does not help."""
REMEDY_NEWER: Final = "start the release that upgraded the database, or a later one"


class UnknownSchema(Exception):
    """This release does not support the database's schema. The message says how to fix it."""


def current(database: str | Path) -> str | None:
    """Return the schema revision of a SQLite file (path or URL), or None if the file is missing or empty.

    Raises UnknownSchema for another program's file. Raises Unavailable if the file cannot be read.
    """
    path = _path(database)
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as raw:
            return _current(raw, path)
    except sqlite3.Error as error:
        raise unavailable(error) from error


def upgrade(database: str | Path, *, now_ms: int) -> Path | None:
    """Upgrade a SQLite file (path or URL) to the revision of this release, or create its tables.

    Before an upgrade, the function copies the file. It returns the path of the copy, or None if there was no upgrade.
    Raises UnknownSchema for a newer file. Raises Unavailable if the file cannot be written. If the upgrade fails, the
    file is unchanged.
    """
    path = _path(database)
    try:
        with closing(connect(path, read_only=False, create=True)) as raw:
            revision = _current(raw, path)
            if revision == HEAD:
                return None
            if revision is None:
                _in_transaction(raw, create)
                return None
            reject_unknown(path, revision)
            copy = _back_up(raw, path, revision, now_ms)
            try:
                _in_transaction(raw, run)
            except BaseException:
                # Delete the copy: the next attempt creates another one, and many copies would fill the disk.
                if _current(raw, path) == revision:
                    copy.unlink()
                raise
            return copy
    except sa.exc.DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if not isinstance(error.orig, Exception) or code & 0xFF in _OF_STATEMENTS:
            raise
        raise unavailable(error.orig) from error
    except (sqlite3.Error, OSError) as error:
        raise unavailable(error) from error


def _path(database: str | Path) -> Path:
    return Path(str(database).removeprefix(_SQLITE_URL))


def _current(raw: sqlite3.Connection, path: Path) -> str | None:
    names = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not names:
        return None
    rows = raw.execute("SELECT version_num FROM alembic_version").fetchall() if "alembic_version" in names else []
    if len(rows) != 1:
        raise UnknownSchema(f"{path} is not a database of this server; choose another file with UPLIFT_DATABASE_URL")
    return str(rows[0][0])


def reject_unknown(database: str | Path, revision: str) -> None:
    """Raise UnknownSchema for a revision that this release does not have."""
    # Alembic takes half a second to import. A start without an upgrade does not need it.
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    known = ScriptDirectory.from_config(_config()).walk_revisions()
    if not any(script.revision == revision for script in known):
        raise UnknownSchema(f"{database} has the schema {revision}, newer than {HEAD} of this release; {REMEDY_NEWER}")


def needed_release(revision: str) -> str | None:
    """Return the oldest release that works with the schema after an upgrade from `revision`.

    Return None if all earlier releases work with the new schema. A migration that breaks earlier releases defines
    `needs_release` (see CONTRIBUTING.md).
    """
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    pending = ScriptDirectory.from_config(_config()).iterate_revisions(HEAD, revision)
    needed = [getattr(script.module, "needs_release", None) for script in pending]
    return max(filter(None, needed), key=release_order, default=None)


def release_order(release: str) -> tuple[int, ...]:
    """Return the numbers of a release as a sort key, without a suffix: `1.2.3rc1` becomes (1, 2, 3)."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])


def _back_up(raw: sqlite3.Connection, path: Path, revision: str, now_ms: int) -> Path:
    """Before an upgrade, copy the database to another file in its directory. Return the path of the copy.

    SQLite makes the copy, so that it includes the write-ahead log.
    """
    timestamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    copy = path.with_name(f"{path.name}.before-{re.sub(r'[^A-Za-z0-9_.]', '_', revision)}-{timestamp}")
    # Rename the copy when it is complete, so that a partial copy is never used as a backup.
    draft = path.with_name(f"{path.name}.before.part")
    draft.unlink(missing_ok=True)
    try:
        copying.copy_into(raw, draft)
        draft.rename(copy)
        copying.make_durable(copy.parent)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    finally:
        draft.unlink(missing_ok=True)
    return copy


def create(connection: Connection) -> None:
    """Create the tables in an empty database from their definitions in `store.schema`.

    A test compares these tables with the result of the migrations. This function does not import Alembic, because the
    import takes 14 MiB and half a second.
    """
    metadata.create_all(connection, checkfirst=False)
    connection.exec_driver_sql(
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,"
        " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.execute(sa.text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": HEAD})


def _in_transaction(raw: sqlite3.Connection, work: Callable[[Connection], None]) -> None:
    with bound(raw) as connection:
        raw.execute("BEGIN IMMEDIATE")
        try:
            work(connection)
            raw.execute("COMMIT")
        except BaseException:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise


def run(connection: Connection, revision: str = HEAD) -> None:
    """Run the migrations up to a revision, in the caller's transaction."""
    from alembic import command  # noqa: PLC0415

    # SQLAlchemy begins a transaction with the first statement. Alembic then leaves the transaction to the caller.
    connection.exec_driver_sql("SELECT 1")
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _config() -> "Config":
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", _MIGRATIONS)
    return config
