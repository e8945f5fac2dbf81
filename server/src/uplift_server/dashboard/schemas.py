"""A JSON Schema as a tree for a page. The size of the tree is limited, because operators can upload any schema."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

NODES_MAX: Final = 400
DEPTH_MAX: Final = 12
VALUES_MAX: Final = 20
"""Maximum number of values that the tree shows for an enumeration."""
TEXT_CHARACTERS_MAX: Final = 500

_ALTERNATIVES: Final = {"anyOf": "any of", "oneOf": "one of", "allOf": "all of"}
_BOUNDS: Final = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
    "minLength": "minimum length",
    "maxLength": "maximum length",
    "minItems": "minimum items",
    "maxItems": "maximum items",
    "minProperties": "minimum properties",
    "maxProperties": "maximum properties",
    "pattern": "matches",
    "format": "format",
    "const": "constant",
    "default": "default",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the schema tree."""

    name: str
    kind: str
    """The type as text, such as `string`, `array of object`, or `string or null`."""
    required: bool
    description: str
    notes: tuple[str, ...]
    """The constraints on the values, as text."""
    children: tuple["Node", ...]


def tree(schema: str) -> Node:
    """Return the tree for a schema (JSON text) that describes the `data` of events."""
    return _Reader(json.loads(schema)).node("data", None, required=True, depth=0)


class _Reader:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = NODES_MAX

    def node(self, name: str, schema: Any, *, required: bool, depth: int) -> Node:
        """Return the node for a schema, with its children. Omit children that exceed the limits of the tree.

        If `schema` is None, use the root schema.
        """
        self._left -= 1
        schema = self._resolved(self._root if schema is None else schema)
        if not isinstance(schema, Mapping):
            return Node(name, "nothing" if schema is False else "anything", required, "", (), ())
        children = tuple(self._children(schema, depth + 1)) if depth < DEPTH_MAX else ()
        return Node(
            name,
            _kind(schema, self._resolved),
            required,
            _text(schema.get("description", "")),
            _notes(schema),
            children,
        )

    def _children(self, schema: Mapping[str, Any], depth: int) -> Iterator[Node]:
        required = _listed(schema, "required")
        for name, each, needed in self._parts(schema, required):
            if self._left <= 0:
                yield Node("…", "more fields not shown", False, "", (), ())
                return
            yield self.node(name, each, required=needed, depth=depth)

    def _parts(self, schema: Mapping[str, Any], required: list[Any]) -> Iterator[tuple[str, Any, bool]]:
        for name, each in _mapping(schema, "properties").items():
            yield str(name), each, name in required
        for name, each in _mapping(schema, "patternProperties").items():
            yield f"names matching {name}", each, False
        if isinstance(schema.get("additionalProperties"), Mapping):
            yield "any other name", schema["additionalProperties"], False
        for number, each in enumerate(_listed(schema, "prefixItems")):
            yield f"item {number + 1}", each, False
        items = self._resolved(schema.get("items"))
        if isinstance(items, Mapping) and _has_parts(items):
            yield "each item", items, False
        for word, told in _ALTERNATIVES.items():
            for number, each in enumerate(_listed(schema, word)):
                yield f"{told}, {number + 1}", each, False

    def _resolved(self, schema: Any) -> Any:
        """Resolve a reference within the schema. References to other documents stay unresolved."""
        for _ in range(DEPTH_MAX):
            reference = schema.get("$ref") if isinstance(schema, Mapping) else None
            if not isinstance(reference, str) or not reference.startswith("#"):
                return schema
            found = self._root
            for part in reference.removeprefix("#").split("/")[1:]:
                key = part.replace("~1", "/").replace("~0", "~")
                found = found.get(key) if isinstance(found, Mapping) else None
            if found is None:
                return schema
            schema = found
        return schema


def _kind(schema: Mapping[str, Any], resolved: Any) -> str:
    given = schema.get("type")
    names = [str(each) for each in given] if isinstance(given, list) else [str(given)] if given else []
    items = resolved(schema.get("items"))
    if "array" in names and isinstance(items, Mapping) and items.get("type"):
        names[names.index("array")] = f"array of {_kind(items, lambda each: each)}"
    if not names and "properties" in schema:
        names = ["object"]
    if not names and isinstance(schema.get("$ref"), str):
        names = [_text(schema["$ref"])]
    return " or ".join(names) or "anything"


def _notes(schema: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [f"{told} {_text(schema[word])}" for word, told in _BOUNDS.items() if word in schema]
    values = _listed(schema, "enum")
    if values:
        more = f" and {len(values) - VALUES_MAX} more" if len(values) > VALUES_MAX else ""
        notes.insert(0, "one of " + ", ".join(map(_text, values[:VALUES_MAX])) + more)
    return tuple(notes)


def _has_parts(schema: Mapping[str, Any]) -> bool:
    return any(word in schema for word in ("properties", "patternProperties", "items", "prefixItems", *_ALTERNATIVES))


def _mapping(schema: Mapping[str, Any], word: str) -> Mapping[Any, Any]:
    found = schema.get(word)
    return found if isinstance(found, Mapping) else {}


def _listed(schema: Mapping[str, Any], word: str) -> list[Any]:
    found = schema.get(word)
    return found if isinstance(found, list) else []


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= TEXT_CHARACTERS_MAX else text[:TEXT_CHARACTERS_MAX] + "…"
