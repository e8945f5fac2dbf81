"""Another program locks the database for 7 seconds: every response arrives within 5 seconds, and nothing is lost."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from .harness import TYPE, Api, ApiResponse, Server, deliveries_of, serving, settled, wait_for
from .receiving import Receiver, respond

pytestmark = pytest.mark.sqlite(reason="only a database file can be locked completely")

LOCKED_S = 7
LOCKER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


def test_responses_arrive_in_time_and_no_event_is_lost(tmp_path: Path, receiver: Receiver) -> None:
    # The lock outlasts the leases of deliveries in flight. They must not be sent twice.
    with serving(tmp_path / "data", UPLIFT_ATTEMPT_TIMEOUT="1s", UPLIFT_LEASE="6s") as server:
        account, api = server.account()
        api.endpoint(receiver.url("/hook"))
        slow = api.endpoint(receiver.url("/slow", respond(after=0.5)))["id"]
        before = [api.send(number).json["id"] for number in range(10)]
        receiver.wait("/slow", 10)
        responses: list[ApiResponse] = []
        accepted: dict[int, str] = dict(enumerate(before))
        with _locked(server):
            until = time.monotonic() + LOCKED_S
            callers = [
                threading.Thread(target=_call, args=(server.api(account=account), first, until, responses, accepted))
                for first in range(1000, 9000, 1000)
            ]
            callers.append(threading.Thread(target=_read_and_change, args=(api, slow, until, responses)))
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join(LOCKED_S + 10)
        print(f"{len(responses)} answers, the slowest after {max(each.seconds for each in responses):.2f} s")
        slowest = max(responses, key=lambda each: each.seconds)
        assert slowest.seconds < 5, slowest
        assert {each.status for each in responses} <= {200, 202, 503}
        rejected = [each for each in responses if each.status == 503]
        assert len(rejected) >= 8
        assert all(each.headers["retry-after"] and each.json["code"] == "unavailable" for each in rejected)
        number = wait_for(lambda: 9999 if _accept(api, 9999, accepted) else 0, "the server accepts events again", 5)
        wait_for(
            lambda: set(accepted) <= set(receiver.numbers("/hook")), f"all accepted events arrive, including {number}"
        )
        for event in before:
            for delivery in deliveries_of(api, event):
                completed = settled(api, delivery["id"])
                assert (completed["status"], completed["attempts_made"]) == ("delivered", 1), "an outcome was lost"
        assert set(receiver.numbers("/hook").values()) == {1}
        assert server.stop() == 0


def test_a_stop_while_locked_ends_in_time_and_loses_nothing(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data") as server:
        account, api = server.account()
        api.endpoint(receiver.url("/slow", respond(after=1)))
        for number in range(3):
            assert api.send(number).status == 202
        receiver.wait("/slow", 3)
        with _locked(server, 2):
            began = time.monotonic()
            assert server.stop() == 0, server.log
            assert time.monotonic() - began < 20
        server.start()
        api = server.api(account=account)
        wait_for(lambda: api.ok("GET", "/v1/deliveries?status=pending")["data"] == [], "all events are delivered")
        assert set(receiver.numbers("/slow")) == {0, 1, 2}


class _locked:
    """Hold the write lock in a separate process."""

    def __init__(self, server: Server, seconds: float = LOCKED_S) -> None:
        self._path = server.data / "uplift.db"
        self._seconds = str(seconds)

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", LOCKER, str(self._path), self._seconds], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "locked\n"

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)


def _call(api: Api, first: int, until: float, responses: list[ApiResponse], accepted: dict[int, str]) -> None:
    number = first
    while time.monotonic() < until:
        if number % 2:
            batch = [{"type": TYPE, "data": {"number": number + n}} for n in range(0, 100, 10)]
            got = api("POST", "/v1/events/batch", {"events": batch})
            if got.status == 202:
                accepted.update(zip(range(number, number + 100, 10), (e["id"] for e in got.json["data"]), strict=True))
        else:
            got = api.send(number)
            if got.status == 202:
                accepted[number] = got.json["id"]
        responses.append(got)
        number += 1


def _accept(api: Api, number: int, accepted: dict[int, str]) -> bool:
    got = api.send(number)
    if got.status == 202:
        accepted[number] = got.json["id"]
    return got.status == 202


def _read_and_change(api: Api, endpoint: str, until: float, responses: list[ApiResponse]) -> None:
    calls: list[tuple[str, str, Any]] = [
        ("GET", "/v1/events", None),
        ("PATCH", f"/v1/endpoints/{endpoint}", {"description": "changed"}),
        ("GET", f"/v1/endpoints/{endpoint}/deliveries", None),
        ("GET", "/readyz", None),
    ]
    while time.monotonic() < until:
        for method, path, body in calls:
            got = api(method, path, body)
            responses.append(got)
            # Reads need no lock. A server that cannot write is not ready.
            assert method == "PATCH" or path == "/readyz" or got.status == 200
