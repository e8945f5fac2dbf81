"""A stop ends in time with its own exit code, even if the disk hangs."""

import sys
import time
from pathlib import Path

import pytest

from .harness import Server, wait_for
from .receiving import Receiver

pytestmark = pytest.mark.sqlite(reason="PostgreSQL stores its data on another machine")

TRY_LATER = 75
# While the file `hang` exists, commits of the driver do not return.
HANGING = """
import sqlite3, sys, time
from pathlib import Path

class Hanging(sqlite3.Connection):
    def execute(self, statement, *values):
        while statement == "COMMIT" and Path("hang").exists():
            time.sleep(0.05)
        return super().execute(statement, *values)

plain = sqlite3.connect
sqlite3.connect = lambda *args, **options: plain(*args, **{"factory": Hanging, **options})
from uplift_server.cli import serve
from uplift_server.cli.main import run
serve.STOP_SECONDS_MAX = 4
run()
"""


def test_a_stop_with_a_hung_disk_ends_in_time(tmp_path: Path, receiver: Receiver) -> None:
    server = Server(tmp_path)
    server._command = [sys.executable, "-c", HANGING, "serve", "--json"]
    try:
        server.start()
        _, api = server.account()
        api.endpoint(receiver.url("/hook"))
        assert api.send(1).status == 202
        receiver.wait("/hook", 1)
        (tmp_path / "hang").touch()
        assert api.send(2).status == 503
        began = time.monotonic()
        assert server.stop() == TRY_LATER
        assert time.monotonic() - began < 20
        (tmp_path / "hang").unlink()
        server.start()
        assert api.send(3).status == 202
        wait_for(lambda: 3 in receiver.numbers("/hook"), "deliveries continue")
        assert server.stop() == 0
    finally:
        server.end()
