"""A restored backup of a busy server delivers the pending events."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .harness import PROGRAM, Server, sending, serving, wait_for
from .receiving import Receiver, respond

pytestmark = pytest.mark.sqlite(reason="PostgreSQL has its own backup tools")

SETTINGS = {"UPLIFT_RETRY_SCHEDULE": ",".join(["2s"] * 60), "UPLIFT_BREAKER_FAILURES": "0"}


def backup(server: Server, to: Path) -> "subprocess.CompletedProcess[str]":
    """Run the backup command with the settings of a server."""
    return server.run("backup", str(to))


def test_a_backup_made_under_traffic_delivers_pending_events(tmp_path: Path, receiver: Receiver) -> None:
    url = receiver.url("/down", respond(500))
    with serving(tmp_path / "first", **SETTINGS) as server:
        account, api = server.account()
        api.endpoint(url)
        with sending(api) as accepted:
            wait_for(lambda: len(accepted) > 100, "events are accepted")
            before = list(accepted)
            made = backup(server, tmp_path / "copy.db")
            during = len(accepted)
        assert made.returncode == 0, made
        assert str(server.data / "secret.key") in made.stderr
        assert during > len(before), "no event was accepted during the backup"
        again = backup(server, tmp_path / "copy.db")
        assert again.returncode == 2
        assert "already exists" in again.stderr
        server.kill()
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"]
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600

    restored = tmp_path / "second"
    restored.mkdir()
    shutil.copy(tmp_path / "copy.db", restored / "uplift.db")
    shutil.copy(tmp_path / "first" / "secret.key", restored / "secret.key")
    receiver.requests.clear()
    receiver.url("/down", respond(200))
    with serving(restored, **SETTINGS) as server:
        api = server.api(account=account)

        def none_pending() -> bool:
            return not api.ok("GET", "/v1/deliveries?status=pending")["data"]

        wait_for(none_pending, "the copy has no pending deliveries")
        assert not set(before) - set(receiver.numbers("/down"))


def test_a_backup_removes_the_draft_of_a_killed_backup(tmp_path: Path) -> None:
    ended = subprocess.Popen([PROGRAM, "--version"], stdout=subprocess.DEVNULL)
    ended.wait(30)
    left = tmp_path / f".uplift-backup-{ended.pid}"
    left.write_bytes(b"half of a copy")
    runs = tmp_path / f".uplift-backup-{os.getpid()}"
    runs.write_bytes(b"a copy that is being made")
    with serving(tmp_path / "data") as server:
        assert backup(server, tmp_path / "copy.db").returncode == 0
    assert not left.exists()
    assert runs.exists()


def test_a_backup_without_a_database_fails_with_an_error(tmp_path: Path) -> None:
    server = Server(tmp_path)
    made = backup(server, tmp_path / "copy.db")
    assert made.returncode == 4
    assert "there is no database" in made.stderr
    assert not (tmp_path / "copy.db").exists()
