"""The time that a validator takes for each keyword of a JSON Schema.

The costs were measured with jsonschema-rs 0.61. The costs must be precise. If the estimate for an ordinary event is too
high, the server rejects the event.
"""

from typing import Any, Final

from uplift_server.core.events.schema_graph import Schema
from uplift_server.core.events.schema_patterns import active_positions
from uplift_server.core.limits import EVENT_INTEGER_DIGITS_MAX

TYPES: Final = (dict, list, str, int, float, bool, type(None))
WALK_NS: Final = 15
_KEYWORD_NS: Final = 8
_INTEGER_NS: Final = 150
"""Cost of comparing an integer with `const`, in ns."""
_INTEGER_OPTION_NS: Final = 3
"""Cost of each integer in an `enum`, in ns. The validator looks up integers by hash."""
_FRACTION_OPTION_NS: Final = 1_300
"""Cost of comparing a fraction in the data with `const` or with one number in an `enum`, in ns.

The validator makes an exact comparison.
"""
EXTREME_NS: Final = 25_000
"""Cost of an exact comparison with a number that has many digits, such as 1e-300, in ns."""
DIGITS_NS: Final = 0.2
"""Cost of comparing an integer of more than 64 bits: this number of ns times the square of the number of digits."""
LARGE_NS: Final = 2_000
_PATTERN_NS: Final = 40
_BACKTRACKING_NS: Final = 2_000
"""Cost of a pattern that may backtrack up to PATTERN_BACKTRACKS_MAX times, in ns per character."""
_POSITION_NS: Final = 8
"""Cost of each pattern position that can be active, in ns per character."""
_UNIQUE_NS: Final = 100
_REFERENCE_NS: Final = {"$ref": 30, "$dynamicRef": 100, "$recursiveRef": 100}
_LIMITS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_NAME_NS: Final = {
    "additionalProperties": 15,
    "patternProperties": 15,
    "properties": 15,
    "propertyNames": 35,
    "unevaluatedProperties": 30,
}
_LISTED_NAME_NS: Final = {"dependencies": 45, "dependentRequired": 45, "dependentSchemas": 30, "required": 25}


class Costs:
    """The costs of checking one value against all schemas that apply at one place in the data."""

    __slots__ = ("by_type", "character_ns", "deep_ns", "errors", "exact", "name_character_ns", "name_ns", "numeric")

    def __init__(self) -> None:
        self.by_type = dict.fromkeys(TYPES, 0)
        self.character_ns = 0
        self.name_ns = self.name_character_ns = 0
        self.deep_ns = 0
        """Cost in ns of each value that is nested in an array, at any depth."""
        self.errors = 0
        self.numeric = self.exact = 0
        """How many comparisons the validator makes with each number in the data, and how many of them are exact.

        Exact comparisons are slow for extreme numbers.
        """

    def add(self, other: "Costs", factor: int) -> None:
        """Add the costs of another schema that the validator applies `factor` times."""
        for kind, ns in other.by_type.items():
            self.by_type[kind] += ns * factor
        self.character_ns += other.character_ns * factor
        self.name_ns += other.name_ns * factor
        self.name_character_ns += other.name_character_ns * factor
        self.deep_ns += other.deep_ns * factor
        self.errors += other.errors * factor
        self.numeric += other.numeric * factor
        self.exact += other.exact * factor

    @property
    def value_ns_max(self) -> int:
        """The maximum cost of one value and its name, in ns, without the costs of their characters."""
        return max(self.by_type.values()) + self.name_ns + WALK_NS

    @property
    def byte_ns_max(self) -> int:
        """The maximum cost of one byte of a string, a name or a long integer, in ns."""
        integer_ns = self.numeric * (EVENT_INTEGER_DIGITS_MAX * DIGITS_NS + LARGE_NS / 20)
        # A very large number, such as 1e26, takes at least 5 bytes, including a comma.
        # Each level of nested arrays with unique items adds costs.
        fraction_ns = self.exact * EXTREME_NS // 5 + 250 * self.deep_ns
        return self.character_ns + self.name_character_ns + int(integer_ns) + fraction_ns


