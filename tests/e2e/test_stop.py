"""Stops: attempts in flight are settled, nothing is sent twice, and two processes never share a file."""

import threading
import time
from pathlib import Path

import pytest

from .harness import Server, free_port, serving, wait_for
from .receiving import Receiver, respond


def test_a_stop_under_load_settles_attempts_without_duplicates(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data") as server:
        account, api = server.account()
        api.endpoint(receiver.url("/quick"))
        api.endpoint(receiver.url("/slow", respond(after=2)), max_in_flight=64)
        accepted: set[int] = set()
        callers = [threading.Thread(target=_send_until_closed, args=(server, account, n, accepted)) for n in (0, 10**6)]
        for caller in callers:
            caller.start()
        receiver.wait("/slow", 8)
        began = time.monotonic()
        assert server.stop() == 0, server.log
        assert time.monotonic() - began < 20
        for caller in callers:
            caller.join(20)
        assert not any("Traceback" in line for line in server.log), server.log
        seen_before = len(receiver.on("/slow"))
        assert seen_before < len(accepted), "no delivery is left for the next start"
        receiver.url("/slow", respond())
        server.start()
        for path in ("/quick", "/slow"):
            wait_for(
                lambda path=path: accepted <= set(receiver.numbers(path)), f"all events arrive at {path}", 30, every=0.1
            )
            assert set(receiver.numbers(path).values()) == {1}, "a delivery was sent twice"


def test_an_idle_server_stops_immediately(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        server.api().ok("GET", "/v1/accounts")  # leaves a keep-alive connection open
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 5


@pytest.mark.sqlite(reason="several processes can share a PostgreSQL database")
def test_a_second_process_on_the_same_file_is_rejected(server: Server) -> None:
    second = server.run("serve", UPLIFT_PORT=str(free_port()))
    assert second.returncode == 75, second
    assert f"process {server.pid}" in second.stderr
    assert "UPLIFT_DATABASE_URL" in second.stderr
    assert "Traceback" not in second.stderr
    assert server.api()("GET", "/readyz").status == 200, "the first process is not ready"


def _send_until_closed(server: Server, account: str, first: int, accepted: set[int]) -> None:
    api = server.api(account=account)
    for number in range(first, first + 5000):
        got = api.send(number)
        if got.status == 0:
            return
        assert got.status in {202, 503}, got
        if got.status == 202:
            accepted.add(number)
        time.sleep(0.002)
