"""Endpoint URLs."""

import re
from dataclasses import replace

import idna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.urls import EndpointUrl, check_resolved, parse_endpoint_url, with_lower_case_host
from uplift_server.core.limits import URL_CHARACTERS_MAX
from uplift_server.core.problems import Problem

STRICT = AddressPolicy(allow_private_networks=False)
OPEN = AddressPolicy(allow_private_networks=True)


def to_ascii(host: str) -> str:
    return idna.encode(host, uts46=True).decode("ascii")


def parse(text: str, policy: AddressPolicy = OPEN) -> EndpointUrl | Problem:
    return parse_endpoint_url(text, policy, to_ascii=to_ascii)


def url_of(text: str, policy: AddressPolicy = OPEN) -> EndpointUrl:
    url = parse(text, policy)
    assert isinstance(url, EndpointUrl), url
    return url


def code_of(text: str, policy: AddressPolicy = OPEN) -> str | None:
    result = parse(text, policy)
    if isinstance(result, EndpointUrl):
        return None
    assert result.field == "url"
    assert result.message.endswith(".")
    return result.code


def test_the_parts_of_a_url() -> None:
    assert url_of("https://Hooks.Example.COM:8443/in?team=a%20b", STRICT) == EndpointUrl(
        text="https://Hooks.Example.COM:8443/in?team=a%20b",
        scheme="https",
        host="hooks.example.com",
        port=8443,
        path="/in?team=a%20b",
        host_header="hooks.example.com:8443",
        is_literal=False,
    )


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "host_header"),
    [
        ("https://example.com", "example.com", 443, "/", "example.com"),
        ("HTTPS://example.com", "example.com", 443, "/", "example.com"),
        ("https://example.com.", "example.com", 443, "/", "example.com"),
        ("https://example.com:443/", "example.com", 443, "/", "example.com"),
        ("https://example.com:/x", "example.com", 443, "/x", "example.com"),
        ("https://example.com:00080", "example.com", 80, "/", "example.com:80"),
        ("https://example.com:65535", "example.com", 65535, "/", "example.com:65535"),
        ("https://example.com?a=b", "example.com", 443, "/?a=b", "example.com"),
        ("https://example.com/?", "example.com", 443, "/?", "example.com"),
        ("https://example.com/a//b/../c;d=1", "example.com", 443, "/a//b/../c;d=1", "example.com"),
        ("https://example.com/ä/%C3%A4?ü=€", "example.com", 443, "/%C3%A4/%C3%A4?%C3%BC=%E2%82%AC", "example.com"),
        ('https://example.com/"<>^`{}|', "example.com", 443, "/%22%3C%3E%5E%60%7B%7D|", "example.com"),
        ("https://example.com/?\"<>'^`{}|[]@:/?", "example.com", 443, "/?%22%3C%3E%27^`{}|[]@:/?", "example.com"),
        ("https://example.com/%zz%", "example.com", 443, "/%zz%", "example.com"),
        ("https://under_score.example.com", "under_score.example.com", 443, "/", "under_score.example.com"),
        ("https://bücher.example", "xn--bcher-kva.example", 443, "/", "xn--bcher-kva.example"),
        ("https://\uff25\uff38\uff21\uff2d\uff30\uff2c\uff25\u3002com", "example.com", 443, "/", "example.com"),
        ("https://54.245.28.22/x", "54.245.28.22", 443, "/x", "54.245.28.22"),
        ("https://0x36.0365.7190/", "54.245.28.22", 443, "/", "54.245.28.22"),
        ("https://[2606:4700::1111]:9/", "2606:4700::1111", 9, "/", "[2606:4700::1111]:9"),
        ("https://[2606:4700:0:0::1111]", "2606:4700::1111", 443, "/", "[2606:4700::1111]"),
        ("http://localhost:5000/webhook", "localhost", 5000, "/webhook", "localhost:5000"),
        ("http://127.1/", "127.0.0.1", 80, "/", "127.0.0.1"),
        ("http://receiver:80/", "receiver", 80, "/", "receiver"),
    ],
)
def test_the_parts_of_a_url_in_a_request(text: str, host: str, port: int, path: str, host_header: str) -> None:
    url = url_of(text)

    assert (url.host, url.port, url.path, url.host_header) == (host, port, path, host_header)
    assert url.text == text
    assert url.encrypted == text.lower().startswith("https")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "url_invalid"),
        ("example.com/webhook", "url_invalid"),
        ("//example.com", "url_invalid"),
        ("/webhook", "url_invalid"),
        ("https:example.com", "url_invalid"),
        ("https:/example.com", "url_invalid"),
        ("https:\\\\example.com", "url_invalid"),
        (" https://example.com", "url_invalid"),
        ("https://example.com ", "url_invalid"),
        ("https://example.com/a b", "url_invalid"),
        ("https://example.com/a\tb", "url_invalid"),
        ("https://exa\nmple.com/", "url_invalid"),
        ("https://example.com/\r\nx: y", "url_invalid"),
        ("https://example.com/\x00", "url_invalid"),
        ("https://example.com/\x7f", "url_invalid"),
        ("https://example.com/\x85", "url_invalid"),
        ("https://example.com/\u2028", "url_invalid"),
        ("https://example.com/\u3000", "url_invalid"),
        ("https://example.com/\ud800", "url_invalid"),
        ("https://example.com\\@evil.example/", "url_invalid"),
        ("https://example.com/" + "x" * (URL_CHARACTERS_MAX - 19), "url_invalid"),
        ("ftp://example.com", "url_scheme"),
        ("file:///etc/passwd", "url_scheme"),
        ("gopher://127.0.0.1:6379/_x", "url_scheme"),
        ("javascript:alert(1)", "url_scheme"),
        ("httpss://example.com", "url_scheme"),
        ("https://user:password@example.com", "url_userinfo"),
        ("https://user@example.com", "url_userinfo"),
        ("https://@example.com", "url_userinfo"),
        ("https://:@example.com", "url_userinfo"),
        ("https://example.com#x", "url_fragment"),
        ("https://example.com/#", "url_fragment"),
        ("https://example.com/?a#b?c", "url_fragment"),
        ("https://example.com:0", "url_port"),
        ("https://example.com:000", "url_port"),
        ("https://example.com:65536", "url_port"),
        ("https://example.com:99999999999999999999", "url_port"),
        ("https://example.com:80a", "url_port"),
        ("https://example.com:-1", "url_port"),
        ("https://example.com:+1", "url_port"),
        ("https://example.com:\u0661", "url_port"),
        ("https://[2606:4700::1]:x", "url_port"),
        ("https://", "url_host"),
        ("https:///x", "url_host"),
        ("https://:443", "url_host"),
        ("https://?x", "url_host"),
        ("https://.", "url_host"),
        ("https://.example.com", "url_host"),
        ("https://example..com", "url_host"),
        ("https://example.com..", "url_host"),
        ("https://-a.example.com", "url_host"),
        ("https://a-.example.com", "url_host"),
        ("https://exam%70le.com", "url_host"),
        ("https://a,b.com", "url_host"),
        ("https://*.example.com", "url_host"),
        ("https://" + "a" * 64 + ".com", "url_host"),
        ("https://" + ".".join(["a" * 49] * 6), "url_host"),
        ("https://1.2.3.4.5", "url_host"),
        ("https://256.256.256.256", "url_host"),
        ("https://[::1", "url_host"),
        ("https://::1", "url_host"),
        ("https://2606:4700::1/", "url_host"),
        ("https://[::1]x", "url_host"),
        ("https://x[::1]", "url_host"),
        ("https://[fe80::1%25eth0]/", "url_host"),
        ("https://[127.0.0.1]/", "url_host"),
        ("https://bü..example", "url_host"),
        ("https://\u00ad", "url_host"),
    ],
)
def test_urls_that_every_policy_rejects(text: str, code: str) -> None:
    assert code_of(text, STRICT) == code_of(text, OPEN) == code