def costs_of(schema: Schema, *, may_backtrack: bool) -> Costs:
    """Return the costs of a schema's own keywords, without the costs of the schemas in these keywords."""
    costs = Costs()
    costs.errors = len(schema)
    any_ns = _KEYWORD_NS * (2 + len(schema))
    for keyword, value in schema.items():
        any_ns += _REFERENCE_NS.get(keyword, 0)
        _charge(costs, keyword, value)
    for kind in TYPES:
        costs.by_type[kind] += any_ns
    if may_backtrack:
        costs.character_ns += _BACKTRACKING_NS if "pattern" in schema else 0
        costs.name_character_ns += _BACKTRACKING_NS * len(object_or_empty(schema.get("patternProperties")))
    return costs


def _charge(costs: Costs, keyword: str, value: Any) -> None:
    """Add the costs of one keyword to `costs`, without the fixed cost that every keyword has."""
    if keyword == "type":
        costs.numeric += 1
    elif keyword in _LIMITS:
        _charge_numbers(costs, *((10, 30) if _is_small(value) else (400, 1_400)))
    elif keyword == "multipleOf":
        _charge_numbers(costs, *((20, 350) if _is_small(value) else (900, 1_600)))
        costs.exact += 0 if _is_small(value) else 1
    elif keyword == "pattern" and isinstance(value, str):
        costs.by_type[str] += _PATTERN_NS
        costs.character_ns += _POSITION_NS * active_positions(value)
    elif keyword == "const":
        _charge_option(costs, value)
    elif keyword == "enum" and isinstance(value, list):
        if all(isinstance(option, str) for option in value):
            # The validator finds a string by its hash, so the number of options does not matter.
            costs.by_type[str] += _INTEGER_NS
            costs.errors += len(value)
        else:
            for option in value:
                _charge_option(costs, option, _INTEGER_OPTION_NS)
    elif keyword == "uniqueItems" and value is True:
        costs.deep_ns += _UNIQUE_NS
    else:
        _charge_names(costs, keyword, value)


def _charge_names(costs: Costs, keyword: str, value: Any) -> None:
    costs.name_ns += _NAME_NS.get(keyword, 0)
    if keyword == "patternProperties":
        for pattern in object_or_empty(value):
            costs.name_ns += _PATTERN_NS
            costs.name_character_ns += _POSITION_NS * active_positions(pattern)
    elif keyword in _LISTED_NAME_NS and isinstance(value, dict | list):
        listed = value if isinstance(value, list) else value.values()
        names = len(listed) + sum(len(each) for each in listed if isinstance(each, list))
        costs.by_type[dict] += _LISTED_NAME_NS[keyword] * names
        costs.errors += names


def _charge_numbers(costs: Costs, integer_ns: int, fraction_ns: int) -> None:
    costs.by_type[int] += integer_ns
    costs.by_type[float] += fraction_ns
    costs.numeric += 1


def _charge_option(costs: Costs, option: Any, integer_ns: int = _INTEGER_NS) -> None:
    costs.errors += 1
    if isinstance(option, dict | list):
        costs.by_type[type(option)] += _nested_ns(option)
    elif _is_number(option):
        _charge_numbers(costs, integer_ns if _is_small(option) else 700, _FRACTION_OPTION_NS)
        costs.exact += 1
    else:
        costs.by_type[type(option)] += 15


def _nested_ns(option: Any) -> int:
    ns = 0
    left: list[Any] = [option]
    while left:
        value = left.pop()
        ns += _FRACTION_OPTION_NS if _is_number(value) else 50
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
    return ns


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_small(limit: Any) -> bool:
    return isinstance(limit, int) and limit.bit_length() <= 64


def object_or_empty(value: Any) -> dict[str, Any]:
    """Return the value if it is an object. Otherwise, return an empty object."""
    return value if isinstance(value, dict) else {}
