"""Wake-ups between processes. None is stored, and any may be lost: the process that misses one looks a second later."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Final

import structlog

from uplift_server.delivery.clock import Clock
from uplift_server.store.contract import LINE_TEXT_BYTES_MAX, MessageBus
from uplift_server.store.errors import Unavailable
from uplift_server.store.schema_processes import CHANGED

GATHER_MS: Final = 3
"""How long hints wait for others that go with them: a notification for each event would take half of the throughput."""
GATHER_STORED_MS: Final = 50
"""The same for those that only people wait for."""
TEXTS_MAX: Final = 1_000
"""As many wait to be sent; beyond, they are lost."""
_NUMBERS_MAX: Final = LINE_TEXT_BYTES_MAX // 20 - 10
"""How many numbers of up to 19 digits a text takes."""
_DUE, _MOVED, _COMMANDS = "due", "moved", "commands"
_LISTENED, _STORED, _ENDED = "listened", "stored", "ended"
_OF_OTHERS: Final = frozenset({_DUE, _LISTENED, _STORED, _ENDED})
"""What a process tells all others, itself not."""
_log = structlog.get_logger()


class Notifier:
    """One process's post. `own` is the number it is known by."""

    def __init__(self, line: MessageBus, clock: Clock) -> None:
        self._line = line
        self._clock = clock
        line.on_told = self._told
        self.own = 0
        self.on_due: Callable[[Iterable[int]], None] = lambda _endpoint_seqs: None
        """Told of endpoints for which something has become due in the database."""
        self.on_changed: Callable[[], None] = lambda: None
        """Told that something was changed which processes hold in memory."""
        self.on_moved: Callable[[], None] = lambda: None
        """Told that a process has come or gone, or has taken note of that."""
        self.on_listened: Callable[[int, Iterable[int]], None] = lambda _process, _account_seqs: None
        """Told for which accounts another process streams to developers' machines: these, and no others."""
        self.on_stored: Callable[[Iterable[int]], None] = lambda _account_seqs: None
        """Told of accounts of which another process has stored events."""
        self.on_ended: Callable[[str, str, int], None] = lambda _session, _why, _at: None
        """Told of a session whose streams here are over that began before an instant (Unix ms), and why."""
        self.on_commands: Callable[[], None] = lambda: None
        """Told that a process has stored a command for another, or a result."""
        self._due: dict[int, None] = {}
        self._stored: dict[int, None] = {}
        self._texts: list[str] = []
        self._scheduled = False
        """Whether what was gathered will be sent, or is being sent: what comes meanwhile waits for that."""
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def tell_due(self, endpoint_seqs: Iterable[int]) -> None:
        """Something for other processes' endpoints is due in the database."""
        self._due.update(dict.fromkeys(endpoint_seqs))
        self._schedule()

    def tell_listened(self, account_seqs: Iterable[int]) -> None:
        """For which accounts this process streams to developers' machines."""
        self._send(_LISTENED, self.own, list(account_seqs)[:_NUMBERS_MAX])

    def tell_stored(self, account_seq: int) -> None:
        """Events were stored of an account that another process streams for."""
        if not self._stored:
            self._clock.call_at(self._clock.now_ms() + GATHER_STORED_MS, self._schedule)
        self._stored[account_seq] = None

    def tell_ended(self, session_id: str, why: str, at: int) -> None:
        """A session's streams in other processes are over, those that began before an instant (Unix ms)."""
        self._send(_ENDED, self.own, session_id, why, at)

    def tell_moved(self) -> None:
        """This process has come or goes, or acts by others that have."""
        self._send(_MOVED)

    def tell_commands(self) -> None:
        """A command for another process is stored, or a result."""
        self._send(_COMMANDS)

    async def close(self) -> None:
        """Send what is still to be sent."""
        self._closed = True
        await self._flush()

    def _send(self, *parts: object) -> None:
        if len(self._texts) < TEXTS_MAX:
            self._texts.append(_text(*parts))
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._clock.call_at(self._clock.now_ms() + GATHER_MS, partial(self._begin, self._flush))

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _flush(self) -> None:
        due, self._due = list(self._due), {}
        stored, self._stored = list(self._stored), {}
        texts, self._texts = self._texts, []
        for kind, numbers in ((_DUE, due), (_STORED, stored)):
            for at in range(0, len(numbers), _NUMBERS_MAX):
                texts.append(_text(kind, self.own, numbers[at : at + _NUMBERS_MAX]))
        try:
            if texts:
                await self._line.tell(texts)
        except Unavailable as error:
            _log.info("other processes could not be told something", cause=str(error))
        finally:
            self._scheduled = False
            if self._due or self._stored or self._texts:
                self._schedule()

    def _told(self, text: str) -> None:
        if text == CHANGED:
            self.on_changed()
            return
        try:
            kind, *parts = json.loads(text)
            self._take(kind, parts)
        except (ValueError, TypeError, IndexError):
            # Somebody else's, or a later version's.
            return

    def _take(self, kind: object, parts: list[Any]) -> None:
        if kind in _OF_OTHERS and parts[0] == self.own:
            return
        if kind == _DUE:
            self.on_due(parts[1])
        elif kind == _STORED:
            self.on_stored(parts[1])
        elif kind == _LISTENED:
            self.on_listened(*parts)
        elif kind == _ENDED:
            self.on_ended(*parts[1:])
        elif kind == _MOVED:
            self.on_moved()
        elif kind == _COMMANDS:
            self.on_commands()


def _text(*parts: object) -> str:
    return json.dumps(parts, separators=(",", ":"))
