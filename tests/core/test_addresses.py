"""The address policy, and the parsing of IP addresses in every notation."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.http.address_ranges import BLOCKS, Reach
from uplift_server.core.http.addresses import AddressPolicy, describe, describe_resolved, parse_literal

STRICT = AddressPolicy(allow_private_networks=False)
OPEN = AddressPolicy(allow_private_networks=True)
NOT_ALLOWED = "address_not_allowed"

IPV4 = st.integers(0, (1 << 32) - 1).map(ipaddress.IPv4Address)
IPV6 = st.integers(0, (1 << 128) - 1).map(ipaddress.IPv6Address)
# Addresses that every policy forbids, and texts that are not addresses.
FORBIDDEN = [
    "0.0.0.0",
    "0.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::2",
    "64:ff9b:1::1",
    "64:ff9b:1::808:808",
    "64:ff9b:1:808:8:800::",
    "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
    "100::1",
    "100:0:0:1::1",
    "1fff::1",
    "2001:1::1",
    "2001:2::1",
    "2001:3::1",
    "2001:4:112::1",
    "2001:10::1",
    "2001:20::1",
    "2001:30::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "2002:808:808::1",
    "2002:808:808:ffff:2606:4700::1111",
    "2620:4f:8000::1",
    "3ffe::1",
    "3fff::1",
    "3fff:fff::1",
    "4000::1",
    "5f00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd00:42::42",
    "fd00:c1::a9fe:a9fe",
    "fd00:a9fe:a9fe::1",
    "fd00:100::100:200",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ffff::1",
    "::1%lo",
    "2606:4700::1%1",
    "",
    "localhost",
    "127.1",
    "[::1]",
    "127.0.0.1 ",
]
PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "::1",
    "fc00::1",
    "fd12:3456::1",
]
PUBLIC = [
    "8.8.8.8",
    "54.245.28.22",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "198.17.0.1",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00::1",
    "3ffd::1",
]


def check_results(address: str) -> list[str | None]:
    """Return the results of the strict and the open policy, each without and with TLS."""
    return [policy.check(address, encrypted=encrypted) for policy in (STRICT, OPEN) for encrypted in (False, True)]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_forbidden_addresses(address: str) -> None:
    assert check_results(address) == [NOT_ALLOWED] * 4


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_permission_but_no_tls(address: str) -> None:
    assert check_results(address) == [NOT_ALLOWED, NOT_ALLOWED, None, None]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_need_tls(address: str) -> None:
    assert check_results(address) == ["https_required", None, "https_required", None]


def embedded_forms(inner: ipaddress.IPv4Address) -> list[str]:
    """Return all IPv6 forms that embed an IPv4 address."""
    value = int(inner)
    return [
        str(ipaddress.IPv6Address(number))
        for number in (
            0xFFFF << 32 | value,
            0xFFFF << 48 | value,
            0x0064_FF9B << 96 | value,
            0x2001_0000 << 96 | 0x0808_0808 << 64 | value ^ 0xFFFF_FFFF,
            0x2001_0000 << 96 | value << 64 | 0x0808_0808 ^ 0xFFFF_FFFF,
            0x2606_4700 << 96 | 0x5EFE << 32 | value,
            0x2606_4700 << 96 | 0x0200_5EFE << 32 | value,
        )
    ]


@given(IPV4)
def test_any_embedded_address_is_checked(inner: ipaddress.IPv4Address) -> None:
    for address in embedded_forms(inner):
        assert check_results(address) == check_results(str(inner)), address


@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "192.0.2.1", "8.8.8.8"])
def test_known_embedded_addresses_are_checked(inner: str) -> None:
    for address in embedded_forms(ipaddress.IPv4Address(inner)):
        assert check_results(address) == check_results(inner), address


@pytest.mark.parametrize("inner", ["127.0.0.1", "169.254.169.254", "10.1.2.3"])
def test_ipv4_compatible_addresses_are_checked_as_ipv4(inner: str) -> None:
    assert check_results(f"::{inner}") == check_results(inner)


@given(IPV4)
def test_6to4_and_local_use_nat64_addresses_are_forbidden(inner: ipaddress.IPv4Address) -> None:
    value = int(inner)
    for number in (
        0x2002 << 112 | value << 80 | 1,
        # Prefixes of 96, 64, 56 and 48 bits (RFC 6052, section 2.2).
        0x0064_FF9B_0001 << 80 | value,
        0x0064_FF9B_0001_0000 << 64 | value << 24,
        0x0064_FF9B_0001 << 80 | (value >> 24) << 64 | (value & 0xFF_FFFF) << 32,
        0x0064_FF9B_0001 << 80 | (value >> 16) << 64 | (value & 0xFFFF) << 40,
    ):
        address = str(ipaddress.IPv6Address(number))
        assert check_results(address) == [NOT_ALLOWED] * 4, address


@given(IPV4)
def test_allowed_ipv4_addresses_are_global_according_to_python(address: ipaddress.IPv4Address) -> None:
    if STRICT.check(str(address), encrypted=True) is None:
        assert address.is_global
        assert not address.is_multicast


@given(IPV6)
def test_allowed_ipv6_addresses_are_not_special_according_to_python(address: ipaddress.IPv6Address) -> None:
    if STRICT.check(str(address), encrypted=True) is None:
        assert not address.is_multicast
        assert not address.is_link_local
        assert not address.is_site_local
        assert address not in ipaddress.ip_network("fc00::/7")


@given(st.integers(0x2400 << 112, (0x2C00 << 112) - 1).map(ipaddress.IPv6Address))
def test_unicast_addresses_of_registries_are_allowed(address: ipaddress.IPv6Address) -> None:
    if (int(address) >> 32) & 0xFFFF_FFFF not in (0x5EFE, 0x0200_5EFE) and int(address) >> 80 != 0x2620_004F_8000:
        assert STRICT.check(str(address), encrypted=True) is None


@given(st.text() | IPV4.map(str) | IPV6.map(str), st.booleans(), st.booleans())
def test_a_check_has_one_of_three_results(text: str, allow: bool, encrypted: bool) -> None:
    policy = AddressPolicy(allow_private_networks=allow)
    code = policy.check(text, encrypted=encrypted)

    assert code in (None, NOT_ALLOWED, "https_required")
    if encrypted:
        assert code != "https_required"
    if STRICT.check(text, encrypted=encrypted) is None:
        assert code is None or not encrypted
    assert describe(text)


def test_blocks_cover_all_addresses_longest_prefix_first() -> None:
    lengths = [block.network.prefixlen for block in BLOCKS]

    assert lengths == sorted(lengths, reverse=True)
    assert {str(block.network) for block in BLOCKS} >= {"0.0.0.0/0", "::/0"}
    assert len({block.network for block in BLOCKS}) == len(BLOCKS)
    assert all(block.name and block.source for block in BLOCKS)
    assert {block.reach for block in BLOCKS} == set(Reach)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("8.8.8.8", "public address"),
        ("127.0.0.1", "loopback (127.0.0.0/8, RFC 1122)"),
        ("169.254.169.254", "cloud metadata service (169.254.169.254/32, RFC 3927)"),
        ("fe80::1%eth0", "link-local (fe80::/10, RFC 4291)"),
        (
            "::ffff:10.0.0.1",
            "IPv4-mapped (::ffff:0:0/96, RFC 4291) of 10.0.0.1, private network (10.0.0.0/8, RFC 1918)",
        ),
        # The address embeds two IPv4 addresses. The description names the one that decides.
        (
            "2001:0:7f00:1::f7f7:f7f7",
            "Teredo (2001::/32, RFC 4380) of 127.0.0.1, loopback (127.0.0.0/8, RFC 1122)",
        ),
        ("2606:4700::5efe:7f00:1", "ISATAP (RFC 5214) of 127.0.0.1, loopback (127.0.0.0/8, RFC 1122)"),
        ("2002:808:808::1", "6to4, deprecated (2002::/16, RFC 7526)"),
        ("nonsense", "not an IP address"),
    ],
)
def test_descriptions(address: str, text: str) -> None:
    assert describe(address) == text


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("8.8.8.8", "public address"),
        ("10.0.0.1", "private network (10.0.0.0/8, RFC 1918)"),
        ("::ffff:10.0.0.1", "IPv4-mapped (::ffff:0:0/96, RFC 4291) of private network (10.0.0.0/8, RFC 1918)"),
        ("2606:4700::5efe:7f00:1", "ISATAP (RFC 5214) of loopback (127.0.0.0/8, RFC 1122)"),
        ("nonsense", "not an IP address"),
    ],
)
def test_descriptions_of_resolved_addresses_contain_no_address(address: str, text: str) -> None:
    assert describe_resolved(address) == text


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("127.65535", "127.0.255.255"),
        ("2130706433", "127.0.0.1"),
        ("2130706433.", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0X7F000001", "127.0.0.1"),
        ("0xa9.254.0251.0xfe", "169.254.169.254"),
        ("0x", "0.0.0.0"),
        ("0", "0.0.0.0"),
        ("4294967295", "255.255.255.255"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[::FFFF:127.0.0.1]", "::ffff:7f00:1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("example.com", None),
        ("localhost", None),
        ("1.example", None),
        ("1.2.3.4.example", None),
        ("a.0x7g", None),
        ("0x7f.example", None),
        ("127.0.0.1..", None),
        ("", None),
        (".", None),
    ],
)
def test_addresses_are_parsed_in_every_notation(host: str, address: str | None) -> None:
    assert parse_literal(host) == address


@pytest.mark.parametrize(
    "host",
    [
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.256",
        "1.2.65536",
        "1.16777216",
        "4294967296",
        "9" * 200,
        "0x1ffffffff",
        "08.1.1.1",
        "1.2.3.08",
        "example.1",
        "example.0x1",
        "..1",
        "0xg.1",
        "-1.1",
        "[1.2.3.4]",
        "[]",
        "[::1",
        "[::1%25eth0]",
        "fe80::1%eth0",
        "[::1]x",
        "::1::",
        "a:b",
    ],
)
def test_invalid_addresses_are_rejected(host: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        parse_literal(host)


@given(IPV4 | IPV6)
def test_canonical_text_is_unchanged(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    text = parse_literal(str(address))

    assert text is not None
    assert ipaddress.ip_address(text) == address
    assert parse_literal(text) == text


@given(IPV4, st.integers(1, 4), st.lists(st.sampled_from(["{}", "0x{:x}", "0X{:X}", "0{:o}"]), min_size=4, max_size=4))
def test_every_notation_of_numbers_is_parsed(address: ipaddress.IPv4Address, parts: int, forms: list[str]) -> None:
    value = int(address)
    numbers = [value >> 24, value >> 16 & 255, value >> 8 & 255][: parts - 1]
    numbers.append(value & ((1 << 8 * (5 - parts)) - 1))
    host = ".".join(form.format(number) for form, number in zip(forms, numbers, strict=False))

    assert parse_literal(host) == str(address)


@given(st.text() | st.from_regex(r"[0-9a-fx.:\[\]%]{0,20}", fullmatch=True))
def test_any_text_is_an_address_a_name_or_rejected(host: str) -> None:
    try:
        text = parse_literal(host)
    except ValueError:
        return
    assert text is None or str(ipaddress.ip_address(text))