@pytest.mark.parametrize(
    ("text", "strict", "allowing"),
    [
        ("http://example.com", "https_required", None),
        ("http://localhost:5000", "https_required", None),
        ("http://127.0.0.1:5000", "https_required", None),
        ("http://[::1]:5000", "https_required", None),
        ("http://receiver", "https_required", None),
        ("http://8.8.8.8", "https_required", "https_required"),
        ("http://169.254.169.254/latest/meta-data", "https_required", "address_not_allowed"),
        ("https://localhost", "address_not_allowed", None),
        ("https://LOCALHOST.", "address_not_allowed", None),
        ("https://a.b.localhost", "address_not_allowed", None),
        ("https://receiver", "address_not_allowed", None),
        ("https://2130706433", "address_not_allowed", None),
        ("https://0177.1", "address_not_allowed", None),
        ("https://\uff11\uff12\uff17.0.0.1", "address_not_allowed", None),
        ("https://[::ffff:10.0.0.1]", "address_not_allowed", None),
        ("https://[64:ff9b::7f00:1]", "address_not_allowed", None),
        ("https://169.254.169.254", "address_not_allowed", "address_not_allowed"),
        ("https://0", "address_not_allowed", "address_not_allowed"),
        ("https://[::]", "address_not_allowed", "address_not_allowed"),
        ("https://[fd00:ec2::254]", "address_not_allowed", "address_not_allowed"),
        ("https://8.8.8.8", None, None),
        ("https://notlocalhost.example", None, None),
    ],
)
def test_urls_that_depend_on_the_policy(text: str, strict: str | None, allowing: str | None) -> None:
    assert code_of(text, STRICT) == strict
    assert code_of(text, OPEN) == allowing


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("http://localhost:5000/webhook", "uplift listen --forward-to http://localhost:5000/webhook"),
        ("https://localhost:8443/a?token=secret", "uplift listen --forward-to https://localhost:8443/a"),
        ("http://localhost:5000/a;b", "uplift listen --forward-to http://localhost:5000/"),
        ("http://127.0.0.1", "uplift listen --forward-to http://127.0.0.1/"),
        ("http://192.168.1.5:80/x", "uplift listen --forward-to http://192.168.1.5/x"),
        ("http://[::1]:5000", "uplift listen --forward-to http://[::1]:5000/"),
        ("http://receiver", "uplift listen --forward-to http://receiver/"),
        ("http://example.com", "uplift listen"),
    ],
)
def test_the_error_of_a_local_address_names_uplift_listen(text: str, command: str) -> None:
    """Members cannot change server settings, and https does not help on a laptop, so neither is suggested."""
    problem = parse(text, STRICT)

    assert isinstance(problem, Problem)
    assert problem.message.split("`")[1] == command
    assert "UPLIFT_" not in problem.message
    assert "secret" not in problem.message


