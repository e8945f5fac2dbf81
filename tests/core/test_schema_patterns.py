"""The size of a regular expression: the number of its positions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.events.schema_patterns import active_positions


@pytest.mark.parametrize(
    ("pattern", "positions"),
    [
        ("", 1),
        ("abc", 4),
        ("^abc$", 1),
        ("^[0-9a-f]{8}-[0-9a-f]{4}$", 1),
        ("^[a-z]{1,36}$", 3),
        (r"^\p{L}+x", 5),
        ("a{3}", 4),
        ("a{2,}", 4),
        ("a{2,9}?", 10),
        ("a{0}", 2),
        ("a*b?", 3),
        ("(ab){3}", 7),
        ("(a{5}){10}", 51),
        ("^a|b", 5),
        (r"[^\]]\u{41}\x{41}[]a][{]", 8),
        (r".\D", 7),
        ("a)", 3),
        ("(a", 2),
    ],
)
def test_positions(pattern: str, positions: int) -> None:
    assert active_positions(pattern) == positions


@given(st.text(alphabet=r"a.\\[]{}()|*+?^$,1-p", max_size=30))
def test_every_text_has_a_size(pattern: str) -> None:
    assert active_positions(pattern) >= 1
