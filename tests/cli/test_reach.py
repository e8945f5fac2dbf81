"""Which server a command talks to, at the turns where that changes under it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from uplift_server.cli import reach
from uplift_server.config import Config, load
from uplift_server.store.errors import Unavailable


def config_in(directory: Path) -> Config:
    return load(
        {
            "UPLIFT_DATABASE_URL": f"sqlite:///{directory}/uplift.db",
            "UPLIFT_OPERATOR_KEY": "op_the_key_of_this_test",
            "UPLIFT_PORT": "9",
        }
    )


@contextmanager
def looks(patched: pytest.MonkeyPatch, *found: bool) -> Iterator[None]:
    """Each look whether a server runs finds the next of these."""
    left = list(found)
    patched.setattr(reach, "server_runs", lambda _config: left.pop(0))
    yield
    assert not left


def test_a_server_somebody_started_since_we_looked_is_the_one_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def taken(_config: Any) -> Iterator[Any]:
        raise Unavailable("another server has the database")
        yield

    monkeypatch.setattr(reach, "_momentary", taken)
    config = config_in(tmp_path)
    with looks(monkeypatch, False, True), reach.reach(config) as client:
        assert client is not None
    with looks(monkeypatch, False, False), pytest.raises(Unavailable), reach.reach(config):
        raise AssertionError("there is nobody to ask")


def test_what_a_command_meets_while_it_works_is_its_own_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if another server has taken the database by the time ours has ended."""
    ended = []

    @contextmanager
    def ours(_config: Any) -> Iterator[str]:
        try:
            yield "client"
        finally:
            ended.append(True)

    monkeypatch.setattr(reach, "_momentary", ours)
    failure = Unavailable("the disk is full")
    with looks(monkeypatch, False), pytest.raises(Unavailable) as raised, reach.reach(config_in(tmp_path)):
        raise failure
    assert raised.value is failure
    assert ended == [True]
