"""ASGI middleware that limits the requests that start in one turn of the event loop."""

import asyncio
from collections import deque
from typing import Final

from uplift_server.api.guard import App, Receive, Scope, Send

REQUESTS_MAX: Final = 2
"""Maximum number of requests that start in one turn. Each takes about a millisecond. Accepting and sending an event
takes several turns, so more requests in each turn delay both.
"""


class TurnLimit:
    """The middleware. Requests beyond the limit start in later turns, in order."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._room = REQUESTS_MAX
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the ASGI application when the request may start."""
        loop = asyncio.get_running_loop()
        if self._room == REQUESTS_MAX:
            loop.call_soon(self._next_turn)
        if self._room:
            self._room -= 1
        else:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        await self._app(scope, receive, send)

    def _next_turn(self) -> None:
        self._room = REQUESTS_MAX
        while self._waiting and self._room:
            turn = self._waiting.popleft()
            if not turn.done():  # otherwise its request was canceled
                turn.set_result(None)
                self._room -= 1
        if self._room < REQUESTS_MAX:
            asyncio.get_running_loop().call_soon(self._next_turn)
