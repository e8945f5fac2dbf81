"""A token in a link is valid for one purpose only, and only with the key that created it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.security.tokens import (
    Purpose,
    is_valid_reset_token,
    parse_reset_token,
    password_mark,
    reset_token,
    token,
    verified_id,
)

KEY, OTHER = b"k" * 32, b"o" * 32
ID = bytes(range(16))


@given(st.binary(min_size=16, max_size=16), st.sampled_from(Purpose))
def test_a_token_contains_its_id(object_id: bytes, purpose: Purpose) -> None:
    text = token(KEY, purpose, object_id)
    assert verified_id(KEY, purpose, text) == object_id
    assert verified_id(OTHER, purpose, text) is None
    assert [verified_id(KEY, other, text) for other in Purpose if other is not purpose] == [None, None]


@pytest.mark.parametrize("text", ["", "x" * 54, "é" * 54, token(KEY, Purpose.ENTER, ID) + "A", "A" * 41])
def test_invalid_tokens(text: str) -> None:
    assert verified_id(KEY, Purpose.ENTER, text) is None
    assert parse_reset_token(text) is None
    assert not is_valid_reset_token(KEY, text, "m")


@given(st.integers(0, 53), st.sampled_from("ABab09-_"))
def test_a_modified_token_is_invalid(place: int, character: str) -> None:
    text = token(KEY, Purpose.ENTER, ID)
    changed = text[:place] + character + text[place + 1 :]
    assert (verified_id(KEY, Purpose.ENTER, changed) == ID) == (changed == text)


def test_each_purpose_has_its_own_path() -> None:
    links = [purpose.url("https://hooks.example.com", "abc") for purpose in Purpose]
    assert links == [f"https://hooks.example.com/{place}/abc" for place in ("enter", "invitations", "passwords")]


def test_a_reset_token_is_bound_to_the_password_it_replaces() -> None:
    mark = password_mark("$argon2id$one")
    text = reset_token(KEY, ID, expires_at=1_764_000_000_000, mark=mark)
    assert parse_reset_token(text) == (ID, 1_764_000_000_000)
    assert is_valid_reset_token(KEY, text, mark)
    assert not is_valid_reset_token(OTHER, text, mark)
    assert not is_valid_reset_token(KEY, text, password_mark("$argon2id$two"))
    later = reset_token(OTHER, ID, expires_at=1_764_000_000_001, mark=mark)
    assert not is_valid_reset_token(KEY, later, mark)
