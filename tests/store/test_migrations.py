"""The migrations create the schema of the models, and upgrades are safe."""

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from uplift_server.store import schema_version
from uplift_server.store.errors import Unavailable
from uplift_server.store.inspection import accepts_unbound
from uplift_server.store.schema import metadata
from uplift_server.store.schema_version import HEAD, UnknownSchema, current, upgrade
from uplift_server.store.sqlite import copying
from uplift_server.store.sqlite.connection import bound, connect

NOW = 1_764_000_000_000


def describe(path: Path) -> dict[str, dict[str, object]]:
    """Return SQLite's description of every table, index and trigger."""
    with closing(sqlite3.connect(path)) as raw:
        named = dict(raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'").fetchall())

        def indexes(table: str) -> set[tuple[object, ...]]:
            return {
                (tuple(row[2] for row in raw.execute(f"PRAGMA index_info({name})")), unique, partial, named.get(name))
                for _, name, unique, _, partial in raw.execute(f"PRAGMA index_list({table})").fetchall()
            }

        triggers = raw.execute("SELECT tbl_name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        return {
            name: {
                "triggers": {sql for table, sql in triggers if table == name},
                "without rowid": without_rowid,
                "columns": raw.execute(f"PRAGMA table_xinfo({name})").fetchall(),
                "indexes": indexes(name),
            }
            for schema, name, _, _, without_rowid, _ in raw.execute("PRAGMA table_list").fetchall()
            if schema == "main" and not name.startswith("sqlite_") and name != "alembic_version"
        }


def create_file(path: Path, revision: str) -> None:
    """Create a file with this revision."""
    with closing(connect(path, read_only=False, create=True)) as raw, bound(raw) as connection:
        raw.execute("BEGIN")
        schema_version.run(connection, revision)
        raw.execute("COMMIT")


def copies(folder: Path) -> list[str]:
    """Return the names of the copies that upgrades have made."""
    return [file.name for file in folder.iterdir() if "before" in file.name]


def test_an_empty_file_gets_the_tables_of_the_migrations(tmp_path: Path) -> None:
    """The migrations create the tables of the models, including triggers and partial indexes."""
    assert upgrade(tmp_path / "models.db", now_ms=NOW) is None
    create_file(tmp_path / "migrated.db", HEAD)
    assert describe(tmp_path / "migrated.db") == describe(tmp_path / "models.db")
    assert current(tmp_path / "migrated.db") == current(tmp_path / "models.db") == HEAD

    migrated = sa.create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with migrated.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []
    migrated.dispose()


def test_the_revision_of_the_release_is_the_newest() -> None:
    """The program reads its revision from the file names of the migrations."""
    scripts = ScriptDirectory(str(Path(schema_version.__file__).with_name("migrations")))
    assert scripts.get_current_head() == HEAD


def test_the_revision_is_known_before_and_after(tmp_path: Path) -> None:
    """Reading the revision neither creates nor changes a file. A second upgrade does nothing."""
    path = tmp_path / "uplift.db"
    assert current(path) is None
    assert not path.exists()
    upgrade(f"sqlite:///{path}", now_ms=NOW)
    assert current(f"sqlite:///{path}") == current(path) == HEAD
    assert upgrade(path, now_ms=NOW) is None
    assert copies(tmp_path) == []


def test_an_older_file_is_copied_and_keeps_its_data(tmp_path: Path) -> None:
    """The copy can be opened as the old database, and includes rows that were still in the write-ahead log."""
    path = tmp_path / "uplift.db"
    create_file(path, "0001")
    live = sqlite3.connect(path)
    live.execute("INSERT INTO event_types VALUES (1, 'a', '', '', NULL, NULL, '', 0, 1, 1, NULL, NULL)")
    live.execute(
        "INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, due_at) VALUES (7, 8, 9, 0, 10)"
    )
    live.commit()
    assert path.with_name("uplift.db-wal").stat().st_size > 0
    draft = path.with_name("uplift.db.before.part")
    draft.write_bytes(b"of one that was cut off")
    copy = upgrade(path, now_ms=NOW)
    live.close()
    assert not draft.exists()
    assert copy == tmp_path / "uplift.db.before-0001-20251124T160000Z"
    for file, revision in ((copy, "0001"), (path, HEAD)):
        with closing(sqlite3.connect(file)) as raw:
            assert raw.execute("SELECT name FROM event_types").fetchall() == [("a",)]
            assert raw.execute("SELECT event_seq, due_at FROM deliveries").fetchall() == [(7, 10)]
            assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]
    upgrade(tmp_path / "models.db", now_ms=NOW)
    assert describe(path) == describe(tmp_path / "models.db")


