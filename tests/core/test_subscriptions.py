"""Subscriptions of endpoints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.events.subscriptions import Subscription, matching_patterns, pattern_problems, unknown_patterns

NAMES = st.lists(st.sampled_from(["a", "ab", "b", "c1", "_"]), min_size=1, max_size=4).map(".".join)
PATTERNS = NAMES | NAMES.map("{}.*".format)


@pytest.mark.parametrize(
    ("patterns", "event_type", "expected"),
    [
        ([], "anything.at.all", True),
        ([], "endpoint.warned", False),
        (["endpoint.warned"], "endpoint.warned", True),
        (["endpoint.warned"], "endpoint.disabled", False),
        (["endpoint.*"], "endpoint.disabled", True),
        (["endpoint.*"], "delivery.failed", False),
        (["webhook.created"], "webhook.created", True),
        (["webhook.created"], "webhook.created.twice", False),
        (["webhook.created"], "webhook", False),
        (["movement.*"], "movement.created", True),
        (["movement.*"], "movement.analytics.created", True),
        (["movement.*"], "movement", False),
        (["movement.*"], "movements.created", False),
        (["movement.analytics.*"], "movement.created", False),
        (["webhook.created", "movement.*"], "movement.created", True),
        (["webhook.created", "movement.*"], "athlete.created", False),
    ],
)
def test_matching(patterns: list[str], event_type: str, expected: bool) -> None:
    assert Subscription(patterns).matches(event_type) is expected


@given(st.lists(PATTERNS, min_size=1, max_size=5), NAMES)
def test_matching_is_label_by_label(patterns: list[str], name: str) -> None:
    def matches(pattern: str) -> bool:
        labels, expected = name.split("."), pattern.split(".")
        if expected[-1] == "*":
            return len(labels) >= len(expected) and labels[: len(expected) - 1] == expected[:-1]
        return labels == expected

    assert Subscription(patterns).matches(name) == any(matches(pattern) for pattern in patterns)


@given(st.lists(PATTERNS, max_size=4), st.lists(PATTERNS, min_size=1, max_size=4), NAMES)
def test_more_patterns_never_match_less(patterns: list[str], more: list[str], name: str) -> None:
    if patterns and Subscription(patterns).matches(name):
        assert Subscription([*patterns, *more]).matches(name)


@given(PATTERNS, NAMES)
def test_the_matching_patterns_of_an_event_type_are_complete(pattern: str, name: str) -> None:
    assert (pattern in matching_patterns(name)) == Subscription([pattern]).matches(name)


def test_a_subscription_is_a_value() -> None:
    assert Subscription(["a.b", "a.*"]) == Subscription(("a.b", "a.*"))
    assert hash(Subscription(["a.b"])) == hash(Subscription(["a.b"]))
    assert Subscription(["a.b"]).patterns == ("a.b",)
    assert repr(Subscription(["a.b"])) == "Subscription(patterns=('a.b',))"


def test_patterns_without_a_match_are_listed_in_order() -> None:
    known = {"movement.analytics.created", "webhook.created"}

    assert unknown_patterns([], known) == []
    assert unknown_patterns(["movement.*", "movement.analytics.*", "webhook.created"], known) == []
    assert unknown_patterns(["webhook", "z.*", "webhook.created", "webhook.created.*", "movment.*"], known) == [
        "webhook",
        "z.*",
        "webhook.created.*",
        "movment.*",
    ]


@given(st.lists(PATTERNS, max_size=4), st.lists(NAMES, max_size=4))
def test_a_pattern_without_a_known_type_is_unknown(patterns: list[str], known: list[str]) -> None:
    expected = [pattern for pattern in patterns if not any(Subscription([pattern]).matches(name) for name in known)]

    assert unknown_patterns(patterns, known) == expected


def test_all_problems_with_patterns_are_reported() -> None:
    known = {"movement.analytics.created"}
    assert pattern_problems([], known) == ([], [])
    assert pattern_problems(["movement.*"], known) == (["movement.*"], [])
    right, problems = pattern_problems(["Movement", "movment.*", *["movement.*"] * 99], known, "types")
    assert right == ["movment.*", *["movement.*"] * 99]
    assert [(problem.field, problem.code) for problem in problems] == [
        ("types", "event_type_invalid"),
        ("types", "too_many"),
        ("types", "event_type_unknown"),
    ]
    assert "movment.*" in problems[-1].message


def test_the_most_similar_type_or_group_is_suggested() -> None:
    known = ["movement.analytics.created", "movement.analytics.failed", "athlete.created"]
    _, problems = pattern_problems(["movment.*", "movement.analytic.*", "athlete.create", "payments.*"], known)
    suggested = [each.message.partition("Did you mean ")[2].partition("?")[0] for each in problems]
    assert suggested == ["movement.*", "movement.analytics.*", "athlete.created", ""]
