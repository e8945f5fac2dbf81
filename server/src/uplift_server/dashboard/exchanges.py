"""The details of attempts for pages: the request, the response, the timings, and the equivalent curl command."""

import shlex
from dataclasses import dataclass
from typing import Final

from uplift_server.core.deliveries.causes import Explanation, explain_attempt
from uplift_server.core.deliveries.outcomes import RESPONDED, Outcome
from uplift_server.core.deliveries.responses import first_line
from uplift_server.core.http.headers import MASKED
from uplift_server.core.http.response_headers import mask_response_headers
from uplift_server.core.texts import printable
from uplift_server.dashboard import words
from uplift_server.dashboard.charts import Part
from uplift_server.dashboard.rendering import span_ms
from uplift_server.store.records import Attempt

ARGUMENT_BYTES_MAX: Final = 100_000
"""Maximum size, in bytes, of a body in a command-line argument. Linux limits an argument to 128 KiB."""
_NOT_REPEATED: Final = frozenset({"host", "content-length"})
"""Headers that the curl command omits, because curl adds them itself."""


@dataclass(frozen=True, slots=True)
class Told:
    """An attempt, and the strings that a page shows about it."""

    attempt: Attempt
    explanation: Explanation | None
    phases: tuple[Part, ...]
    """The phases of the attempt, with their durations in ms."""

    @property
    def status(self) -> str:
        """`delivered` or `failed`. The status determines the symbol and the color of the attempt."""
        return "delivered" if self.attempt.outcome is Outcome.DELIVERED else "failed"

    @property
    def outcome(self) -> str:
        """The outcome as text, with the status code if the receiver responded."""
        code = self.attempt.status_code
        return words.OUTCOMES[self.attempt.outcome] + ("" if code is None else f", {code}")

    @property
    def reused(self) -> bool:
        """Whether the attempt reused an open connection."""
        attempt = self.attempt
        opened = (attempt.dns_ms, attempt.connect_ms, attempt.tls_ms) != (None, None, None)
        return not opened and attempt.status_code is not None

    @property
    def trigger(self) -> str:
        """The trigger of the attempt as text."""
        return words.TRIGGERS[self.attempt.trigger]

    @property
    def duration_ms(self) -> float:
        """The duration of the attempt in ms."""
        return self.attempt.duration_us / 1000

    @property
    def timings(self) -> str:
        """The durations of the attempt's phases, on one line of text."""
        return ", ".join(f"{part.name} {span_ms(part.value)}" for part in self.phases)

    @property
    def request_head(self) -> str:
        """The request line and the request headers, with the values of custom headers masked."""
        return _head(self.attempt.request_head)

    @property
    def response_head(self) -> str:
        """The status line and the response headers, with secrets masked."""
        return _head(mask_response_headers(self.attempt.response_head))

    @property
    def response_body(self) -> str:
        """The stored beginning of the response body."""
        return printable(self.attempt.response_body.decode("utf-8", "replace"), lines=True)

    @property
    def response_line(self) -> str | None:
        """The first line of the response body if the attempt failed because of the response, or None otherwise."""
        return first_line(self.attempt.response_body) if self.attempt.outcome in RESPONDED else None

    @property
    def masks(self) -> bool:
        """Whether the request headers contain a masked value."""
        return MASKED in self.request_head


def told(attempt: Attempt) -> Told:
    """Return an attempt, and the strings that a page shows about it."""
    return Told(attempt, explain_attempt(attempt), _phases(attempt))


def curl(attempt: Attempt, url: str, body: bytes) -> str:
    """Return a POSIX shell command that sends an attempt's request to a URL.

    If the body is too large for an argument, the command pipes the body to curl.
    """
    headers = [
        f"-H {shlex.quote(line)}"
        for line in attempt.request_head.decode("latin-1").split("\r\n")[1:]
        if line and line.partition(":")[0].lower() not in _NOT_REPEATED
    ]
    data = shlex.quote(body.decode())
    piped = len(data.encode()) > ARGUMENT_BYTES_MAX
    # Without these options, curl expands braces and brackets in a URL, and adds an `accept` header.
    parts = [f"curl --globoff {shlex.quote(url)}", *headers, "-H accept:", f"--data-binary {'@-' if piped else data}"]
    command = " \\\n  ".join(parts)
    return f"printf %s {data} | {command}" if piped else command


def _head(head: bytes) -> str:
    return printable(head.decode("latin-1").replace("\r\n", "\n").rstrip("\n"), lines=True)


def _phases(attempt: Attempt) -> tuple[Part, ...]:
    """Return the phases of an attempt in order, from DNS to the last byte. Omit phases that did not take place."""
    # Round down, because the other durations are rounded down. Otherwise, the last phase would be up to 1 ms too long.
    whole = attempt.duration_us // 1000
    opening = [
        Part(name, kind, float(value))
        for name, kind, value in (
            ("DNS", "dns", attempt.dns_ms),
            ("connect", "connect", attempt.connect_ms),
            ("TLS", "tls", attempt.tls_ms),
        )
        if value is not None
    ]
    opened = sum(part.value for part in opening)
    if attempt.first_byte_ms is None:
        return (*opening, Part("no response", "wait", max(0.0, whole - opened)))
    first_byte = max(0.0, attempt.first_byte_ms - opened)
    return (
        *opening,
        Part("first byte", "wait", first_byte),
        Part("rest of response", "read", max(0.0, whole - max(opened, attempt.first_byte_ms))),
    )
