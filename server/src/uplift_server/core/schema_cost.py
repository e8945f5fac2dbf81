"""The time that a check of data against a JSON Schema can take, estimated before the check.

The validator cannot be interrupted and holds the interpreter. The event loop therefore calls it only with data whose
estimate is affordable. Costs are upper bounds of the times of jsonschema-rs 0.61 for each keyword, with busy cores.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from uplift_server.core.limits import (
    EVENT_INTEGER_DIGITS_MAX,
    SCHEMA_CHECK_NS_MAX,
    SCHEMA_DETAILS_BYTES_MAX,
    SCHEMA_STATES_MAX,
    SCHEMA_STEPS_MAX,
)
from uplift_server.core.schema_graph import ITEMS, REFERENCES, Schema, SchemaGraph
from uplift_server.core.schema_patterns import active_positions

Applied = dict[int, tuple[Schema, int]]
"""Schemas that apply to one value, by identity, each with how many times the validator evaluates it."""

_TYPES: Final = (dict, list, str, int, float, bool, type(None))
_WALK_NS: Final = 100
_KEYWORD_NS: Final = 25
_INTEGER_NS: Final = 150
_FRACTION_NS: Final = 5_000
"""A comparison with a number that has a fraction: the validator computes it exactly."""
_DIGITS_NS: Final = 0.2
"""A comparison with an integer of more than 64 bits, times the square of its digits."""
_LARGE_NS: Final = 2_000
_PATTERN_NS: Final = 300
_BACKTRACKING_NS: Final = 2_000
"""For each character, with PATTERN_BACKTRACKS_MAX."""
_POSITION_NS: Final = 20
"""For each character and each position of a pattern that may be active at once."""
_UNIQUE_NS: Final = 150
_UNKNOWN_REFERENCE_NS: Final = 100_000
_REFERENCE_NS: Final = {"$ref": 80, "$dynamicRef": 5_000, "$recursiveRef": 5_000}
_REEVALUATIONS: Final = 4
"""How many times a schema with `unevaluatedProperties` or `unevaluatedItems` evaluates the schemas beside it."""
_ERROR_NS: Final = 15_000
_RENDERING_NS: Final = 3
"""For each byte of the data."""
_FACTOR_MAX: Final = 10**6
_LIMITS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_NAME_NS: Final = {
    "additionalProperties": 60,
    "patternProperties": 60,
    "properties": 60,
    "propertyNames": 60,
    "unevaluatedProperties": 180,
}
_LISTS_OF_NAMES: Final = frozenset({"dependencies", "dependentRequired", "dependentSchemas", "properties", "required"})
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")


class Measure(NamedTuple):
    """The estimated cost of a check of one value."""

    ns: int
    errors: int
    """Errors that the validator can find, including those within alternatives."""


class _Costs:
    """Costs of the schemas that apply at one place, for each value there."""

    __slots__ = ("by_type", "character_ns", "deep_ns", "errors", "name_character_ns", "name_ns", "numeric")

    def __init__(self) -> None:
        self.by_type = dict.fromkeys(_TYPES, 0)
        self.character_ns = 0
        self.name_ns = self.name_character_ns = 0
        self.deep_ns = 0
        """For each value below an array."""
        self.errors = 0
        self.numeric = 0
        """Comparisons of a number."""

    def add(self, other: "_Costs", factor: int) -> None:
        for kind, ns in other.by_type.items():
            self.by_type[kind] += ns * factor
        self.character_ns += other.character_ns * factor
        self.name_ns += other.name_ns * factor
        self.name_character_ns += other.name_character_ns * factor
        self.deep_ns += other.deep_ns * factor
        self.errors += other.errors * factor
        self.numeric += other.numeric * factor

    @property
    def value_ns_max(self) -> int:
        """For one value of any type with its name, without its characters."""
        return max(self.by_type.values()) + self.name_ns + _WALK_NS

    @property
    def byte_ns_max(self) -> int:
        """For one byte of a text, a name or a long integer."""
        integer_ns = self.numeric * (EVENT_INTEGER_DIGITS_MAX * _DIGITS_NS + _LARGE_NS / 20)
        # Arrays of unique items within each other: about 30 bytes for each level.
        return self.character_ns + self.name_character_ns + int(integer_ns) + 64 * self.deep_ns


class _Place(_Costs):
    """All values to which the same schemas apply."""

    __slots__ = ("items", "names", "others", "properties")

    items: "_Place"
    names: "_Place"
    others: "_Place"
    properties: dict[str, "_Place"]

    def properties_of(self, objects: list[dict[str, Any]]) -> "dict[_Place, list[Any]]":
        """The values of the objects' properties, by place."""
        properties, others = self.properties, self.others
        found: dict[_Place, list[Any]] = {}
        for each in objects:
            for name, value in each.items():
                found.setdefault(properties.get(name, others), []).append(value)
        return found

    def same_below(self) -> None:
        self.items = self.names = self.others = self
        self.properties = {}


