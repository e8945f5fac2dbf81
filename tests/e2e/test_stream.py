"""With NATS JetStream in front of PostgreSQL, events are accepted without the database and stored in order later."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import nats
import pytest
from nats.aio.client import Client
from tests.nats import NatsCluster
from tests.postgres import PostgresServer, run_in_thread

from uplift_server.core.timestamps import format_timestamp

from .fleet import Fleet, wait_for_propagation
from .harness import TYPE, Api, Server, wait_for
from .receiving import Receiver

T = TypeVar("T")
EVENTS = "UPLIFT_EVENTS"
REJECTED = "UPLIFT_REJECTED"


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """One NATS server. Tests that stop it start it again."""
    cluster = NatsCluster(tmp_path_factory.mktemp("nats"), nodes=1).start()
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server. Tests that stop it start it again."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def fleet(tmp_path: Path, nats_server: NatsCluster, postgres_server: PostgresServer) -> Iterator[Fleet]:
    """Servers on an empty database and an empty stream. The test starts them."""
    delete_streams(nats_server)
    url = postgres_server.new_database()
    with Fleet(tmp_path, url, UPLIFT_NATS_URL=nats_server.url, UPLIFT_NATS_REPLICAS="1", UPLIFT_LEASE="22s") as fleet:
        yield fleet


def through_nats(cluster: NatsCluster, use: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Connect to NATS, and return the result of a function that uses the connection."""

    async def run() -> T:
        client = await nats.connect(cluster.urls)
        try:
            return await use(client)
        finally:
            await client.close()

    return run_in_thread(run())


def delete_streams(cluster: NatsCluster) -> None:
    async def delete(client: Client) -> None:
        for name in (EVENTS, REJECTED):
            await client.request(f"$JS.API.STREAM.DELETE.{name}")

    through_nats(cluster, delete)


def publish(cluster: NatsCluster, subject: str, *messages: bytes) -> None:
    """Publish messages like an emitter, and wait until the stream has stored them."""

    async def send(client: Client) -> None:
        for message in messages:
            await client.jetstream().publish(subject, message)

    through_nats(cluster, send)


def rejected_messages(cluster: NatsCluster, count: int) -> list[tuple[str, Any]]:
    """Return the subjects and contents of the first rejected messages."""

    async def read(client: Client) -> list[tuple[str, Any]]:
        found = [await client.jetstream().get_msg(REJECTED, seq) for seq in range(1, count + 1)]
        return [(each.subject or "", json.loads(each.data or b"")) for each in found]

    return through_nats(cluster, read)


def doctor(server: Server) -> dict[str, tuple[str, str]]:
    """Return the result and the text of each check."""
    ran = server.run("doctor", "--json")
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return {each["check"]: (each["result"], each["text"]) for each in found}


def body(number: int, **fields: Any) -> bytes:
    return json.dumps({"type": TYPE, "data": {"number": number}, **fields}).encode()


def stored(api: Api) -> list[Any]:
    """Return the stored numbered events, oldest first."""
    return [each for each in reversed(api.list_all("/v1/events?include=body")) if each["type"] == TYPE]


def numbers(events: list[Any]) -> list[int]:
    return [each["body"]["data"]["number"] for each in events]


def test_events_are_accepted_without_the_database_and_stored_in_order(
    receiver: Receiver, fleet: Fleet, postgres_server: PostgresServer, nats_server: NatsCluster
) -> None:
    fleet.add_all("api", "worker")
    api_server, worker = fleet.servers
    _, api = api_server.account()
    api.endpoint(receiver.url("/hook"))
    first = api.send(0)
    assert first.status == 202
    receiver.wait("/hook", 1)
    postgres_server.stop("immediate")
    try:
        responses = [api.send(number, ordering_key="a") for number in range(1, 101)]
        batch = api("POST", "/v1/events/batch", {"events": [json.loads(body(number)) for number in range(101, 201)]})
        # The other processes would evict this one now.
        wait_for(lambda: b"heartbeat" in api_server.api()("GET", "/readyz").body, "the heartbeat has expired")
        late = api.send(201)
        ready = api_server.api()("GET", "/readyz")
        metrics = api_server.api()("GET", "/metrics").body.decode()
    finally:
        postgres_server.start()
    assert {each.status for each in responses} == {202}
    assert batch.status == 202
    # The server is ready, because it accepts events. The response still describes the problem of the database.
    assert ready.status == 200
    assert "uplift_stream_up 1" in metrics
    assert late.status == 202
    accepted = [first.json, *(each.json for each in responses), *batch.json["data"], late.json]
    wait_for(lambda: len(stored(api)) == 202, "all events are stored", within=60)
    events = stored(api)
    assert numbers(events) == list(range(202))
    assert [(each["id"], each["created_at"]) for each in events] == [
        (each["id"], each["created_at"]) for each in accepted
    ]
    assert [format_timestamp(each["body"]["created"]) for each in events] == [each["created_at"] for each in accepted]
    receiver.wait("/hook", 202)
    assert set(receiver.numbers("/hook").values()) == {1}
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty")
    assert worker.stop() == 0
    assert api_server.stop() == 0


