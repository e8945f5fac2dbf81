"""Event ingest on a real socket."""

import asyncio
import base64
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3
from tests.engines import Engine

from uplift_server.app import Application
from uplift_server.config import load
from uplift_server.core.events.operational import OPERATIONAL_TYPES

from .malformed import MALFORMED

OPERATOR = "op_" + "k" * 40
PROCESS_KEY = bytes(range(32))
TYPE = "movement.analytics.created"


class Client:
    """An HTTP client with a key."""

    def __init__(self, port: int, key: str | None, account: str | None = None) -> None:
        self._pool = urllib3.HTTPConnectionPool("127.0.0.1", port, timeout=10, maxsize=20)
        self._headers = {"content-type": "application/json"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        if account is not None:
            self._headers["uplift-account"] = account

    def post(self, path: str, body: Any, **headers: str) -> Any:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._pool.request("POST", path, body=sent, headers=self._headers | named, retries=False)

    def put(self, path: str, body: Any) -> Any:
        return self._pool.request("PUT", path, body=json.dumps(body).encode(), headers=self._headers, retries=False)

    def delete(self, path: str) -> Any:
        return self._pool.request("DELETE", path, headers=self._headers, retries=False)

    def get(self, path: str) -> Any:
        return json.loads(self.raw(path))

    def get_response(self, path: str) -> Any:
        return self._pool.request("GET", path, headers=self._headers, retries=False)

    def raw(self, path: str) -> bytes:
        return self._pool.request("GET", path, headers=self._headers, retries=False).data


@pytest.fixture(scope="module")
def port(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("ingest")
    environ = {
        **engine.place(folder).environ,
        "UPLIFT_PORT": "0",
        "UPLIFT_OPERATOR_KEY": OPERATOR,
        "UPLIFT_SECRET_KEY": base64.b64encode(PROCESS_KEY).decode(),
        "UPLIFT_LOG_FORMAT": "none",
        "UPLIFT_ALLOW_PRIVATE_NETWORKS": "true",
    }
    ready: list[Any] = []
    started = threading.Event()

    async def run() -> None:
        application = Application(load(environ, None))
        await application.start()
        ready.extend((application, asyncio.get_running_loop()))
        started.set()
        await application.wait_stopped()
        await application.stop()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert started.wait(20)
    application, loop = ready
    yield application.address[1]
    loop.call_soon_threadsafe(application.request_stop)
    thread.join(20)
    assert not thread.is_alive()
    engine.clear(folder)


@pytest.fixture
def operator(port: int) -> Client:
    account = Client(port, OPERATOR).post("/v1/accounts", {"name": "Lab", "contact_emails": []}).json()["id"]
    return Client(port, OPERATOR, account)


def event(**fields: Any) -> dict[str, Any]:
    return {"type": TYPE, "data": {"object": {"id": "s_1"}}} | fields


def problems(response: Any) -> set[tuple[str, str]]:
    assert response.headers["content-type"] == "application/problem+json"
    return {(problem["field"], problem["code"]) for problem in response.json()["errors"]}


def test_an_accepted_event_keeps_its_bytes(operator: Client) -> None:
    data = b'{"object":{"n":1.0,  "big":%d,"u":"\\u00e9\xc3\xa9\\ud83d\\ude00"}}' % 10**18
    accepted = operator.post("/v1/events", b'{"type":"movement.analytics.created","data":%b}' % data)
    assert accepted.status == 202
    response = accepted.json()
    assert (response["type"], response["duplicate"]) == (TYPE, False)
    assert "idempotency-replayed" not in accepted.headers
    stored = operator.raw(f"/v1/events/{response['id']}")
    assert b'"data":' + data + b"}" in stored
    assert json.loads(stored)["created_at"] == response["created_at"]


def test_events_are_found_by_the_id_of_their_object(port: int, operator: Client) -> None:
    operators = Client(port, OPERATOR)
    other = Client(port, OPERATOR, operators.post("/v1/accounts", {"name": "B"}).json()["id"])
    assert operators.put("/v1/event-types/test.objects", {"description": "any data"}).status in {200, 201}
    sent = [
        sender.post("/v1/events", event(type="test.objects", data={"object": {"id": object_id}})).json()["id"]
        for sender, object_id in ((operator, "s_1"), (operator, 4711), (other, "s_1"), (operator, 47.11))
    ]
    assert [each["id"] for each in operator.get("/v1/events?object_id=s_1")["data"]] == [sent[0]]
    assert [each["id"] for each in operator.get("/v1/events?object_id=4711&order=asc")["data"]] == [sent[1]]
    assert [each["id"] for each in other.get("/v1/events?object_id=s_1")["data"]] == [sent[2]]
    assert [each["id"] for each in operators.get("/v1/events?object_id=s_1&limit=2")["data"]] == [sent[2], sent[0]]
    assert operator.get(f"/v1/events/{sent[1]}")["object_id"] == "4711"
    assert [each["object_id"] for each in operator.get("/v1/events")["data"]] == [None, "4711", "s_1"]
    assert problems(operator.get_response(f"/v1/events?object_id={'a' * 129}")) == {("object_id", "too_long")}
    assert problems(operator.get_response("/v1/events?object_id=%00")) == {("object_id", "characters_invalid")}


def test_the_response_lists_the_matched_endpoints_on_request(operator: Client) -> None:
    """The response to a repeated request lists the endpoints that matched the first request."""
    matching, paused, other = (
        operator.post("/v1/endpoints", {"url": f"http://127.0.0.1:9/{path}", "event_types": types}).json()["id"]
        for path, types in (("a", []), ("b", [TYPE]), ("c", ["athlete.updated"]))
    )
    assert operator.post(f"/v1/endpoints/{paused}/pause", {}).status == 200
    first = operator.post("/v1/events?include=endpoints", event(idempotency_key="include"))
    assert (first.status, first.json()["endpoints"]) == (202, [matching, paused])
    later = operator.post("/v1/endpoints", {"url": "http://127.0.0.1:9/d"}).json()["id"]
    again = operator.post("/v1/events?include=endpoints", event(idempotency_key="include")).json()
    assert (again["duplicate"], again["endpoints"]) == (True, [matching, paused])
    assert "endpoints" not in operator.post("/v1/events", event()).json()
    athlete = {"id": "67b95880-eb2c-56f6-b4ed-97417b86b3ec", "first_name": "Caleb", "height": 80}
    batch = {"events": [event(), event(type="athlete.updated", data={"object": athlete})]}
    found = operator.post("/v1/events/batch?include=endpoints", batch).json()["data"]
    assert [each["endpoints"] for each in found] == [[matching, paused, later], [matching, other, later]]
    assert problems(operator.post("/v1/events?include=body", event())) == {("include", "value_unknown")}
    assert problems(operator.post("/v1/events?inclde=endpoints", event())) == {("inclde", "unknown_field")}


def test_a_batch_key_has_room_for_the_positions(operator: Client) -> None:
    batch = {"events": [event()]}
    for length, status in ((251, 202), (252, 422), (255, 422)):
        headers = {"idempotency-key": "k" * length}
        response = operator.post("/v1/events/batch", batch, **headers)
        assert response.status == status
    assert problems(response) == {("Idempotency-Key", "idempotency_key_invalid")}


def test_numbers_that_are_too_large_to_check_are_rejected(operator: Client) -> None:
    for number in (b"1e400", b"-1E+999", b"1" + b"0" * 5000):
        body = b'{"type":"movement.analytics.created","data":{"object":{"n":%b}}}' % number
        assert problems(operator.post("/v1/events", body)) == {("data", "not_checkable")}, number[:9]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b'{"type":', 400, "malformed_json"),
        (b'{"type":"a.b","data":{"x":"\xff"}}', 400, "malformed_json"),
        (b'{"type":"a.b","data":' + b"[" * 100_000 + b"}", 400, "malformed_json"),
        (b'{"type":5}garbage', 400, "malformed_json"),
        (b'{"type":5,"data":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001, 400, "malformed_json"),
        (b'{"type":5,"data":{"a":1e400}}', 422, "validation_failed"),
        (b'{"type":"a.b","data":{"x":"' + b"y" * 280_000 + b'"}}', 413, "payload_too_large"),
    ],
    ids=[
        "empty",
        "truncated",
        "no UTF-8",
        "deep",
        "trailing bytes",
        "wrong type, deep",
        "wrong type, huge number",
        "large",
    ],
)
def test_unreadable_bodies_are_rejected(operator: Client, body: bytes, status: int, code: str) -> None:
    rejected = operator.post("/v1/events", body)
    assert (rejected.status, rejected.json()["code"]) == (status, code)


