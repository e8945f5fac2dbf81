"""Live pages: a stream notifies the page of changes, and the page reloads its live region.

All streams of an account share one database poll, which runs only while streams are open.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import suppress
from typing import Final

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from uplift_server.core.deliveries.stream_limits import exceeded
from uplift_server.dashboard.routes import account_page, operator_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import too_many_streams
from uplift_server.store.errors import Unavailable

LOOK_SECONDS: Final = 1.0
LOOK_SECONDS_BUSY: Final = 5.0
"""The longer of the two intervals between database polls for live pages, in seconds.

This interval applies to the pages of operators, and to all pages while the process is busy. A shorter interval would
delay events while the process is busy.
"""
CORES_BUSY: Final = 0.4
TURN_SECONDS_MAX: Final = 0.1
"""The maximum delay from the reload of one open page to that of the next, in seconds, unless the process is busy."""
STREAM_SECONDS_MAX: Final = 600.0
"""Maximum duration of a stream, in seconds. The browser then reconnects, and the server checks the session again."""
COMMENT_SECONDS: Final = 15.0
"""The interval between comments in a stream, in seconds. Proxies close a stream that sends nothing for too long."""
RETRY_MS: Final = 3000

_COMMENT: Final = b":\n\n"
_CHANGE: Final = b"event: change\ndata:\n\n"
_UNAVAILABLE: Final = "unavailable"


class _Watch:
    """The streams for one account or for all operators, which share one database poll."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.streams = 0
        self.task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """Notify every stream of a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class _Counted(StreamingResponse):
    """A streaming response that calls `end` when the stream ends, even if the stream has sent no lines."""

    def __init__(self, lines: AsyncIterator[bytes], end: Callable[[], None]) -> None:
        super().__init__(lines, media_type="text/event-stream")
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


class Live:
    """All open streams of the dashboard."""

    def __init__(self) -> None:
        self._watches: dict[int | None, _Watch] = {}
        self._streams = 0
        self._closed = asyncio.Event()
        self._load = _Load()
        self._next_turn = 0.0
        """The earliest time of the next page reload, in seconds on the event loop's clock."""

    def close(self) -> None:
        """Close all streams."""
        self._closed.set()
        for watch in self._watches.values():
            watch.tell()

    def stream(self, visit: Visit) -> Response:
        """Return a stream that notifies the visitor's page of changes.

        The limit for one account also applies to all operators together. Raises RateLimited or Busy if too many streams
        are open.
        """
        account_seq = visit.caller.account_seq
        watch = self._watches.get(account_seq) or _Watch()
        limit = exceeded(self._streams, watch.streams)
        if limit is not None:
            raise too_many_streams(limit, "live pages", "Close a page")
        response = _Counted(self._told(visit, watch), lambda: self._end(account_seq, watch))
        response.headers["x-accel-buffering"] = "no"
        visit.finish(response)
        # Count the stream immediately after the limit check, because the response starts later.
        self._streams += 1
        watch.streams += 1
        if watch.task is None:
            self._watches[account_seq] = watch
            watch.task = asyncio.create_task(self._look(visit, visit.caller, watch), name="live pages")
        return response

    def _end(self, account_seq: int | None, watch: _Watch) -> None:
        self._streams -= 1
        watch.streams -= 1
        if watch.streams == 0:
            self._watches.pop(account_seq, None)
            assert watch.task is not None
            watch.task.cancel()

    async def _told(self, visit: Visit, watch: _Watch) -> AsyncIterator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        loop = asyncio.get_running_loop()
        end = loop.time() + STREAM_SECONDS_MAX
        changed = watch.changed
        while not self._closed.is_set() and loop.time() < end:
            try:
                async with asyncio.timeout(COMMENT_SECONDS):
                    await changed.wait()
            except TimeoutError:
                told = _COMMENT
            else:
                await self._turn()
                told = _CHANGE
            # Changes after this line belong to the next update.
            changed = watch.changed
            if self._closed.is_set() or not await _may_listen(visit):
                return
            yield told

    async def _turn(self) -> None:
        """Wait until the stream may tell its page to reload.

        If all open pages reloaded at once, the event loop would stall. While the process is busy, the reloads are
        spread over the whole poll interval.
        """
        now = asyncio.get_running_loop().time()
        turn = max(now, self._next_turn)
        apart = LOOK_SECONDS_BUSY if self._load.busy else min(LOOK_SECONDS, TURN_SECONDS_MAX * self._streams)
        self._next_turn = turn + apart / self._streams
        with suppress(TimeoutError):
            async with asyncio.timeout(turn - now):
                await self._closed.wait()

    async def _look(self, visit: Visit, caller: Caller, watch: _Watch) -> None:
        """Poll the database for changes while streams of `watch` are open."""
        before: Hashable = None
        while True:
            self._load.look(visit)
            try:
                # Pages for operators show all accounts, so assume that these pages always change.
                stamp = object() if caller.account_seq is None else await visit.services.accounts.version(caller)
            except Unavailable:
                # The page tries to reload, and then says that it is not up to date.
                stamp = _UNAVAILABLE
            if before is not None and stamp != before:
                watch.tell()
            before = stamp
            await asyncio.sleep(LOOK_SECONDS_BUSY if self._load.busy or caller.account_seq is None else LOOK_SECONDS)


async def _may_listen(visit: Visit) -> bool:
    try:
        return await visit.is_still_let_in()
    except Unavailable:
        return True


class _Load:
    def __init__(self) -> None:
        self._before = (0.0, 0.0)
        self.busy = False
        """Whether the process used more than CORES_BUSY cores between the last two measurements."""

    def look(self, visit: Visit) -> None:
        """Measure the process's CPU use and update `busy`, at most twice per LOOK_SECONDS."""
        loop_s, processor_s = asyncio.get_running_loop().time(), visit.services.context.clock.processor_s()
        elapsed_s = loop_s - self._before[0]
        if elapsed_s >= LOOK_SECONDS / 2:
            self.busy = processor_s - self._before[1] > CORES_BUSY * elapsed_s
            self._before = (loop_s, processor_s)


async def account_stream(visit: Visit) -> Response:
    """Respond with the stream of changes for an account or for the operators."""
    return visit.dashboard.live.stream(visit)


PAGES: Final = (account_page("/live", account_stream), operator_page("/live", account_stream))
