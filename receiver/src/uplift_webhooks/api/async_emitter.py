"""The emitter for asyncio programs."""

import asyncio
from types import TracebackType
from typing import Final

from uplift_webhooks.api.emitter import CLOSE_SECONDS_MAX, WAITING_BYTES_MAX, WAITING_EVENTS_MAX, Emitter
from uplift_webhooks.api.pages import Instant, JsonObject


class AsyncEmitter:
    """Async version of Emitter. Its requests run in a thread.

    >>> async with AsyncEmitter("https://webhooks.example.com", "svc_…", account="acc_…") as emitter:   # doctest: +SKIP
    ...     await emitter.send("athlete.created", {"object": {"id": "a1"}})
    """

    def __init__(
        self,
        api_url: str | None = None,
        key: str | None = None,
        account: str | None = None,
        *,
        waiting_events_max: int = WAITING_EVENTS_MAX,
        waiting_bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        """Take the arguments of `Emitter`."""
        self._emitter: Final = Emitter(
            api_url, key, account, waiting_events_max=waiting_events_max, waiting_bytes_max=waiting_bytes_max
        )

    async def send(
        self,
        type: str,
        data: JsonObject,
        *,
        account: str | None = None,
        id: str | None = None,
        idempotency_key: str | None = None,
        expires_at: Instant | None = None,
    ) -> "asyncio.Future[JsonObject]":
        """Queue an event, like `Emitter.send`. Await the returned future to get the server's response."""
        waiting = self._emitter._event(type, data, account, id, idempotency_key, expires_at)  # noqa: SLF001 - same package
        if not self._emitter._put_now(waiting):  # noqa: SLF001 - same package
            await asyncio.to_thread(self._emitter._put, waiting)  # noqa: SLF001 - same package
        found = asyncio.wrap_future(waiting.future)
        # Otherwise, asyncio logs an error for a result that the caller does not await. The emitter logs and reports it.
        found.add_done_callback(lambda done: done.cancelled() or done.exception())
        return found

    async def flush(self, timeout_seconds: float | None = None) -> None:
        """Wait for the responses, like `Emitter.flush`."""
        await asyncio.to_thread(self._emitter.flush, timeout_seconds)

    async def close(self, timeout_seconds: float | None = CLOSE_SECONDS_MAX) -> None:
        """Send the waiting events, then stop, like `Emitter.close`."""
        await asyncio.to_thread(self._emitter.close, timeout_seconds)

    @property
    def accepted(self) -> int:
        """Number of accepted events, including duplicates."""
        return self._emitter.accepted

    @property
    def waiting(self) -> int:
        """Number of events without a result."""
        return self._emitter.waiting

    async def __aenter__(self) -> "AsyncEmitter":
        """Return the emitter. The end of the block closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the emitter. Do not hide an error of the block."""
        await asyncio.to_thread(self._emitter.__exit__, kind, error, traceback)
