"""Fixtures for commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.commands import RESPONSES
from tests.cli.fake_api import FakeApi, fake_api

from uplift_server.config import load
from uplift_server.store.sqlite.connection import FileLock


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """A running server with scripted responses."""
    monkeypatch.chdir(tmp_path)
    with fake_api() as found:
        monkeypatch.setenv("UPLIFT_PORT", found.url.rpartition(":")[2])
        monkeypatch.setenv("UPLIFT_OPERATOR_KEY", "op_the_key_of_this_test")
        database = load({}).database_path
        database.parent.mkdir()
        lock = FileLock(database)
        lock.acquire()
        found.responses = dict(RESPONSES)
        yield found
        lock.release()
