"""Short values in tables: ID prefixes and relative times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.cli import lookup
from uplift_server.core import ids
from uplift_webhooks.cli.kit.calls import CallRejected
from uplift_webhooks.cli.kit.errors import ExitCode
from uplift_webhooks.cli.kit.tables import BEGINNING, BETWEEN, distance, short_ids

NOW = 1_764_000_000_000
events = st.builds(ids.uuid7, st.integers(NOW, NOW + 3), st.binary(min_size=10, max_size=10))


class Listing:
    """An API client whose lists have the given IDs. Requests for single objects fail with 404."""

    def __init__(self, found: list[str]) -> None:
        self._found = found

    def get(self, path: str, **_: object) -> object:
        raise CallRejected("", "", ExitCode.NOT_FOUND, 404, {})

    def items(self, path: str, **_: object) -> list[dict[str, str]]:
        return [{"id": each} for each in self._found]


@given(st.sets(st.tuples(events, st.binary(min_size=16, max_size=16)), min_size=1, max_size=8))
def test_a_short_id_finds_its_object(pairs: set[tuple[bytes, bytes]]) -> None:
    # IDs of one event and several endpoints differ only at their end.
    found = sorted({ids.delivery_id(event, endpoint) for event, _ in pairs for _, endpoint in pairs})
    for whole, short in short_ids(found).items():
        assert lookup.delivery(Listing(found), short)["id"] == whole  # type: ignore[arg-type]
        assert len(short) >= BEGINNING


def test_ids_are_as_short_as_possible() -> None:
    one, other = ids.prefixed("ep", bytes(16)), ids.prefixed("ep", b"\x01" * 16)
    assert list(short_ids([one, other]).values()) == ["000000000000", "010101010101"]
    event = b"e" * 16
    siblings = [ids.delivery_id(event, bytes(10) + tail) for tail in (b"aaaaaa", b"bbbbbb")]
    assert list(short_ids(siblings).values()) == [f"656565656565{BETWEEN}6161", f"656565656565{BETWEEN}6262"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "now"), (5, "in 5 s"), (-59, "59 s ago"), (250, "in 4 min"), (-3600, "1 h ago"), (200_000, "in 2 d")],
)
def test_times_are_relative(seconds: int, text: str) -> None:
    assert distance("2025-11-24T16:00:00.000Z", NOW - seconds * 1000) == text


def test_other_text_stays_unchanged() -> None:
    assert distance("soon") == "soon"
