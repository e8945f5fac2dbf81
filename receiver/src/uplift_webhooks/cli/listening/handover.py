"""From an event of the stream to a request as Uplift sends it, handed over until there is an answer."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final, Protocol

from uplift_webhooks import __version__
from uplift_webhooks.cli.listening.frames import Answer, EventFrame
from uplift_webhooks.cli.listening.local_server import CutOff, LocalServer, NothingListens
from uplift_webhooks.testing import sign

CUT_OFF_TIMES_MAX: Final = 3
"""So often an event is handed over to a server that ends the connection without an answer."""
_FIRST_WAIT_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 1.0


class LocalWatcher(Protocol):
    """Who is told how the local server fares."""

    def local_away(self, reason: str) -> None:
        """It cannot be connected to, which is tried again from now on; told once until it can."""

    def local_back(self) -> None:
        """It can be connected to again."""


@dataclass(eq=False)
class Handing:
    """An event on its way."""

    event: EventFrame
    times: int = 0
    """How often it began to be handed over. Counted before it is sent: what is cut off or cancelled may have come."""


class Taker(Protocol):
    """What events are handed to."""

    async def take(self, handing: Handing) -> Answer:
        """Hand an event over, and count how often that was begun."""

    def close(self) -> None:
        """Let go of what is open."""


class Handover:
    """Hands events over to a local server, signed at that moment with the session's secret."""

    def __init__(
        self, server: LocalServer, secret: str, watcher: LocalWatcher, *, docs_url: str, patience_seconds: float
    ) -> None:
        """`patience_seconds`: how long an event waits for a server that cannot be connected to, as one that reloads."""
        self._server = server
        self._secret = secret
        self._watcher = watcher
        self._user_agent = f"Uplift-Webhooks/{__version__} (+{docs_url})"
        self._patience_seconds = patience_seconds
        self._away = False

    async def probe(self) -> None:
        """Tell the watcher if nothing listens, before there is any event."""
        if not await self._server.listens():
            self._note_away("connection refused")

    async def take(self, handing: Handing) -> Answer:
        """Hand an event over, as often as that takes; what cannot be done in time is an Answer that says so."""
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
                if time.monotonic() - began + wait > self._patience_seconds:
                    return self._given_up(began, f"cannot be connected to: {reason}")
            except CutOff as error:
                self._note_back()
                cut_off += 1
                if cut_off == CUT_OFF_TIMES_MAX:
                    return self._given_up(began, f"ended the connection without an answer: {error}")
            else:
                self._note_back()
                return answer
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    def close(self) -> None:
        """Let go of the connection."""
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

    def _given_up(self, began: float, error: str) -> Answer:
        return Answer(None, round((time.monotonic() - began) * 1000), error=f"the local server {error}")

    def _note_away(self, reason: str) -> None:
        if not self._away:
            self._away = True
            self._watcher.local_away(reason)

    def _note_back(self) -> None:
        if self._away:
            self._away = False
            self._watcher.local_back()


ONLY_PRINTED: Final = "it was only printed"
"""What the server is told of an event that was handed over to nobody."""


class Printed:
    """In place of a local server: events are only shown."""

    async def take(self, _handing: Handing) -> Answer:
        """Nothing is handed over, so nothing is handed over again."""
        return Answer(None, 0, error=ONLY_PRINTED)

    def close(self) -> None:
        """Nothing is open."""
