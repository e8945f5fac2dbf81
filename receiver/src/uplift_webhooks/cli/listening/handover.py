"""From an event of the stream to a request as Uplift sends it, handed over until there is an answer."""

import asyncio
import time
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


class Taker(Protocol):
    """What events are handed to."""

    async def take(self, event: EventFrame, times: int) -> tuple[Answer, int]:
        """Hand over an event that was handed over so many times before: the answer, and how many times it is now."""

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

    async def take(self, event: EventFrame, times: int) -> tuple[Answer, int]:
        """Hand an event over, as often as that takes; what cannot be done in time is an Answer that says so."""
        began = time.monotonic()
        wait = _FIRST_WAIT_SECONDS
        cut_off = 0
        while True:
            try:
                answer = await self._server.post(self._headers(event, times), event.body)
            except NothingListens as error:
                reason = str(error)
                self._note_away(reason)
                if time.monotonic() - began + wait > self._patience_seconds:
                    return self._given_up(began, f"cannot be connected to: {reason}"), times
            except CutOff as error:
                self._note_back()
                times += 1
                cut_off += 1
                if cut_off == CUT_OFF_TIMES_MAX:
                    return self._given_up(began, f"ended the connection without an answer: {error}"), times
            else:
                self._note_back()
                return answer, times + 1
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    def close(self) -> None:
        """Let go of the connection."""
        self._server.close()

    def _headers(self, event: EventFrame, times: int) -> dict[str, str]:
        headers = {
            "user-agent": self._user_agent,
            **sign(event.body, self._secret, message_id=event.event),
            "x-uplift-event": event.type,
            "x-uplift-delivery": event.delivery,
            "x-uplift-attempt": str(times + 1),
        }
        if times:
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

    async def take(self, _event: EventFrame, times: int) -> tuple[Answer, int]:
        """Nothing is handed over, so nothing is handed over again."""
        return Answer(None, 0, error=ONLY_PRINTED), times

    def close(self) -> None:
        """Nothing is open."""