def test_a_killed_worker_stores_no_event_twice_and_loses_none(
    receiver: Receiver, fleet: Fleet, nats_server: NatsCluster
) -> None:
    fleet.add_all("api", "worker", "worker")
    api_server, *workers = fleet.servers
    _, api = api_server.account()
    api.endpoint(receiver.url("/hook"))
    accepted: list[int] = []

    def send() -> None:
        for number in range(1500):
            if api.send(number).status == 202:
                accepted.append(number)

    sender = threading.Thread(target=send)
    sender.start()
    for worker in (*workers, *workers):
        time.sleep(0.7)
        worker.kill()
        worker.launch()
    sender.join()
    for worker in workers:
        worker.ready()
    assert len(accepted) == 1500
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty", within=60)
    assert numbers(stored(api)) == accepted
    wait_for(lambda: len(receiver.numbers("/hook")) == 1500, "all events arrive", within=60)


def test_a_repeat_has_the_id_of_the_first_request(
    fleet: Fleet, nats_server: NatsCluster, postgres_server: PostgresServer
) -> None:
    fleet.add_all("api", "worker")
    _, api = fleet.servers[0].account()
    own_id = str(uuid.uuid4())
    first = [api.send(1, idempotency_key="k1").json, api.send(2, id=own_id).json]
    wait_for(lambda: len(stored(api)) == 2, "both events are stored")
    again = [api.send(1, idempotency_key="k1").json, api.send(2, id=own_id).json]
    assert [each["duplicate"] for each in first] == [False, False]
    assert [{**each, "duplicate": True} for each in first] == again
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty")
    postgres_server.stop("immediate")
    try:
        # The stream recognizes repeated events even if the database is down.
        new = api.send(3, idempotency_key="k3")
        repeats = [api.send(3, idempotency_key="k3") for _ in range(3)]
        # These events have left the stream, and the database cannot return their IDs.
        unknown = [api.send(1, idempotency_key="k1"), api.send(2, id=own_id)]
    finally:
        postgres_server.start()
    assert new.json["duplicate"] is False
    assert [each.json for each in repeats] == [{**new.json, "duplicate": True}] * 3
    assert [each.json["duplicate"] for each in unknown] == [False, False]
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty", within=60)
    wait_for(lambda: api("GET", "/readyz").body == b"ready\n", "the API server reads the database", within=60)
    assert numbers(stored(api)) == [1, 2, 3]
    assert nats_server.messages(REJECTED) == 0
    batch = api("POST", "/v1/events/batch", {"events": [json.loads(body(4, idempotency_key="k4"))] * 3})
    assert len({each["id"] for each in batch.json["data"]}) == 1
    assert [each["duplicate"] for each in batch.json["data"]] == [False, True, True]


def test_repeats_are_stored_after_the_restore_of_an_older_database(
    fleet: Fleet, nats_server: NatsCluster, postgres_server: PostgresServer
) -> None:
    """NATS still knows the message IDs of the lost events, but neither the stream nor the database has the events."""
    fleet.add_all("api", "worker")
    _, api = fleet.servers[0].account()
    own_id = str(uuid.uuid4())
    api.send(1, idempotency_key="k1")
    api.send(2, id=own_id)
    wait_for(lambda: numbers(stored(api)) == [1, 2], "both events are stored")
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty")
    lost = "DELETE FROM attempts; DELETE FROM deliveries; DELETE FROM idempotency_keys; DELETE FROM events"
    postgres_server.execute(lost, urlsplit(fleet.url).path.removeprefix("/"))

    events = [json.loads(body(1, idempotency_key="k1")), json.loads(body(3, idempotency_key="k3"))]
    batch = api("POST", "/v1/events/batch", {"events": events})
    repeats = [api.send(2, id=own_id), api.send(1, idempotency_key="k1")]
    assert [each.status for each in (batch, *repeats)] == [202] * 3
    assert [each.json["id"] for each in repeats] == [own_id, batch.json["data"][0]["id"]]
    wait_for(lambda: sorted(numbers(stored(api))) == [1, 2, 3], "the repeated events are stored once")
    assert {each["id"] for each in stored(api)} == {own_id, *(each["id"] for each in batch.json["data"])}


