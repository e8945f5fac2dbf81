"""The command `uplift-server backup` without enough space."""

import shutil
from pathlib import Path

import pytest

from uplift_server.store import schema_version

from .commands import run


def test_a_backup_that_would_fill_the_disk_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database = Path("uplift-data/uplift.db")
    database.parent.mkdir()
    schema_version.upgrade(database, now_ms=0)
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=database.stat().st_size))

    result = run("backup", "copy.db")

    assert result.exit_code == 1
    assert "bytes of free space" in result.stderr
    assert not Path("copy.db").exists()
