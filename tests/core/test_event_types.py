"""Names of event types and patterns."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.events.event_types import check_name, check_pattern


@pytest.mark.parametrize("name", ["a", "webhook.created", "movement.analytics.created", "a_1.b2", "_", "9", "a" * 128])
def test_names(name: str) -> None:
    assert check_name(name) is None
    assert check_pattern(name) is None


@pytest.mark.parametrize(
    "text",
    ["", ".", "a.", ".a", "a..b", "A", "a-b", "a b", "a.*", "ä", "a\n", "\u0661", "a" * 129, "movement/created"],
)
def test_invalid_names(text: str) -> None:
    problem = check_name(text, "types[3]")

    assert problem is not None
    assert (problem.field, problem.code) == ("types[3]", "event_type_invalid")


@pytest.mark.parametrize("pattern", ["movement.*", "movement.analytics.*", "a" * 128 + ".*"])
def test_patterns(pattern: str) -> None:
    assert check_pattern(pattern) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*", "empty list"),
        (".*", "separated by dots"),
        ("*.created", "allowed only at the end"),
        ("movement*", "allowed only at the end"),
        ("movement.*.*", "allowed only at the end"),
        ("movement.**", "allowed only at the end"),
        ("Movement.*", "separated by dots"),
        ("a" * 129 + ".*", "at most 128"),
        ("", "separated by dots"),
    ],
)
def test_invalid_patterns(text: str, words: str) -> None:
    problem = check_pattern(text)

    assert problem is not None
    assert (problem.field, problem.code) == ("event_types", "event_type_invalid")
    assert words in problem.message


@given(st.text(st.sampled_from("aZ_.*1 "), max_size=12))
def test_constants_have_the_documented_names(text: str) -> None:
    assert (check_name(text) is None) == bool(re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", text))