@pytest.mark.parametrize(("raw", "reason"), MALFORMED)
def test_a_malformed_body_has_a_reason(operator: Client, raw: bytes, reason: str) -> None:
    assert operator.post("/v1/events", raw).json()["detail"] == reason


def test_all_problems_are_reported_together(operator: Client) -> None:
    wrong = {"type": "no.such", "data": [], "id": "x", "expires_at": "yesterday", "idempotency_key": "a" * 300}
    assert problems(operator.post("/v1/events", wrong)) == {
        ("type", "event_type_unknown"),
        ("data", "type_object"),
        ("id", "id_invalid"),
        ("expires_at", "instant_invalid"),
        ("idempotency_key", "idempotency_key_invalid"),
    }
    assert problems(operator.post("/v1/events", {"type": 1, "kind": 2, "id": 3})) == {
        ("type", "type_text"),
        ("kind", "unknown_field"),
        ("id", "type_text"),
        ("data", "required"),
    }
    assert problems(operator.post("/v1/events", event(data={"object": 1}))) == {("data.object", "schema_mismatch")}
    unknown = event(data={"object": 1}, id="x", expires_at=5, idempotency_key="a" * 300, kind=2)
    assert problems(operator.post("/v1/events", unknown)) == {
        ("kind", "unknown_field"),
        ("data.object", "schema_mismatch"),
        ("id", "id_invalid"),
        ("expires_at", "type_text"),
        ("idempotency_key", "idempotency_key_invalid"),
    }
    wrong = {"type": "no.such", "data": 5, "id": "x", "kind": 2, "expires_at": "yesterday"}
    assert problems(operator.post("/v1/events", wrong, idempotency_key="a" * 300)) == {
        ("kind", "unknown_field"),
        ("type", "event_type_unknown"),
        ("data", "type_object"),
        ("id", "id_invalid"),
        ("expires_at", "instant_invalid"),
        ("idempotency_key", "idempotency_key_invalid"),
    }
    assert problems(operator.post("/v1/events", {"id": "x", "expires_at": "x"}, idempotency_key="a")) == {
        ("type", "required"),
        ("data", "required"),
        ("id", "id_invalid"),
        ("expires_at", "instant_invalid"),
    }
    assert problems(operator.post("/v1/events", b"[]")) == {("", "type_object")}
    past = event(expires_at="2020-01-01T00:00:00Z", idempotency_key="a")
    assert problems(operator.post("/v1/events", past, idempotency_key="b")) == {
        ("expires_at", "expires_at_past"),
        ("idempotency_key", "idempotency_key_ambiguous"),
    }


