"""Places in lists as opaque text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.cursors import CURSOR_NUMBERS_MAX, decode, encode

NUMBERS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=CURSOR_NUMBERS_MAX)


@given(NUMBERS)
def test_a_cursor_leads_back(numbers: list[int]) -> None:
    text = encode(numbers)

    assert decode(text, len(numbers)) == tuple(numbers)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)


@given(NUMBERS, st.integers(0, 9))
def test_a_cursor_of_another_list_is_refused(numbers: list[int], count: int) -> None:
    if count != len(numbers):
        assert decode(encode(numbers), count) is None


@given(NUMBERS, st.data())
def test_a_cursor_with_one_character_changed_is_refused(numbers: list[int], data: st.DataObject) -> None:
    text = encode(numbers)
    position = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters(codec="ascii"))
    changed = text[:position] + character + text[position + 1 :]

    assert (decode(changed, len(numbers)) is None) == (changed != text)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{8,40}", fullmatch=True), st.integers(0, 9))
def test_garbage_is_refused(text: str, count: int) -> None:
    assert decode(text, count) is None


@pytest.mark.parametrize("text", ["", "A", "AAAAAAAAA", "AAAAAAAA=", "A" * 129, encode([1]) + "\n", encode([1]) + "="])
def test_other_texts_are_no_cursors(text: str) -> None:
    assert decode(text, 1) is None


def test_there_are_limits_to_what_a_cursor_holds() -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        encode([])
    with pytest.raises(ValueError, match="1 to 8"):
        encode([0] * 9)
    with pytest.raises(OverflowError):
        encode([1 << 63])
    assert len(encode([0] * CURSOR_NUMBERS_MAX)) <= 128