def test_addresses_that_need_no_dns() -> None:
    assert url_of("https://[::1]").known_addresses == ("::1",)
    assert url_of("http://app.localhost").known_addresses == ("127.0.0.1", "::1")
    assert url_of("https://example.com").known_addresses == ()


@pytest.mark.parametrize(
    ("text", "addresses", "policy", "code"),
    [
        ("https://a.example", [], STRICT, None),
        ("https://a.example", ["8.8.8.8"], STRICT, None),
        ("https://a.example", ["10.0.0.1", "8.8.8.8"], STRICT, None),
        ("https://a.example", ["10.0.0.1", "fe80::1"], STRICT, "address_not_allowed"),
        ("https://a.example", ["10.0.0.1"], OPEN, None),
        ("https://a.example", ["169.254.169.254"], OPEN, "address_not_allowed"),
        ("http://a.example", [], OPEN, "https_required"),
        ("http://a.example", ["8.8.8.8"], OPEN, "https_required"),
        ("http://a.example", ["169.254.169.254", "8.8.8.8"], OPEN, "https_required"),
        ("http://a.example", ["169.254.169.254"], OPEN, "address_not_allowed"),
        ("http://a.example", ["8.8.8.8", "192.168.1.2"], OPEN, None),
        ("http://receiver", [], OPEN, None),
        ("http://receiver", ["172.17.0.2"], OPEN, None),
        ("http://receiver", ["8.8.8.8"], OPEN, "https_required"),
        ("http://x.localhost", [], OPEN, None),
        # localhost is always loopback, regardless of DNS.
        ("http://localhost", ["8.8.8.8"], OPEN, None),
        ("http://10.0.0.1", [], OPEN, None),
    ],
)
def test_names_are_checked_by_their_addresses(
    text: str, addresses: list[str], policy: AddressPolicy, code: str | None
) -> None:
    problem = check_resolved(url_of(text, policy), addresses, policy)

    assert (problem and problem.code) == code


