"""Enumerations whose members have a number for the database and a name for the API."""

from uplift_server.core.named_codes import NamedCode


class Color(NamedCode):
    """A named enumeration."""

    DEEP_RED = 1
    BLUE = 7


def test_a_member_is_its_number_and_has_a_text() -> None:
    assert (Color.DEEP_RED, Color.BLUE) == (1, 7)
    assert [color.text for color in Color] == ["deep_red", "blue"]
    assert Color(7) is Color.BLUE
