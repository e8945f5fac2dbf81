"""Estimated cost of schema checks."""

import json
from typing import Any

import pytest

from uplift_server.core.events.schema_cost import SchemaCost
from uplift_server.core.events.schema_graph import SchemaGraph
from uplift_server.core.limits import SCHEMA_CHECK_NS_MAX, SCHEMA_STATES_MAX


def cost_of(schema: Any, **options: bool) -> SchemaCost:
    return SchemaCost(SchemaGraph(json.loads(json.dumps(schema))), **options)


def cost_ns(schema: Any, value: Any, **options: bool) -> int:
    return cost_of(schema, **options).measure(value).ns


def is_affordable(schema: Any, value: Any) -> bool:
    return cost_of(schema).is_affordable(json.dumps(value, separators=(",", ":")).encode(), value)


def choices(count: int) -> Any:
    return {"items": {"anyOf": [{"const": number} for number in range(count)]}}


def test_the_cost_is_branches_times_items() -> None:
    assert is_affordable(choices(1500), [1])
    assert is_affordable(choices(3), [1] * 1_000)
    # Large data with long texts has only a few values to check.
    assert is_affordable({"items": {"minimum": 0.5}}, ["a" * 200_000])
    assert not is_affordable(choices(1500), [1] * 8_000)


def test_schemas_of_other_properties_cost_nothing() -> None:
    schema = {"properties": {"wide": choices(1500), "numbers": {"items": {"type": "number"}}}}
    assert is_affordable(schema, {"numbers": [1] * 20_000})
    assert not is_affordable(schema, {"wide": [1] * 20_000})


@pytest.mark.parametrize(
    ("keywords", "value"),
    [
        ({"minimum": 0.5}, 1.5),
        ({"maximum": 10**30}, 1),
        ({"multipleOf": 0.1}, 1),
        ({"multipleOf": 3}, 1.5),
        ({"const": 1.5}, 1),
        ({"enum": [1, "a", None, True, 2.5]}, 1.5),
        ({"enum": ["a", "b"]}, "a"),
        ({"enum": [{"a": [1, "b"]}, [2]]}, {"a": 1}),
        ({"pattern": "a+b"}, "aaaa"),
        ({"required": ["a", "b"]}, {}),
        ({"dependentRequired": {"a": ["b"]}}, {}),
        ({"dependentSchemas": {"a": {"minProperties": 1}}}, {}),
        ({"propertyNames": {"pattern": "^a"}}, {"ab": 1}),
        ({"patternProperties": {"^a": {"type": "string"}}}, {"ab": 1}),
        ({"additionalProperties": {"minimum": 1}}, {"ab": 1}),
        ({"unevaluatedProperties": {"minimum": 1}}, {"ab": 1}),
        ({"$dynamicRef": "#x", "$defs": {"x": {"$dynamicAnchor": "x", "minimum": 1}}}, 1),
        ({"uniqueItems": True}, [1, 2]),
        ({"contains": {"minimum": 1}}, [1]),
        ({"type": "integer"}, 10**600),
    ],
)
def test_each_keyword_costs_something(keywords: Any, value: Any) -> None:
    assert cost_ns(keywords, value) > cost_ns({"title": ""}, value)


def test_a_keyword_with_an_invalid_value_is_ignored() -> None:
    assert cost_ns({"required": 1, "enum": 2, "pattern": 3, "uniqueItems": 4, "properties": 5}, {"a": 1}) > 0


def test_each_property_has_its_own_schemas() -> None:
    schema = {"properties": {"a": True, "b": {"type": "string"}}, "additionalProperties": {"minimum": 0.5}}
    assert cost_ns(schema, {"c": 1}) > cost_ns(schema, {"b": 1}) > cost_ns(schema, {"a": 1})


def test_nested_unique_items_cost_more_with_each_level() -> None:
    schema = {"$ref": "#/$defs/u", "$defs": {"u": {"uniqueItems": True, "items": {"$ref": "#/$defs/u"}}}}
    numbers: Any = list(range(20_000))
    assert is_affordable(schema, numbers)
    for _ in range(100):
        numbers = [numbers, 1]
    assert not is_affordable(schema, numbers)


def test_large_unique_integers_cost_the_square_of_their_number() -> None:
    schema = {"uniqueItems": True}
    assert is_affordable(schema, [2**65 + number for number in range(50)])
    assert not is_affordable(schema, [2**65 + number for number in range(1_000)])
    assert is_affordable({"items": {"type": "number"}}, [2**65 + number for number in range(1_000)])


def test_nested_unevaluated_properties_multiply() -> None:
    def nested(levels: int) -> Any:
        schema: Any = {"unevaluatedProperties": {"type": "integer"}}
        for _ in range(levels):
            schema = {"allOf": [schema], "unevaluatedProperties": {"type": "integer"}}
        return schema

    assert cost_of(nested(6)).value_ns_max > 50 * cost_of(nested(2)).value_ns_max
    assert cost_of(nested(30)).value_ns_max > SCHEMA_CHECK_NS_MAX


def test_a_schema_that_applies_twice_costs_twice() -> None:
    shared = {"$ref": "#/$defs/x"}
    definitions = {"x": {"properties": {"a": {"minimum": 0.5}}}}
    once, twice = ({"allOf": [shared] * count, "$defs": definitions} for count in (1, 2))
    assert cost_ns(twice, {"a": 1}) > cost_ns(once, {"a": 1}) + 400
    assert not cost_of(twice).repeats_recursion


def test_a_recursion_that_applies_twice_is_reported() -> None:
    tree = {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}
    assert not cost_of(tree).repeats_recursion
    assert cost_of({"allOf": [tree, {"properties": {"left": {"$ref": "#"}}}]}).repeats_recursion
    assert cost_of({"allOf": [{"$ref": "#"}]}).repeats_recursion


