"""Schemas and data cannot block the event loop: checks and error details are bounded, even for stored schemas."""

import gc
import json
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uplift_server.core.limits import SCHEMA_PROBLEMS_MAX
from uplift_server.core.problems import Problem
from uplift_server.delivery.endpoint_cache import LiveEventType, compile_schema

from .test_endpoint_cache import event_type

CHECK_SECONDS_MAX = 0.05
SLACK = 5


def check(schema: Any, data: Any) -> list[Problem]:
    live = LiveEventType(event_type(schema=json.dumps(schema)))
    text = data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode()
    # As in the server, the garbage collector ignores objects that were created earlier.
    gc.freeze()
    began = time.thread_time()
    found = live.problems(text)
    seconds = time.thread_time() - began
    gc.unfreeze()
    assert seconds < CHECK_SECONDS_MAX * SLACK
    return found


def codes(schema: Any, data: Any) -> set[str]:
    return {problem.code for problem in check(schema, data)}


def values_of(items: Any) -> Any:
    return {"additionalProperties": {"items": items}}


def nested(levels: int, leaf: Any) -> Any:
    for _ in range(levels):
        leaf = {"a": leaf}
    return leaf


def either(levels: int, **keywords: Any) -> Any:
    schema: Any = {"properties": {"a": True}, **keywords}
    for _ in range(levels):
        schema = {"anyOf": [schema, {"minProperties": 1}], **keywords}
    return schema


NODE = {"$ref": "#/$defs/n"}
OBJECT = {"type": "object", "properties": {"a": NODE}}
RECURSIVE_ONE_OF = {"$defs": {"n": {"oneOf": [OBJECT, OBJECT | {"required": ["b"]}]}}, **NODE}
RECURSIVE_TWICE = {"$defs": {"n": {"allOf": [OBJECT, {"properties": {"a": {"minProperties": 0, **NODE}}}]}}, **NODE}
UNIQUE = {"$defs": {"u": {"uniqueItems": True, "items": {"$ref": "#/$defs/u"}}}, **values_of({"$ref": "#/$defs/u"})}
BITS = "".join(random.Random(1).choices("01", k=200_000))
UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


def wide(levels: int) -> Any:
    numbers: Any = list(range(20_000))
    for _ in range(levels):
        numbers = [numbers, *range(16)]
    return {"v": numbers}


@pytest.mark.parametrize(
    ("schema", "data", "expected"),
    [
        (RECURSIVE_ONE_OF, nested(18, 3), {"schema_mismatch"}),
        (RECURSIVE_ONE_OF, nested(400, 3), {"schema_mismatch"}),
        (RECURSIVE_TWICE, nested(40, 3), {"schema_mismatch"}),
        (values_of({"anyOf": [{"const": n} for n in range(1500)]}), {"v": [9999] * 3000}, {"not_checkable"}),
        (values_of({"anyOf": [{"const": n} for n in range(1500)]}), {"v": [1499] * 3000}, {"not_checkable"}),
        (values_of({"anyOf": [{"const": str(n)} for n in range(1500)]}), {"v": ["x"] * 40}, {"schema_mismatch"}),
        (values_of({"oneOf": [{"minimum": n + 0.5} for n in range(900)]}), {"v": [0.1] * 3000}, {"not_checkable"}),
        (values_of({"enum": [f"x{n}" for n in range(4000)]}), {"v": ["x3999"] * 20_000}, set()),
        (values_of({"enum": [{"x": n} for n in range(1000)]}), {"v": [{"x": 999}] * 20_000}, {"not_checkable"}),
        (values_of({"enum": list(range(50))}), {"v": [n + 0.5 for n in range(20_000)]}, {"not_checkable"}),
        (values_of({"const": list(range(4_000))}), {"v": [list(range(4_000))]}, set()),
        ({"additionalProperties": {"uniqueItems": True}}, {"v": list(range(40_000))}, set()),
        ({"additionalProperties": {"uniqueItems": True}}, {"v": [2**70 + n for n in range(8_000)]}, {"not_checkable"}),
        (UNIQUE, wide(0), set()),
        (UNIQUE, wide(100), {"not_checkable"}),
        (values_of({"type": "number"}), {"v": [10**600 + n for n in range(400)]}, set()),
        (values_of({"multipleOf": 0.3}), {"v": [10**600 + n for n in range(400)]}, {"schema_mismatch"}),
        (values_of({"not": {"multipleOf": 0.3}}), {"v": [(n + 1) * 1e-300 for n in range(15_000)]}, {"not_checkable"}),
        (values_of({"not": {"enum": [1, 2]}}), {"v": [(n + 1) * 1e-300 for n in range(15_000)]}, {"not_checkable"}),
        (values_of({"uniqueItems": True}), {"v": [[n / 10 for n in range(15)]] * 3_500}, {"not_checkable"}),
        (values_of({"uniqueItems": True}), {"v": [[n * 1e-300 for n in range(15)]] * 50}, {"not_checkable"}),
        ({"additionalProperties": {"uniqueItems": True}}, {"v": [n / 10 for n in range(30_000)]}, set()),
        (values_of({"type": "number"}), b'{"v":[1' + b"0" * 4000 + b"]}", {"not_checkable"}),
        (values_of({"type": "number"}), {"v": [n / 7 for n in range(13_000)]}, set()),
        (values_of({"type": "integer"}), {"v": [1] * 128_000}, set()),
        (values_of({"maximum": 1.5}), {"v": [n / 30_000 for n in range(3_000)]}, set()),
        (values_of({"multipleOf": 0.01}), {"v": [n / 100 for n in range(37_000)]}, {"not_checkable"}),
        (values_of({"properties": {f"k{n}": {} for n in range(300)}}), {"v": [{}] * 80_000}, set()),
        (values_of({"type": "array"}), {"v": [[]] * 80_000}, set()),
        (values_of({"required": [f"k{n}" for n in range(900)]}), {"v": [{}] * 100}, {"schema_mismatch"}),
        (values_of({"contains": {"const": 1}}), {"v": [[0] * 40] * 3_000}, {"not_checkable", "schema_mismatch"}),
        (values_of({"pattern": UUID}), {"v": ["0197f0c2-a1b2-4c3d-8e4f-0123456789ab"] * 6_000}, set()),
        ({"additionalProperties": {"pattern": "1[01]{900}x"}}, {"v": BITS}, {"not_checkable"}),
        ({"additionalProperties": {"pattern": "(0|1|01)*y|1.{30}x"}}, {"v": BITS[:9_000]}, {"schema_mismatch"}),
        ({"patternProperties": {"1[01]{100}x": True}}, {BITS[n : n + 300]: 1 for n in range(800)}, {"not_checkable"}),
        ({"propertyNames": {"pattern": "1[01]{100}x"}}, {BITS[n : n + 300]: 1 for n in range(800)}, {"not_checkable"}),
        (either(8, unevaluatedProperties={"type": "null"}), {str(n): n for n in range(3_000)}, {"not_checkable"}),
        (
            {"dependentSchemas": {str(n): {"required": [str(n)]} for n in range(500)}},
            {str(n): n for n in range(20_000)},
            set(),
        ),
    ],
)  # fmt: skip
def test_every_check_is_fast(schema: Any, data: Any, expected: set[str]) -> None:
    found = codes(schema, data)
    assert found <= expected
    assert bool(found) is bool(expected)


