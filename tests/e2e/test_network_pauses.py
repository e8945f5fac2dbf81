"""A process that is disconnected from PostgreSQL stops sending before its leases end. Late outcomes are rejected."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unreliable_network import UnreliableNetwork

from uplift_server.core import ids
from uplift_server.core.operations.cluster import HEARTBEAT_EXPIRES_MS, HEARTBEAT_TRUSTED_MS

from .fleet import Fleet, account_of, wait_for_propagation
from .harness import OPERATOR_KEY, ApiResponse, settled, wait_for
from .receiving import Connection, Received, Receiver, respond

LEASE_S = 7
ATTEMPT_S = 0.8
RESPONSE_S_MAX = 5
STOP_S_MAX = 20
WEBSOCKET = (
    "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
NEAR, FAR = "127.0.0.2", "127.0.0.3"
"""Source addresses of two workers: NEAR keeps its connection to the database, and FAR loses it."""


@pytest.fixture
def fleet(tmp_path: Path, postgres_url: str) -> Iterator[Fleet]:
    """Processes with short leases."""
    with Fleet(tmp_path, postgres_url, UPLIFT_LEASE=f"{LEASE_S}s", UPLIFT_ATTEMPT_TIMEOUT="2s") as fleet:
        yield fleet


@pytest.mark.parametrize("cut", [UnreliableNetwork.hold, UnreliableNetwork.lose])
@pytest.mark.timing
@pytest.mark.timeout(180)
def test_late_outcomes_of_an_evicted_worker_are_rejected(
    fleet: Fleet, network: UnreliableNetwork, receiver: Receiver, cut: Callable[[UnreliableNetwork], None]
) -> None:
    api_server = fleet.add("api")
    far = fleet.add("worker", UPLIFT_DATABASE_URL=network.url, UPLIFT_EGRESS_ADDRESS=FAR)
    _, [api] = account_of(fleet)
    disconnected, rejected = threading.Event(), threading.Event()

    def act(connection: Connection, received: Received) -> bool:
        if received.peer == NEAR or received.json["type"] != "test.numbered":
            return respond()(connection, received)
        connection.closing.wait(ATTEMPT_S)
        return respond(500 if disconnected.is_set() else 200)(connection, received)

    def act_late(connection: Connection, received: Received) -> bool:
        if received.peer == NEAR:
            rejected.wait(60)
        return act(connection, received)

    paths = [f"/h{number}" for number in range(6)]
    for path in paths:
        api.endpoint(receiver.url(path, act), max_in_flight=1)
    # When the evicted worker reconnects, these deliveries are in flight in the other worker, and have no outcome yet.
    api.endpoint(receiver.url("/late", act_late))
    wait_for_propagation()
    events = [api.send(number).json["id"] for number in range(6)]
    receiver.wait("/late", 6)
    for path in paths:
        receiver.wait(path, 1)

    disconnected.set()
    cut(network)
    cut_at = time.time()
    fleet.add("worker", UPLIFT_EGRESS_ADDRESS=NEAR, UPLIFT_ATTEMPT_TIMEOUT="60s", UPLIFT_LEASE="70s")
    wait_for(
        lambda: {each.peer for each in receiver.on("/late")} == {NEAR, FAR}, "both workers attempted deliveries", 40
    )
    for path in paths:
        wait_for(lambda path=path: set(receiver.numbers(path)) == set(range(6)), f"all events arrive at {path}", 40)
    time.sleep(max(0.0, cut_at + LEASE_S + 1 - time.time()))
    unready = far.api()("GET", "/readyz")
    assert (unready.status, unready.seconds < 1) == (503, True)
    assert "The last heartbeat of this process is " in unready.json["detail"]
    before = len(receiver.requests)
    disconnected.clear()
    network.restore(reset_lost=False)

    # The disconnected worker stopped sending before the other worker started, although it still had deliveries.
    began = [each.at for path in paths for each in receiver.on(path) if each.peer == NEAR]
    ended = [each.at for path in paths for each in receiver.on(path) if each.peer == FAR]
    assert max(ended) < cut_at + HEARTBEAT_TRUSTED_MS / 1000 + 0.5
    assert max(ended) < min(began)
    assert len(ended) > len(paths)
    message = "late outcomes dropped"
    wait_for(lambda: message in "".join(far.log), f"the worker logs the late outcomes: {far.log}", 25)
    # The worker may handle its endpoints again before the log line appears. Only `/late` has open deliveries.
    assert {each.path for each in receiver.requests[before:]} <= {"/late"}
    rejected.set()
    deliveries = [each for event in events for each in api.ok("GET", f"/v1/events/{event}/deliveries")["data"]]
    assert len(deliveries) == 6 * 7
    for each in [settled(api, each["id"]) for each in deliveries]:
        assert (each["status"], each["attempts_made"]) == ("delivered", 1)
        attempts = api.ok("GET", f"/v1/deliveries/{each['id']}/attempts")["data"]
        assert [(attempt["number"], attempt["status_code"]) for attempt in attempts] == [(1, 200)]

    # The worker has rejoined and handles its endpoints again.
    def both_deliver() -> bool:
        api.send(len(receiver.requests))
        return {each.peer for each in receiver.requests[before:]} == {NEAR, FAR}

    wait_for(both_deliver, f"both workers deliver: {far.log}", 20, every=0.5)

    def both_ready() -> bool:
        return all(each.api()("GET", "/readyz").status == 200 for each in (far, api_server))

    # When the database responds again, the earlier failed reads do not affect readiness.
    wait_for(both_ready, f"both workers are ready: {far.log}", 30, every=0.5)


def test_an_api_server_responds_in_time(fleet: Fleet, network: UnreliableNetwork, receiver: Receiver) -> None:
    fleet.add("worker")
    far = fleet.add("api", UPLIFT_DATABASE_URL=network.url)
    _, [api] = account_of(fleet)
    api.endpoint(receiver.url("/hook"))
    wait_for_propagation()
    accepted = {number for number in range(5) if api.send(number).status == 202}
    network.lose()
    cut_at = time.monotonic()
    responses: list[ApiResponse] = []
    requests: list[Callable[[], ApiResponse]] = [
        lambda: api("GET", "/v1/endpoints"),
        lambda: api("GET", "/readyz"),
        lambda: api.send(-1),
        lambda: api("POST", "/v1/endpoints", {"url": receiver.url("/other")}),
    ]
    while time.monotonic() - cut_at < HEARTBEAT_EXPIRES_MS / 1000 + 1:
        threads = [threading.Thread(target=lambda each=each: responses.append(each())) for each in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {each.status for each in responses} == {503}
    assert max(each.seconds for each in responses) < RESPONSE_S_MAX
    network.restore(reset_lost=False)

    def accepts() -> bool:
        number = len(accepted)
        if api.send(number).status == 202:
            accepted.add(number)
        return len(accepted) > 20

    wait_for(accepts, f"the API server accepts events again: {far.log}")
    wait_for(lambda: api("GET", "/readyz").status == 200, "the server is ready again")
    # Every accepted event arrives exactly once. Rejected events may arrive.
    wait_for(lambda: set(receiver.numbers("/hook")) >= accepted, "all accepted events arrive", 40)
    assert Counter({**receiver.numbers("/hook"), -1: 1}) == Counter([*accepted, -1])


def test_waiting_callers_get_a_response_at_a_stop(fleet: Fleet, network: UnreliableNetwork, receiver: Receiver) -> None:
    fleet.add("worker")
    far = fleet.add("api", UPLIFT_DATABASE_URL=network.url)
    _, [api] = account_of(fleet)
    api.endpoint(receiver.url("/hook"))
    wait_for_propagation()
    network.lose()
    requests: list[Callable[[], ApiResponse]] = [lambda: api.send(1), lambda: api("GET", "/v1/events")]
    responses: list[ApiResponse] = []
    threads = [threading.Thread(target=lambda each=each: responses.append(each())) for each in requests]
    for thread in threads:
        thread.start()
    rights = f"host: x\r\nauthorization: Bearer {OPERATOR_KEY}\r\n"
    head = f"GET /v1/events HTTP/1.1\r\n{rights}\r\n"
    session = ids.prefixed(ids.LISTEN_SESSION, bytes(16))
    handshake = f"GET /v1/listen-sessions/{session}/stream HTTP/1.1\r\n{rights}{WEBSOCKET}\r\n"
    there = ("127.0.0.1", far.port)
    with socket.create_connection(there) as pipeline, socket.create_connection(there) as stream:
        pipeline.sendall(3 * head.encode())
        stream.sendall(handshake.encode())
        time.sleep(0.5)
        began = time.monotonic()
        assert far.stop() == 0
        assert time.monotonic() - began < STOP_S_MAX
        pipeline.settimeout(5)
        assert _read_all(pipeline).count(b"HTTP/1.1 503") == 1, "the connection stays open after the first response"
        stream.settimeout(5)
        rejected = _read_all(stream)
        assert rejected.startswith(b"HTTP/1.1 503"), rejected
        assert b"The server is stopping" in rejected
    for thread in threads:
        thread.join()
    assert [(each.status, each.json["code"]) for each in responses] == [(503, "unavailable")] * 2
    assert {each.json["detail"].partition(" and ")[0] for each in responses} == {"The server is stopping"}
    assert not any("Traceback" in line for line in far.log), far.log


def _read_all(connection: socket.socket) -> bytes:
    """Return all bytes until the connection ends."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_worker_without_its_database_stops_in_time(
    fleet: Fleet, network: UnreliableNetwork, receiver: Receiver
) -> None:
    fleet.add("api")
    far = fleet.add("worker", UPLIFT_DATABASE_URL=network.url)
    _, [api] = account_of(fleet)
    api.endpoint(receiver.url("/hook", respond(after=1)), max_in_flight=1)
    wait_for_propagation()
    for number in range(3):
        api.send(number)
    receiver.wait("/hook", 1)
    network.lose()
    time.sleep(1)
    began = time.monotonic()
    assert far.stop() == 0
    assert time.monotonic() - began < STOP_S_MAX
