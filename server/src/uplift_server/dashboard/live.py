"""Pages that stay up to date: a stream tells a page that something has changed, and the page is fetched again.

All pages of an account share one watch, which looks while somebody looks.
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
"""While the process is busy with events, pages wait rather than events."""
CORES_BUSY: Final = 0.4
TURN_SECONDS_MAX: Final = 0.1
"""How far apart open pages load at most while the process has time for them."""
STREAM_SECONDS_MAX: Final = 600.0
"""Then the browser asks anew, and is looked at anew."""
COMMENT_SECONDS: Final = 15.0
"""How long a stream may be silent: proxies end what seems dead."""
RETRY_MS: Final = 3000

_COMMENT: Final = b":\n\n"
_CHANGE: Final = b"event: change\ndata:\n\n"


class _Watch:
    """What one account's, or the operators', streams wait for."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.streams = 0
        self.task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """Wake every stream."""
        self.changed.set()
        self.changed = asyncio.Event()


class _Counted(StreamingResponse):
    """A stream that is counted until it ends, even if it ends before its first line."""

    def __init__(self, lines: AsyncIterator[bytes], end: Callable[[], None]) -> None:
        super().__init__(lines, media_type="text/event-stream")
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


class Live:
    """Every stream of the dashboard."""

    def __init__(self) -> None:
        self._watches: dict[int | None, _Watch] = {}
        self._streams = 0
        self._closed = asyncio.Event()
        self._load = _Load()
        self._next_turn = 0.0
        """When the next page may be told to load, in the loop's time."""

    def close(self) -> None:
        """End all streams."""
        self._closed.set()
        for watch in self._watches.values():
            watch.tell()

    def stream(self, visit: Visit) -> Response:
        """A stream for the caller of a page. Raises RateLimited and Busy if there are too many.

        The operators together have the share of one account.
        """
        account_seq = visit.caller.account_seq
        watch = self._watches.get(account_seq) or _Watch()
        limit = exceeded(self._streams, watch.streams)
        if limit is not None:
            raise too_many_streams(limit, "live pages", "Close a page")
        response = _Counted(self._told(visit, watch), lambda: self._end(account_seq, watch))
        response.headers["x-accel-buffering"] = "no"
        visit.finish(response)
        # Counted in the same step as the check, because the response itself starts later.
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
            # Events from here on are another change.
            changed = watch.changed
            if self._closed.is_set() or not await _may_listen(visit):
                return
            yield told

    async def _turn(self) -> None:
        """Open pages load one after the other; while the process is busy, over all the time until the next look.

        Loaded all at once they are a stall, which takes the longer to make up for the less time events leave. And that
        events have just begun to come shows only later.
        """
        now = asyncio.get_running_loop().time()
        turn = max(now, self._next_turn)
        apart = LOOK_SECONDS_BUSY if self._load.busy else min(LOOK_SECONDS, TURN_SECONDS_MAX * self._streams)
        self._next_turn = turn + apart / self._streams
        with suppress(TimeoutError):
            async with asyncio.timeout(turn - now):
                await self._closed.wait()

    async def _look(self, visit: Visit, caller: Caller, watch: _Watch) -> None:
        """Look for changes for as long as somebody waits for them."""
        before: Hashable = None
        while True:
            self._load.look(visit)
            with suppress(Unavailable):
                # The operators' pages show everything, which always changes.
                stamp = object() if caller.account_seq is None else await visit.services.accounts.version(caller)
                if before is not None and stamp != before:
                    watch.tell()
                before = stamp
            await asyncio.sleep(LOOK_SECONDS_BUSY if self._load.busy or caller.account_seq is None else LOOK_SECONDS)


async def _may_listen(visit: Visit) -> bool:
    """Whether the session of a stream goes on, and still lets its visitor in here: whatever ended it, and wherever."""
    try:
        return await visit.is_still_let_in()
    except Unavailable:
        return True


class _Load:
    """How busy the process is."""

    def __init__(self) -> None:
        self._before = (0.0, 0.0)
        self.busy = False
        """Whether it used more than CORES_BUSY between the last two looks that were a while apart."""

    def look(self, visit: Visit) -> None:
        """See how much it has used."""
        loop_s, processor_s = asyncio.get_running_loop().time(), visit.services.context.clock.processor_s()
        elapsed_s = loop_s - self._before[0]
        if elapsed_s >= LOOK_SECONDS / 2:
            self.busy = processor_s - self._before[1] > CORES_BUSY * elapsed_s
            self._before = (loop_s, processor_s)


async def account_stream(visit: Visit) -> Response:
    """Tells an account's pages of changes."""
    return visit.dashboard.live.stream(visit)


PAGES: Final = (account_page("/live", account_stream), operator_page("/live", account_stream))
