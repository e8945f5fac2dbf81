"""Around everything: an answer also to those who still wait when the server stops, where uvicorn has a bare 500."""

import asyncio
from contextlib import suppress
from typing import Final

from uplift_server.api.guard import App, Receive, Scope, Send, answer
from uplift_server.api.problems import problem

LAST_ANSWER_SECONDS_MAX: Final = 0.5
"""It is written at once, unless the caller has not read what came before."""
_CLOSE: Final = ((b"connection", b"close"),)
"""Without it uvicorn would begin with the next request of a pipeline, which nobody waits for or ends any more."""


class LastAnswer:
    """The middleware. Pure ASGI, and nothing but a call where nobody is sent away."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise
            detail = "The server stops, and does not know whether this is done. Ask again in a moment."
            refusal = problem("unavailable", detail, retry_after_s=1, headers=_CLOSE)
            # Where an answer has begun, uvicorn takes no second one. It ends the connection then.
            sending = answer(send, refusal, handshake=scope["type"] == "websocket")
            with suppress(RuntimeError, TimeoutError):
                # asyncio.timeout does not end in a cancelled task before Python 3.11.3.
                await asyncio.wait_for(sending, LAST_ANSWER_SECONDS_MAX)
