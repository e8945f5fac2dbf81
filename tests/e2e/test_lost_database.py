"""A server whose database file is deleted, replaced or truncated stops with an error, and saves its data."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from .harness import Server, serving, wait_for

pytestmark = pytest.mark.sqlite(reason="PostgreSQL has no database file of the server")
EXIT_WITHIN_S = 30


def _delete(database: Path) -> None:
    database.unlink()


def _delete_log(database: Path) -> None:
    database.with_name(f"{database.name}-wal").unlink()


def _replace(database: Path) -> None:
    other = database.with_name("other.db")
    other.write_bytes(b"")
    other.replace(database)


def _truncate(database: Path) -> None:
    os.truncate(database, 4096)


def _lose(server: Server, lose: Callable[[Path], None]) -> int:
    """Lose the file, and wait until the server exits. Return its exit code."""
    assert server.place.file is not None
    assert server.process is not None
    lose(server.place.file)
    return server.process.wait(EXIT_WITHIN_S)


def _events(database: Path) -> int:
    with closing(sqlite3.connect(database)) as raw:
        [(count,)] = raw.execute("SELECT count(*) FROM events")
        return int(count)


@pytest.mark.parametrize(
    ("lose", "message"),
    [(_delete, "was deleted"), (_replace, "was replaced"), (_delete_log, "-wal was deleted")],
)
def test_a_lost_file_stops_the_server_and_its_data_is_saved(
    tmp_path: Path, lose: Callable[[Path], None], message: str
) -> None:
    with serving(tmp_path / "data") as server:
        _, api = server.account()
        accepted = [api.send(number).status for number in range(20)]
        assert accepted == [202] * 20

        assert _lose(server, lose) == 1

        [error] = [json.loads(line)["error"] for line in server.log if line.startswith('{"error"')]
        assert message in error["cause"]
        [saved] = server.data.glob("uplift.db.rescued-*")
        assert str(saved) in error["remedy"] + error["cause"]
        assert _events(saved) == 20


def test_the_saved_file_replaces_the_lost_file(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        account, api = server.account()
        assert api.send(1).status == 202
        assert _lose(server, _delete) == 1
        [saved] = server.data.glob("uplift.db.rescued-*")
        assert server.place.file is not None
        # SQLite would apply a leftover log to the file that replaces the lost one.
        assert not server.place.file.with_name("uplift.db-wal").exists()
        for arguments in ((), ("--new-database",)):
            ended = server.run("serve", *arguments)
            assert ended.returncode == 2, "a restart accepts no events into another file"
            assert str(saved) in " ".join(ended.stderr.split())
        saved.rename(server.place.file)

        server.start()

        assert len(server.api(account=account).list_all("/v1/events")) == 1


# In this program, saving the data takes longer than STOP_SECONDS_MAX, the time limit for a stop without saving.
LARGE = """
import time
from uplift_server.store.sqlite import copying

copy_into = copying.copy_into

def slow(source, target):
    copy_into(source, target)
    time.sleep(6)

copying.copy_into = slow
from uplift_server.cli import serve
from uplift_server.cli.main import run
serve.STOP_SECONDS_MAX = 1
run()
"""


@contextmanager
def _large_file_lost(data: Path) -> Iterator[Server]:
    """Run a server with one event, and delete its file."""
    server = Server(data, program=LARGE)
    try:
        server.start()
        _, api = server.account()
        assert api.send(1).status == 202
        assert server.place.file is not None
        server.place.file.unlink()
        yield server
    finally:
        server.end()


def test_a_large_lost_file_is_saved_completely(tmp_path: Path) -> None:
    with _large_file_lost(tmp_path) as server:
        assert server.process is not None
        begun = wait_for(lambda: list(tmp_path.glob("uplift.db.rescued-*")), "the server saves the database")
        assert all(".partial" in each.name for each in begun), "an incomplete file looks like a database"
        assert server.process.wait(EXIT_WITHIN_S) == 1
        [saved] = tmp_path.glob("uplift.db.rescued-*")
        assert ".partial" not in saved.name
        assert _events(saved) == 1


def test_a_large_file_lost_just_before_a_stop_is_saved(tmp_path: Path) -> None:
    """The limit for the stop begins before the server notices the loss. A second signal does not end the server."""
    with _large_file_lost(tmp_path) as server:
        assert server.process is not None
        server.terminate()
        wait_for(lambda: list(tmp_path.glob("uplift.db.rescued-*")), "the server saves the database")
        server.terminate()
        assert server.process.wait(EXIT_WITHIN_S) == 1
        [saved] = tmp_path.glob("uplift.db.rescued-*")
        assert _events(saved) == 1


def test_a_file_lost_just_before_a_stop_is_saved(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        _, api = server.account()
        assert api.send(1).status == 202
        assert server.place.file is not None
        server.place.file.unlink()
        assert server.stop() == 1
        [saved] = server.data.glob("uplift.db.rescued-*")
        assert _events(saved) == 1


def test_a_truncated_file_stops_the_server(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        server.account()
        database = server.place.file
        assert database is not None

        def merged() -> bool:
            with closing(sqlite3.connect(database)) as raw:
                raw.execute("PRAGMA wal_checkpoint(PASSIVE)")
            return database.stat().st_size > 4096

        wait_for(merged, "the database file is larger than a page")
        # The server must read the size of the file before the test truncates it.
        wait_for(lambda: server.api().ok("GET", "/v1/accounts"), "the server responds", every=2)

        assert _lose(server, _truncate) == 1
        [error] = [json.loads(line)["error"] for line in server.log if line.startswith('{"error"')]
        assert "truncated" in error["cause"]


def test_a_start_without_the_database_needs_the_option_new_database(tmp_path: Path) -> None:
    environ = {"UPLIFT_OPERATOR_KEY": "op_end-to-end-tests-know-this-one", "UPLIFT_LOG_FORMAT": "none"}
    with serving(tmp_path / "data") as server:
        server.environ.pop("UPLIFT_SECRET_KEY", None)
        server.account()
        server.stop()
        database = server.place.file
        assert database is not None
        for empty in (False, True):
            database.unlink()
            if empty:
                database.touch()

            ended = server.run("serve", **environ)

            assert ended.returncode == 2
            assert "secret.key" in ended.stderr
            assert "--new-database" in ended.stderr
            assert not database.exists() or database.stat().st_size == 0
            new = Server(server.data, "--new-database")
            try:
                new.start()
                assert new.api().list_all("/v1/accounts") == []
                assert new.stop() == 0
            finally:
                new.end()
        second_start = Server(server.data, "--new-database")
        second_start.launch()
        assert second_start.process is not None
        assert second_start.process.wait(30) == 2
        second_start.end()


@pytest.mark.parametrize("removed", [False, True], ids=["hard link", "removed lock"])
def test_a_second_server_is_rejected(tmp_path: Path, removed: bool) -> None:
    with serving(tmp_path / "data") as server:
        assert server.place.file is not None
        second = tmp_path / "second"
        second.mkdir()
        if removed:
            server.place.file.with_name("uplift.db.lock").unlink()
            second = server.data
        else:
            (second / "uplift.db").hardlink_to(server.place.file)
            (second / "secret.key").write_bytes((server.data / "secret.key").read_bytes())
        other = Server(second)
        other.launch()
        try:
            assert other.process is not None
            assert other.process.wait(30) == 75
            wait_for(lambda: any("another server" in line for line in other.log), "the log has the reason")
        finally:
            other.end()
