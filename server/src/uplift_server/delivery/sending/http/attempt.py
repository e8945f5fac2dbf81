"""The state of an HTTP request in flight."""

import asyncio
from typing import TYPE_CHECKING

from uplift_server.delivery.sending.http.request import Done, Request

if TYPE_CHECKING:
    from uplift_server.delivery.sending.http.connection import Connection


class Opening:
    """The progress of opening a connection, and the durations of its steps."""

    __slots__ = ("connect_ms", "dns_ms", "remote_address", "stage", "tls_ms")

    def __init__(self) -> None:
        self.stage = "waiting to start"
        self.remote_address: str | None = None
        self.dns_ms: int | None = None
        self.connect_ms: int | None = None
        self.tls_ms: int | None = None


class Attempt:
    """An HTTP request in flight. `started` is in monotonic seconds, and `started_at` in Unix ms."""

    __slots__ = (
        "bytes_sent", "connection", "done", "opening", "repeated", "request", "retried", "started", "started_at",
        "task", "timeout_ms",
    )  # fmt: skip

    def __init__(self, request: Request, done: Done, started_at: int, started: float, timeout_ms: int) -> None:
        self.request = request
        self.done = done
        self.started_at = started_at
        self.started = started
        self.timeout_ms = timeout_ms
        self.connection: Connection | None = None
        self.opening: Opening | None = None
        self.task: asyncio.Task[None] | None = None
        self.retried = False
        self.bytes_sent = False
        self.repeated = False