def test_alternatives_are_reported() -> None:
    assert cost_of({"items": {"oneOf": [True]}}).has_alternatives
    assert not cost_of({"items": {"allOf": [True]}}).has_alternatives


def kind(name: str, value: Any, *rest: Any) -> Any:
    return {"properties": {name: value}, "allOf": [{"properties": {"n": {"anyOf": list(rest)}}}]}


@pytest.mark.parametrize("keyword", ["oneOf", "anyOf"])
def test_the_kind_of_an_object_decides_which_alternatives_it_costs(keyword: str) -> None:
    small, large = kind("type", {"const": "a"}), kind("type", {"enum": ["b", "c"]}, *choices(500)["items"]["anyOf"])
    schema = {keyword: [small, {"$ref": "#/$defs/large"}, {"type": "null"}], "$defs": {"large": large}}
    cost = cost_of(schema)
    least, most = (cost.measure({"type": name, "n": 1}).ns for name in "ab")
    assert most > 20 * least
    assert cost.measure({"type": "c", "n": 1}).ns == most
    for value in ({"type": "d", "n": 1}, {"type": 1, "n": 1}, {"n": 1}):
        assert cost.measure(value).ns > 20 * least
    assert cost.measure({"type": "a", "n": 1}, by_kind=False).ns > most
    assert cost_ns({**schema, "unevaluatedProperties": False}, {"type": "a", "n": 1}) > most
    large["unevaluatedProperties"] = False
    assert cost_ns(schema, {"type": "a", "n": 1}) == least


def test_kinds_within_kinds() -> None:
    wide = choices(500)["items"]["anyOf"]
    inner = {"oneOf": [kind("sub", {"const": "x"}), kind("sub", {"const": "y"}, *wide)]}
    schema = {"oneOf": [kind("type", {"const": name}) | inner for name in ("a", "b", "c")]}
    cost = cost_of(schema)
    least, most = (cost.measure({"type": "a", "sub": name, "n": 1}).ns for name in "xy")
    assert most > 20 * least


def test_too_many_combinations_of_kinds_cost_all_alternatives() -> None:
    def combined(names: str) -> Any:
        groups = [[kind(name, {"const": str(n)}, {"minimum": n}) for n in range(30)] for name in names]
        return {"allOf": [{"oneOf": group} for group in groups]}

    data = dict.fromkeys("abcdef", "1") | {"n": 1}
    few, many = cost_of(combined("ab")), cost_of(combined("abcdef"))
    assert many.is_complete
    assert few.measure(data).ns < few.measure(data, by_kind=False).ns / 5
    assert many.measure(data).ns == many.measure(data, by_kind=False).ns


def test_a_kind_in_one_alternative_distinguishes_nothing() -> None:
    schema = {"oneOf": [kind("type", {"const": "a"}), kind("type", {"type": "string"}), kind("type", {"enum": 5})]}
    assert cost_ns(schema, {"type": "a"}) == pytest.approx(cost_ns(schema, {"type": "b"}))


def test_numbers_of_extreme_size_cost_more() -> None:
    for schema in ({"multipleOf": 0.5}, {"enum": [1, 2]}):
        assert cost_ns(schema, 1e-300) > 5 * cost_ns(schema, 1.5)
    unique = {"uniqueItems": True}
    assert cost_ns(unique, [1e-300]) > cost_ns(unique, [1.5]) > cost_ns(unique, ["a"])
    assert cost_ns({"type": "number"}, 1e-300) == cost_ns({"type": "number"}, 1.5)


def test_a_few_unique_items_cost_more_than_many() -> None:
    unique = {"items": {"uniqueItems": True}}
    assert cost_ns(unique, [["a"] * 10] * 100) > 2 * cost_ns(unique, [["a"] * 100] * 10)


def is_explainable(schema: Any, value: Any) -> bool:
    return cost_of(schema).is_explainable(json.dumps(value).encode(), value)


def test_the_cost_limits_explanations() -> None:
    assert is_explainable(choices(100), [1])
    assert not is_explainable(choices(100), [1] * 10)
    numbers = {"items": {"type": "number"}}
    assert is_explainable(numbers, ["a"] * 100)
    assert not is_explainable(numbers, ["a" * 400] * 100)


def test_a_recursion_that_applies_twice_is_not_explained() -> None:
    tree = {"properties": {"left": {"$ref": "#"}}}
    assert is_explainable(tree, {})
    assert not is_explainable({"allOf": [tree, tree]}, {})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {str(number): {"type": "null"} for number in range(SCHEMA_STATES_MAX + 1)}},
        {"allOf": [{"properties": {str(n): True for n in range(300)}, "additionalProperties": {}}] * 200},
        {"$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(20)} | {"20": {}}}
        | {"$ref": "#/$defs/0"},
        {"items": {"$ref": "https://json-schema.org/draft/2020-12/schema"}},
        {"$ref": "https://json-schema.org/draft/2020-12/schema", "unevaluatedItems": True},
    ],
)
def test_a_schema_with_too_many_places_has_an_upper_estimate(schema: Any) -> None:
    cost = cost_of(schema)
    assert not cost.is_complete
    assert cost.measure([{"a": [1, "x"]}] * 10_000).ns > SCHEMA_CHECK_NS_MAX
    assert cost.repeats_recursion


def test_the_schema_true_is_always_affordable() -> None:
    assert is_affordable(True, [1] * 100_000)


def test_patterns_that_backtrack_cost_more() -> None:
    schema = {"pattern": "^a$", "patternProperties": {"^b$": True}}
    for value in ("aaaa", {"bbbb": 1}):
        assert cost_ns(schema, value, may_backtrack=True) > 2 * cost_ns(schema, value)
