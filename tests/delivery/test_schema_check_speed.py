"""Large ordinary events pass the schema check quickly."""

import json
import time
from typing import Any

import jsonschema_rs
import pytest

from uplift_server.core.events.schemas import check_schema
from uplift_server.core.limits import EVENT_DATA_BYTES_MAX
from uplift_server.delivery.endpoint_cache import LiveEventType

from .test_endpoint_cache import event_type

CHECK_SECONDS_MAX = 0.05
SLACK = 5

KINDS = ["pass", "shot", "foul", "corner", "throw", "card", "goal", "sub"]
NUMBER = {"type": "number"}
TEXT = {"type": "string", "maxLength": 100}
NULL = {"type": "null"}


def a_list(items: Any, **definitions: Any) -> Any:
    return {"type": "object", "properties": {"items": {"type": "array", "items": items}}, "$defs": definitions}


def match_event(kind: str, *, is_kind_first: bool) -> Any:
    rest = {"x": NUMBER, "y": NUMBER, "note": TEXT}
    known = {"kind": {"const": kind}}
    properties = known | rest if is_kind_first else rest | known
    return {"type": "object", "required": ["kind", "x", "y"], "properties": properties}


def match_events(count: int) -> Any:
    return {"items": [{"x": 1.5, "y": 2.5, "note": "ok", "kind": KINDS[n % 8]} for n in range(count)]}


def block(number: int) -> Any:
    """Return the schema of one kind of block, as pydantic generates it for a discriminated union."""
    properties = {f"field_{number}_{n}": {"anyOf": [TEXT, NULL], "default": None} for n in range(8)}
    kind = {"const": f"block_{number}", "title": "Kind", "type": "string"}
    return {"type": "object", "title": "Block", "properties": {**properties, "kind": kind}, "required": ["kind"]}


BLOCKS = {f"Block{n}": block(n) for n in range(20)}
EITHER = [
    {"properties": {"k": {"const": "x"}, "v": NUMBER}, "required": ["k"]},
    {"properties": {"k": {"const": "y"}, "v": {"type": "string"}}, "required": ["k"]},
]
UNEVALUATED = {
    "type": "object",
    "allOf": [{"properties": {"a": {"type": "string"}}}, {"$ref": "#/$defs/b"}],
    "unevaluatedProperties": False,
    "$defs": {"b": {"properties": {"items": {"type": "array", "items": {"oneOf": EITHER}}}}},
}
ORDER_LINE = {
    "type": "object",
    "properties": {"price": {"type": "number", "multipleOf": 0.01}, "qty": {"type": "integer", "minimum": 1}},
}
POSITION = {"type": "array", "prefixItems": [{"type": "number", "minimum": -180, "maximum": 180}] * 2, "items": False}
SAMPLE = {
    "type": "object",
    "required": ["t"],
    "additionalProperties": False,
    "properties": {
        "t": {"type": "integer", "minimum": 0},
        **{name: {"minimum": -10.5, "maximum": 10.5} for name in "xyz"},
    },
}
ACCOUNT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^acct_[0-9a-f]{12}$"},
        "status": {"enum": ["active", "paused", "closed", None]},
        "tier": {"enum": list(range(50))},
        "email": {"type": "string", "pattern": r"^[^@\s]+@[^@\s]+\.[^@\s]+$"},
        "parent": {"anyOf": [{"type": "string"}, NULL]},
    },
    "required": ["id", "status", "email"],
    "additionalProperties": False,
}
TREE = {
    "type": "object",
    "properties": {"name": TEXT, "next": {"anyOf": [{"$ref": "#/$defs/tree"}, NULL]}, "size": {"minimum": 0}},
}
SHAPE = {
    "oneOf": [
        {"properties": {"radius": {"type": "number", "minimum": 0}}, "required": ["radius"]},
        {"properties": {"width": NUMBER, "height": NUMBER}, "required": ["width", "height"]},
        {"properties": {"points": {"type": "array", "items": NUMBER}}, "required": ["points"]},
    ]
}
CONDITIONS = {
    "type": "object",
    "allOf": [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"required": ["x"], "properties": {"x": NUMBER, "y": NUMBER}},
        }
        for kind in KINDS
    ],
}