class SchemaCost:
    """Costs of the checks of a schema."""

    def __init__(self, graph: SchemaGraph, *, may_backtrack: bool = False) -> None:
        self._graph = graph
        self._may_backtrack = may_backtrack
        self._recursions = graph.recursions()
        self._own: dict[int, _Costs] = {}
        self._places: dict[tuple[tuple[int, int], ...], _Place] = {}
        self._steps = 0
        self.has_alternatives = any("anyOf" in each or "oneOf" in each for each in graph.schemas.values())
        self.repeats_recursion = False
        """Whether a recursive schema applies to a value twice, so that errors double with each level."""
        self._root = self._place({}, [])
        self._root.same_below()
        self.is_complete = not graph.unknown_references and self._build()
        if not self.is_complete:
            self._root = self._anywhere()
        places = list(self._places.values()) if self.is_complete else [self._root]
        self.value_ns_max = max(place.value_ns_max + place.names.by_type[str] for place in places)
        self._byte_ns_max = max(place.byte_ns_max + place.names.byte_ns_max for place in places)
        # Two bytes are the shortest value, as in `[1,1,1]`.
        self._unmeasured_bytes_max = int(SCHEMA_CHECK_NS_MAX / (self.value_ns_max / 2 + self._byte_ns_max))
        del self._graph, self._recursions, self._own, self._places

    def is_affordable(self, data: bytes, value: Any) -> bool:
        """Whether `value`, decoded from `data`, can be checked within SCHEMA_CHECK_NS_MAX."""
        if len(data) <= self._unmeasured_bytes_max:
            return True
        values = 1 + data.count(b",") + data.count(b"[") + data.count(b"{")
        if values * self.value_ns_max + len(data) * self._byte_ns_max <= SCHEMA_CHECK_NS_MAX:
            return True
        return self.measure(value).ns <= SCHEMA_CHECK_NS_MAX

    def is_explainable(self, data: bytes, value: Any) -> bool:
        """Whether every error in `value`, decoded from `data`, can be collected within SCHEMA_CHECK_NS_MAX."""
        if self.repeats_recursion or len(data) > SCHEMA_DETAILS_BYTES_MAX:
            return False
        # Each error renders its value, and the validator creates all errors within alternatives.
        return self.measure(value).errors * (_ERROR_NS + len(data) * _RENDERING_NS) <= SCHEMA_CHECK_NS_MAX

    def measure(self, value: Any) -> Measure:
        """The cost of a check of `value`. The measurement stops soon after SCHEMA_CHECK_NS_MAX."""
        ns: float = 0
        errors = large = 0
        left: list[tuple[list[Any], _Place, int]] = [([value], self._root, 0)]
        while left and ns <= SCHEMA_CHECK_NS_MAX:
            values, place, deep_ns = left.pop()
            kinds = Counter(map(type, values))
            ns += sum(count * (place.by_type[kind] + deep_ns + _WALK_NS) for kind, count in kinds.items())
            errors += len(values) * place.errors
            if str in kinds and place.character_ns:
                ns += place.character_ns * sum(len(each) for each in values if type(each) is str)
            if int in kinds:
                for each in values:
                    if type(each) is int and not -(2**63) <= each < 2**64:
                        # Large integers all have the same hash, so an array compares each with every other one.
                        large += 1 if deep_ns else 0
                        digits = each.bit_length() * 0.302
                        ns += (_LARGE_NS + digits**2 * _DIGITS_NS) * (place.numeric + large)
            if list in kinds:
                below = [item for each in values if type(each) is list for item in each]
                left.append((below, place.items, deep_ns + place.deep_ns))
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
        """Create every place; False if there are too many."""
        left: list[tuple[_Place, Applied]] = []
        if isinstance(self._graph.root, dict):
            self._root = self._place({id(self._graph.root): (self._graph.root, 1)}, left)
        while left:
            place, applied = left.pop()
            if len(self._places) > SCHEMA_STATES_MAX or self._steps > SCHEMA_STEPS_MAX:
                return False
            self._fill(place, list(applied.values()), left)
        return self._steps <= SCHEMA_STEPS_MAX

    def _place(self, bases: Applied, left: list[tuple[_Place, Applied]]) -> _Place:
        """The place where `bases` apply; a new one goes to `left` to be filled."""
        key = tuple(sorted((identity, factor) for identity, (_, factor) in bases.items()))
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place()
            applied = self._applied(bases)
            for schema, factor in applied.values():
                place.add(self._own_costs(schema), factor)
            left.append((place, applied))
        return place

    def _applied(self, bases: Applied) -> Applied:
        """`bases` with everything that they apply to the same value."""
        applied: Applied = {}
        left = list(bases.values())
        while left and self._steps <= SCHEMA_STEPS_MAX:
            self._steps += 1
            schema, factor = left.pop()
            if not self._merge(applied, schema, factor):
                continue
            inner = factor * _REEVALUATIONS if any(key in schema for key in _UNEVALUATED) else factor
            for keyword, target in self._graph.in_place[id(schema)]:
                # The validator remembers the result of a recursive reference for each value.
                is_remembered = keyword in REFERENCES and id(target) in self._recursions
                left.append((target, 1 if is_remembered else inner))
        return applied

    def _merge(self, applied: Applied, schema: Schema, factor: int) -> bool:
        """Add a schema to those that apply. Return False for a recursive schema that applied before."""
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

    def _fill(self, place: _Place, applied: list[tuple[Schema, int]], left: list[tuple[_Place, Applied]]) -> None:
        items: list[tuple[Schema, int]] = []
        names: list[tuple[Schema, int]] = []
        everywhere: list[tuple[Schema, int]] = []
        additional: list[tuple[Schema, Schema, int]] = []
        listed: dict[str, list[tuple[Schema, int]]] = {}
        for schema, factor in applied:
            properties = _object(schema.get("properties"))
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
        for name, found in listed.items():
            rest = [(target, factor) for properties, target, factor in additional if name not in properties]
            place.properties[name] = self._place(self._merged([*found, *everywhere, *rest]), left)

    def _merged(self, found: Iterable[tuple[Schema, int]]) -> Applied:
        merged: Applied = {}
        for schema, factor in found:
            self._merge(merged, schema, factor)
        return merged

    def _anywhere(self) -> _Place:
        """One place with every schema, for a document that has too many places."""
        place = _Place()
        schemas = self._graph.schemas.values()
        factor = _FACTOR_MAX if any(key in each for each in schemas for key in _UNEVALUATED) else 1
        for schema in schemas:
            place.add(self._own_costs(schema), factor)
        for kind in _TYPES:
            place.by_type[kind] += _UNKNOWN_REFERENCE_NS * len(self._graph.unknown_references)
        place.same_below()
        self.repeats_recursion = True
        return place

    def _own_costs(self, schema: Schema) -> _Costs:
        """Costs of a schema without the schemas that it applies."""
        costs = self._own.get(id(schema))
        if costs is None:
            costs = self._own[id(schema)] = _Costs()
            costs.errors = len(schema)
            any_ns = _KEYWORD_NS * (2 + len(schema))
            for keyword, value in schema.items():
                any_ns += _REFERENCE_NS.get(keyword, 0)
                _charge(costs, keyword, value)
            for kind in _TYPES:
                costs.by_type[kind] += any_ns
            if self._may_backtrack:
                costs.character_ns += _BACKTRACKING_NS if "pattern" in schema else 0
                costs.name_character_ns += _BACKTRACKING_NS * len(_object(schema.get("patternProperties")))
        return costs


