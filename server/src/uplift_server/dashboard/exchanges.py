"""Attempts as people read them: what was sent, what came back, what took how long, and the same as a command."""

import shlex
from dataclasses import dataclass
from typing import Final

from uplift_server.core.deliveries.outcomes import Explanation, Outcome, explain
from uplift_server.core.http.headers import MASKED
from uplift_server.core.texts import printable
from uplift_server.dashboard import words
from uplift_server.dashboard.charts import Part
from uplift_server.dashboard.rendering import span_ms
from uplift_server.store.records import Attempt

ARGUMENT_BYTES_MAX: Final = 100_000
"""Linux takes arguments of up to 128 KiB."""
_NOT_REPEATED: Final = frozenset({"host", "content-length"})
"""Headers that curl writes itself."""


@dataclass(frozen=True, slots=True)
class Told:
    """One attempt for a page."""

    attempt: Attempt
    explanation: Explanation | None
    phases: tuple[Part, ...]
    """How long each took, in ms, one after the other."""

    @property
    def status(self) -> str:
        """`delivered` or `failed`, which have signs and colours."""
        return "delivered" if self.attempt.outcome is Outcome.DELIVERED else "failed"

    @property
    def outcome(self) -> str:
        """The outcome in a word or two, with the status code where there is one."""
        code = self.attempt.status_code
        return words.OUTCOMES[self.attempt.outcome] + ("" if code is None else f", {code}")

    @property
    def reused(self) -> bool:
        """Whether it went over a connection that was open already."""
        attempt = self.attempt
        opened = (attempt.dns_ms, attempt.connect_ms, attempt.tls_ms) != (None, None, None)
        return not opened and attempt.status_code is not None

    @property
    def trigger(self) -> str:
        """Why it was made."""
        return words.TRIGGERS[self.attempt.trigger]

    @property
    def duration_ms(self) -> float:
        """The whole of it."""
        return self.attempt.duration_us / 1000

    @property
    def timings(self) -> str:
        """The phases in one line."""
        return ", ".join(f"{part.name} {span_ms(part.value)}" for part in self.phases)

    @property
    def request_head(self) -> str:
        """The request line and the request headers, with the values of custom headers masked."""
        return _head(self.attempt.request_head)

    @property
    def response_head(self) -> str:
        """The status line and the headers as received."""
        return _head(self.attempt.response_head)

    @property
    def response_body(self) -> str:
        """What was kept of the body."""
        return printable(self.attempt.response_body.decode("utf-8", "replace"), lines=True)

    @property
    def masks(self) -> bool:
        """Whether a header's value is not shown."""
        return MASKED in self.request_head


def told(attempt: Attempt) -> Told:
    """An attempt for a page."""
    explanation = explain(
        attempt.outcome, status_code=attempt.status_code, error=attempt.error, location=attempt.location
    )
    return Told(attempt, explanation, _phases(attempt))


def curl(attempt: Attempt, url: str, body: bytes) -> str:
    """A command that posts the same body with the same headers to a URL, for a POSIX shell.

    A body that is too large for an argument is piped.
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
    """From resolving the name to the last byte, in whole milliseconds. What did not come to pass is left out."""
    # As the others are: what is left of a millisecond would look like time that the answer took.
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
        return (*opening, Part("without an answer", "wait", max(0.0, whole - opened)))
    first_byte = max(0.0, attempt.first_byte_ms - opened)
    return (
        *opening,
        Part("first byte", "wait", first_byte),
        Part("rest of the answer", "read", max(0.0, whole - max(opened, attempt.first_byte_ms))),
    )
