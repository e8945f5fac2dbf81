"""Source addresses: an upcoming address becomes current at its start time."""

import pytest

from uplift_server.core.http.source_addresses import SourceAddress, current, upcoming

NOW = 1_764_000_000_000
OLD = SourceAddress("192.0.2.1")
SOON = SourceAddress("192.0.2.2", NOW + 1)
LATER = SourceAddress("2001:db8::1", NOW + 2)


def test_an_address_is_upcoming_until_its_time_and_then_current() -> None:
    published = [OLD, LATER, SOON]

    assert (current(published, NOW), upcoming(published, NOW)) == (["192.0.2.1"], [SOON, LATER])
    assert (current(published, NOW + 1), upcoming(published, NOW + 1)) == (["192.0.2.1", "192.0.2.2"], [LATER])
    assert current(published, NOW + 2) == ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
    assert upcoming(published, NOW + 2) == []


def test_a_repeated_address_is_listed_once() -> None:
    assert current([OLD, OLD, SourceAddress("192.0.2.1", 5)], NOW) == ["192.0.2.1"]


@pytest.mark.parametrize("each", [OLD, SOON, LATER])
def test_the_text_can_be_parsed(each: SourceAddress) -> None:
    assert SourceAddress.parse(each.text) == each


def test_spaces_offsets_and_other_notations_are_parsed() -> None:
    assert SourceAddress.parse(" 2001:DB8::0001 @ 2025-11-24T17:00:00+01:00 ") == SourceAddress("2001:db8::1", NOW)


@pytest.mark.parametrize(
    "text", ["", "x", "192.0.2.1@", "192.0.2.1@soon", "@2026-01-01T00:00:00Z", "192.0.2.0/24", "fe80::1%eth0"]
)
def test_other_texts_are_rejected(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the texts of several parsers
        SourceAddress.parse(text)
