"""Hostile messages in the event stream are rejected. They do not stop the events of other emitters."""

import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from tests.nats import NatsCluster
from tests.postgres import PostgresServer

from .fleet import Fleet
from .harness import TYPE, wait_for
from .receiving import Receiver
from .test_stream import EVENTS, REJECTED, body, numbers, publish, rejected_messages, stored, through_nats

SERVER_SUBJECT = "uplift.events.$accepted.events"
MESSAGE_BYTES_MAX = 1024 * 1024
"""The default maximum size of a message in NATS."""
LONG = b"a" * 4050
"""NATS accepts a message with this name in its subject, but a message of the server to the same account is too long."""
SUBJECTS = [b"\xff", b"a\x0bb", b"a\x0cb", b"a\x00b", b"a\x85b", b"*", b">", b"a.*", b"$accepted", b"$accepted.a", LONG]
HEADERS = [
    b"",
    b"ABCD",
    b"NATS/1.0 \xff\xff\xff\r\n\r\n",
    b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
    b"NATS/1.0\r\nStatus: 100\r\n\r\n",
    b"NATS/1.0\r\nStatus: 404\r\nDescription: Consumer Deleted\r\n\r\n",
    b"NATS/1.0\r\n\xff: \xfe\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\nNats-Rollup: all\r\n\r\n",
]
"""Headers of messages. The server stores the events of all but the last message, which the stream rejects."""


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsCluster]:
    cluster = NatsCluster(tmp_path / "nats", nodes=1).start()
    yield cluster
    cluster.close()


@pytest.fixture
def fleet(tmp_path: Path, nats_server: NatsCluster) -> Iterator[Fleet]:
    postgres_server = PostgresServer()
    environ = {"UPLIFT_NATS_URL": nats_server.url, "UPLIFT_NATS_REPLICAS": "1"}
    with Fleet(tmp_path, postgres_server.new_database(), **environ) as fleet:
        yield fleet
    postgres_server.close()


def accepted(account: str, number: int = 1) -> dict[str, object]:
    """Return an event with this number in a message of the server.

    Its database number of the event type is wrong, as if a backup had replaced the database.
    """
    return {
        "id": str(uuid.uuid4()),
        "account": account,
        "type": TYPE,
        "data": {"number": number},
        "created_at": 1_700_000_000_000,
        "type_number": 99,
    }


def publish_raw(cluster: NatsCluster, *operations: bytes) -> None:
    """Send operations of the NATS protocol without a library, which could reject them."""
    host, _, port = cluster.url.removeprefix("nats://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b'CONNECT {"verbose":false,"headers":true}\r\n' + b"".join(operations) + b"PING\r\n")
        received = b""
        while b"PONG" not in received:
            received += connection.recv(65_536)


def with_headers(subject: bytes, headers: bytes, data: bytes) -> bytes:
    sizes = f"{len(headers)} {len(headers) + len(data)}".encode()
    return b"HPUB uplift.events.%b %b\r\n%b%b\r\n" % (subject, sizes, headers, data)


def test_hostile_messages_do_not_stop_the_others(fleet: Fleet, nats_server: NatsCluster) -> None:
    fleet.add_all("all")
    (server,) = fleet.servers
    account, api = server.account()
    subject = account.encode()
    for number, name in enumerate(SUBJECTS):
        publish_raw(nats_server, b"PUB uplift.events.%b 2\r\nhi\r\n" % name)
        publish(nats_server, f"uplift.events.{account}", body(number))
    for number, headers in enumerate(HEADERS, start=100):
        publish_raw(nats_server, with_headers(subject, headers, body(number)))
    deep = b'{"type": "a", "data": {"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    for data in (
        deep,
        b'{"type": "\\u0000", "id": "\\ud800", "data": {}}',
        b'{"expires_at": "9999-99", "data": 1e999}',
    ):
        publish(nats_server, f"uplift.events.{account}", data)
    # The server stores each rejected message with the problem, which would make some exceed the maximum size.
    for size in range(MESSAGE_BYTES_MAX - 600, MESSAGE_BYTES_MAX, 40):
        publish_raw(nats_server, b"PUB uplift.events.%b %d\r\n%b\r\n" % (subject, size, b"x" * size))
    publish(nats_server, f"uplift.events.{account}", body(200))
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty", within=60)
    accepted = [*range(len(SUBJECTS)), *range(100, 99 + len(HEADERS)), 200]
    assert numbers(stored(api)) == accepted
    assert len(server.api().list_all("/v1/rejected-events")) == len(SUBJECTS) + 3 + 15
    assert "event stream interrupted" not in "".join(server.log)
    assert api.send(201).status == 202


