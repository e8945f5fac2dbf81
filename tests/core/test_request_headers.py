"""Request headers, byte by byte."""

from collections.abc import Mapping
from email.parser import BytesParser
from http.client import parse_headers
from io import BytesIO

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.http.headers import MASKED, check_headers
from uplift_server.core.http.request_headers import (
    RequestHeadersTemplate,
    mask_request_headers,
    request_headers_template,
)
from uplift_server.core.ids import delivery_id, uuid_text
from uplift_server.core.security.signing import Signer

EVENT_ID = bytes.fromhex("0197f0c2aaaa7bbb8cccddddeeeeffff")
ENDPOINT_ID = bytes(range(16))
USER_AGENT = "Uplift-Webhooks/1.2.3 (+https://hooks.example/docs)"


def template(custom: Mapping[str, str] | None = None, *, path: str = "/hook?team=7") -> RequestHeadersTemplate:
    """Return the constant part of the requests to one endpoint."""
    return request_headers_template(
        path=path, host_header="club.example:8443", user_agent=USER_AGENT, custom=custom or {}, endpoint_id=ENDPOINT_ID
    )


def render(head: RequestHeadersTemplate, *, body: bytes = b"{}", number: int = 3) -> bytes:
    """Return complete request headers, as sent."""
    return (
        head.render(
            event_id=uuid_text(EVENT_ID).encode(),
            event_hex=EVENT_ID.hex().encode(),
            event_type=b"movement.analytics.created",
            number=number,
            timestamp=b"1764000000",
            signatures=(b"sha256=00ff", b"v1,AAA= v1,BBB="),
            body_bytes=len(body),
        )
        + head.custom
    )


class Parsed:
    """A request, parsed by httptools."""

    def __init__(self, request: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.url = b""
        self.body = b""
        self.complete = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(request)
        self.method = parser.get_method()
        self.version = parser.get_http_version()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def test_request_headers_are_exactly_the_documented_ones() -> None:
    assert render(template({"X-Team": "first"}), body=b"12345") == (
        b"POST /hook?team=7 HTTP/1.1\r\n"
        b"host: club.example:8443\r\n"
        b"content-type: application/json\r\n"
        b"user-agent: Uplift-Webhooks/1.2.3 (+https://hooks.example/docs)\r\n"
        b"content-length: 5\r\n"
        b"x-uplift-signature-256: sha256=00ff\r\n"
        b"webhook-id: 0197f0c2-aaaa-7bbb-8ccc-ddddeeeeffff\r\n"
        b"webhook-timestamp: 1764000000\r\n"
        b"webhook-signature: v1,AAA= v1,BBB=\r\n"
        b"x-uplift-event: movement.analytics.created\r\n"
        b"x-uplift-delivery: dlv_0197f0c2aaaa7bbb8cccddddeeeeffff0a0b0c0d0e0f\r\n"
        b"x-uplift-attempt: 3\r\n"
        b"X-Team: first\r\n"
        b"\r\n"
    )


def test_the_delivery_id_is_that_of_the_api() -> None:
    assert f"x-uplift-delivery: {delivery_id(EVENT_ID, ENDPOINT_ID)}\r\n".encode() in render(template())


def test_signatures_are_unchanged() -> None:
    secret = "whsec_" + "A" * 43 + "="
    signatures = Signer((secret,), secret).sign(uuid_text(EVENT_ID).encode(), b"1764000000", b"{}")
    head = template().render(
        event_id=uuid_text(EVENT_ID).encode(),
        event_hex=EVENT_ID.hex().encode(),
        event_type=b"a",
        number=1,
        timestamp=b"1764000000",
        signatures=signatures,
        body_bytes=2,
    )
    assert b"x-uplift-signature-256: %b\r\n" % signatures[0] in head
    assert b"webhook-signature: %b\r\n" % signatures[1] in head


@pytest.mark.parametrize("name", ["user-agent", "User-Agent", "USER-AGENT"])
def test_a_custom_user_agent_of_an_earlier_release_is_kept(name: str) -> None:
    headers = Parsed(render(template({name: "Club/1"}))).headers

    assert [value for key, value in headers if key.lower() == b"user-agent"] == [b"Club/1"]


def test_custom_values_are_masked_in_stored_headers_only() -> None:
    head = template({"Authorization": "Bearer x", "X-Jwt": "k", "Accept": "text/plain"})

    assert head.custom == b"Authorization: Bearer x\r\nX-Jwt: k\r\nAccept: text/plain\r\n\r\n"
    masked = MASKED.encode()
    assert head.custom_masked == b"Authorization: %b\r\nX-Jwt: %b\r\nAccept: text/plain\r\n\r\n" % (masked, masked)


def test_stored_plain_custom_values_are_masked_when_read() -> None:
    custom = {"X-Jwt": "eyJ: a", "X-Caf": "caf\u00e9", "accept": "a", "User-Agent": "Club/1", "x-empty": ""}
    head = template(custom)
    stored = render(head)

    sent = stored.removesuffix(head.custom)
    assert mask_request_headers(stored) == sent + head.custom_masked
    assert mask_request_headers(sent + head.custom_masked) == sent + head.custom_masked


def test_without_custom_headers_only_the_empty_line_follows() -> None:
    assert template().custom == template().custom_masked == b"\r\n"


NAMES = st.from_regex(r"x-[a-z0-9_!#$%&'*+.^`|~]{1,20}", fullmatch=True).filter(
    lambda name: not check_headers({name: "a"})
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=("Cc",)), max_size=40).filter(
    lambda value: not check_headers({"x": value})
)


@given(custom=st.dictionaries(NAMES, VALUES, max_size=20), body=st.binary(max_size=64), number=st.integers(1, 99))
def test_every_parser_finds_each_header_once(custom: dict[str, str], body: bytes, number: int) -> None:
    head = render(template(custom), body=body, number=number)

    parsed = Parsed(head + body)
    assert (parsed.method, parsed.url, parsed.version, parsed.body) == (b"POST", b"/hook?team=7", "1.1", body)
    assert parsed.complete
    names = [name.lower() for name, _ in parsed.headers]
    assert len(names) == len(set(names)) == 11 + len(custom)
    found = dict(parsed.headers)
    for name, value in custom.items():
        assert found[name.encode()] == value.encode("latin-1")

    stream = BytesIO(head)
    assert stream.readline() == b"POST /hook?team=7 HTTP/1.1\r\n"
    message = parse_headers(stream)
    assert [(name.encode(), value.encode("latin-1")) for name, value in message.items()] == parsed.headers
    assert not stream.read()
    assert not BytesParser().parsebytes(head.partition(b"\r\n")[2]).defects
