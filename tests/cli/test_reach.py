"""The server that a command uses, including servers that start or stop during the command."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli.fake_api import fake_api

from uplift_server.cli import reach
from uplift_server.config import Config, load
from uplift_server.store.errors import Unavailable
from uplift_server.store.sqlite.connection import FileLock
from uplift_webhooks.cli.kit.errors import CliError, ExitCode


def config_in(directory: Path) -> Config:
    return load(
        {
            "UPLIFT_DATABASE_URL": f"sqlite:///{directory}/uplift.db",
            "UPLIFT_OPERATOR_KEY": "op_the_key_of_this_test",
            "UPLIFT_PORT": "9",
        }
    )


def database_in(directory: Path) -> Config:
    config = config_in(directory)
    config.database_path.touch()
    return config


@contextmanager
def patched_checks(patched: pytest.MonkeyPatch, *found: bool) -> Iterator[None]:
    """Replace the check for a running server. Each call returns the next of these results."""
    left = list(found)
    patched.setattr(reach, "server_runs", lambda _config: left.pop(0))
    yield
    assert not left


def test_a_server_that_starts_during_a_command_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def raise_unavailable(_config: Any) -> Iterator[Any]:
        raise Unavailable("another server has the database")
        yield

    monkeypatch.setattr(reach, "_temporary_server", raise_unavailable)
    config = database_in(tmp_path)
    with patched_checks(monkeypatch, False, True), reach.reach(config) as client:
        assert client is not None
    with patched_checks(monkeypatch, False, False), pytest.raises(Unavailable), reach.reach(config):
        raise AssertionError("there is no server")


def test_the_own_error_of_a_command_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Unavailable error of the command itself does not make `reach` look for a running server."""
    ended = []

    @contextmanager
    def temporary_server(_config: Any) -> Iterator[str]:
        try:
            yield "client"
        finally:
            ended.append(True)

    monkeypatch.setattr(reach, "_temporary_server", temporary_server)
    failure = Unavailable("the disk is full")
    with patched_checks(monkeypatch, False), pytest.raises(Unavailable) as raised, reach.reach(database_in(tmp_path)):
        raise failure
    assert raised.value is failure
    assert ended == [True]


def test_a_server_is_found_by_a_link_to_its_file(tmp_path: Path) -> None:
    config = database_in(tmp_path)
    link = tmp_path / "link.db"
    link.symlink_to(config.database_path)
    by_link = replace(config, database_url=f"sqlite:///{link}")
    lock = FileLock(config.database_path)
    lock.acquire()
    assert reach.server_runs(by_link)
    lock.release()
    assert not reach.server_runs(by_link)


def test_a_server_that_is_starting_is_reported(tmp_path: Path, unused_tcp_port: int) -> None:
    """The lock exists before the operator key does."""
    config = replace(database_in(tmp_path), operator_key=None, port=unused_tcp_port)
    lock = FileLock(config.database_path)
    lock.acquire()
    with pytest.raises(CliError, match=f"does not respond at http://127.0.0.1:{unused_tcp_port}") as caught:
        reach.reach(config).__enter__()
    lock.release()
    assert caught.value.code == ExitCode.TRY_LATER


def test_an_unreadable_lock_does_not_mean_a_running_server(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that this user cannot open does not mean that a server runs."""

    def raise_unavailable(_: FileLock) -> bool:
        raise Unavailable("unable to open database file")

    config = replace(database_in(tmp_path), port=unused_tcp_port)
    FileLock(config.database_path).path.touch()
    monkeypatch.setattr(FileLock, "is_held", raise_unavailable)
    assert not reach.server_runs(config)


def test_reading_commands_create_no_database(tmp_path: Path, unused_tcp_port: int) -> None:
    config = replace(config_in(tmp_path), port=unused_tcp_port)
    with pytest.raises(CliError, match=rf"no database at {tmp_path}/uplift.db, and no server is running at") as caught:
        reach.reach(config).__enter__()
    assert caught.value.code == ExitCode.NOT_FOUND
    assert "uplift-server serve" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
    with fake_api() as api:
        # If the server has an event stream, the second line of `/readyz` can name a problem with the database.
        api.responses = {"GET /readyz": (200, b"ready\nThe database does not respond.\n", {})}
        other = replace(config, port=int(api.url.rpartition(":")[2]))
        with pytest.raises(CliError, match="uses a different database"):
            reach.reach(other).__enter__()


def test_an_event_stored_without_a_server_is_sent_by_the_next_server(tmp_path: Path) -> None:
    config = replace(config_in(tmp_path), allow_private_networks=True)
    with socket.socket() as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.listen()
        receiver.settimeout(0.3)
        url = f"http://127.0.0.1:{receiver.getsockname()[1]}/"
        with reach.reach(config, create=True) as client:
            assert client.sends is False
            account = client.post("/v1/accounts", {"name": "Rapids", "contact_emails": ["a@b.example"]})["id"]
            client.post("/v1/endpoints", {"url": url}, account=account)
            with pytest.raises(TimeoutError):
                receiver.accept()
            [registration] = client.items("/v1/deliveries", limit=5)
    assert (registration["status"], registration["attempts_made"]) == ("pending", 0)