def test_messages_suggest_types_fields_and_the_header_of_the_account(operator: Client) -> None:
    def messages(path: str, body: Any) -> dict[str, str]:
        return {each["field"]: each["message"] for each in operator.post(path, body).json()["errors"]}

    sent = {"eventType": TYPE, "Data": {}, "account": "acc_x", "type": "movement.analytic.created"}
    found = messages("/v1/events", sent)
    assert found["eventType"].endswith("Did you mean type?")
    assert found["Data"].endswith("Did you mean data?")
    assert f"Did you mean {TYPE}?" in found["type"]
    assert "`Uplift-Account: acc_…`" in found["account"]
    found = messages("/v1/events/batch", {"events": [event(account_id="acc_x")]})
    assert found["events.0.account_id"].endswith("Did you mean account?")
    found = messages(
        "/v1/endpoints", {"url": "https://a.example/", "eventTypes": [], "event_types": ["athlete.create"]}
    )
    assert found["eventTypes"].endswith("Did you mean event_types?")
    assert "Did you mean athlete.created?" in found["event_types"]


@pytest.mark.parametrize("data", [{}, {"object": {}}])
def test_built_in_types_reject_an_empty_object(operator: Client, data: Any) -> None:
    for event_type in operator.get("/v1/event-types")["data"]:
        if not event_type["name"].startswith("test.") and event_type["group"] != "operational":
            rejected = operator.post("/v1/events", {"type": event_type["name"], "data": data})
            assert {code for _, code in problems(rejected)} == {"schema_mismatch"}, event_type["name"]


def test_a_repeated_request_gets_the_first_response_with_a_header(operator: Client) -> None:
    first = operator.post("/v1/events", event(), idempotency_key="k").json()
    again = operator.post("/v1/events", event(idempotency_key="k"))
    assert (again.json()["id"], again.json()["duplicate"]) == (first["id"], True)
    assert again.headers["idempotency-replayed"] == "true"
    other = operator.post("/v1/events", event(data={"object": {"id": "s_2"}}), idempotency_key="k")
    assert (other.status, other.json()["code"]) == (409, "idempotency_conflict")
    assert f"The idempotency key k was already used for event {first['id']}" in other.json()["detail"]


