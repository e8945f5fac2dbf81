"""Display of text from external sources, and checks of characters."""

from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.texts import is_visible_ascii, printable


def test_control_characters_are_replaced() -> None:
    assert printable("a\x1b[2Jb\r\x07\u202ec\nd") == "a?[2Jb???c?d"
    assert printable("a\r\nb", lines=True) == "a?\nb"


@given(st.text())
def test_length_and_printable_characters_are_unchanged(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert not text.isprintable() or shown == text


def test_spaces_control_characters_and_other_scripts_are_not_visible_ascii() -> None:
    assert is_visible_ascii("op_Key-~!")
    assert not [text for text in ("a b", "a\tb", "a\x7f", "é") if is_visible_ascii(text)]
