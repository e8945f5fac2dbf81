"""Cursors of lists."""

import re
from base64 import urlsafe_b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.cursors import CURSOR_KEY_BYTES, CURSOR_NUMBERS_MAX, Cursors

CURSORS = Cursors(bytes(range(CURSOR_KEY_BYTES)))
encode, decode = CURSORS.encode, CURSORS.decode
NUMBERS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=CURSOR_NUMBERS_MAX)


@given(NUMBERS)
def test_a_cursor_decodes_to_its_numbers(numbers: list[int]) -> None:
    text = encode(numbers)

    assert decode(text, len(numbers)) == tuple(numbers)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)


@given(NUMBERS, st.integers(0, 9))
def test_a_cursor_of_another_list_is_rejected(numbers: list[int], count: int) -> None:
    if count != len(numbers):
        assert decode(encode(numbers), count) is None


@given(NUMBERS, st.data())
def test_a_modified_cursor_is_rejected(numbers: list[int], data: st.DataObject) -> None:
    text = encode(numbers)
    position = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters(codec="ascii"))
    changed = text[:position] + character + text[position + 1 :]

    assert (decode(changed, len(numbers)) is None) == (changed != text)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{8,40}", fullmatch=True), st.integers(0, 9))
def test_garbage_is_rejected(text: str, count: int) -> None:
    assert decode(text, count) is None


@pytest.mark.parametrize("text", ["", "A", "AAAAAAAAA", "AAAAAAAA=", "A" * 129, encode([1]) + "\n", encode([1]) + "="])
def test_invalid_cursors_are_rejected(text: str) -> None:
    assert decode(text, 1) is None


def test_a_cursor_has_limits() -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        encode([])
    with pytest.raises(ValueError, match="1 to 8"):
        encode([0] * 9)
    with pytest.raises(OverflowError):
        encode([1 << 63])
    assert len(encode([0] * CURSOR_NUMBERS_MAX)) <= 128


@given(NUMBERS)
def test_a_position_has_one_cursor_per_key(numbers: list[int]) -> None:
    other = Cursors(bytes(CURSOR_KEY_BYTES))

    assert Cursors(bytes(range(CURSOR_KEY_BYTES))).encode(numbers) == encode(numbers)
    assert other.encode(numbers) != encode(numbers)
    assert other.decode(encode(numbers), len(numbers)) is None


def test_similar_cursors_look_unrelated() -> None:
    """Two cursors do not reveal how many events are between them."""
    values = [urlsafe_b64decode(encode([number]) + "==") for number in range(256)]

    assert len({value[:4] for value in values}) == len({value[-4:] for value in values}) == 256
    assert not [number for number, value in enumerate(values) if number.to_bytes(8, "big") in value]


def test_cursors_are_the_same_in_every_version() -> None:
    assert encode([1, 2**40]) == "zHlNTaSWLlZv2bOy1E2XusCtuRWiOyeA"


def test_a_key_has_a_fixed_length() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Cursors(bytes(16))
