"""Limits of a single request, which prevent delays of other requests."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from uplift_server.core.cursors import Cursors
from uplift_server.store.encryption import derived_key

from .test_ingest import PROCESS_KEY, Client, event, operator, port, problems  # noqa: F401 - fixtures


def doubling_schema(levels: int) -> Any:
    """Return a schema that expands to 2 ** levels subschemas."""
    definitions: dict[str, Any] = {"l0": {"type": "object"}}
    for level in range(1, levels):
        below = {"$ref": f"#/$defs/l{level - 1}"}
        definitions[f"l{level}"] = {"allOf": [below, below]}
    return {"$ref": f"#/$defs/l{levels - 1}", "$defs": definitions}


def nested_object(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_schemas_that_would_block_the_server_are_rejected(operator: Client) -> None:  # noqa: F811
    rejected = operator.put("/v1/event-types/evil.one", {"description": "x", "schema": doubling_schema(30)})
    assert problems(rejected) == {("schema", "schema_too_complex")}
    rejected = operator.put("/v1/event-types/evil.two", {"description": "x", "example": nested_object(900)})
    assert problems(rejected) == {("example", "too_deep")}
    assert operator.get("/v1/event-types?limit=500")["data"]


def schema_with_alternatives(count: int) -> Any:
    return {"properties": {"v": {"items": {"anyOf": [{"const": f"x{number}"} for number in range(count)]}}}}


@pytest.mark.timing
def test_data_that_does_not_match_alternatives_is_rejected_quickly(operator: Client) -> None:  # noqa: F811
    """Details about each branch of each item would take minutes and gigabytes."""
    assert operator.put(
        "/v1/event-types/choice.made", {"description": "x", "schema": schema_with_alternatives(1500)}
    ).status in {
        200,
        201,
    }
    for items, code in ((2_600, "not_checkable"), (40, "schema_mismatch")):
        began = time.process_time()
        rejected = operator.post("/v1/events", {"type": "choice.made", "data": {"v": ["none"] * items}})
        assert problems(rejected) == {("data", code)}
        assert time.process_time() - began < 1


def test_recursion_below_alternatives_is_rejected(operator: Client) -> None:  # noqa: F811
    node = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}}
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"oneOf": [node, node | {"required": ["b"]}]}}}
    rejected = operator.put("/v1/event-types/evil.three", {"description": "x", "schema": schema})
    assert problems(rejected) == {("schema", "schema_recursive")}


def test_patterns_that_need_backtracking_are_rejected(operator: Client) -> None:  # noqa: F811
    for pattern in (r"^(?=.*[0-9]).{8,}$", r"^(a|b)\1$", r"(?<!x)y"):
        schema = {"properties": {"code": {"pattern": pattern}}}
        rejected = operator.put("/v1/event-types/evil.four", {"description": "x", "schema": schema})
        assert problems(rejected) == {("schema", "pattern_unsupported")}, pattern
    schema = {"properties": {"code": {"pattern": r"^[A-Z]{2,5}-\d+$"}}}
    assert operator.put("/v1/event-types/good.one", {"description": "x", "schema": schema}).status == 201


def test_deeply_nested_data_causes_no_server_error(operator: Client) -> None:  # noqa: F811
    deep = json.dumps({"object": nested_object(900)})
    response = operator.post("/v1/events", b'{"type":"movement.analytics.created","data":%b}' % deep.encode())
    assert response.status in {202, 422}


@pytest.mark.timing
def test_data_with_many_problems_is_rejected_quickly(operator: Client) -> None:  # noqa: F811
    data = {"object": {"id": "a", "positions": [1] * 60_000}}
    began = time.process_time()
    rejected = operator.post("/v1/events", {"type": "athlete.created", "data": data})
    assert rejected.status == 422
    assert 1 <= len(rejected.json()["errors"]) <= 20
    assert time.process_time() - began < 1


@pytest.mark.timing
def test_events_with_many_unknown_fields_are_rejected_quickly(operator: Client) -> None:  # noqa: F811
    unknown = b",".join(b'"f%d":1' % n for n in range(20_000))
    one = b'{"type":"athlete.created","data":{},%b}' % unknown
    for path, body in (("/v1/events", one), ("/v1/events/batch", b'{"events":[%b]}' % b",".join([one] * 30))):
        began = time.process_time()
        rejected = json.loads(operator.post(path, body).data)
        assert time.process_time() - began < 1
        assert len(rejected["errors"]) == 100
        assert {each["code"] for each in rejected["errors"]} == {"unknown_field"}


@pytest.mark.timing
def test_a_body_with_many_lists_is_rejected_quickly(operator: Client) -> None:  # noqa: F811
    body = b'{"type":5,"data":{},"x":[%b1]}' % (b"[]," * 80_000)
    began = time.process_time()
    assert problems(operator.post("/v1/events", body)) == {("type", "type_text"), ("x", "unknown_field")}
    assert time.process_time() - began < 1


@pytest.mark.timing
def test_a_slow_batch_does_not_block_other_requests(operator: Client) -> None:  # noqa: F811
    """The checks of the batch take seconds in total. Other requests run between them."""
    schema = {"properties": {"v": {"items": {"enum": [1.5, 2.5, {"a": 1.5}]}}}}
    assert operator.put("/v1/event-types/slow.checks", {"description": "x", "schema": schema}).status == 201
    slow = {"type": "slow.checks", "data": {"v": [2.5] * 1_500}}
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(operator.post, "/v1/events/batch", {"events": [slow] * 400})
        durations = []
        while not batch.done():
            began = time.monotonic()
            operator.get("/v1/event-types?limit=1")
            durations.append(time.monotonic() - began)
    assert batch.result().status == 202
    assert max(durations) < 1


def test_equal_ids_in_one_batch_are_one_event(operator: Client) -> None:  # noqa: F811
    event_id = "0197f0c2-a1b2-4c3d-8e4f-0123456789ab"
    response = operator.post("/v1/events/batch", {"events": [event(id=event_id)] * 3}).json()["data"]
    assert [item["duplicate"] for item in response] == [False, True, True]


def test_an_invalid_cursor_is_rejected(operator: Client) -> None:  # noqa: F811
    encode = Cursors(derived_key(PROCESS_KEY, "cursors")).encode
    assert operator.get(f"/v1/events?cursor={encode([1])}")["data"] == []
    for number in (-(2**63), 2**63 - 1):
        for order in ("asc", "desc"):
            response = operator.get(f"/v1/events?order={order}&cursor={encode([number])}")
            assert response["code"] == "validation_failed"