SHAPES = [{"radius": 1.5}, {"width": 2, "height": 3}, {"points": [1, 2]}]
EVENTS = {
    "kinds": (a_list({"oneOf": [match_event(kind, is_kind_first=True) for kind in KINDS]}), match_events(4_000)),
    "kinds, last": (a_list({"oneOf": [match_event(kind, is_kind_first=False) for kind in KINDS]}), match_events(4_000)),
    "kinds, anyOf": (a_list({"anyOf": [match_event(kind, is_kind_first=True) for kind in KINDS]}), match_events(4_000)),
    "kinds, if": (a_list(CONDITIONS), match_events(4_000)),
    "kinds, many": (
        a_list({"oneOf": [{"$ref": f"#/$defs/{name}"} for name in BLOCKS]}, **BLOCKS),
        {
            "items": [
                {"kind": f"block_{n % 20}", **{f"field_{n % 20}_{m}": "text" for m in range(8)}} for n in range(1_200)
            ]
        },
    ),
    "kinds, unevaluated": (
        UNEVALUATED,
        {"a": "b", "items": [{"k": "x", "v": 1} if n % 2 else {"k": "y", "v": "s"} for n in range(9_000)]},
    ),
    "order lines": (a_list(ORDER_LINE), {"items": [{"price": n * 37 / 100, "qty": 3} for n in range(8_000)]}),
    "positions": (a_list(POSITION), {"items": [[n / 100_000, n / 90_000] for n in range(8_000)]}),
    "samples": (a_list(SAMPLE), {"items": [{"t": n, "x": n / 7e3, "y": 0.25, "z": 1.5} for n in range(4_000)]}),
    "accounts": (
        a_list(ACCOUNT),
        {
            "items": [
                {"id": f"acct_{n:012x}", "status": "active", "tier": 7, "email": "a.b@example.com", "parent": None}
                for n in range(2_200)
            ]
        },
    ),
    "trees": (
        a_list({"$ref": "#/$defs/tree"}, tree=TREE),
        {"items": [{"name": "a", "next": {"name": "b", "size": 2, "next": None}}] * 4_500},
    ),
    "shapes": (a_list(SHAPE), {"items": [SHAPES[n % 3] for n in range(10_000)]}),
    "map": (
        {"type": "object", "additionalProperties": {"anyOf": [TEXT, NUMBER, {"type": "boolean"}, NULL]}},
        {f"key_{n}": [n, "text", True, None][n % 4] for n in range(14_000)},
    ),
    "unique ids": (
        {"type": "object", "properties": {"ids": {"type": "array", "uniqueItems": True, "items": TEXT}}},
        {"ids": [f"0197f0c2-a1b2-4c3d-8e4f-{n:012x}" for n in range(6_000)]},
    ),
    "text": ({"properties": {"text": {"type": "string", "pattern": "\\S"}}}, {"text": "hello world " * 20_000}),
}


@pytest.mark.parametrize("name", EVENTS)
def test_a_large_ordinary_event_is_accepted(name: str) -> None:
    schema, data = EVENTS[name]
    text = json.dumps(schema)
    assert check_schema(schema, text) is None
    event = json.dumps(data, separators=(",", ":")).encode()
    assert 100_000 < len(event) <= EVENT_DATA_BYTES_MAX
    live = LiveEventType(event_type(schema=text))
    # Use the quickest of three checks, because the garbage collector may run during one.
    assert min(_check_seconds(live, event) for _ in range(3)) < CHECK_SECONDS_MAX * SLACK
    jsonschema_rs.Draft202012Validator(schema).validate(data)


def _check_seconds(live: LiveEventType, event: bytes) -> float:
    began = time.thread_time()
    assert live.problems(event) == []
    return time.thread_time() - began