def test_a_conflict_is_accepted_and_rejected_later(fleet: Fleet, nats_server: NatsCluster) -> None:
    fleet.add_all("all")
    account, api = fleet.servers[0].account()
    first = api.send(1, idempotency_key="k1").json
    conflicting = api.send(2, idempotency_key="k1")
    assert conflicting.status == 202
    wait_for(lambda: api.ok("GET", "/v1/rejected-events")["data"], "the conflict is rejected")
    (rejected,) = fleet.servers[0].api().ok("GET", "/v1/rejected-events")["data"]
    assert rejected["problem"]["code"] == "idempotency_conflict"
    assert first["id"] in rejected["problem"]["detail"]
    assert rejected["event_id"] == conflicting.json["id"]
    assert (rejected["idempotency_key"], rejected["type"], rejected["account"]) == ("k1", TYPE, account)
    assert numbers(stored(api)) == [1]
    ((subject, message),) = rejected_messages(nats_server, 1)
    assert subject == f"uplift.rejected.{account}"
    assert message["event"]["data"] == {"number": 2}
    assert message["event_id"] == rejected["event_id"]
    # The detail in the database omits the idempotency key, which is in its own column, where an erasure deletes it.
    detail = message["problem"]["detail"]
    assert (" k1 " in detail, " k1 " in rejected["problem"]["detail"]) == (True, False)
    assert message["problem"] == {**rejected["problem"], "detail": detail}
    assert "uplift_rejected_events_total 1" in fleet.servers[0].api()("GET", "/metrics").body.decode()
    # NATS still recognizes the message, but neither the stream nor the database contains the event.
    assert api.send(2, idempotency_key="k1").status == 202
    assert numbers(stored(api)) == [1]


def test_emitters_publish_events_themselves(receiver: Receiver, fleet: Fleet, nats_server: NatsCluster) -> None:
    fleet.add_all("api", "worker")
    api_server, worker = fleet.servers
    operator = api_server.api()
    account, api = api_server.account()
    operator.ok("PATCH", f"/v1/accounts/{account}", {"uid": "clubs.eu.7"})
    api.endpoint(receiver.url("/hook"))
    wait_for_propagation()  # The worker matches published events with endpoints, so it must know the endpoint.
    own_id = str(uuid.uuid4())
    by_uid, by_id = "uplift.events.clubs.eu.7", f"uplift.events.{account}"
    publish(nats_server, by_uid, body(1), body(2, id=own_id, ordering_key="a"))
    publish(nats_server, by_id, body(3, idempotency_key="k3"), body(3, idempotency_key="k3"))
    invalid = [b"{", b"[1]", body(4, id="x"), b'{"type": "unknown.type", "data": {}}', body(4, account=account)]
    publish(nats_server, by_id, *invalid)
    publish(nats_server, "uplift.events.nobody", body(5))
    publish(nats_server, "uplift.events.$accepted.events", b"not a message of a server")
    publish(nats_server, by_id, body(6))
    wait_for(lambda: nats_server.messages(EVENTS) == 0, "the stream is empty")
    events = stored(api)
    assert numbers(events) == [1, 2, 3, 6]
    assert events[1]["id"] == own_id
    assert events[1]["ordering_key"] == "a"
    receiver.wait("/hook", 4)
    rejected = operator.list_all("/v1/rejected-events")[::-1]
    assert [each["problem"]["code"] for each in rejected] == [
        "malformed_json", "validation_failed", "validation_failed", "validation_failed", "validation_failed",
        "validation_failed", "internal_error",
    ]  # fmt: skip
    assert [each["account"] for each in rejected] == [account] * 5 + [None, None]
    assert rejected[5]["type"] == TYPE
    assert len(api.list_all("/v1/rejected-events")) == 5
    messages = rejected_messages(nats_server, 7)
    expected = {"event": "{", "event_id": None, "problem": rejected[0]["problem"]}
    assert messages[0] == (f"uplift.rejected.{account}", expected)
    assert messages[5][0] == "uplift.rejected.nobody"
    assert messages[5][1]["event"] == json.loads(body(5))
    assert 'uplift_rows_set_aside_total{kind="event"} 1' in worker.api()("GET", "/metrics").body.decode()


