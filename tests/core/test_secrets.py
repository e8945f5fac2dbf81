"""Secrets after rotations and expiries: single cases and random sequences."""

from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.security.secrets import SecretPair

HOUR = 3_600_000
START = 1_764_000_000_000

ROTATE = st.tuples(st.just("rotate"), st.integers(0, 7 * 24 * HOUR), st.booleans())
WAIT = st.tuples(st.just("wait"), st.integers(0, 8 * 24 * HOUR), st.just(False))
END = st.tuples(st.just("end"), st.just(0), st.just(False))


@given(st.lists(ROTATE | WAIT | END, max_size=12))
def test_one_or_two_secrets_are_active_and_one_signs_the_header(steps: list[tuple[str, int, bool]]) -> None:
    now, newest = START, 0
    pair = SecretPair(newest, now)
    for what, length_ms, header_new in steps:
        if what == "rotate":
            newest += 1
            pair = pair.at(now).rotated(newest, now, length_ms, header_new=header_new)
        elif what == "wait":
            now += length_ms
        else:
            pair = pair.without_previous()
        stands = pair.at(now)
        # Only the two newest secrets can be valid, and the newest always is.
        assert set(stands.live) in ({newest}, {newest, newest - 1})
        assert len(set(stands.live)) == len(stands.live)
        assert stands.uplift == stands.live[0]
        assert (stands.previous is None) == (stands.previous_expires_at is None) == (len(stands.live) == 1)
        assert stands.at(now) == stands


@given(st.integers(1, 7 * 24 * HOUR), st.booleans())
def test_the_previous_secret_expires_with_the_overlap(overlap_ms: int, header_new: bool) -> None:
    pair = SecretPair("old", START).rotated("new", START + 5, overlap_ms, header_new=header_new)

    last = pair.at(START + 5 + overlap_ms - 1)
    assert set(last.live) == {"old", "new"}
    assert last.uplift == ("new" if header_new else "old")
    ended = pair.at(START + 5 + overlap_ms)
    assert ended == SecretPair("new", START + 5)
    assert (ended.live, ended.uplift) == (("new",), "new")


def test_a_new_endpoint_has_one_secret() -> None:
    pair = SecretPair("only", START)

    assert (pair.live, pair.uplift) == (("only",), "only")
    assert pair.at(START + 10**12) == pair


def test_without_an_overlap_only_the_new_secret_remains() -> None:
    for header_new in (False, True):
        pair = SecretPair("old", START).rotated("new", START + 5, 0, header_new=header_new)
        assert pair == SecretPair("new", START + 5)


def test_a_second_rotation_drops_the_oldest_secret() -> None:
    for first_new in (False, True):
        first = SecretPair("a", START).rotated("b", START + 1, HOUR, header_new=first_new)
        second = first.rotated("c", START + 2, HOUR)
        assert (second.live, second.uplift) == (("b", "c"), "b")
        assert second.previous_expires_at == START + 2 + HOUR
    switched = first.rotated("c", START + 2, HOUR, header_new=True)
    assert (switched.live, switched.uplift) == (("c", "b"), "c")


def test_a_rotation_can_be_reversed() -> None:
    back = SecretPair("a", START).rotated("b", START + 1, HOUR).rotated("a", START + 2, HOUR)

    assert (back.live, back.uplift) == (("b", "a"), "b")


def test_expiring_the_previous_secret_keeps_the_current_one() -> None:
    pair = SecretPair("a", START).rotated("b", START + 1, HOUR)

    assert pair.without_previous() == SecretPair("b", START + 1) == pair.without_previous().without_previous()


def test_mapped_secrets_keep_the_times_and_the_order() -> None:
    pair = SecretPair("a", START).rotated("b", START + 1, HOUR, header_new=True)

    mapped = pair.mapped(str.upper, str.title)
    assert mapped == SecretPair("B", START + 1, "A", START + 1 + HOUR, header_new=True)
    assert pair.without_previous().mapped(str.upper, str.title) == SecretPair("B", START + 1)


def test_the_repr_hides_secrets() -> None:
    assert "hush" not in repr(SecretPair("hush", START).rotated("hush-hush", START, HOUR))


def test_the_older_secret_signs_the_uplift_header_by_default() -> None:
    assert SecretPair("a", START).uplift_header == "new"
    for header_new, expected in ((False, "old"), (True, "new")):
        assert SecretPair("a", START).rotated("b", START, HOUR, header_new=header_new).uplift_header == expected
