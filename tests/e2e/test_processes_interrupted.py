"""Processes that end, hang, restart or have wrong clocks: nothing is lost, and due times do not change."""

import itertools
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from uplift_server.store.admission import require_release
from uplift_server.store.schema_processes import processes

from .fleet import ConcurrencyCounter, Fleet, account_of, running, send_all, wait_for_propagation
from .harness import settled, wait_for
from .receiving import Connection, Received, Receiver, respond


@pytest.fixture
def own_fleet(tmp_path: Path, direct_or_pooled_url: str) -> Iterator[Fleet]:
    """Processes that the test can end."""
    with running(tmp_path, direct_or_pooled_url) as fleet:
        yield fleet


def test_killing_processes_at_random_loses_nothing(own_fleet: Fleet, receiver: Receiver) -> None:
    _, apis = account_of(own_fleet)
    counter = {f"/k{n}": ConcurrencyCounter(0.01) for n in range(6)}
    for path, action in counter.items():
        apis[0].endpoint(receiver.url(path, action), max_in_flight=3)
    wait_for_propagation()
    accepted: set[int] = set()
    threads = send_all(apis, range(600), accepted)
    chance = random.Random(7)
    for _ in range(4):
        time.sleep(1.5)
        victim = chance.choice(own_fleet.servers)
        victim.kill()
        victim.start()
    for thread in threads:
        thread.join()
    assert accepted == set(range(600))
    for path, action in counter.items():
        wait_for(lambda path=path: set(receiver.numbers(path)) >= accepted, f"all events arrive at {path}", within=60)
        assert action.most <= 3


def test_a_rolling_restart_loses_and_repeats_nothing(own_fleet: Fleet, receiver: Receiver) -> None:
    _, apis = account_of(own_fleet)
    counter = {f"/r{n}": ConcurrencyCounter(0.01) for n in range(4)}
    for path, action in counter.items():
        apis[0].endpoint(receiver.url(path, action), max_in_flight=3)
    wait_for_propagation()
    accepted: set[int] = set()
    threads = send_all(apis, range(400), accepted)
    for server in own_fleet.servers:
        assert server.stop() == 0
        server.start()
    for thread in threads:
        thread.join()
    assert accepted == set(range(400))
    for path, action in counter.items():
        wait_for(lambda path=path: set(receiver.numbers(path)) >= accepted, f"all events arrive at {path}", within=60)
        assert receiver.numbers(path) == Counter(range(400))
        assert action.most <= 3


def test_late_outcomes_of_a_suspended_worker_are_rejected(
    tmp_path: Path, postgres_url: str, receiver: Receiver
) -> None:
    """Another process has repeated the attempt in the meantime. Only the outcome of the repetition is stored."""
    with Fleet(tmp_path, postgres_url) as fleet:
        fleet.add("api")
        suspended = fleet.add("worker")
        _, [api] = account_of(fleet)
        statuses = iter([500])
        seen: list[float] = []

        def act(connection: Connection, received: Received) -> bool:
            seen.append(received.at)
            if received.json["type"] != "test.numbered":
                return respond()(connection, received)
            return respond(next(statuses, 200), after=1.5)(connection, received)

        api.endpoint(receiver.url("/hook", act))
        wait_for_propagation()
        event = api.send(1).json["id"]
        receiver.wait("/hook", 1)
        suspended.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        try:
            fleet.add("worker")
            receiver.wait("/hook", 2, within=30)
        finally:
            suspended.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        [delivery] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
        done = settled(api, delivery["id"])
        time.sleep(2)
        assert settled(api, delivery["id"]) == done
        assert (done["status"], done["attempts_made"]) == ("delivered", 1)
        attempts = api.ok("GET", f"/v1/deliveries/{delivery['id']}/attempts")["data"]
        assert [each["status_code"] for each in attempts] == [200]


def test_a_worker_suspended_during_an_incompatible_upgrade_stops(
    tmp_path: Path, postgres_url: str, receiver: Receiver
) -> None:
    """Before it stops, the worker settles its attempts in flight and starts no others."""
    with Fleet(tmp_path, postgres_url) as fleet:
        fleet.add("api")
        worker = fleet.add("worker")
        assert worker.process is not None
        _, [api] = account_of(fleet)
        api.endpoint(receiver.url("/hook", respond(after=1.5)))
        wait_for_propagation()
        event = api.send(1).json["id"]
        receiver.wait("/hook", 1)
        # Create the state that an upgrade leaves after it evicts the process.
        worker.place.run(lambda c: require_release(c, "999.0.0"))
        worker.place.run(lambda c: c.execute(sa.delete(processes).where(processes.c.role == "worker")))
        assert worker.process.wait(25) == 1
        worker.end()
        [error_line] = [line for line in worker.log if line.startswith("{") and "error" in json.loads(line)]
        assert "no longer works with release" in json.loads(error_line)["error"]["cause"]
        [delivery] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
        assert (delivery["status"], delivery["attempts_made"]) == ("delivered", 1)
        assert len(receiver.on("/hook")) == 1


def test_a_wrong_clock_does_not_change_due_times(tmp_path: Path, postgres_url: str, receiver: Receiver) -> None:
    with Fleet(tmp_path, postgres_url, UPLIFT_RETRY_SCHEDULE="2s,2s") as fleet:
        fleet.add("api", skew_ms=-120_000)
        fleet.add("worker", skew_ms=120_000)
        _, [api] = account_of(fleet)
        api.endpoint(receiver.url("/hook", respond(500)))
        wait_for_propagation()
        began = time.time()
        event = api.send(1).json["id"]
        arrived = [each.at for each in receiver.wait("/hook", 3)]
        waits = [later - earlier for earlier, later in itertools.pairwise(arrived)]
        assert arrived[0] - began < 1
        assert all(1.7 < wait < 3.2 for wait in waits), waits
        [delivery] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
        assert settled(api, delivery["id"])["status"] == "failed"