def create_stream(cluster: NatsCluster, bytes_max: int) -> None:
    async def create(client: Client) -> None:
        config = {
            "name": EVENTS, "subjects": ["uplift.events.>"], "retention": "workqueue", "storage": "file",
            "discard": "new", "max_bytes": bytes_max, "duplicate_window": 120 * 10**9,
        }  # fmt: skip
        assert "error" not in json.loads(
            (await client.request(f"$JS.API.STREAM.CREATE.{EVENTS}", json.dumps(config).encode())).data
        )

    through_nats(cluster, create)


def test_a_full_stream_rejects_events_with_503(fleet: Fleet, nats_server: NatsCluster) -> None:
    create_stream(nats_server, 20_000)
    fleet.add_all("api")  # No worker stores the events.
    (server,) = fleet.servers
    _, api = server.account()
    statuses = [api.send(number).status for number in range(100)]
    assert statuses[0] == 202
    assert statuses[-1] == 503
    assert statuses == sorted(statuses)
    response = api.send(100)
    assert response.headers["retry-after"] == "1"
    assert 'uplift_events_refused_total{reason="stream"}' in server.api()("GET", "/metrics").body.decode()
    fleet.add("worker")
    accepted = statuses.count(202)
    wait_for(lambda: len(stored(api)) == accepted, "all accepted events are stored")
    wait_for(lambda: api.send(101).status == 202, "events are accepted again")


def test_an_account_cannot_fill_the_stream_alone(fleet: Fleet, nats_server: NatsCluster) -> None:
    create_stream(nats_server, 2_000_000)
    fleet.add_all("api")  # No worker stores the events.
    (server,) = fleet.servers
    _, api = server.account("Club 1")
    _, other = server.account("Club 2")
    assert other.send(0).status == 202
    large = {"type": TYPE, "data": {"number": 1, "text": "x" * 20_000}}
    statuses = [api("POST", "/v1/events", large).status for _ in range(80)]
    # The server measures the size of the stream once per second, so it may limit the account before the last event.
    assert statuses == sorted(statuses)
    assert statuses.count(202) >= 70
    response = wait_for(lambda: refused if (refused := api.send(1)).status == 503 else None, "the account must wait")
    assert response.headers["retry-after"] == "1"
    assert [other.send(number).status for number in range(1, 20)] == [202] * 19
    assert 'uplift_events_refused_total{reason="full"}' in server.api()("GET", "/metrics").body.decode()
    fleet.add("worker")
    wait_for(lambda: api.send(2).status == 202, "the account can send again")


def test_without_nats_events_get_503_until_it_returns(fleet: Fleet, nats_server: NatsCluster) -> None:
    fleet.add_all("api", "worker")
    api_server, worker = fleet.servers
    _, api = api_server.account()
    assert api.send(0, idempotency_key="n0").status == 202
    nats_server.kill(0)
    try:
        began = time.monotonic()
        response = api.send(1, idempotency_key="n1")
        assert response.status == 503
        assert time.monotonic() - began < 6
        assert (
            api("POST", "/v1/events/batch", {"events": [json.loads(body(2, idempotency_key="n2"))] * 9}).status == 503
        )
        wait_for(lambda: api_server.api()("GET", "/readyz").status == 503, "the process is not ready")
        assert "stream" in api_server.api()("GET", "/readyz").json["detail"]
        wait_for(lambda: "uplift_stream_up 0" in api_server.api()("GET", "/metrics").body.decode(), "the metric is 0")
        assert "stream_failing" in [each["code"] for each in api_server.api().ok("GET", "/v1/fleet")["problems"]]
        # The rest of the API and the workers need only the database.
        assert api.ok("GET", "/v1/events")["data"] is not None
        assert worker.stop() == 0
        worker.start()
    finally:
        nats_server.restart(0)
    wait_for(lambda: api.send(1, idempotency_key="n1").status == 202, "events are accepted again")
    wait_for(lambda: numbers(stored(api)) == [0, 1], "both events are stored")


def test_everything_can_restart_with_events_in_the_stream(
    fleet: Fleet, nats_server: NatsCluster, postgres_server: PostgresServer
) -> None:
    fleet.add_all("api")
    (api_server,) = fleet.servers
    _, api = api_server.account()
    assert [api.send(number).status for number in range(50)] == [202] * 50
    assert api_server.stop() == 0
    nats_server.stop()
    postgres_server.stop()
    postgres_server.start()
    nats_server.start()
    assert nats_server.messages(EVENTS) == 50
    fleet.add_all("worker")
    api_server.start()
    wait_for(lambda: numbers(stored(api)) == list(range(50)), "all events are stored")


