"""The writer thread fails: no request waits for it, no accepted event is lost, and another thread starts."""

from pathlib import Path

import pytest

from .faults import fault_settings
from .harness import Server, serving, wait_for
from .receiving import Receiver

pytestmark = pytest.mark.sqlite(reason="PostgreSQL needs no writer thread")


def ready(server: Server) -> int:
    return server.api()("GET", "/readyz").status


@pytest.mark.parametrize("kind", ["exit", "close"])
def test_a_failed_writer_thread_is_restarted(tmp_path: Path, receiver: Receiver, kind: str) -> None:
    fault, environ = fault_settings(tmp_path)
    with serving(tmp_path / "data", **environ) as server:
        _, api = server.account()
        api.endpoint(receiver.url("/hook"))
        assert api.send(1).status == 202
        receiver.wait("/hook", 1)
        fault.write_text(kind)
        for number in (2, 3):
            rejected = api.send(number)
            assert (rejected.status, rejected.json["code"]) == (503, "unavailable")
            assert rejected.seconds < 5
        wait_for(lambda: ready(server) == 503, "the server is not ready")
        fault.unlink()
        wait_for(lambda: api.send(4).status == 202, "the server accepts events again")
        wait_for(lambda: receiver.numbers("/hook")[4] == 1, "the server sends again")
        wait_for(lambda: ready(server) == 200, "the server is ready again")
        assert any("database writer failed" in line for line in server.log)
        assert receiver.numbers("/hook")[1] == 1
        assert server.stop() == 0
