"""Client addresses behind trusted proxies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.http.forwarding import HOPS_MAX, client_address, parse_networks

TRUSTED = parse_networks("127.0.0.1, 10.0.0.0/8,2001:db8::/32")
CLIENT, OTHER = "203.0.113.7", "198.51.100.9"


def test_networks_are_separated_by_commas() -> None:
    assert [str(each) for each in TRUSTED] == ["127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"]
    for text in ("", "10.0.0.1/8", "proxy.example.com", "10.0.0.0/8,"):
        with pytest.raises(ValueError, match=r".+"):
            parse_networks(text)


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [CLIENT], CLIENT),
        ("127.0.0.1", [f"{OTHER}, {CLIENT}"], CLIENT),
        ("127.0.0.1", [f"{OTHER}, {CLIENT}, 10.1.2.3"], CLIENT),
        ("127.0.0.1", [OTHER, f" {CLIENT} ", "10.1.2.3"], CLIENT),
        ("127.0.0.1", ["10.1.2.3"], "10.1.2.3"),
        (CLIENT, [OTHER], CLIENT),
        ("127.0.0.1", ["nonsense"], "127.0.0.1"),
        ("127.0.0.1", [f"nonsense, {CLIENT}"], CLIENT),
        ("127.0.0.1", [f"{CLIENT}:4711"], CLIENT),
        ("2001:db8::1", ["[2001:dc8::7]:443"], "2001:dc8::7"),
        ("2001:db8::1", ["2001:dc8::7"], "2001:dc8::7"),
        ("::ffff:10.0.0.1", [CLIENT], CLIENT),
        ("unix", [CLIENT], "unix"),
    ],
)
def test_the_last_untrusted_address_is_the_client(peer: str, forwarded: list[str], found: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == found


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert client_address("127.0.0.1", [CLIENT], ()) == "127.0.0.1"


def test_only_the_end_of_a_long_list_is_evaluated() -> None:
    assert client_address("127.0.0.1", [", ".join([CLIENT] + ["10.0.0.1"] * HOPS_MAX)], TRUSTED) == "10.0.0.1"


@given(st.lists(st.text(max_size=40), max_size=5))
def test_earlier_entries_have_no_effect(before: list[str]) -> None:
    assert client_address("127.0.0.1", [*before, f"{CLIENT}"], TRUSTED) == CLIENT