def test_an_erasure_misses_no_event_in_the_stream(fleet: Fleet) -> None:
    fleet.add_all("api")  # No worker stores the events.
    (server,) = fleet.servers
    account, api = server.account()
    event = {"type": TYPE, "data": {"object": {"id": "a1"}}}
    assert [api("POST", "/v1/events", event).status for _ in range(20)] == [202] * 20
    path = f"/v1/accounts/{account}/erasures"
    assert server.api()("POST", path, {"object_id": "a1"}).status == 503
    fleet.add("worker")
    wait_for(lambda: server.api()("POST", path, {"object_id": "a1"}).status == 202, "the erasure is created")
    wait_for(lambda: server.api().ok("GET", path)["data"][0]["events"] == 20, "all events are erased")


def test_an_event_matches_an_endpoint_that_was_created_just_before(receiver: Receiver, fleet: Fleet) -> None:
    fleet.add_all("api", "worker")
    for number in range(10):
        _, api = fleet.servers[0].account(f"Club {number}")
        api.endpoint(receiver.url(f"/{number}"))
        assert api.send(number).status == 202
    for number in range(10):
        receiver.wait(f"/{number}", 1)


def test_doctor_checks_the_stream(fleet: Fleet, nats_server: NatsCluster) -> None:
    fleet.add_all("all")
    (server,) = fleet.servers
    found = doctor(server)
    assert found["nats"] == ("ok", f"{nats_server.url} responds")
    assert found["stream replicas"][0] == "ok"
    assert found["event stream"] == ("ok", "the database contains all events")
    nats_server.kill(0)
    try:
        assert doctor(server)["nats"][0] == "fail"
    finally:
        nats_server.start()


def test_doctor_finds_a_nats_server_that_cannot_store_the_replicas(
    tmp_path: Path, postgres_server: PostgresServer, nats_server: NatsCluster
) -> None:
    delete_streams(nats_server)
    url = postgres_server.new_database()
    server = Server(tmp_path, UPLIFT_DATABASE_URL=url, UPLIFT_NATS_URL=nats_server.url)
    cause = f"{nats_server.url} does not belong to a cluster, so it cannot store 3 replicas"
    assert doctor(server)["event stream"] == ("fail", cause)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("UPLIFT_NATS_URL", "http://localhost", "nats://"),
        ("UPLIFT_NATS_URL", "nats://a@localhost", "password"),
        ("UPLIFT_NATS_REPLICAS", "2", "1, 3 or 5"),
        ("UPLIFT_NATS_CREDENTIALS_FILE", "missing.creds", "file"),
    ],
)
def test_wrong_settings_prevent_the_start(
    tmp_path: Path, postgres_server: PostgresServer, nats_server: NatsCluster, setting: str, value: str, words: str
) -> None:
    url = postgres_server.new_database()
    environ = {"UPLIFT_DATABASE_URL": url, "UPLIFT_NATS_URL": nats_server.url, setting: value}
    server = Server(tmp_path, **environ)
    server.launch()
    assert server.process is not None
    assert server.process.wait(30) == 2
    server.end()
    assert words in "".join(server.log)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retention", "limits"),
        ("max_age", 3600 * 10**9),
        ("max_msgs_per_subject", 10),
        ("allow_rollup_hdrs", True),
        ("deny_purge", True),
        ("max_msg_size", 1024),
    ],
)
def test_a_stream_that_would_lose_events_prevents_the_start(
    fleet: Fleet, nats_server: NatsCluster, field: str, value: object
) -> None:
    async def create(client: Client) -> None:
        config = {
            "name": EVENTS, "subjects": ["uplift.events.>"], "retention": "workqueue", "storage": "file",
            "discard": "new", "max_bytes": 10_000_000, field: value,
        }  # fmt: skip
        assert "error" not in json.loads(
            (await client.request(f"$JS.API.STREAM.CREATE.{EVENTS}", json.dumps(config).encode())).data
        )

    through_nats(nats_server, create)
    server = Server(fleet._folder, **fleet._environ)
    server.launch()
    assert server.process is not None
    assert server.process.wait(30) == 2
    server.end()
    assert field in "".join(server.log)