KEYWORDS = ["allOf", "anyOf", "oneOf"]
LEAVES = st.sampled_from(
    [
        True,
        {},
        {"type": "string"},
        {"type": ["integer", "null"]},
        {"minimum": 0.5, "multipleOf": 0.1},
        {"enum": [1, 2.5, "a", None, {"a": [1]}]},
        {"anyOf": [{"const": n} for n in range(100)]},
        {"oneOf": [{"properties": {"a": {"const": kind}, "b": {"multipleOf": 0.1}}} for kind in ("a", "b", "c")]},
        {"pattern": "(a|b)*c{1,50}"},
        {"uniqueItems": True},
        {"required": ["a", "b", "c"]},
        {"$ref": "#"},
        {"$dynamicRef": "#node"},
        {"unevaluatedProperties": {"type": "integer"}, "unevaluatedItems": False},
    ]
)


def _combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    many = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys([*KEYWORDS, "prefixItems"], many),
            **dict.fromkeys(["properties", "patternProperties", "dependentSchemas"], named),
            **dict.fromkeys(
                ["items", "contains", "additionalProperties", "unevaluatedProperties", "unevaluatedItems"], inner
            ),
            **dict.fromkeys(["not", "if", "then", "else", "propertyNames"], inner),
            "uniqueItems": st.just(True),
            "$dynamicAnchor": st.just("node"),
        },
    )


SCHEMAS = st.recursive(LEAVES, _combined, max_leaves=12)
VALUES = st.recursive(
    st.sampled_from([1, -3, 2.5, 1e-300, 2**80, "a", "ab" * 50, None, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)


def _large(value: Any, repeats: int, levels: int) -> Any:
    """Return data that contains the value many times, at several levels, within the size limit of an event."""
    count = min(repeats, 30_000 // len(json.dumps(value)))
    grown: Any = [value] * max(1, count)
    for level in range(levels):
        grown = {"a": grown, "b": value} if level % 2 else [grown, value]
    return {"a": grown, "b": [grown], **{f"c{n}": value for n in range(count // 10)}}


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, VALUES, st.integers(0, 20_000), st.integers(0, 30))
def test_no_schema_blocks_the_event_loop(schema: Any, value: Any, repeats: int, levels: int) -> None:
    """This includes schemas that only earlier releases accepted."""
    try:
        compile_schema(json.dumps(schema))
    except ValueError:
        return
    assert len(check(schema, _large(value, repeats, levels))) <= SCHEMA_PROBLEMS_MAX


def test_slow_error_details_are_omitted() -> None:
    schema = values_of({"anyOf": [{"const": f"x{number}"} for number in range(200)]})
    (few,) = check(schema, {"v": ["y"]})
    assert few.field == "data.v.0"
    (many,) = check(schema, {"v": ["y"] * 100})
    assert (many.field, many.code) == ("data", "schema_mismatch")


def test_stored_patterns_that_backtrack_still_work() -> None:
    schema = {"properties": {"code": {"pattern": r"^(?=.*[0-9])(a|b)+\1[0-9]$"}}}
    with pytest.raises(ValueError, match="regex"):
        compile_schema(json.dumps(schema))
    assert codes(schema, {"code": "abb7"}) == set()
    assert codes(schema, {"code": "abb"}) == {"schema_mismatch"}
    assert codes(schema, {"code": "ab" * 100_000}) == {"not_checkable"}
    assert codes({"additionalProperties": {"pattern": r"^((a+)+)\1$"}}, {"v": "a" * 9_000 + "b"}) == {"schema_mismatch"}
