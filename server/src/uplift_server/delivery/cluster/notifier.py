"""What processes send each other: hints that something is to be looked at, questions, and answers.

Nothing of it is kept, and any of it may be lost. A hint only saves time: whoever it was for looks by itself, a second
later. A question that is not answered in time was not answered.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Final

import structlog

from uplift_server.delivery.clock import Clock
from uplift_server.store.contract import LINE_TEXT_BYTES_MAX, Line
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
_DUE, _MOVED, _ASK, _ANSWER = "due", "moved", "ask", "answer"
_LISTENED, _STORED, _ENDED = "listened", "stored", "ended"
_OF_OTHERS: Final = frozenset({_DUE, _LISTENED, _STORED, _ENDED})
"""What a process tells all others, itself not."""
_log = structlog.get_logger()

Answer = int | str | list[int] | None
"""None: no."""


class Question:
    """What a process asks of the one that an endpoint belongs to."""

    __slots__ = ("asker", "endpoint_seq", "event_seq", "fence", "what")

    def __init__(self, what: str, endpoint_seq: int, event_seq: int = 0, fence: int = 0, asker: int = 0) -> None:
        self.what = what
        self.endpoint_seq = endpoint_seq
        self.event_seq = event_seq
        self.fence = fence
        self.asker = asker
        """The process that asks."""


class _Asked:
    """A question under way."""

    __slots__ = ("answer", "answered")

    def __init__(self) -> None:
        self.answer: Answer = None
        self.answered = asyncio.Event()


class Post:
    """One process's post. `own` is the number it is known by."""

    def __init__(self, line: Line, clock: Clock) -> None:
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
        self.answer: Callable[[Question], Coroutine[Any, Any, Answer] | None] = lambda _question: None
        """Gives what answers a question, or None where it is not this process's to answer."""
        self._due: dict[int, None] = {}
        self._stored: dict[int, None] = {}
        self._texts: list[str] = []
        self._scheduled = False
        """Whether what was gathered will be sent, or is being sent: what comes meanwhile waits for that."""
        self._closed = False
        self._asked: dict[int, _Asked] = {}
        self._questions = 0
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

    async def ask(self, question: Question, within_ms: int) -> Answer:
        """Ask the process that an endpoint belongs to. Raises Unavailable where nobody answers in time."""
        self._questions += 1
        number = self._questions
        asked = self._asked[number] = _Asked()
        self._send(_ASK, number, self.own, question.what, question.endpoint_seq, question.event_seq, question.fence)
        try:
            await self._clock.wait(asked.answered, within_ms)
        finally:
            del self._asked[number]
        if not asked.answered.is_set():
            raise Unavailable("the process that delivers to this endpoint does not answer")
        return asked.answer

    async def close(self) -> None:
        """Send what is still to be sent, and end what is being answered."""
        self._closed = True
        await self._flush()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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
        elif kind == _ASK:
            self._asked_by_another(*parts)
        elif kind == _ANSWER and parts[1] == self.own:
            asked = self._asked.get(parts[0])
            if asked is not None:
                asked.answer = parts[2]
                asked.answered.set()

    def _asked_by_another(self, number: int, asker: int, what: str, endpoint: int, event: int, fence: int) -> None:
        found = self.answer(Question(what, endpoint, event, fence, asker))
        if found is not None:
            self._begin(lambda: self._answer(number, asker, found))

    async def _answer(self, number: int, asker: int, work: Coroutine[Any, Any, Answer]) -> None:
        try:
            self._send(_ANSWER, number, asker, await work)
        except Unavailable:
            # Whoever asked gives up by themselves.
            return


def _text(*parts: object) -> str:
    return json.dumps(parts, separators=(",", ":"))
