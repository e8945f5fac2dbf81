"""The request line and headers of a delivery, and their masked form for storage.

The server renders most parts only once for each endpoint, because only a few values differ between the attempts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from uplift_server.core.http.headers import is_reserved, mask

_HEAD: Final = (
    b"%bcontent-length: %d\r\n"
    b"x-uplift-signature-256: %b\r\n"
    b"webhook-id: %b\r\n"
    b"webhook-timestamp: %b\r\n"
    b"webhook-signature: %b\r\n"
    b"x-uplift-event: %b\r\n"
    b"x-uplift-delivery: dlv_%b%b\r\n"
    b"x-uplift-attempt: %d\r\n"
)


TEST: Final = b"x-uplift-test: true\r\n"
"""The header line that marks the request of a test delivery. Other requests do not contain it."""


@dataclass(frozen=True, slots=True)
class RequestHeadersTemplate:
    """The parts of a request's headers that are the same for all requests to one endpoint."""

    start: bytes
    custom: bytes
    """The endpoint's custom headers as bytes, followed by the empty line that ends the request headers."""
    custom_masked: bytes
    """The custom headers with masked values, for storage."""
    delivery_tail: bytes
    """The characters at the end of every delivery ID for this endpoint."""

    def render(
        self,
        *,
        event_id: bytes,
        event_hex: bytes,
        event_type: bytes,
        number: int,
        timestamp: bytes,
        signatures: tuple[bytes, bytes],
        body_bytes: int,
    ) -> bytes:
        """Return the request line and headers without the endpoint's custom headers.

        To send the result, append `custom`. To store it, append `custom_masked`. `event_id` is the UUID as text, and
        `event_hex` is the UUID without hyphens. `signatures` contains the values of the Uplift header and of the
        Standard Webhooks header.
        """
        return _HEAD % (
            self.start,
            body_bytes,
            signatures[0],
            event_id,
            timestamp,
            signatures[1],
            event_type,
            event_hex,
            self.delivery_tail,
            number,
        )


def request_headers_template(
    *, path: str, host_header: str, user_agent: str, custom: Mapping[str, str], endpoint_id: bytes
) -> RequestHeadersTemplate:
    """Render the parts of the request headers that are the same for all requests to an endpoint.

    The arguments must not contain line breaks. A custom `user-agent`, which earlier releases accepted, replaces the
    server's `user-agent`.
    """
    start = f"POST {path} HTTP/1.1\r\nhost: {host_header}\r\ncontent-type: application/json\r\n"
    if not any(name.lower() == "user-agent" for name in custom):
        start += f"user-agent: {user_agent}\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in custom.items())
    masked = "".join(f"{name}: {mask(name, value)}\r\n" for name, value in custom.items())
    return RequestHeadersTemplate(
        start=start.encode("latin-1"),
        custom=lines.encode("latin-1") + b"\r\n",
        custom_masked=masked.encode("latin-1") + b"\r\n",
        delivery_tail=endpoint_id[-6:].hex().encode(),
    )


def mask_request_headers(head: bytes) -> bytes:
    """Mask the custom headers in stored request headers. Earlier releases stored some values as plain text."""
    return b"\r\n".join(_masked_line(line) for line in head.split(b"\r\n"))


def _masked_line(line: bytes) -> bytes:
    name, separator, value = line.decode("latin-1").partition(": ")
    return line if not separator or is_reserved(name) else f"{name}: {mask(name, value)}".encode("latin-1")
