"""Estimates of how long it can take to check data against a JSON Schema.

The validator cannot be interrupted, and it holds the global interpreter lock (GIL). The event loop therefore calls the
validator only if the estimate does not exceed a limit.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from uplift_server.core.events.schema_graph import ITEMS, REFERENCES, UNEVALUATED, Edge, Schema, SchemaGraph
from uplift_server.core.events.schema_keywords import (
    DIGITS_NS,
    EXTREME_NS,
    LARGE_NS,
    TYPES,
    WALK_NS,
    Costs,
    costs_of,
    object_or_empty,
)
from uplift_server.core.limits import (
    SCHEMA_CHECK_NS_MAX,
    SCHEMA_DETAILS_BYTES_MAX,
    SCHEMA_DETAILS_NS_MAX,
    SCHEMA_STATES_MAX,
    SCHEMA_STEPS_MAX,
)

Applied = dict[int, tuple[Schema, int]]
"""The schemas that apply to one value, each with the number of times that the validator evaluates it.

The keys are the `id()` of the schemas.
"""

_Kinds = tuple[tuple[str, str], ...]
"""The kind of an object: names and string values of the properties that determine which alternatives can apply."""

_KIND_NS: Final = 60
_EXTREMES: Final = (1e-25, 1e25)
_UNIQUE_FEW_MAX: Final = 15
"""Maximum length of an array for which the validator finds equal items by comparing each item with all others."""
_UNIQUE_FEW_FACTOR: Final = 5
_UNIQUE_FRACTION_FACTOR: Final = 12
_UNKNOWN_REFERENCE_NS: Final = 100_000
_REEVALUATIONS: Final = 4
"""How many times `unevaluatedProperties` and `unevaluatedItems` evaluate the other keywords of their schema."""
_ERROR_NS: Final = 15_000
_RENDERING_NS: Final = 3
"""Cost of describing an error, in ns per byte of the data."""
_FACTOR_MAX: Final = 10**6
_CHOICES: Final = frozenset({"anyOf", "oneOf"})
_ALTERNATIVE_PARTS_MAX: Final = 20


class Measure(NamedTuple):
    """The estimated cost of checking one value."""

    ns: int
    errors: int
    """Maximum number of errors that the validator can find, including the errors in each alternative of a schema."""


class _Place(Costs):
    """A place in the data: all values to which the same schemas apply, with the costs of checking one such value."""

    __slots__ = ("items", "kind_name", "kinds", "names", "others", "properties")

    kind_name: str
    """The property whose string value determines which alternatives of the schemas can apply to an object."""
    kinds: "dict[str, _Place]"
    """For each value of the property `kind_name`: the place of the objects that have this value."""
    items: "_Place"
    names: "_Place"
    others: "_Place"
    properties: dict[str, "_Place"]

    def properties_of(self, objects: list[dict[str, Any]]) -> "dict[_Place, list[Any]]":
        """Return all property values of the objects, grouped by place."""
        properties, others = self.properties, self.others
        found: dict[_Place, list[Any]] = {}
        for each in objects:
            for name, value in each.items():
                found.setdefault(properties.get(name, others), []).append(value)
        return found

    def same_below(self) -> None:
        self.items = self.names = self.others = self
        self.properties = {}
        self.kinds = {}


_Unfilled = tuple[_Place, Applied, _Kinds]


class _Alternatives(NamedTuple):
    """The alternatives of a schema, grouped by the string value that they require for one property."""

    others: list[Edge]
    by_value: dict[str, list[Edge]]

    def add(self, edge: Edge, texts: list[str] | None) -> None:
        if texts is None:
            self.others.append(edge)
        else:
            for text in dict.fromkeys(texts):
                self.by_value.setdefault(text, []).append(edge)


class SchemaCost:
    """Estimates the cost of checking data against a schema."""

    def __init__(self, graph: SchemaGraph, *, may_backtrack: bool = False) -> None:
        self._graph = graph
        self._may_backtrack = may_backtrack
        self._recursions = graph.recursions()
        self._own: dict[int, Costs] = {}
        self._places: dict[tuple[Any, ...], _Place] = {}
        self._kinds: dict[int, dict[str, _Alternatives]] = {}
        self._undivided: list[tuple[_Place, Applied, _Kinds, list[Schema]]] = []
        self._steps = 0
        self.has_alternatives = any("anyOf" in each or "oneOf" in each for each in graph.schemas.values())
        self.repeats_recursion = False
        """Whether a recursive schema applies twice to the same value.

        The number of errors then doubles with each level.
        """
        self._root = _Place()
        self._root.same_below()
        self.is_complete = not graph.unknown_references and self._build()
        if not self.is_complete:
            self._root = self._anywhere()
        places = [self._root, *(self._places.values() if self.is_complete else [])]
        self.value_ns_max = max(place.value_ns_max + place.names.by_type[str] for place in places)
        self._byte_ns_max = max(place.byte_ns_max + place.names.byte_ns_max for place in places)
        # The shortest value takes two bytes, including a comma, as in `[1,1,1]`.
        self._unmeasured_bytes_max = int(SCHEMA_CHECK_NS_MAX / (self.value_ns_max / 2 + self._byte_ns_max))
        del self._graph, self._recursions, self._own, self._places, self._kinds, self._undivided

    def is_affordable(self, data: bytes, value: Any) -> bool:
        """Return whether the validator can check `value`, decoded from `data`, within SCHEMA_CHECK_NS_MAX."""
        if len(data) <= self._unmeasured_bytes_max:
            return True
        values = 1 + data.count(b",") + data.count(b"[") + data.count(b"{")
        if values * self.value_ns_max + len(data) * self._byte_ns_max <= SCHEMA_CHECK_NS_MAX:
            return True
        return self.measure(value).ns <= SCHEMA_CHECK_NS_MAX

    def is_explainable(self, data: bytes, value: Any) -> bool:
        """Return whether the validator can find and describe all errors in `value` within the time limits.

        `value` is decoded from `data`. The limits are SCHEMA_CHECK_NS_MAX and SCHEMA_DETAILS_NS_MAX.
        """
        if self.repeats_recursion or len(data) > SCHEMA_DETAILS_BYTES_MAX:
            return False
        # Each error contains the invalid value as text. The validator creates errors for all alternatives of a schema.
        measure = self.measure(value, by_kind=False)
        details_ns = measure.errors * (_ERROR_NS + len(data) * _RENDERING_NS)
        return measure.ns <= SCHEMA_CHECK_NS_MAX and details_ns <= SCHEMA_DETAILS_NS_MAX

    def measure(self, value: Any, *, by_kind: bool = True) -> Measure:
        """Return the estimated cost of checking `value`.

        The calculation stops soon after the cost exceeds SCHEMA_CHECK_NS_MAX. If `by_kind` is true, the cost of an
        object excludes the alternatives that cannot apply to objects of its kind.
        """
        ns: float = 0
        errors = large = 0
        left: list[tuple[list[Any], _Place, int]] = [([value], self._root, 0)]
        while left and ns <= SCHEMA_CHECK_NS_MAX:
            values, place, deep_ns = left.pop()
            if place.kinds and by_kind:
                ns += len(values) * _KIND_NS
                values, by_place = _by_kind(values, place)
                left += [(found, below, deep_ns) for below, found in by_place.items()]
            kinds = Counter(map(type, values))
            ns += sum(count * (place.by_type[kind] + deep_ns + WALK_NS) for kind, count in kinds.items())
            errors += len(values) * place.errors
            if str in kinds and place.character_ns:
                ns += place.character_ns * sum(len(each) for each in values if type(each) is str)
            if float in kinds and (place.exact or deep_ns):
                extremes = sum(type(each) is float and _is_extreme(each) for each in values)
                ns += deep_ns * _UNIQUE_FRACTION_FACTOR * (kinds[float] + extremes * 25)
                ns += extremes * place.exact * EXTREME_NS
            if int in kinds:
                for each in values:
                    if type(each) is int and not -(2**63) <= each < 2**64:
                        # All large integers have the same hash, so the check for unique items compares every pair.
                        large += 1 if deep_ns else 0
                        digits = each.bit_length() * 0.302
                        ns += (LARGE_NS + digits**2 * DIGITS_NS) * (place.numeric + large)
            if list in kinds:
                arrays = [each for each in values if type(each) is list]
                few = [item for each in arrays if len(each) <= _UNIQUE_FEW_MAX for item in each]
                many = [item for each in arrays if len(each) > _UNIQUE_FEW_MAX for item in each]
                left.append((few, place.items, deep_ns + place.deep_ns * _UNIQUE_FEW_FACTOR))
                left.append((many, place.items, deep_ns + place.deep_ns))
            if dict in kinds:
                objects = [each for each in values if type(each) is dict]
                names = place.names
                count = sum(map(len, objects))
                ns += count * (place.name_ns + names.by_type[str])
                errors += count * names.errors
                per_character_ns = place.name_character_ns + names.character_ns
                if per_character_ns:
                    ns += per_character_ns * sum(sum(map(len, each)) for each in objects)
                left += [(found, below, deep_ns) for below, found in place.properties_of(objects).items()]
        return Measure(int(ns), errors)

    def _build(self) -> bool:
        """Create the places to which parts of the schema apply. Return False if there are too many places."""
        left: list[_Unfilled] = []
        if isinstance(self._graph.root, dict):
            self._root = self._place({id(self._graph.root): (self._graph.root, 1)}, left)
        if not self._fill_all(left):
            return False
        places, self._steps = dict(self._places), 0
        while self._undivided:
            self._add_kinds(*self._undivided.pop(), left)
            if not self._fill_all(left):
                # Use the estimates that ignore the kinds of values: they are higher and therefore safe.
                self._places = places
                for place in places.values():
                    place.kinds = {}
                break
        return True

    def _fill_all(self, left: list[_Unfilled]) -> bool:
        """Calculate the costs of the places in `left` and of all places nested in them.

        Return False if the schema has too many places.
        """
        while left:
            place, bases, kinds = left.pop()
            if len(self._places) > SCHEMA_STATES_MAX or self._steps > SCHEMA_STEPS_MAX:
                return False
            applied, repeated = self._applied(bases, kinds)
            for schema, factor in applied.values():
                place.add(self._own_costs(schema), factor)
            self._fill(place, list(applied.values()), left)
            once = [schema for key, (schema, _) in applied.items() if key not in repeated]
            self._undivided.append((place, bases, kinds, once))
        return self._steps <= SCHEMA_STEPS_MAX

    def _place(self, bases: Applied, left: list[_Unfilled], kinds: _Kinds = ()) -> _Place:
        """Return the place of the values to which the schemas in `bases` apply.

        If `kinds` is not empty, the place contains only the objects of this kind. If the place is new, the function
        creates it and adds it to `left`, the list of places without calculated costs.
        """
        key = (*sorted((identity, factor) for identity, (_, factor) in bases.items()), *kinds)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place()
            left.append((place, bases, kinds))
        return place

    def _applied(self, bases: Applied, kinds: _Kinds) -> tuple[Applied, set[int]]:
        """Return all schemas that the validator applies to a value if the schemas in `bases` apply to it.

        Also return the `id()` of each schema that the validator evaluates repeatedly because of `unevaluatedProperties`
        or `unevaluatedItems`. In these schemas, the validator evaluates every alternative.
        """
        repeated: set[int] = set()
        applied: Applied = {}
        left = [(schema, factor, False) for schema, factor in bases.values()]
        while left and self._steps <= SCHEMA_STEPS_MAX:
            self._steps += 1
            schema, factor, is_repeated = left.pop()
            if not self._merge(applied, schema, factor):
                continue
            inner = factor
            if any(key in schema for key in UNEVALUATED):
                inner, is_repeated = factor * _REEVALUATIONS, True
            if is_repeated:
                repeated.add(id(schema))
            for keyword, target in self._in_place(schema, () if is_repeated else kinds):
                # The validator caches the result of a recursive reference for each value.
                is_remembered = keyword in REFERENCES and id(target) in self._recursions
                left.append((target, 1 if is_remembered else inner, is_repeated))
        return applied, repeated

    def _merge(self, applied: Applied, schema: Schema, factor: int) -> bool:
        """Add a schema, which the validator evaluates `factor` times, to `applied`.

        Return False if the schema is recursive and `applied` already contains it.
        """
        before = applied.get(id(schema))
        if before is None:
            applied[id(schema)] = schema, min(factor, _FACTOR_MAX)
            return True
        if id(schema) in self._recursions:
            self.repeats_recursion = True
            applied[id(schema)] = schema, max(before[1], min(factor, _FACTOR_MAX))
            return False
        applied[id(schema)] = schema, min(before[1] + factor, _FACTOR_MAX)
        return True

    def _fill(self, place: _Place, applied: list[tuple[Schema, int]], left: list[_Unfilled]) -> None:
        items: list[tuple[Schema, int]] = []
        names: list[tuple[Schema, int]] = []
        everywhere: list[tuple[Schema, int]] = []
        additional: list[tuple[Schema, Schema, int]] = []
        listed: dict[str, list[tuple[Schema, int]]] = {}
        for schema, factor in applied:
            properties = object_or_empty(schema.get("properties"))
            for name, target in properties.items():
                listed.setdefault(name, []).extend([(target, factor)] if isinstance(target, dict) else [])
            for keyword, target in self._graph.below[id(schema)]:
                if keyword in ITEMS:
                    items.append((target, factor))
                elif keyword == "propertyNames":
                    names.append((target, factor))
                elif keyword == "additionalProperties":
                    additional.append((properties, target, factor))
                elif keyword != "properties":
                    everywhere.append((target, factor))
        self._steps += len(listed) * (1 + len(everywhere) + len(additional))
        if self._steps > SCHEMA_STEPS_MAX:
            return
        place.items = self._place(self._merged(items), left)
        place.names = self._place(self._merged(names), left)
        rest = [(target, factor) for _, target, factor in additional]
        place.others = self._place(self._merged([*everywhere, *rest]), left)
        place.properties = {}
        place.kinds = {}
        for name, found in listed.items():
            rest = [(target, factor) for properties, target, factor in additional if name not in properties]
            place.properties[name] = self._place(self._merged([*found, *everywhere, *rest]), left)

    def _in_place(self, schema: Schema, kinds: _Kinds) -> list[Edge]:
        """Return the schemas that a schema applies to the same value, without alternatives that `kinds` excludes."""
        for name, value in kinds:
            alternatives = self._alternatives(schema).get(name)
            if alternatives is not None:
                return alternatives.others + alternatives.by_value.get(value, [])
        return self._graph.in_place[id(schema)]

    def _alternatives(self, schema: Schema) -> dict[str, _Alternatives]:
        """Return the alternatives of a schema, grouped by the properties and string values that select among them."""
        found = self._kinds.get(id(schema))
        if found is None:
            edges = self._graph.in_place[id(schema)]
            listed = [self._texts(edge.target) if edge.keyword in _CHOICES else {} for edge in edges]
            counts = Counter(name for texts in listed for name in texts)
            found = self._kinds[id(schema)] = {}
            for name, count in counts.items():
                if count > 1:
                    found[name] = _Alternatives([], {})
                    for edge, texts in zip(edges, listed, strict=True):
                        found[name].add(edge, texts.get(name))
        return found

    def _texts(self, alternative: Schema) -> dict[str, list[str]]:
        """Return the string values that an alternative allows for each of its properties."""
        texts: dict[str, list[str]] = {}
        left, seen = [alternative], 0
        while left and seen < _ALTERNATIVE_PARTS_MAX:
            schema = left.pop()
            seen += 1
            for name, below in object_or_empty(schema.get("properties")).items():
                options = object_or_empty(below).get("enum", [object_or_empty(below).get("const")])
                if isinstance(options, list) and options and all(isinstance(each, str) for each in options):
                    texts.setdefault(name, options)
            left += [target for keyword, target in self._graph.in_place[id(schema)] if keyword in {"$ref", "allOf"}]
        self._steps += seen
        return texts

    def _add_kinds(
        self, place: _Place, bases: Applied, kinds: _Kinds, applied: list[Schema], left: list[_Unfilled]
    ) -> None:
        """Add to `place` a nested place for each kind of object.

        For objects of one kind, the validator evaluates only the alternatives that can apply to that kind.
        """
        known = {name for name, _ in kinds}
        found: dict[str, list[_Alternatives]] = {}
        for schema in applied:
            by_name = self._alternatives(schema)
            if known.isdisjoint(by_name):
                for name, alternatives in by_name.items():
                    found.setdefault(name, []).append(alternatives)
        if not found:
            return
        place.kind_name = max(found, key=lambda name: sum(len(each.by_value) for each in found[name]))
        same: dict[tuple[int, ...], str] = {}
        for value in dict.fromkeys(value for each in found[place.kind_name] for value in each.by_value):
            self._steps += 1
            targets = (id(edge.target) for each in found[place.kind_name] for edge in each.by_value.get(value, []))
            first = same.setdefault(tuple(targets), value)
            place.kinds[value] = self._place(bases, left, (*kinds, (place.kind_name, first)))

    def _merged(self, found: Iterable[tuple[Schema, int]]) -> Applied:
        merged: Applied = {}
        for schema, factor in found:
            self._merge(merged, schema, factor)
        return merged

    def _anywhere(self) -> _Place:
        """Return one place to which all schemas apply, for an upper bound on the costs.

        The caller uses this place if the schema has too many places or an unknown reference.
        """
        place = _Place()
        schemas = self._graph.schemas.values()
        factor = _FACTOR_MAX if any(key in each for each in schemas for key in UNEVALUATED) else 1
        for schema in schemas:
            place.add(self._own_costs(schema), factor)
        for kind in TYPES:
            place.by_type[kind] += _UNKNOWN_REFERENCE_NS * len(self._graph.unknown_references)
        place.same_below()
        self.repeats_recursion = True
        return place

    def _own_costs(self, schema: Schema) -> Costs:
        """Return the costs of a schema's own keywords, without the costs of the schemas in these keywords."""
        costs = self._own.get(id(schema))
        if costs is None:
            costs = self._own[id(schema)] = costs_of(schema, may_backtrack=self._may_backtrack)
        return costs


def _by_kind(values: list[Any], place: _Place) -> tuple[list[Any], dict[_Place, list[Any]]]:
    """Split values by kind: return the values without a known kind, and the other values, grouped by place.

    The kind of an object is the string in its property `place.kind_name`.
    """
    others: list[Any] = []
    by_place: dict[_Place, list[Any]] = {}
    for each in values:
        kind = each.get(place.kind_name) if type(each) is dict else None
        below = place.kinds.get(kind) if type(kind) is str else None
        (others if below is None else by_place.setdefault(below, [])).append(each)
    return others, by_place


def _is_extreme(number: float) -> bool:
    return number != 0 and not _EXTREMES[0] <= abs(number) <= _EXTREMES[1]
