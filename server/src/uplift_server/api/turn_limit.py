"""ASGI middleware that limits the number of requests that start in one turn (iteration) of the event loop."""

import asyncio
import time
from collections import deque
from typing import Final, NamedTuple

from uplift_server.api.guard import WAITED_S, App, Receive, Scope, Send, send_error
from uplift_server.api.problems import problem
from uplift_server.api.vital_signs import PATHS

REQUESTS_MAX: Final = 2
"""Number of requests that start in one turn of the event loop, unless many requests are waiting.

Each request takes about 1 ms. The server needs several turns to accept and send an event, so a higher number would
delay the event.
"""
WAITING_PER_START: Final = 32
"""If many requests are waiting, one request starts in each turn for every WAITING_PER_START waiting requests.

A long queue then empties in fewer turns.
"""
WAIT_SECONDS_MAX: Final = 2.0
"""Maximum time that a request can wait, in seconds. After this time, the server rejects the request."""


class _Waiting(NamedTuple):
    since: float
    may_start: "asyncio.Future[bool]"


class TurnLimit:
    """ASGI middleware that starts waiting requests, oldest first, a few in each turn of the event loop.

    Health checks and metrics start immediately.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._room = REQUESTS_MAX
        self._is_scheduled = False
        self._waiting: deque[_Waiting] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait until the request can start, then run the application. Respond with 503 if the wait is too long."""
        if scope["path"] not in PATHS and not await self._may_start(scope):
            detail = "The server is processing too many requests. Try again in a moment."
            error_response = problem("unavailable", detail, retry_after_s=1)
            await send_error(send, error_response, handshake=scope["type"] == "websocket")
            return
        await self._app(scope, receive, send)

    async def _may_start(self, scope: Scope) -> bool:
        self._schedule()
        if self._room:
            self._room -= 1
            return True
        waiting = _Waiting(time.monotonic(), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        may_start = await waiting.may_start
        scope[WAITED_S] = time.monotonic() - waiting.since
        return may_start

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._is_scheduled = False
        self._room = max(REQUESTS_MAX, len(self._waiting) // WAITING_PER_START)
        if self._waiting:
            self._schedule()
        oldest = time.monotonic() - WAIT_SECONDS_MAX
        while self._waiting and (self._room or self._waiting[0].since < oldest):
            since, may_start = self._waiting.popleft()
            if may_start.done():  # the request was cancelled
                continue
            may_start.set_result(since >= oldest)
            self._room -= since >= oldest
