"""The graph of a JSON Schema document: for each schema, the schemas that its keywords and references apply.

The graph covers version 2020-12 and the older keywords that this version replaced. Validators still apply the older
keywords under an older `$schema`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

ALTERNATIVES: Final = frozenset({"anyOf", "oneOf", "not", "if", "then", "else"})
REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
ITEMS: Final = frozenset({"items", "prefixItems", "additionalItems", "contains", "unevaluatedItems"})
UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")
_IN_PLACE: Final = ALTERNATIVES | {"allOf"}
_IN_PLACE_MAPS: Final = frozenset({"dependentSchemas", "dependencies"})
_BELOW: Final = ITEMS | {"additionalProperties", "unevaluatedProperties", "propertyNames"}
_BELOW_MAPS: Final = frozenset({"properties", "patternProperties"})
_MAPS: Final = _IN_PLACE_MAPS | _BELOW_MAPS | {"$defs", "definitions"}
_DATA: Final = frozenset({"const", "enum", "default", "examples", "example"})

Schema = dict[str, Any]


_INDEX: Final = re.compile("[0-9]{1,9}")


def follow_pointer(value: Any, pointer: str) -> Any:
    """Return the value at a JSON pointer (RFC 6901), or None if it does not exist."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


class Edge(NamedTuple):
    """A schema that another schema applies, and the keyword that applies it."""

    keyword: str
    target: Schema


class SchemaGraph:
    """The schemas of a document.

    The graph identifies a schema by its Python object, so the document must outlive the graph.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.unknown_references: list[str] = []
        """The references to schemas outside the document."""
        self.schemas: dict[int, Schema] = {}
        """Every schema that can apply to a value, except `true` and `false`. The keys are the `id()` of the schemas."""
        self.in_place: dict[int, list[Edge]] = {}
        """For each schema: the schemas that it applies to the whole value."""
        self.below: dict[int, list[Edge]] = {}
        """For each schema: the schemas that it applies to properties, property names or items."""
        self._bases: dict[int, str] = {}
        self._resources: dict[str, Any] = {"": root}
        self._anchors: dict[tuple[str, str], Any] = {}
        self._dynamic: dict[str, list[Schema]] = {}
        self._index(root, "")
        left = [root] if isinstance(root, dict) else []
        while left:
            schema = left.pop()
            if id(schema) not in self.schemas:
                self.schemas[id(schema)] = schema
                left += [edge.target for edge in self._add_edges(schema)]

    def recursions(self) -> dict[int, int]:
        """Return the schemas that are part of a recursion, each with a number that identifies the recursion."""
        edges = {key: [id(edge.target) for edge in (*self.in_place[key], *self.below[key])] for key in self.schemas}
        order: list[int] = []
        seen: set[int] = set()
        for start in self.schemas:
            stack = [] if start in seen else [(start, iter(edges[start]))]
            seen.add(start)
            while stack:
                key, targets = stack[-1]
                following = next((each for each in targets if each not in seen), None)
                if following is None:
                    order.append(key)
                    stack.pop()
                else:
                    seen.add(following)
                    stack.append((following, iter(edges[following])))
        return _components(order, edges)

    def _add_edges(self, schema: Schema) -> list[Edge]:
        in_place: list[Edge] = []
        below: list[Edge] = []
        for key, value in schema.items():
            if key in REFERENCES:
                in_place += [Edge(key, each) for each in self._targets(schema, key, value)]
            elif key in _IN_PLACE or key in _IN_PLACE_MAPS:
                in_place += [Edge(key, each) for each in _entries(value, is_map=key in _IN_PLACE_MAPS)]
            elif key in _BELOW or key in _BELOW_MAPS:
                below += [Edge(key, each) for each in _entries(value, is_map=key in _BELOW_MAPS)]
        self.in_place[id(schema)], self.below[id(schema)] = in_place, below
        return in_place + below

    def _targets(self, schema: Schema, keyword: str, reference: Any) -> list[Schema]:
        if not isinstance(reference, str):
            return []
        found = self._resolve(self._bases.get(id(schema), ""), reference)
        targets = [] if keyword == "$ref" else list(self._dynamic.get(reference.rpartition("#")[2], []))
        if isinstance(found, dict) and not any(found is each for each in targets):
            targets.append(found)
        if not targets and not isinstance(found, bool):
            self.unknown_references.append(reference)
        return targets

    def _resolve(self, base: str, reference: str) -> Any:
        if reference.startswith("#"):
            uri, fragment = base, reference[1:]
        else:
            uri, fragment = urldefrag(urljoin(base, reference))
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self._anchors.get((uri, fragment))
        return follow_pointer(self._resources.get(uri), fragment)

    def _index(self, value: Any, base: str) -> None:
        if isinstance(value, list):
            for each in value:
                self._index(each, base)
        if not isinstance(value, dict):
            return
        if isinstance(value.get("$id"), str):
            base = urldefrag(urljoin(base, value["$id"]))[0]
            self._resources[base] = value
        self._bases[id(value)] = base
        for key in ("$anchor", "$dynamicAnchor"):
            if isinstance(value.get(key), str):
                self._anchors[base, value[key]] = value
        if isinstance(value.get("$dynamicAnchor"), str):
            self._dynamic.setdefault(value["$dynamicAnchor"], []).append(value)
        for key, each in value.items():
            if key in _MAPS and isinstance(each, dict):
                for below in each.values():
                    self._index(below, base)
            elif key not in _DATA:
                self._index(each, base)


def _entries(value: Any, *, is_map: bool) -> list[Schema]:
    """Return the schemas in the value of a keyword: one schema, a list of schemas, or an object of schemas."""
    if is_map:
        values = list(value.values()) if isinstance(value, dict) else []
    else:
        values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, dict)]


def _components(order: list[int], edges: dict[int, list[int]]) -> dict[int, int]:
    """Return the keys that are part of a cycle, each with the number of its strongly connected component.

    This function is the second pass of Kosaraju's algorithm.
    """
    back: dict[int, list[int]] = {key: [] for key in edges}
    for key, targets in edges.items():
        for target in targets:
            back[target].append(key)
    found: dict[int, int] = {}
    seen: set[int] = set()
    for number, start in enumerate(reversed(order)):
        component = list(_walk(start, back, seen))
        if len(component) > 1 or (component and start in edges[start]):
            found |= dict.fromkeys(component, number)
    return found


def _walk(start: int, back: dict[int, list[int]], seen: set[int]) -> Iterator[int]:
    left = [start]
    while left:
        key = left.pop()
        if key not in seen:
            seen.add(key)
            yield key
            left += back[key]
