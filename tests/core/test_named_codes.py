"""Numbers and names of codes."""

from uplift_server.core.named_codes import NamedCode


class Colour(NamedCode):
    """A named enumeration."""

    DEEP_RED = 1
    BLUE = 7


def test_a_member_is_its_number_and_has_a_text() -> None:
    assert (Colour.DEEP_RED, Colour.BLUE) == (1, 7)
    assert [colour.text for colour in Colour] == ["deep_red", "blue"]
    assert Colour(7) is Colour.BLUE
