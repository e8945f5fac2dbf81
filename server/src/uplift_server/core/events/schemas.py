"""Limits on the schema and the example of an event type.

A validator follows every reference. If each level of a schema refers twice to the next level, the work doubles with
every level. Therefore, the limits apply both to the size of a schema and to the number of its values after its
references are expanded.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from uplift_server.core.events.schema_cost import SchemaCost
from uplift_server.core.events.schema_graph import ALTERNATIVES, UNEVALUATED, Edge, SchemaGraph, follow_pointer
from uplift_server.core.limits import JSON_DEPTH_MAX, SCHEMA_CHARACTERS_MAX, SCHEMA_CHECK_NS_MAX, SCHEMA_PLACES_MAX
from uplift_server.core.problems import Problem

_REFERENCES: Final = ("$ref", "$dynamicRef")


def check_depth(value: Any, field: str) -> Problem | None:
    """Return a problem if a JSON value has more than JSON_DEPTH_MAX levels."""
    level = [value]
    for _ in range(JSON_DEPTH_MAX):
        level = [below for each in level for below in _below(each)]
        if not level:
            return None
    return Problem(field, "too_deep", f"The JSON is too deeply nested. Use at most {JSON_DEPTH_MAX} levels.")


def check_schema(schema: Any, text: str, field: str = "schema") -> Problem | None:
    """Return a problem if a schema exceeds a limit, or has an unknown reference or a recursion that is not allowed.

    `text` is the schema as JSON.
    """
    if len(text) > SCHEMA_CHARACTERS_MAX:
        message = f"The schema has {len(text):,} characters. Use at most {SCHEMA_CHARACTERS_MAX:,}."
        return Problem(field, "schema_too_large", message)
    deep = check_depth(schema, field)
    if deep is not None:
        return deep
    if _places(schema, schema, {}) > SCHEMA_PLACES_MAX:
        text = (
            f"With its references expanded, the schema has more than {SCHEMA_PLACES_MAX} values. Use fewer references."
        )
        return Problem(field, "schema_too_complex", text)
    return _check_graph(SchemaGraph(schema), field)


def _check_graph(graph: SchemaGraph, field: str) -> Problem | None:
    if graph.unknown_references:
        shown = graph.unknown_references[0][:200]
        text = f"The reference {shown} does not match a schema in this document. Add the schema under `$defs`."
        return Problem(field, "schema_invalid", text)
    recursions = graph.recursions()
    for key, edges in graph.in_place.items():
        for edge in edges:
            is_recursive = key in recursions and recursions.get(id(edge.target)) == recursions[key]
            if edge.keyword in ALTERNATIVES and is_recursive and not _is_optional(graph, key, edge):
                text = (
                    f"The schema refers to itself below `{edge.keyword}`. Remove the recursion, or use an `anyOf` that "
                    'contains only the reference and simple alternatives such as `{"type": "null"}`.'
                )
                return Problem(field, "schema_recursive", text)
    cost = SchemaCost(graph)
    if not cost.is_complete or cost.value_ns_max > SCHEMA_CHECK_NS_MAX:
        text = "A check against this schema can take too long. Use fewer alternatives, or `enum`."
        return Problem(field, "schema_too_complex", text)
    return None


def _is_optional(graph: SchemaGraph, key: int, recursive: Edge) -> bool:
    """Return whether the schema `key` may contain the recursive alternative `recursive`.

    The recursion is allowed in `anyOf` or `oneOf` if the other alternatives contain no schemas, because the validator's
    work then does not double with each level of the data. The recursion is not allowed if the schema has an
    `unevaluated...` keyword, or if the recursion applies the schema to the same value again.
    """
    if recursive.keyword not in {"anyOf", "oneOf"} or any(name in graph.schemas[key] for name in UNEVALUATED):
        return False
    others = [
        edge.target for edge in graph.in_place[key] if edge is not recursive and edge.keyword == recursive.keyword
    ]
    if any(graph.in_place[id(each)] or graph.below[id(each)] for each in others):
        return False
    # If the recursion applied the schema to the same value again, the validator would never stop.
    seen: set[int] = set()
    left = [recursive.target]
    while left:
        schema = left.pop()
        if id(schema) not in seen:
            seen.add(id(schema))
            left += [edge.target for edge in graph.in_place[id(schema)]]
    return key not in seen


def _below(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _places(root: Any, value: Any, known: dict[int, int]) -> int:
    """Return the number of values at any depth in `value` after its references are expanded.

    A recursion is counted once.
    """
    if not isinstance(value, Mapping | list):
        return 1
    if id(value) in known:
        return known[id(value)]
    known[id(value)] = 1
    count = 1 + sum(_places(root, below, known) for below in _below(value))
    if isinstance(value, Mapping):
        count += sum(_places(root, _referred(root, value[name]), known) for name in _REFERENCES if name in value)
    known[id(value)] = min(count, SCHEMA_PLACES_MAX + 1)
    return known[id(value)]


def _referred(root: Any, reference: Any) -> Any:
    """Return the target of a reference that begins with `#`, or None for any other reference.

    SchemaGraph resolves the other references, and reports references to other documents.
    """
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    if not reference.startswith("#/"):
        # `#` refers to the whole schema. Treat an anchor like `#`, because the caller needs only an upper bound.
        return root
    return follow_pointer(root, reference[1:])
