"""Filters over an event's data."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.filters import ABSENT, expected

from uplift_server.core.events.filters import Budget, BudgetExceeded, Filter, check_filter, filter_text

STEPS = 1_000_000


def mismatch(pattern: object, data: object) -> str | None:
    assert check_filter(pattern) == []
    return Filter(filter_text(pattern)).first_mismatch(data, Budget(STEPS))


def matches(pattern: object, data: object) -> bool:
    return mismatch(pattern, data) is None


def test_an_object_of_the_filter_mirrors_an_object_of_the_data() -> None:
    pattern = {"object": {"status": ["completed"], "team": {"id": [7]}}}
    assert matches(pattern, {"object": {"status": "completed", "team": {"id": 7, "name": "A"}}, "more": 1})
    assert mismatch(pattern, {"object": {"status": "completed", "team": {"id": 8}}}) == "data.object.team.id"
    assert mismatch(pattern, {"object": {"team": {"id": 7}}}) == "data.object.status"
    assert mismatch(pattern, {"object": "completed"}) == "data.object.status"
    assert mismatch(pattern, {}) == "data.object.status"


@pytest.mark.parametrize(
    ("literal", "equal", "different"),
    [
        ("a", ["a"], ["A", "", "ab", None, 0, {"a": 1}]),
        ("", [""], ["a", None, False, 0]),
        (1, [1, 1.0], [True, "1", 2, 1.5, None]),
        (1.0, [1, 1.0], [True, "1"]),
        (0, [0, 0.0, -0.0], [False, None, ""]),
        (0.1, [0.1], [0.10000000000000002, 0]),
        (10**30, [10**30], [1e31, 10**30 + 1]),
        (True, [True], [1, 1.0, "true", False]),
        (False, [False], [0, "", None, True]),
        (None, [None], [False, 0, "", {}, "null"]),
    ],
)
def test_a_literal_matches_only_equal_values_of_its_type(
    literal: object, equal: list[object], different: list[object]
) -> None:
    for value in equal:
        assert matches({"a": [literal]}, {"a": value}), value
        assert not matches({"a": [{"anything-but": [literal]}]}, {"a": value}), value
    for value in different:
        assert mismatch({"a": [literal]}, {"a": value}) == "data.a", value
        assert matches({"a": [{"anything-but": [literal]}]}, {"a": value}), value


@pytest.mark.parametrize(
    ("alternative", "accepted", "rejected"),
    [
        ({"prefix": "ab"}, ["ab", "abc"], ["", "a", "xab", "AB", 1, None, True, {}, ABSENT]),
        ({"suffix": "ab"}, ["ab", "xab"], ["", "b", "abx", 1, None, ABSENT]),
        ({"anything-but": ["a", 1]}, ["b", 2, True, None, {}, {"a": 1}], ["a", 1, 1.0, ABSENT]),
        ({"exists": True}, [None, 0, "", [], {}, [1]], [ABSENT]),
        ({"exists": False}, [ABSENT], [None, 0, "", [], {}, [1]]),
        ({"numeric": ["<", 5]}, [4, 4.9, -1e300, -(10**300)], [5, 5.0, "4", None, False, ABSENT]),
        ({"numeric": ["<=", 5]}, [5, 5.0, 4], [6, 5.1]),
        ({"numeric": ["=", 5]}, [5, 5.0], [4, "5", True]),
        ({"numeric": [">=", 1]}, [1, 1.0, 10**300], [0, 0.9, True, "1"]),
        ({"numeric": [">", 1]}, [2, 1.1], [1, 0]),
        ({"numeric": [">=", 1, "<", 5]}, [1, 4.9], [0, 5]),
    ],
)
def test_operators(alternative: object, accepted: list[object], rejected: list[object]) -> None:
    for value in accepted:
        assert matches({"a": [alternative]}, {} if value is ABSENT else {"a": value}), value
    for value in rejected:
        assert not matches({"a": [alternative]}, {} if value is ABSENT else {"a": value}), value


def test_one_alternative_of_a_list_must_match() -> None:
    pattern = {"a": ["x", 1, {"prefix": "p-"}, {"suffix": "-s"}, {"numeric": [">", 9]}, {"numeric": ["<", 0]}]}
    for value in ("x", 1, "p-1", "1-s", 10, -1):
        assert matches(pattern, {"a": value}), value
    for other in ("y", 2, "p", "s", 9, None, {}):
        assert not matches(pattern, {"a": other}), other
    assert matches({"a": [None, {"exists": False}]}, {})
    assert matches({"a": [None, {"exists": False}]}, {"a": None})


def test_two_lists_of_excluded_values_are_alternatives() -> None:
    pattern = {"a": [{"anything-but": ["x", 1, True]}, {"anything-but": ["y", True, "x"]}]}
    assert [value for value in ("x", "y", 1, True, False) if matches(pattern, {"a": value})] == ["y", 1, False]


def test_an_array_matches_if_one_of_its_elements_matches() -> None:
    assert matches({"tags": ["vip"]}, {"tags": ["new", "vip"]})
    assert matches({"tags": ["vip"]}, {"tags": [["new"], [["vip"]]]})
    assert mismatch({"tags": ["vip"]}, {"tags": ["new", {"vip": 1}]}) == "data.tags"
    assert mismatch({"tags": [{"anything-but": ["a"]}]}, {"tags": []}) == "data.tags"
    assert matches({"tags": [{"anything-but": ["a"]}]}, {"tags": ["a", "b"]})


def test_one_element_of_an_array_of_objects_must_match_the_whole_object() -> None:
    pattern = {"items": {"sku": ["A"], "count": [{"numeric": [">", 1]}]}}
    assert matches(pattern, {"items": [{"sku": "B"}, {"sku": "A", "count": 2}]})
    assert mismatch(pattern, {"items": [{"sku": "A", "count": 1}, {"sku": "B", "count": 2}]}) == "data.items"
    assert mismatch(pattern, {"items": []}) == "data.items"
    assert matches(pattern, {"items": [[{"sku": "A", "count": 2}]]})
    assert matches({"items": {"sku": [{"exists": False}]}}, {"items": [{"sku": 1}, 5]})


def test_a_value_that_is_not_an_object_has_no_fields() -> None:
    pattern = {"a": {"b": [{"exists": False}]}}
    assert matches(pattern, {})
    assert matches(pattern, {"a": 1})
    assert matches(pattern, {"a": {"c": 1}})
    assert mismatch(pattern, {"a": {"b": None}}) == "data.a.b"


def test_one_object_of_a_choice_and_all_other_fields_must_match() -> None:
    pattern = {"kind": ["x"], "$or": [{"a": [1]}, {"b": {"c": [2]}, "d": [3]}]}
    assert matches(pattern, {"kind": "x", "a": 1})
    assert matches(pattern, {"kind": "x", "b": {"c": 2}, "d": 3})
    assert mismatch(pattern, {"kind": "x", "b": {"c": 2}}) == "data.$or"
    assert mismatch(pattern, {"kind": "y", "a": 1}) == "data.kind"
    nested = {"items": {"$or": [{"a": [1]}, {"$or": [{"b": [2]}]}]}}
    assert matches(nested, {"items": [{}, {"b": 2}]})
    assert mismatch(nested, {"items": {}}) == "data.items.$or"


@pytest.mark.parametrize(
    ("pattern", "path", "part"),
    [
        ([], "filter", "object"),
        ("x", "filter", "object"),
        (None, "filter", "object"),
        ({}, "filter", "empty"),
        ({"a": {}}, "filter.a", "empty"),
        ({"a": []}, "filter.a", "empty"),
        ({"a": "x"}, "filter.a", "[value]"),
        ({"a": None}, "filter.a", "[value]"),
        ({"a": [["x"]]}, "filter.a.0", "alternative"),
        ({"a": [1, float("nan")]}, "filter.a.1", "finite"),
        ({"a": [float("inf")]}, "filter.a.0", "finite"),
        ({"a": [{}]}, "filter.a.0", "one operator"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, "filter.a.0", "one operator"),
        ({"a": [{"prefx": "x"}]}, "filter.a.0.prefx", "Did you mean prefix?"),
        ({"a": [{"prefix": 1}]}, "filter.a.0.prefix", "string"),
        ({"a": [{"suffix": ["x"]}]}, "filter.a.0.suffix", "string"),
        ({"a": [{"exists": 1}]}, "filter.a.0.exists", "true or false"),
        ({"a": [{"anything-but": "x"}]}, "filter.a.0.anything-but", "list"),
        ({"a": [{"anything-but": []}]}, "filter.a.0.anything-but", "list"),
        ({"a": [{"anything-but": [{"prefix": "x"}]}]}, "filter.a.0.anything-but", "list"),
        ({"a": [{"numeric": 1}]}, "filter.a.0.numeric", "comparisons"),
        ({"a": [{"numeric": []}]}, "filter.a.0.numeric", "comparisons"),
        ({"a": [{"numeric": [">="]}]}, "filter.a.0.numeric", "comparisons"),
        ({"a": [{"numeric": ["!=", 1]}]}, "filter.a.0.numeric", "comparisons"),
        ({"a": [{"numeric": [["<"], 1]}]}, "filter.a.0.numeric", "comparisons"),
        ({"a": [{"numeric": ["<", True]}]}, "filter.a.0.numeric", "comparisons"),
        ({"a": [{"numeric": ["<", 1, ">", 2, "<", 3]}]}, "filter.a.0.numeric", "comparisons"),
        ({"$or": {}}, "filter.$or", "list"),
        ({"$or": []}, "filter.$or", "list"),
        ({"$or": ["x"]}, "filter.$or.0", "object"),
        ({"$or": [{"a": [1]}, {}]}, "filter.$or.1", "empty"),
        ({"$and": [{"a": [1]}]}, "filter.$and", "$or"),
        ({"a": ["\ud800"]}, "filter", "surrogate"),
    ],
)
def test_a_problem_names_its_path(pattern: object, path: str, part: str) -> None:
    [problem] = check_filter(pattern)
    assert (problem.field, problem.code) == (path, "filter_invalid")
    assert part in problem.message


def test_all_problems_are_found_at_once() -> None:
    pattern = {"a": [], "b": {"c": "x", "$or": [{"d": [{"exists": 0}]}]}}
    assert [each.field for each in check_filter(pattern, "f")] == ["f.a", "f.b.c", "f.b.$or.0.d.0.exists"]


def nested(levels: int) -> dict[str, object]:
    return {"a": [1]} if levels == 1 else {"a": nested(levels - 1)}


def test_a_filter_has_at_most_eight_levels() -> None:
    assert check_filter(nested(8)) == []
    assert [each.field for each in check_filter(nested(9))] == ["filter" + 8 * ".a"]
    assert check_filter({"$or": [nested(7)]}) == []
    assert [each.field for each in check_filter({"$or": [nested(8)]})] == ["filter.$or.0" + 7 * ".a"]
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert [each.field for each in check_filter(deep)] == ["filter"]


def test_a_filter_has_at_most_64_alternatives() -> None:
    assert check_filter({"a": list(range(64))}) == []
    assert check_filter({"a": [{"anything-but": list(range(64))}]}) == []
    assert [each.field for each in check_filter({"a": list(range(65))})] == ["filter"]
    assert [each.field for each in check_filter({"a": [{"anything-but": list(range(65))}]})] == ["filter"]
    assert [each.field for each in check_filter({"a": list(range(33)), "b": list(range(32))})] == ["filter"]


def test_a_filter_has_at_most_8_kib_as_stored() -> None:
    assert check_filter({"a": ["x" * (8192 - len('{"a":[""]}'))]}) == []
    [problem] = check_filter({"a": ["x" * (8193 - len('{"a":[""]}'))]})
    assert (problem.field, problem.code) == ("filter", "filter_invalid")
    assert len(check_filter({"a": ["\u20ac" * 2728]})) == 1, "characters count as UTF-8"
    assert [each.field for each in check_filter({"a": [10**5000]})] == ["filter"]


def test_a_large_number_is_a_literal() -> None:
    assert matches({"a": [10**400]}, {"a": 10**400})
    assert matches({"a": [{"numeric": ["<", 10**400]}]}, {"a": 1e300})


def steps(pattern: object, data: object) -> int:
    budget = Budget(STEPS)
    Filter(filter_text(pattern)).first_mismatch(data, budget)
    return STEPS - budget.steps


def test_steps_grow_with_the_elements_and_the_alternatives() -> None:
    objects = {"a": [{"b": 1}] * 1000}
    branches = [{"b": [number + 2]} for number in range(60)]
    assert 1000 * 60 <= steps({"a": {"$or": branches}}, objects) <= 4 * 1000 * 60
    assert 1000 <= steps({"a": [2]}, {"a": [1] * 1000}) <= 2000
    prefixes = [{"prefix": str(number)} for number in range(64)]
    assert steps({"a": prefixes}, {"a": ["x"] * 1000}) > 5000
    assert steps({"a": [2]}, {"a": [[] for _ in range(1000)]}) >= 1000


@pytest.mark.parametrize("name", ["prefix", "suffix"])
def test_steps_grow_with_the_length_of_prefixes_and_suffixes(name: str) -> None:
    """Comparing texts whose characters have different widths takes time for each character."""
    long = [{name: "x" * 1000 + str(number)} for number in range(7)]
    assert steps({"a": long}, {"a": ["x"] * 100}) > 1000
    assert steps({"a": [{name: str(number)} for number in range(7)]}, {"a": ["x"] * 100}) < 300


def test_an_expensive_evaluation_ends() -> None:
    expensive = Filter(filter_text({"a": {"$or": [{"b": [number]} for number in range(60)]}}))
    budget = Budget(10_000)
    with pytest.raises(BudgetExceeded):
        expensive.first_mismatch({"a": [{}] * 1000}, budget)
    with pytest.raises(BudgetExceeded):
        expensive.first_mismatch({}, budget)


SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 0.5, 1.0, 2.0]) | st.text("ab", max_size=3)
)
NAMES = st.sampled_from("xyz")
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
DATA = st.dictionaries(NAMES, VALUES, max_size=3)
COMPARISONS = st.tuples(st.sampled_from(["<", "<=", "=", ">=", ">"]), st.sampled_from([-1, 0, 0.5, 1, 2.0]))
OPERATORS = st.one_of(
    st.fixed_dictionaries({"prefix": st.text("ab", max_size=2)}),
    st.fixed_dictionaries({"suffix": st.text("ab", max_size=2)}),
    st.fixed_dictionaries({"exists": st.booleans()}),
    st.fixed_dictionaries({"anything-but": st.lists(SCALARS, min_size=1, max_size=3)}),
    st.fixed_dictionaries(
        {
            "numeric": st.lists(COMPARISONS, min_size=1, max_size=2).map(
                lambda pairs: [x for pair in pairs for x in pair]
            )
        }
    ),
)
LEAVES = st.lists(SCALARS | OPERATORS, min_size=1, max_size=3)
PATTERNS: st.SearchStrategy[Any] = st.recursive(
    st.dictionaries(NAMES, LEAVES, min_size=1, max_size=2),
    lambda inner: (
        st.dictionaries(NAMES, LEAVES | inner, min_size=1, max_size=2)
        | st.builds(
            lambda fields, branches: {**fields, "$or": branches},
            st.dictionaries(NAMES, LEAVES | inner, max_size=2),
            st.lists(inner, min_size=1, max_size=3),
        )
    ),
    max_leaves=5,
)


@given(PATTERNS, DATA)
def test_any_filter_matches_as_defined(pattern: dict[str, Any], data: dict[str, Any]) -> None:
    found = Filter(filter_text(pattern)).first_mismatch(data, Budget(STEPS))
    assert (found is None) is expected(pattern, data)
    assert found is None or found.startswith("data.")


@given(PATTERNS)
def test_any_filter_has_no_problems_and_keeps_its_text(pattern: dict[str, Any]) -> None:
    problems = check_filter(pattern)
    assert all("levels" in each.message or "values and operators" in each.message for each in problems)
    assert filter_text(json.loads(filter_text(pattern))) == filter_text(pattern)
