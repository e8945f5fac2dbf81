"""Limits on the schema of an event type: depth, size, references and cost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_server.core.events.schemas import check_depth, check_schema
from uplift_server.core.limits import JSON_DEPTH_MAX, SCHEMA_CHARACTERS_MAX, SCHEMA_PLACES_MAX

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["#", "#/$defs/a", "#/x/0", "#a"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["$ref", "$defs", "a", "x", "allOf", "$dynamicRef"]), inner, max_size=4)
    ),
    max_leaves=30,
)


def code(schema: Any) -> str | None:
    problem = check_schema(schema, json.dumps(schema))
    return None if problem is None else problem.code


def test_the_built_in_schemas_are_within_the_limits() -> None:
    assert [code(event_type.schema) for event_type in EVENT_TYPES] == [None] * len(EVENT_TYPES)


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_depth() -> None:
    assert check_depth(nested(JSON_DEPTH_MAX), "example") is None
    problem = check_depth([nested(JSON_DEPTH_MAX)], "example")
    assert problem is not None
    assert (problem.field, problem.code) == ("example", "too_deep")
    assert check_depth("text", "example") is None
    assert code(nested(JSON_DEPTH_MAX + 1)) == "too_deep"


def test_size() -> None:
    assert code({"description": "x" * SCHEMA_CHARACTERS_MAX}) == "schema_too_large"


def doubling(levels: int) -> Any:
    definitions: dict[str, Any] = {"l0": {"type": "object"}}
    for level in range(1, levels):
        below = {"$ref": f"#/$defs/l{level - 1}"}
        definitions[f"l{level}"] = {"allOf": [below, below]}
    return {"$ref": f"#/$defs/l{levels - 1}", "$defs": definitions}


def test_references_that_double_the_work_per_level_are_too_complex() -> None:
    assert code(doubling(5)) is None
    assert code(doubling(30)) == "schema_too_complex"


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"tree": {"properties": {"left": {"$ref": "#/$defs/tree"}}}}, "$ref": "#/$defs/tree"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$anchor": "x", "items": {"$dynamicRef": "#x"}}}},
        {"$ref": "#/a~1b/0/~0", "a/b": [{"~": {"type": "string"}}]},
        {"$ref": 5},
        {"allOf": [{"properties": {"children": {"items": {"$ref": "#"}}}}]},
        {"oneOf": [{"$ref": "#/$defs/a"}, {"type": "null"}], "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}},
        True,
    ],
)
def test_recursions_outside_of_alternatives_are_accepted(schema: Any) -> None:
    assert code(schema) is None


NODE: Any = {"$ref": "#/$defs/node"}


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
@pytest.mark.parametrize("other", [{"type": "null"}, {"const": 1}, {"enum": ["a"]}, True])
def test_an_optional_reference_to_itself_is_accepted(keyword: str, other: Any) -> None:
    node = {"properties": {"parent": {keyword: [NODE, other], "default": None, "description": "The parent."}}}
    assert code({**NODE, "$defs": {"node": node}}) is None
    assert code({"properties": {"child": {keyword: [{"items": NODE}, other]}}, "$defs": {"node": node}}) is None


@pytest.mark.parametrize(
    "node",
    [
        {"properties": {"parent": {"anyOf": [NODE, {"properties": {"a": True}, "items": {"type": "null"}}]}}},
        {"properties": {"parent": {"anyOf": [NODE, {"$ref": "#/$defs/other"}]}}},
        {"properties": {"parent": {"anyOf": [NODE, {"type": "null"}], "unevaluatedProperties": False}}},
        {"anyOf": [NODE, {"type": "null"}]},
        {"anyOf": [{"allOf": [NODE, NODE]}, {"type": "null"}]},
    ],
)
def test_a_recursion_that_can_repeat_work_is_rejected(node: Any) -> None:
    assert code({**NODE, "$defs": {"node": node, "other": {"items": {"type": "string"}}}}) == "schema_recursive"


@pytest.mark.parametrize("keyword", ["oneOf", "anyOf", "not", "if", "then", "else"])
def test_recursion_below_alternatives_is_rejected(keyword: str) -> None:
    below = {"properties": {"child": {"$ref": "#/$defs/node"}}}
    other = {"items": {"type": "null"}}
    node = {keyword: [below, other] if keyword in {"oneOf", "anyOf"} else below}
    problem = check_schema({"$ref": "#/$defs/node", "$defs": {"node": node}}, "")
    assert problem is not None
    assert problem.code == "schema_recursive"
    assert f"`{keyword}`" in problem.message


@pytest.mark.parametrize(
    "reference",
    ["#missing", "#/a/9", "#/a/b/c", "https://example.com/schema", "https://json-schema.org/draft/2020-12/schema"],
)
def test_references_to_other_documents_are_rejected(reference: str) -> None:
    problem = check_schema({"items": {"$ref": reference}, "a": []}, "")
    assert problem is not None
    assert problem.code == "schema_invalid"
    assert reference in problem.message


def test_a_schema_with_unbounded_cost_is_too_complex() -> None:
    schema: Any = {"unevaluatedProperties": {"type": "integer"}}
    for _ in range(16):
        schema = {"allOf": [schema], "unevaluatedProperties": {"type": "integer"}}
    assert code(schema) == "schema_too_complex"


@given(JSON)
def test_any_json_is_checked(schema: Any) -> None:
    assert code(schema) in {None, "schema_too_complex", "schema_invalid", "schema_recursive", "too_deep"}


def test_the_number_of_places_is_limited() -> None:
    assert code({"enum": list(range(SCHEMA_PLACES_MAX - 2))}) is None
    assert code({"enum": list(range(SCHEMA_PLACES_MAX))}) == "schema_too_complex"
