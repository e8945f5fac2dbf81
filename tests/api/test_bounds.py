"""Limits of one request, so that it cannot delay other callers."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from uplift_server.core.cursors import Cursors
from uplift_server.store.encryption import derived_key

from .test_ingest import PROCESS_KEY, Client, event, operator, port, problems  # noqa: F401 - fixtures


def doubling(levels: int) -> Any:
    """Return a schema that expands to 2 ** levels places."""
    definitions: dict[str, Any] = {"l0": {"type": "object"}}
    for level in range(1, levels):
        below = {"$ref": f"#/$defs/l{level - 1}"}
        definitions[f"l{level}"] = {"allOf": [below, below]}
    return {"$ref": f"#/$defs/l{levels - 1}", "$defs": definitions}


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_schemas_that_would_stop_the_server_are_rejected(operator: Client) -> None:  # noqa: F811
    refused = operator.put("/v1/event-types/evil.one", {"description": "x", "schema": doubling(30)})
    assert problems(refused) == {("schema", "schema_too_complex")}
    refused = operator.put("/v1/event-types/evil.two", {"description": "x", "example": nested(900)})
    assert problems(refused) == {("example", "too_deep")}
    assert operator.get("/v1/event-types?limit=500")["data"]


def choices(count: int) -> Any:
    return {"properties": {"v": {"items": {"anyOf": [{"const": f"x{number}"} for number in range(count)]}}}}


@pytest.mark.timing
def test_data_that_does_not_match_alternatives_is_rejected_quickly(operator: Client) -> None:  # noqa: F811
    """The details of all branches of all items would take minutes and gigabytes."""
    assert operator.put("/v1/event-types/choice.made", {"description": "x", "schema": choices(1500)}).status in {
        200,
        201,
    }
    for items, code in ((2_600, "not_checkable"), (40, "schema_mismatch")):
        began = time.monotonic()
        refused = operator.post("/v1/events", {"type": "choice.made", "data": {"v": ["none"] * items}})
        assert problems(refused) == {("data", code)}
        assert time.monotonic() - began < 1


def test_recursion_below_alternatives_is_rejected(operator: Client) -> None:  # noqa: F811
    node = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}}
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"oneOf": [node, node | {"required": ["b"]}]}}}
    refused = operator.put("/v1/event-types/evil.three", {"description": "x", "schema": schema})
    assert problems(refused) == {("schema", "schema_recursive")}


def test_patterns_that_need_backtracking_are_rejected(operator: Client) -> None:  # noqa: F811
    for pattern in (r"^(?=.*[0-9]).{8,}$", r"^(a|b)\1$", r"(?<!x)y"):
        schema = {"properties": {"code": {"pattern": pattern}}}
        refused = operator.put("/v1/event-types/evil.four", {"description": "x", "schema": schema})
        assert problems(refused) == {("schema", "pattern_unsupported")}, pattern
    schema = {"properties": {"code": {"pattern": r"^[A-Z]{2,5}-\d+$"}}}
    assert operator.put("/v1/event-types/good.one", {"description": "x", "schema": schema}).status == 201


def test_deep_data_is_rejected_without_a_defect(operator: Client) -> None:  # noqa: F811
    deep = json.dumps({"object": nested(900)})
    answer = operator.post("/v1/events", b'{"type":"movement.analytics.created","data":%b}' % deep.encode())
    assert answer.status in {202, 422}


@pytest.mark.timing
def test_data_with_very_many_problems_is_rejected_quickly(operator: Client) -> None:  # noqa: F811
    data = {"object": {"id": "a", "positions": [1] * 60_000}}
    began = time.monotonic()
    refused = operator.post("/v1/events", {"type": "athlete.created", "data": data})
    assert refused.status == 422
    assert 1 <= len(refused.json()["errors"]) <= 20
    assert time.monotonic() - began < 1


@pytest.mark.timing
def test_events_with_very_many_unknown_fields_are_rejected_quickly(operator: Client) -> None:  # noqa: F811
    unknown = b",".join(b'"f%d":1' % n for n in range(20_000))
    one = b'{"type":"athlete.created","data":{},%b}' % unknown
    for path, body in (("/v1/events", one), ("/v1/events/batch", b'{"events":[%b]}' % b",".join([one] * 30))):
        began = time.monotonic()
        refused = json.loads(operator.post(path, body).data)
        assert time.monotonic() - began < 1
        assert len(refused["errors"]) == 100
        assert {each["code"] for each in refused["errors"]} == {"unknown_field"}


@pytest.mark.timing
def test_the_problems_of_a_body_with_very_many_lists_are_reported_quickly(operator: Client) -> None:  # noqa: F811
    body = b'{"type":5,"data":{},"x":[%b1]}' % (b"[]," * 80_000)
    began = time.monotonic()
    assert problems(operator.post("/v1/events", body)) == {("type", "type_text"), ("x", "unknown_field")}
    assert time.monotonic() - began < 1


@pytest.mark.timing
def test_a_batch_that_takes_long_to_check_leaves_room_for_others(operator: Client) -> None:  # noqa: F811
    """Checks of a batch take seconds in total. Other requests run in between."""
    schema = {"properties": {"v": {"items": {"enum": [1.5, 2.5, {"a": 1.5}]}}}}
    assert operator.put("/v1/event-types/slow.checks", {"description": "x", "schema": schema}).status == 201
    slow = {"type": "slow.checks", "data": {"v": [2.5] * 1_500}}
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(operator.post, "/v1/events/batch", {"events": [slow] * 400})
        waits = []
        while not batch.done():
            began = time.monotonic()
            operator.get("/v1/event-types?limit=1")
            waits.append(time.monotonic() - began)
    assert batch.result().status == 202
    assert max(waits) < 1


def test_equal_ids_in_one_batch_are_one_event(operator: Client) -> None:  # noqa: F811
    chosen = "0197f0c2-a1b2-4c3d-8e4f-0123456789ab"
    answer = operator.post("/v1/events/batch", {"events": [event(id=chosen)] * 3}).json()["data"]
    assert [item["duplicate"] for item in answer] == [False, True, True]


def test_an_invalid_cursor_is_rejected(operator: Client) -> None:  # noqa: F811
    encode = Cursors(derived_key(PROCESS_KEY, "cursors")).encode
    assert operator.get(f"/v1/events?cursor={encode([1])}")["data"] == []
    for number in (-(2**63), 2**63 - 1):
        for order in ("asc", "desc"):
            answer = operator.get(f"/v1/events?order={order}&cursor={encode([number])}")
            assert answer["code"] == "validation_failed"