def test_concurrent_requests_create_one_event(operator: Client) -> None:
    with ThreadPoolExecutor(20) as pool:
        responses = list(
            pool.map(lambda _: operator.post("/v1/events", event(), idempotency_key="c").json(), range(40))
        )
    assert len({response["id"] for response in responses}) == 1
    assert sorted(response["duplicate"] for response in responses) == [False] + [True] * 39


def test_nobody_can_send_operational_events(operator: Client) -> None:
    for name in sorted(OPERATIONAL_TYPES):
        sent = event(type=name, data={"object": {"id": "ep_1", "account": "acc_1"}})
        assert problems(operator.post("/v1/events", sent)) == {("type", "event_type_reserved")}
        batch = operator.post("/v1/events/batch", {"events": [sent]})
        assert problems(batch) == {("events.0.type", "event_type_reserved")}


def test_a_batch_is_accepted_or_rejected_as_a_whole(port: int, operator: Client) -> None:
    accepted = operator.post("/v1/events/batch", {"events": [event(), event()]}, idempotency_key="b")
    assert accepted.status == 202
    ids = [item["id"] for item in accepted.json()["data"]]
    again = operator.post("/v1/events/batch", {"events": [event(), event()]}, idempotency_key="b")
    assert [item["id"] for item in again.json()["data"]] == ids
    assert again.headers["idempotency-replayed"] == "true"

    before = len(operator.get("/v1/events?limit=500")["data"])
    wrong = {"events": [event(), event(type="no.such"), event(data=1), event(account="acc_x")]}
    assert problems(operator.post("/v1/events/batch", wrong)) == {
        ("events.1.type", "event_type_unknown"),
        ("events.2.data", "type_object"),
        ("events.3.account", "account_unknown"),
    }
    for fields in ({"idempotency_key": "b/0"}, {"id": ids[1]}):
        conflict = operator.post(
            "/v1/events/batch", {"events": [event(), event(data={"object": {"id": "s_2"}}, **fields)]}
        )
        (field, used), *_ = fields.items()
        assert (conflict.status, conflict.json()["code"]) == (409, "idempotency_conflict")
        assert problems(conflict) == {(f"events.1.{field}", "idempotency_conflict")}
        assert f" {used} was already used" in conflict.json()["errors"][0]["message"]
        assert "the event at index 1" in conflict.json()["detail"]
    assert len(operator.get("/v1/events?limit=500")["data"]) == before

    assert problems(operator.post("/v1/events/batch", {"events": [event()]}, idempotency_key="")) == {
        ("Idempotency-Key", "idempotency_key_invalid")
    }
    for headers in ({}, {"idempotency_key": "c"}):
        sent = {"events": [event(), event(idempotency_key="")]}
        assert problems(operator.post("/v1/events/batch", sent, **headers)) == {
            ("events.1.idempotency_key", "idempotency_key_invalid")
        }
    for count in (0, 1001):
        assert problems(operator.post("/v1/events/batch", {"events": [event()] * count})) == {
            ("events", "events_count")
        }
    assert problems(operator.post("/v1/events/batch", {"evnts": []})) == {
        ("evnts", "unknown_field"),
        ("events", "required"),
    }
    without_account = Client(port, OPERATOR)
    named = event(account=operator._headers["uplift-account"])
    rejected = without_account.post("/v1/events/batch", {"events": [named, event(), event()]})
    assert (rejected.status, rejected.json()["code"]) == (422, "account_required")
    assert problems(rejected) == {("events.1.account", "account_required"), ("events.2.account", "account_required")}
    rejected = without_account.post("/v1/events/batch", {"events": [event(type="no.such", kind=1)]})
    assert rejected.json()["code"] == "validation_failed"
    assert problems(rejected) == {
        ("events.0.account", "account_required"),
        ("events.0.type", "event_type_unknown"),
        ("events.0.kind", "unknown_field"),
    }


