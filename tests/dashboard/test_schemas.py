"""Schemas as trees: nodes, constraints and limits."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_server.dashboard.schemas import DEPTH_MAX, NODES_MAX, Node, tree


def read(schema: Any) -> Node:
    """Return the tree of a schema."""
    return tree(json.dumps(schema))


def lines(node: Node, depth: int = 0) -> list[str]:
    """Return a tree as text."""
    own = f"{'  ' * depth}{node.name}: {node.kind}{' required' if node.required else ''}"
    own += "".join(f"; {note}" for note in node.notes)
    return [own, *(line for child in node.children for line in lines(child, depth + 1))]


def test_objects_arrays_and_alternatives_are_shown() -> None:
    schema = {
        "required": ["a"],
        "properties": {
            "a": {"type": ["string", "null"], "description": "First.", "enum": ["x", 1, None], "maxLength": 5},
            "b": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "number", "minimum": 0}}}},
            "d": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
            "e": {"anyOf": [{"type": "boolean"}, {"const": 3}]},
            "f": {"type": "array", "prefixItems": [{"type": "string", "format": "date"}]},
        },
        "additionalProperties": {"type": "string"},
        "patternProperties": {"^x-": True},
    }
    assert lines(read(schema)) == [
        "data: object required",
        "  a: string or null required; one of x, 1, null; maximum length 5",
        "  b: array of object",
        "    each item: object",
        "      c: number; at least 0",
        "  d: array of integer; minimum items 1",
        "  e: anything",
        "    any of, 1: boolean",
        "    any of, 2: anything; constant 3",
        "  f: array",
        "    item 1: string; format date",
        "  names matching ^x-: anything",
        "  any other name: string",
    ]
    assert read(schema).children[0].description == "First."


def test_local_references_are_resolved_and_others_are_named() -> None:
    schema = {
        "$defs": {"a/b": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}, "n": {"type": "integer"}},
        "properties": {
            "x": {"$ref": "#/$defs/a~1b"},
            "y": {"$ref": "https://elsewhere.example/schema"},
            "z": {"$ref": "#/$defs/none"},
        },
    }
    assert lines(read(schema)) == [
        "data: object required",
        "  x: object",
        "    n: integer",
        "  y: https://elsewhere.example/schema",
        "  z: #/$defs/none",
    ]


def test_a_recursive_schema_has_a_limited_tree() -> None:
    node = read({"type": "object", "properties": {"again": {"$ref": "#"}}})
    assert len(lines(node)) == DEPTH_MAX + 1
    read({"$ref": "#"})
    read({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})
    wide = {"properties": {f"p{number}": {"$ref": "#"} for number in range(20)}}
    assert NODES_MAX <= len(lines(read(wide))) <= NODES_MAX * 2
    array = {"type": "array", "items": {"$ref": "#"}}
    read(array)


def test_omitted_parts_are_marked() -> None:
    node = read({"properties": {f"p{number}": {} for number in range(NODES_MAX + 5)}})
    assert node.children[-1].name == "…"
    assert len(node.children) == NODES_MAX
    [enum] = read({"enum": list(range(30))}).notes
    assert enum.endswith("18, 19 and 10 more")
    assert len(read({"description": "x" * 1000}).description) == 501


@pytest.mark.parametrize("schema", [True, False])
def test_boolean_schemas(schema: bool) -> None:
    assert read(schema).kind == ("anything" if schema else "nothing")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "items", "required", "enum", "anyOf", "$ref", "description", "x"]),
            inner,
            max_size=4,
        )
    ),
)


@given(JSON)
def test_any_schema_has_a_tree(schema: Any) -> None:
    assert lines(read(schema))


def test_built_in_event_types_have_a_tree() -> None:
    for each in EVENT_TYPES:
        node = read(each.schema)
        assert node.kind == "object"
        assert node.children[0].name == "object"