def test_a_huge_message_does_not_stop_the_others(fleet: Fleet, nats_server: NatsCluster) -> None:
    nats_server.stop()
    for config in nats_server.folder.rglob("nats.conf"):
        config.write_text(f"{config.read_text()}\nmax_payload: 16MB\n")
    nats_server.start()
    fleet.add_all("all")
    account, api = fleet.servers[0].account()
    publish(nats_server, f"uplift.events.{account}", body(1), b"x" * 12_000_000, body(2))
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty")
    assert numbers(stored(api)) == [1, 2]


def test_the_stream_of_rejected_events_is_created_again(fleet: Fleet, nats_server: NatsCluster) -> None:
    fleet.add_all("all")
    account, api = fleet.servers[0].account()

    async def delete(client: Client) -> None:
        await client.jetstream().delete_stream(REJECTED)

    through_nats(nats_server, delete)
    publish(nats_server, f"uplift.events.{account}", b"not an event", body(1))
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty")
    assert numbers(stored(api)) == [1]
    assert nats_server.messages(REJECTED) == 1


def test_an_accepted_event_reaches_only_the_endpoints_of_its_account(
    receiver: Receiver, fleet: Fleet, nats_server: NatsCluster
) -> None:
    fleet.add_all("all")
    (server,) = fleet.servers
    account, api = server.account("Club 1")
    api.endpoint(receiver.url("/own"))
    _, other = server.account("Club 2")
    other.endpoint(receiver.url("/other"))
    message = accepted(account) | {"endpoints": list(range(10))}
    publish(nats_server, SERVER_SUBJECT, json.dumps([message]).encode())
    receiver.wait("/own", 1)
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty")
    delivered = [each["type"] for client in (api, other) for each in client.list_all("/v1/deliveries")]
    assert delivered.count(TYPE) == 1


def test_rejected_events_do_not_stop_other_events_in_the_same_message(fleet: Fleet, nats_server: NatsCluster) -> None:
    fleet.add_all("all")
    _, api = fleet.servers[0].account()
    api.send(1, idempotency_key="k1")
    wait_for(lambda: len(stored(api)) == 1, "the first event is stored")
    batch = [(2, "k2"), (3, "k1"), (4, "k4"), (5, "k1")]
    events = [json.loads(body(number, idempotency_key=key)) for number, key in batch]
    api.ok("POST", "/v1/events/batch", {"events": events})
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty")
    assert numbers(stored(api)) == [1, 2, 4]
    rejected = api.list_all("/v1/rejected-events")
    assert [each["problem"]["code"] for each in rejected] == ["idempotency_conflict"] * 2
    assert [api.ok("GET", f"/v1/rejected-events/{each['id']}") for each in rejected] == rejected
    messages = rejected_messages(nats_server, 2)
    assert [message["event"]["data"]["number"] for _, message in messages] == [3, 5]


def test_invalid_events_of_the_server_are_rejected(fleet: Fleet, nats_server: NatsCluster) -> None:
    fleet.add_all("all")
    (server,) = fleet.servers
    account, api = server.account()
    wrong: list[dict[str, object]] = [
        {"account": "a b"},
        {"account": ".."},
        {"account": "a" * 5000},
        {"account": f"{account}\n"},
        {"created_at": 2**62},
        {"created_at": -(2**62)},
        {"expires_at": 2**70},
    ]
    wrong.append({"id": "no UUID"})
    invalid = [accepted(account) | each for each in wrong]
    messages = [[accepted(account, 2 * at), each, accepted(account, 2 * at + 1)] for at, each in enumerate(invalid)]
    publish(nats_server, SERVER_SUBJECT, b"not JSON", b"[]", *[json.dumps(each).encode() for each in messages])
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty")
    assert numbers(stored(api)) == list(range(2 * len(wrong)))
    found = rejected_messages(nats_server, len(wrong) + 2)
    assert [subject for subject, _ in found[:-1]] == ["uplift.rejected.$accepted"] * (len(wrong) + 1)
    assert found[-1][0] == f"uplift.rejected.{account}"
    assert [message["event"] for _, message in found[2:-1]] == invalid[:-1]
    rejected = server.api().list_all("/v1/rejected-events")
    assert [each["problem"]["code"] for each in rejected] == ["internal_error"] * len(found)
    assert api.send(2).status == 202