def test_a_rejection_names_only_the_kind_of_a_resolved_address() -> None:
    """A message with the address would reveal internal DNS to anyone who can create endpoints."""
    found = ["10.1.2.3", "10.4.5.6", "64:ff9b::a01:203"]
    problem = check_resolved(url_of("https://a.example", STRICT), found, STRICT)

    assert problem is not None
    assert problem.message.startswith(
        "a.example resolves to private network (10.0.0.0/8, RFC 1918) and "
        "NAT64 (64:ff9b::/96, RFC 6052) of private network (10.0.0.0/8, RFC 1918)."
    )
    assert not [address for address in found if address in problem.message]
    assert problem.message.index("`uplift listen`") < problem.message.index("public address")


def test_a_rejection_explains_an_embedded_address() -> None:
    problem = parse("https://[64:ff9b::a01:203]", STRICT)

    assert isinstance(problem, Problem)
    assert "NAT64 (64:ff9b::/96, RFC 6052) of 10.1.2.3, private network (10.0.0.0/8, RFC 1918)." in problem.message


URL_TEXTS = st.text() | st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["https://", "http://", "HTTPS://", "https:", "ftp://"]),
    st.text(max_size=12) | st.sampled_from(["example.com", "[::1]", "127.1", "localhost", "a@b", "bücher.example"]),
    st.sampled_from(["", ":", ":1", ":443", ":99999"]),
    st.sampled_from(["", "/", "?"]),
    st.text(max_size=12),
)


@given(URL_TEXTS, st.booleans())
def test_parsing_never_raises_and_its_result_is_valid_in_a_request(text: str, allow: bool) -> None:
    result = parse_endpoint_url(text, AddressPolicy(allow_private_networks=allow), to_ascii=to_ascii)

    if isinstance(result, Problem):
        assert result.field == "url"
        assert result.code in {
            "url_invalid",
            "url_scheme",
            "url_userinfo",
            "url_fragment",
            "url_port",
            "url_host",
            "https_required",
            "address_not_allowed",
        }
        return
    assert re.fullmatch(r"/[!-~]*", result.path)
    assert re.fullmatch(r"[!-~]+", result.host_header)
    assert "#" not in result.path
    assert 1 <= result.port <= 65535
    assert result.encrypted or allow


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("HTTPS://Hooks.Example.COM/Path?Query=A", "https://hooks.example.com/Path?Query=A"),
        ("https://EXAMPLE.com:8443", "https://example.com:8443"),
        ("https://example.com/Path", "https://example.com/Path"),
        ("https://[2606:4700::ABCD]/A", "https://[2606:4700::abcd]/A"),
        ("https://B\u00dcCHER.Example/A", "https://b\u00dccher.example/A"),
        ("No URL", "No URL"),
        ("HTTPS:Example.com/A", "HTTPS:Example.com/A"),
    ],
)
def test_scheme_and_host_become_lower_case(text: str, stored: str) -> None:
    assert with_lower_case_host(text) == stored


@given(URL_TEXTS)
def test_lower_case_does_not_change_the_request(text: str) -> None:
    first, stored = parse(text), parse(with_lower_case_host(text))
    if isinstance(first, EndpointUrl) and isinstance(stored, EndpointUrl):
        assert replace(stored, text=text) == first
    else:
        assert isinstance(first, Problem) == isinstance(stored, Problem)


@given(URL_TEXTS)
def test_parsing_is_idempotent(text: str) -> None:
    first = parse(text)
    if isinstance(first, EndpointUrl):
        again = url_of(f"{first.scheme}://{first.host_header}{first.path}")

        assert (again.host, again.port, again.path) == (first.host, first.port, first.path)
