"""Sends events to the local server with Uplift's headers, and retries if the connection fails."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final, Protocol

from uplift_webhooks import __version__
from uplift_webhooks.cli.listening.frames import EventFrame, LocalResponse
from uplift_webhooks.cli.listening.local_server import ConnectionLost, LocalServer, NothingListens
from uplift_webhooks.testing import sign

LOST_MAX: Final = 3
"""Maximum number of requests for one event if the local server closes each connection without a response."""
_FIRST_WAIT_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 1.0


class LocalWatcher(Protocol):
    """Interface for objects that report whether the local server is reachable."""

    def local_away(self, reason: str) -> None:
        """Report that the local server is unreachable.

        The listener calls this method once per outage, and keeps trying to connect.
        """

    def local_back(self) -> None:
        """Report that the local server is reachable again."""


@dataclass(eq=False)
class Handing:
    """An event that the listener is forwarding, and the number of requests for it."""

    event: EventFrame
    times: int = 0
    """Number of started requests, including interrupted requests, which may have arrived."""


class Taker(Protocol):
    """Interface for objects that handle the events of a listener."""

    async def take(self, handing: Handing) -> LocalResponse:
        """Forward an event and return the response. For each started request, increase `handing.times` by 1."""

    def close(self) -> None:
        """Close the connections to the local server."""


class Handover:
    """Sends events to a local server, signed with the session's secret."""

    def __init__(
        self, server: LocalServer, secret: str, watcher: LocalWatcher, *, docs_url: str, unreachable_seconds: float
    ) -> None:
        """`unreachable_seconds` is how long an event waits for an unreachable server, for example during a restart."""
        self._server = server
        self._secret = secret
        self._watcher = watcher
        self._user_agent = f"Uplift-Webhooks/{__version__} (+{docs_url})"
        self._unreachable_seconds = unreachable_seconds
        self._away = False

    async def probe(self) -> None:
        """Notify the watcher if the local server is not reachable. Call this method before the first event."""
        if not await self._server.listens():
            self._note_away("connection refused")

    async def take(self, handing: Handing) -> LocalResponse:
        """Forward an event, with retries. If all requests fail, return a response that contains an error."""
        began = time.monotonic()
        wait = _FIRST_WAIT_SECONDS
        cut_off = 0
        while True:
            try:
                await self._server.connect()
                handing.times += 1
                answer = await self._server.post(self._headers(handing), handing.event.body)
            except NothingListens as error:
                reason = str(error)
                self._note_away(reason)
                if time.monotonic() - began + wait > self._unreachable_seconds:
                    return self._given_up(began, f"is unreachable: {reason}")
            except ConnectionLost as error:
                self._note_back()
                cut_off += 1
                if cut_off == LOST_MAX:
                    return self._given_up(began, f"did not send a complete response: {error}")
            else:
                self._note_back()
                return answer
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _headers(self, handing: Handing) -> dict[str, str]:
        event = handing.event
        headers = {
            "user-agent": self._user_agent,
            **sign(event.body, self._secret, message_id=event.event),
            "x-uplift-event": event.type,
            "x-uplift-delivery": event.delivery,
            "x-uplift-attempt": str(handing.times),
        }
        if handing.times > 1:
            headers["x-uplift-redelivered"] = "true"
        return headers

    def _given_up(self, began: float, error: str) -> LocalResponse:
        return LocalResponse(None, round((time.monotonic() - began) * 1000), error=f"the local server {error}")

    def _note_away(self, reason: str) -> None:
        if not self._away:
            self._away = True
            self._watcher.local_away(reason)

    def _note_back(self) -> None:
        if self._away:
            self._away = False
            self._watcher.local_back()


ONLY_PRINTED: Final = "it was only printed"
"""The error for each event if `uplift listen` only prints events. `uplift trigger` checks for this error."""


class Printed:
    """Handles events for a listener that only prints them, because there is no local server."""

    async def take(self, _handing: Handing) -> LocalResponse:
        """Return a response that contains an error, without sending a request."""
        return LocalResponse(None, 0, error=ONLY_PRINTED)

    def close(self) -> None:
        """Do nothing, because there is no connection."""