def test_an_upgrade_erases_encrypted_values_of_deleted_endpoints(tmp_path: Path) -> None:
    path = tmp_path / "uplift.db"
    create_file(path, "0002")
    with closing(sqlite3.connect(path)) as raw:
        for seq, deleted_at in ((1, None), (2, 9)):
            raw.execute(
                "INSERT INTO endpoints (seq, id, account_seq, url, description, event_types, secret, secret_created_at,"
                " previous_secret, headers, state, created_at, updated_at, deleted_at)"
                " VALUES (?, ?, 1, '', '', '[]', x'01', 1, x'02', x'03', 0, 1, 1, ?)",
                (seq, bytes([seq]), deleted_at),
            )
        raw.commit()
    upgrade(path, now_ms=NOW)
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT secret, previous_secret, headers FROM endpoints ORDER BY seq").fetchall()
    assert rows == [(b"\x01", b"\x02", b"\x03"), (b"", None, None)]


def test_only_an_upgraded_file_accepts_unbound_values(tmp_path: Path) -> None:
    upgrade(tmp_path / "fresh.db", now_ms=NOW)
    create_file(tmp_path / "earlier.db", "0010")
    assert [accepts_unbound(tmp_path / name) for name in ("fresh.db", "earlier.db")] == [False, True]
    upgrade(tmp_path / "earlier.db", now_ms=NOW)
    assert accepts_unbound(tmp_path / "earlier.db")


def test_a_failed_upgrade_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All statements of an upgrade are in one transaction."""
    path = tmp_path / "uplift.db"
    create_file(path, "0001")
    before = describe(path)
    original = schema_version.run

    def run_and_fail(connection: sa.Connection) -> None:
        original(connection)
        raise RuntimeError("the last statement failed")

    monkeypatch.setattr(schema_version, "run", run_and_fail)
    with pytest.raises(RuntimeError):
        upgrade(path, now_ms=NOW)
    assert describe(path) == before
    assert current(path) == "0001"
    # A supervisor retries every second, so no copy may remain.
    assert copies(tmp_path) == []


def test_an_upgrade_on_a_full_disk_raises_and_leaves_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "uplift.db"
    create_file(path, "0001")
    before = describe(path)
    original = schema_version.run

    def run_on_full_disk(connection: sa.Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
        original(connection)

    monkeypatch.setattr(schema_version, "run", run_on_full_disk)
    with pytest.raises(Unavailable, match="database or disk is full"):
        upgrade(path, now_ms=NOW)
    assert describe(path) == before
    assert copies(tmp_path) == []


def test_an_interrupted_copy_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partial copy is useless as a backup."""
    path = tmp_path / "uplift.db"
    create_file(path, "0001")
    original = copying.copy_into

    def copy_some(source: sqlite3.Connection, target: Path) -> None:
        original(source, target)
        assert copies(tmp_path) == ["uplift.db.before.part"]
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copying, "copy_into", copy_some)
    with pytest.raises(Unavailable, match="No space left on device"):
        upgrade(path, now_ms=NOW)
    assert (copies(tmp_path), current(path)) == ([], "0001")


def test_tables_are_created_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file stays empty."""
    path = tmp_path / "uplift.db"
    original = schema_version.create

    def create_and_fail(connection: sa.Connection) -> None:
        original(connection)
        raise RuntimeError("the last statement failed")

    monkeypatch.setattr(schema_version, "create", create_and_fail)
    with pytest.raises(RuntimeError):
        upgrade(path, now_ms=NOW)
    assert current(path) is None


def test_a_newer_file_is_rejected_unchanged(tmp_path: Path) -> None:
    """The error names both revisions, and says how to fix the problem."""
    path = tmp_path / "uplift.db"
    upgrade(path, now_ms=NOW)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UnknownSchema, match=f"9999.*newer.*{HEAD}.*start the release"):
        upgrade(path, now_ms=NOW)
    assert current(path) == "9999"


def test_a_foreign_file_is_rejected(tmp_path: Path) -> None:
    """Covers a SQLite file without a revision, and a file that is not a database."""
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign, isolation_level=None)) as raw:
        raw.execute("CREATE TABLE notes (text)")
    for access in (lambda: upgrade(foreign, now_ms=NOW), lambda: current(foreign)):
        with pytest.raises(UnknownSchema, match="is not a database of this server"):
            access()
    text = tmp_path / "text.db"
    text.write_text("not a database, but longer than the header of one: " * 10)
    with pytest.raises(Unavailable, match="not a database"):
        upgrade(text, now_ms=NOW)