def test_events_name_their_account_by_its_uid(port: int) -> None:
    """Covers the header and batches. If a uid moves to another account, later events go to that account."""
    operators, by_uid = Client(port, OPERATOR), Client(port, OPERATOR, "club-17")
    one = operators.post("/v1/accounts", {"name": "One", "uid": "club-17"}).json()["id"]
    two = operators.post("/v1/accounts", {"name": "Two", "uid": "club-18"}).json()["id"]
    first = by_uid.post("/v1/events", event()).json()["id"]
    batch = {"events": [event(account="club-17"), event(account="club-18"), event(account=two)]}
    sent = [each["id"] for each in operators.post("/v1/events/batch", batch).json()["data"]]
    of_one, of_two = (Client(port, OPERATOR, account).get("/v1/events")["data"] for account in (one, two))
    assert [each["id"] for each in of_one] == [sent[0], first]
    assert [each["id"] for each in of_two] == [sent[2], sent[1]]
    assert operators.delete(f"/v1/accounts/{one}").status == 204
    rejected = operators.post("/v1/events/batch", batch)
    assert problems(rejected) == {("events.0.account", "account_unknown")}
    assert "The account club-17 does not exist." in rejected.json()["errors"][0]["message"]
    assert by_uid.post("/v1/events", event()).json()["code"] == "not_found"
    three = operators.post("/v1/accounts", {"name": "Three", "uid": "club-17"}).json()["id"]
    moved = by_uid.post("/v1/events", event()).json()["id"]
    assert [each["id"] for each in Client(port, OPERATOR, three).get("/v1/events")["data"]] == [moved]


@pytest.mark.parametrize(("path", "batch"), [("/v1/events", False), ("/v1/events/batch", True)])
def test_too_many_deliveries_of_one_request_are_rejected(
    operator: Client, monkeypatch: pytest.MonkeyPatch, path: str, batch: bool
) -> None:
    monkeypatch.setattr("uplift_server.delivery.ingest.GROUP_ROWS_MAX", 0)
    rejected = operator.post(path, {"events": [event()]} if batch else event())
    assert (rejected.status, rejected.json()["code"]) == (413, "payload_too_large")


def test_every_problem_of_a_batch_is_reported_at_once(operator: Client) -> None:
    batch = {
        "more": 1,
        "events": [
            event(kind=1, data={"object": 1}, account="acc_x", expires_at="yesterday"),
            5,
            event(id=5, data=[], type="no.such"),
            {"idempotency_key": "a" * 300},
            event(),
        ],
    }
    assert problems(operator.post("/v1/events/batch", batch)) == {
        ("more", "unknown_field"),
        ("events.0.kind", "unknown_field"),
        ("events.0.data.object", "schema_mismatch"),
        ("events.0.account", "account_unknown"),
        ("events.0.expires_at", "instant_invalid"),
        ("events.1", "type_object"),
        ("events.2.id", "type_text"),
        ("events.2.data", "type_object"),
        ("events.2.type", "event_type_unknown"),
        ("events.3.type", "required"),
        ("events.3.data", "required"),
        ("events.3.idempotency_key", "idempotency_key_invalid"),
    }
    for events in ([], [event()] * 1001):
        assert problems(operator.post("/v1/events/batch", {"events": events, "more": 1})) == {
            ("events", "events_count"),
            ("more", "unknown_field"),
        }
    for body in ({"events": 5}, [event()]):
        assert problems(operator.post("/v1/events/batch", body)) == {("events", "required")}


def test_ingest_requires_permission_and_an_account(port: int, operator: Client) -> None:
    account = operator._headers["uplift-account"]
    without_account = Client(port, OPERATOR)
    assert without_account.post("/v1/events", event()).json()["code"] == "account_required"
    reader = without_account.post(f"/v1/accounts/{account}/keys", {"name": "r"}).json()["key"]
    assert Client(port, reader).post("/v1/events", event()).status == 403
    writer = without_account.post(f"/v1/accounts/{account}/keys", {"name": "w", "scopes": ["events:write"]}).json()[
        "key"
    ]
    assert Client(port, writer).post("/v1/events", event()).status == 202
    assert Client(port, reader).post("/v1/events/batch", {"events": [event()]}).status == 403
    assert Client(port, None).post("/v1/events", event()).status == 401
    assert Client(port, "sk_none").post("/v1/events", event()).status == 401
    text = operator.post("/v1/events", event(), content_type="text/plain")
    assert (text.status, text.json()["code"]) == (415, "unsupported_media_type")