def _charge(costs: _Costs, keyword: str, value: Any) -> None:
    """Add the costs of one keyword beyond _KEYWORD_NS."""
    if keyword == "type":
        costs.numeric += 1
    elif keyword in _LIMITS:
        _charge_numbers(costs, *((_KEYWORD_NS, _KEYWORD_NS) if _is_small(value) else (_FRACTION_NS, _FRACTION_NS)))
    elif keyword == "multipleOf":
        _charge_numbers(costs, *((_INTEGER_NS, 2_000) if _is_small(value) else (8_000, 8_000)))
    elif keyword == "pattern" and isinstance(value, str):
        costs.by_type[str] += _PATTERN_NS
        costs.character_ns += _POSITION_NS * active_positions(value)
    elif keyword == "const":
        _charge_option(costs, value)
    elif keyword == "enum" and isinstance(value, list):
        if all(isinstance(option, str) for option in value):
            # The validator looks these up by hash.
            costs.by_type[str] += _INTEGER_NS
            costs.errors += len(value)
        else:
            for option in value:
                _charge_option(costs, option)
    elif keyword == "uniqueItems" and value is True:
        costs.deep_ns += _UNIQUE_NS
    else:
        _charge_names(costs, keyword, value)


def _charge_names(costs: _Costs, keyword: str, value: Any) -> None:
    costs.name_ns += _NAME_NS.get(keyword, 0)
    if keyword == "patternProperties":
        for pattern in _object(value):
            costs.name_ns += _PATTERN_NS
            costs.name_character_ns += _POSITION_NS * active_positions(pattern)
    elif keyword in _LISTS_OF_NAMES and isinstance(value, dict | list):
        listed = value if isinstance(value, list) else value.values()
        names = len(listed) + sum(len(each) for each in listed if isinstance(each, list))
        costs.by_type[dict] += 100 * names
        costs.errors += 0 if keyword == "properties" else names


def _charge_numbers(costs: _Costs, integer_ns: int, fraction_ns: int) -> None:
    costs.by_type[int] += integer_ns
    costs.by_type[float] += fraction_ns
    costs.numeric += 1


def _charge_option(costs: _Costs, option: Any) -> None:
    costs.errors += 1
    if isinstance(option, dict | list):
        costs.by_type[type(option)] += _nested_ns(option)
    elif _is_number(option):
        _charge_numbers(costs, _INTEGER_NS if _is_small(option) else _FRACTION_NS, _FRACTION_NS)
    else:
        costs.by_type[type(option)] += 30


def _nested_ns(option: Any) -> int:
    ns = 0
    left: list[Any] = [option]
    while left:
        value = left.pop()
        ns += _FRACTION_NS if _is_number(value) else 500
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
    return ns


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_small(limit: Any) -> bool:
    return isinstance(limit, int) and limit.bit_length() <= 64


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
