"""`kill -9` at any time: accepted events arrive unchanged, and only deliveries in flight are repeated.

UPLIFT_TEST_KILLS sets the number of kills (default 5), and UPLIFT_TEST_SEED sets their times.
"""

import itertools
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from . import receiving
from .harness import TYPE, Server, serving, wait_for
from .receiving import Receiver

KILLS = int(os.environ.get("UPLIFT_TEST_KILLS", "5"))
SEED = int(os.environ.get("UPLIFT_TEST_SEED", "20251124"))
PATHS = ("/steady", "/flapping")
BATCH = 20


class Load:
    """Callers that send numbered events. If a request gets no response, they repeat it with the same key."""

    def __init__(self, server: Server, account: str) -> None:
        self._numbers = itertools.count()
        self._server = server
        self._account = account
        self._stopping = threading.Event()
        self.accepted: dict[int, str] = {}
        """The ID in the response, by number."""
        self.once = set[int]()
        """Numbers that a caller sends only once, without a key."""
        self.unexpected_responses: list[Any] = []
        roles = [self._single, self._single, self._send_once, self._batch]
        self._threads = [threading.Thread(target=role) for role in roles]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Wait for the last response of every caller."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a caller received no response"

    def _single(self) -> None:
        api = self._server.api(account=self._account)
        while not self._stopping.wait(0.002):
            number = next(self._numbers)
            while not self._note([number], api.send(number, idempotency_key=f"n-{number}")):
                time.sleep(0.02)

    def _send_once(self) -> None:
        """Send without a key, and do not repeat."""
        api = self._server.api(account=self._account)
        while not self._stopping.wait(0.002):
            number = next(self._numbers)
            self.once.add(number)
            if not self._note([number], api.send(number)):
                time.sleep(0.02)

    def _batch(self) -> None:
        api = self._server.api(account=self._account)
        while not self._stopping.wait(0.02):
            numbers = list(itertools.islice(self._numbers, BATCH))
            events = [{"type": TYPE, "data": {"number": n}, "idempotency_key": f"n-{n}"} for n in numbers]
            while not self._note(numbers, api("POST", "/v1/events/batch", {"events": events})):
                time.sleep(0.02)

    def _note(self, numbers: list[int], response: Any) -> bool:
        if response.status == 202:
            stored = response.json["data"] if len(numbers) > 1 else [response.json]
            self.accepted.update(zip(numbers, (each["id"] for each in stored), strict=True))
            return True
        if response.status not in {0, 503}:
            self.unexpected_responses.append(response)
        return False


def test_accepted_events_survive_kills_under_load(tmp_path: Path, receiver: Receiver) -> None:
    rng = random.Random(SEED)
    receiver.url("/flapping", receiving.after_failing(1))
    settings = {"UPLIFT_RETRY_SCHEDULE": ",".join(["200ms"] * 20), "UPLIFT_BREAKER_FAILURES": "0"}
    cut_off = 0
    with serving(tmp_path / "data", **settings) as server:
        account, api = server.account()
        for path in PATHS:
            api.endpoint(receiver.url(path), max_in_flight=64)
        load = Load(server, account)
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.05, 0.9))
            server.kill()
            cut_off += _sent_but_leased(server, receiver)
            server.start()
        time.sleep(rng.uniform(0.05, 0.5))
        load.finish()
        assert load.unexpected_responses == []
        assert len(load.accepted) > 50 * KILLS, "too few events were accepted"
        expected = set(load.accepted)
        for path in PATHS:
            wait_for(
                lambda path=path: expected <= _delivered(receiver, path), f"all events arrive at {path}", 40, every=0.2
            )
        # Stored events without a response may also arrive. Wait for them before counting repeats.
        wait_for(lambda: _open(api) == 0, "no delivery is pending", 30, every=0.2)
        _check(receiver, load, cut_off)