def test_a_key_of_an_account_sends_batches_for_its_account_only(port: int, operator: Client) -> None:
    account, administrator = operator._headers["uplift-account"], Client(port, OPERATOR)
    other = administrator.post("/v1/accounts", {"name": "Other", "contact_emails": [], "uid": "other"}).json()["id"]
    key = {"name": "w", "scopes": ["events:write"]}
    writer = Client(port, administrator.post(f"/v1/accounts/{account}/keys", key).json()["key"])
    stored = writer.post("/v1/events/batch", {"events": [event(), event(account=account)]})
    assert stored.status == 202
    for each in stored.json()["data"]:
        assert operator.get(f"/v1/events/{each['id']}")["id"] == each["id"]
    # The error does not reveal whether the other account exists.
    for foreign in (other, "other", f"acc_{'0' * 32}"):
        rejected = writer.post("/v1/events/batch", {"events": [event(), event(account=foreign)]})
        assert problems(rejected) == {("events.1.account", "account_unknown")}
        assert "send events only for its account" in rejected.json()["errors"][0]["message"]
    assert Client(port, OPERATOR, other).get("/v1/events")["data"] == []
    large = {"events": [event(data={"object": {"id": "x" * 200_000}}) for _ in range(25)]}
    assert (writer.post("/v1/events/batch", large).status, operator.post("/v1/events/batch", large).status) == (
        413,
        202,
    )


def test_a_service_key_sends_events_and_batches_for_every_account(port: int, operator: Client) -> None:
    """The request names the account in the header or in each event. A key without `events:write` cannot send events."""
    account, administrator = operator._headers["uplift-account"], Client(port, OPERATOR)
    other = administrator.post("/v1/accounts", {"name": "Other", "contact_emails": []}).json()["id"]

    def with_scopes(*scopes: str) -> str:
        return str(administrator.post("/v1/keys", {"name": "capture", "scopes": [*scopes]}).json()["key"])

    writer = with_scopes("events:write")
    assert Client(port, writer, account).post("/v1/events", event()).status == 202
    assert Client(port, writer).post("/v1/events", event()).json()["code"] == "account_required"
    batch = {"events": [event(account=account), event(account=other), event(account=account)]}
    stored = Client(port, writer).post("/v1/events/batch", batch)
    assert stored.status == 202
    for each, owner in zip(stored.json()["data"], (account, other, account), strict=True):
        assert Client(port, OPERATOR, owner).get(f"/v1/events/{each['id']}")["id"] == each["id"]
    assert Client(port, writer, other).post("/v1/events/batch", {"events": [event()]}).status == 202
    assert Client(port, writer).post("/v1/events/batch", {"events": [event()]}).json()["code"] == "account_required"
    unknown = Client(port, writer).post("/v1/events/batch", {"events": [event(account=f"acc_{'0' * 32}")]})
    assert problems(unknown) == {("events.0.account", "account_unknown")}
    reader = with_scopes("events:read", "accounts:write")
    for path, body in (("/v1/events", event()), ("/v1/events/batch", batch)):
        refused = Client(port, reader, account).post(path, body)
        assert (refused.status, "events:write" in refused.json()["detail"]) == (403, True)


@pytest.mark.parametrize(
    "path", ["/v1/events", "/v1/events/batch", "/v1/endpoints", "/v1/listen-sessions/x/stream", "/"]
)
@pytest.mark.parametrize("header", ["Authorization", "Uplift-Account", "Host"])
def test_a_repeated_header_that_identifies_the_caller_is_rejected(
    operator: Client, port: int, path: str, header: str
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET" if "stream" in path else "POST", path, skip_host=True)
    values = {"Host": "x", "Authorization": f"Bearer {OPERATOR}", "Uplift-Account": "acc_x"}
    for name, value in values.items():
        connection.putheader(name, value)
    connection.putheader(header.lower(), values[header])
    if "stream" in path:
        for name, value in (("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")):
            connection.putheader(name, value)
        connection.putheader("Sec-WebSocket-Key", "dXBsaWZ0LWxpc3Rlbi0wMQ==")
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    response = connection.getresponse()
    problem = json.load(response)
    assert (response.status, problem["code"]) == (400, "duplicate_header")
    assert header in problem["detail"]
    connection.close()


def test_other_headers_may_be_repeated(operator: Client) -> None:
    assert operator.post("/v1/events", event(), x_forwarded_for="192.0.2.1, 192.0.2.2").status == 202
    connection_headers = {"forwarded": "for=192.0.2.1", "x-twice": "1", "X-Twice": "2"}
    assert operator.post("/v1/events", event(), **connection_headers).status == 202
