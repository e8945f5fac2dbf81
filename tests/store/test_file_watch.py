"""The watch of an open database file detects that the file was deleted or truncated."""

import os
from pathlib import Path

import pytest

from uplift_server.store.errors import Unavailable
from uplift_server.store.sqlite.file_watch import FileWatch


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "uplift.db"
    path.parent.mkdir()
    path.write_bytes(b"x" * 4096)
    path.with_name("uplift.db-wal").write_bytes(b"")
    return path


def test_a_growing_file_is_unchanged(database: Path) -> None:
    watch = FileWatch(database)
    assert watch.change() is None
    database.write_bytes(b"x" * 8192)
    assert watch.change() is None
    os.truncate(database, 4096)
    change = watch.change()
    assert change is not None
    assert not change.is_readable


@pytest.mark.parametrize("interrupted_after", [1, 2, 3])
def test_a_file_that_grew_in_another_thread_was_not_truncated(
    database: Path, monkeypatch: pytest.MonkeyPatch, interrupted_after: int
) -> None:
    watch = FileWatch(database)
    stat = Path.stat
    reads = 0

    def slow(path: Path, **options: bool) -> os.stat_result:
        nonlocal reads
        found = stat(path, **options)
        reads += 1
        if reads == interrupted_after:
            database.write_bytes(b"x" * 8192)
            assert watch.change() is None
        return found

    monkeypatch.setattr(Path, "stat", slow)
    assert watch.change() is None


def test_a_directory_replaced_by_a_file_has_lost_the_database(database: Path) -> None:
    watch = FileWatch(database)
    database.parent.rename(database.parent.with_name("elsewhere"))
    database.parent.write_bytes(b"")
    change = watch.change()
    assert change is not None
    assert "deleted" in change.text


def test_an_unreadable_file_is_unavailable_and_not_lost(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = FileWatch(database)

    def deny(_path: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", deny)
    with pytest.raises(Unavailable, match="cannot examine"):
        watch.check()
