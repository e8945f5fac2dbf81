"""The emitter for asyncio programs, which sends events in the background."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
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
        use_proxy: bool = True,
    ) -> None:
        """Accept the same arguments as `Emitter`."""
        self._emitter: Final = Emitter(
            api_url, key, account, waiting_events_max=waiting_events_max, waiting_bytes_max=waiting_bytes_max,
            use_proxy=use_proxy,
        )  # fmt: skip
        self._turns: Final = asyncio.Lock()
        """Lock that keeps events in the order of the `send` calls: one call at a time waits for room in the queue."""

    async def send(
        self,
        type: str,
        data: JsonObject,
        *,
        account: str | None = None,
        id: str | None = None,
        idempotency_key: str | None = None,
        ordering_key: str | None = None,
        expires_at: Instant | None = None,
    ) -> "asyncio.Future[JsonObject]":
        """Queue an event, like `Emitter.send`. Await the returned future to get the server's response.

        If you cancel the call while it waits for room in the queue, the emitter does not send the event.
        """
        waiting = self._emitter._event(type, data, account, id, idempotency_key, ordering_key, expires_at)  # noqa: SLF001 - same package
        async with self._turns:
            await self._wait_until(lambda: self._emitter._put_now(waiting))  # noqa: SLF001 - same package
        found = asyncio.wrap_future(waiting.future)
        # Retrieve the exception, because asyncio logs exceptions that are never retrieved.
        # The emitter already logs and reports each failure.
        found.add_done_callback(lambda done: done.cancelled() or done.exception())
        return found

    async def flush(self, timeout_seconds: float | None = None) -> None:
        """Wait for the server's responses to the queued events, like `Emitter.flush`."""
        target = self._emitter._sent  # noqa: SLF001 - same package
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wait_until(lambda: self._emitter._ended >= target), timeout_seconds)  # noqa: SLF001 - same package
        self._emitter._report(target)  # noqa: SLF001 - same package

    async def close(self, timeout_seconds: float | None = CLOSE_SECONDS_MAX) -> None:
        """Send the queued events and stop the emitter, like `Emitter.close`."""
        await asyncio.to_thread(self._emitter.close, timeout_seconds)

    @property
    def accepted(self) -> int:
        """Number of accepted events, including duplicates."""
        return self._emitter.accepted

    @property
    def waiting(self) -> int:
        """Number of events that the server has not yet accepted or rejected."""
        return self._emitter.waiting

    async def __aenter__(self) -> "AsyncEmitter":
        """Return the emitter. The end of the `async with` block closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the emitter. An error raised in the block takes precedence over an error from `close`."""
        await asyncio.to_thread(self._emitter.__exit__, kind, error, traceback)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true, without blocking a thread in the event loop's default executor."""
        loop, emitter = asyncio.get_running_loop(), self._emitter
        while True:
            changed = asyncio.Event()

            def notify(event: asyncio.Event = changed) -> None:
                with suppress(RuntimeError):  # The event loop may be closed.
                    loop.call_soon_threadsafe(event.set)

            with emitter._changed:  # noqa: SLF001 - same package
                if condition():
                    return
                emitter._listeners.add(notify)  # noqa: SLF001 - same package
            try:
                await changed.wait()
            finally:
                emitter._listeners.discard(notify)  # noqa: SLF001 - same package