def _check(receiver: Receiver, load: Load, cut_off: int) -> None:
    duplicates = 0
    for path in PATHS:
        attempts_needed = 2 if path == "/flapping" else 1
        arrived: dict[str, list[receiving.Received]] = {}
        for request in receiver.on(path):
            arrived.setdefault(request.headers["webhook-id"], []).append(request)
        for requests in arrived.values():
            assert len({request.digest for request in requests}) == 1, "attempts have different bodies"
            duplicates += len(requests) - attempts_needed
        by_number: dict[int, set[str]] = {}
        for event, requests in arrived.items():
            by_number.setdefault(requests[0].json["data"]["number"], set()).add(event)
        for number, events in by_number.items():
            assert len(events) == 1, f"number {number} was stored twice"
            if number in load.accepted:
                assert events == {load.accepted[number]}
            else:
                assert number in load.once, "an event of a repeating caller has no response"
    print(f"{len(load.accepted)} accepted, {duplicates} duplicates, {cut_off} sent and unsettled at {KILLS} kills")
    assert duplicates <= cut_off


def _sent_but_leased(server: Server, receiver: Receiver) -> int:
    """Count the deliveries that reached the receiver, but were not settled when the server was killed."""
    counts = [-1, len(receiver.requests)]
    while counts[-1] != counts[-2]:  # Requests may still be in the socket buffers.
        time.sleep(0.1)
        counts.append(len(receiver.requests))
    query = (
        "SELECT e.id, n.url, d.attempts_made FROM deliveries d JOIN events e ON e.seq = d.event_seq"
        " JOIN endpoints n ON n.seq = d.endpoint_seq WHERE d.status = 0 AND d.lease_owner <> 0"
    )
    leased = server.place.query(query)
    arrived = Counter((r.headers["webhook-id"].replace("-", ""), r.path) for r in list(receiver.requests))
    # `arrived` counts all requests. Those beyond the stored attempts were sent but not recorded.
    return sum(max(0, arrived[event.hex(), "/" + url.rsplit("/", 1)[1]] - made) for event, url, made in leased)


def _delivered(receiver: Receiver, path: str) -> set[int]:
    return set(receiver.numbers(path))


def _open(api: Any) -> int:
    pending = api.ok("GET", "/v1/deliveries?status=pending&limit=1")["data"]
    return len(pending)


def _start_seconds(data: Path) -> float:
    """Return how long a server takes to become ready on an empty database."""
    data.mkdir()
    server = Server(data)
    began = time.monotonic()
    try:
        server.start()
        return time.monotonic() - began
    finally:
        server.end()


def test_a_kill_during_the_first_start_does_not_block_the_next_start(tmp_path: Path, receiver: Receiver) -> None:
    rng = random.Random(SEED)
    usual = _start_seconds(tmp_path / "usual")
    server = Server(tmp_path)
    try:
        kills = max(3, KILLS // 2)
        for _ in range(kills):
            server.launch()
            time.sleep(rng.uniform(0, usual))
            server.kill()
        assert sum('"ready"' in line for line in server.log) < kills
        server.start()
        _, api = server.account()
        api.endpoint(receiver.url("/hook"))
        assert api.send(1).status == 202
        receiver.wait("/hook", 1)
    finally:
        server.end()


def test_kills_during_a_start_with_pending_deliveries_lose_nothing(tmp_path: Path, receiver: Receiver) -> None:
    rng = random.Random(SEED)
    usual = _start_seconds(tmp_path / "usual")
    with serving(tmp_path / "data", UPLIFT_RETRY_SCHEDULE="100ms," + ",".join(["1s"] * 30)) as server:
        _, api = server.account()
        api.endpoint(receiver.url("/hook", receiving.respond(500)))
        events = [{"type": TYPE, "data": {"number": n}} for n in range(200)]
        ids = [stored["id"] for stored in api.ok("POST", "/v1/events/batch", {"events": events})["data"]]
        server.kill()
        for _ in range(2):
            server.launch()
            time.sleep(rng.uniform(0.3, 1.5) * usual)
            server.kill()
        receiver.url("/hook", receiving.respond())
        server.start()
        wait_for(lambda: len({r.headers["webhook-id"] for r in receiver.on("/hook")}) == 200, "all events arrive", 30)
        wait_for(lambda: _open(api) == 0, "no delivery is pending", 30)
        assert {r.headers["webhook-id"] for r in receiver.on("/hook")} == set(ids)
        assert len(api.list_all("/v1/deliveries?status=delivered")) >= 200
