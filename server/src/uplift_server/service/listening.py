"""Listen sessions: streams of an account's events to developers' machines."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from uplift_server.core import ids
from uplift_server.core.deliveries import test_events
from uplift_server.core.deliveries.listening import (
    TESTS_AWAITED_MAX,
    UNUSED_EXPIRES_AFTER_MS,
    LocalResponse,
    check_description,
    session_secret,
)
from uplift_server.core.events import envelope
from uplift_server.core.events.subscriptions import Subscription, pattern_problems
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.core.timestamps import parse_timestamp
from uplift_server.delivery.listening.relay import SessionGone, TooManyStreams
from uplift_server.delivery.listening.streams import Handed, Stream
from uplift_server.service import errors
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.idempotency import Repeat, check_repeat, request_of
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, parse_id, refusal, refuse, too_many_streams
from uplift_server.store import audit, idempotency, listening
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.listening import ListenSession, StoredAnswer, UnknownEvent
from uplift_server.store.records import Page

TEST_WAIT_S: Final = 3.5
"""How long a caller waits for the answer to a test: every answer comes within 5 s."""
_WHAT: Final = "listen session"
_AFTER: Final = "This is no place of a stream. Use `place` of an event that came over it."


@dataclass(frozen=True, slots=True)
class ListenDraft:
    """What a developer wants to listen to."""

    event_types: Sequence[str] | None = None
    since: str | None = None
    """An instant, or the id of the last event that is not wanted again."""
    description: str | None = None


@dataclass(frozen=True, slots=True)
class ShownSession:
    """A session as its account sees it."""

    session: ListenSession
    connected: bool
    secret: str | None = None
    """Only in the answer to its creation."""
    repeated: bool = False
    """Whether the request to make it repeats an earlier one."""

    @property
    def expires_at(self) -> int | None:
        """When it is removed unless somebody connects (Unix ms)."""
        return None if self.connected else self.session.last_seen_at + UNUSED_EXPIRES_AFTER_MS


@dataclass(frozen=True, slots=True)
class Tested:
    """A test that was sent to one session, and what came of it in the time of an answer."""

    event_id: bytes
    type: str
    answer: StoredAnswer | None


class Listening:
    """What developers do with listen sessions. `secret_key` makes the secrets of all of them."""

    def __init__(self, context: ServiceContext, secret_key: bytes) -> None:
        self._context = context
        self._secret_key = secret_key

    async def create(
        self,
        caller: Caller,
        draft: ListenDraft,
        *,
        repeat: Repeat | None = None,
        problems: Sequence[Problem] = (),
    ) -> ShownSession:
        """Make a session, to be connected to. Raises Invalid, and Conflict where the account has too many.

        A repeat has the secret, too, if it comes with the same key: whoever has that key has the secret.
        """
        caller.require(Scope.LISTEN)
        if not caller.principal.is_key:
            raise errors.Forbidden("A session is streamed with the key that made it. Make one with `uplift listen`.")
        account_seq = caller.one_account()
        since, after_event, wrong = _since(draft.since)
        refuse([*problems, *self._problems(draft), *wrong, *check_repeat(repeat)])
        session, repeated = await self._context.carry_out(
            self._create(caller, account_seq, draft, since, after_event, repeat)
        )
        own = session.key_id == caller.principal.holder_id
        secret = session_secret(self._secret_key, session.key_id) if own else None
        return replace(self._shown(session), secret=secret, repeated=repeated)

    async def page(self, caller: Caller, listing: Listing, *, problems: Sequence[Problem] = ()) -> Page[ShownSession]:
        """The account's sessions, newest first."""
        caller.require(Scope.LISTEN)
        before = self._context.place(listing, 1, problems)
        found = await self._context.database.read(
            lambda c: listening.page(c, caller.account_seq, limit=listing.limit, before=before)
        )
        return Page([self._shown(session) for session in found.items], found.next_key)

    async def get(self, caller: Caller, session: str) -> ShownSession:
        """One session. Raises NotFound."""
        caller.require(Scope.LISTEN)
        return self._shown(await self._find(caller, session))

    async def answers(
        self, caller: Caller, session: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[StoredAnswer]:
        """What the developer's machine answered, newest first. Raises NotFound."""
        caller.require(Scope.LISTEN)
        found = await self._find(caller, session)
        before = self._context.place(listing, 1, problems)
        return await self._context.database.read(
            lambda c: listening.page_of_answers(c, found.seq, limit=listing.limit, before=before)
        )

    async def delete(self, caller: Caller, session: str) -> None:
        """End a session and forget it. Raises NotFound."""
        caller.require(Scope.LISTEN)
        found = await self._find(caller, session)

        async def change() -> None:
            if not await self._context.database.write(lambda c: self._delete(c, caller, found)):
                raise not_found(_WHAT, session)
            self._context.engine.relay.end(found.id)

        await self._context.carry_out(change())

    async def connect(self, caller: Caller, session: str, after: str | None) -> Stream:
        """Begin a session's stream: behind a place it was at, or where it is known to have been.

        Raises NotFound, Invalid for an invalid position, Forbidden for a key other than the session's, RateLimited and
        Busy.
        """
        caller.require(Scope.LISTEN)
        found = await self._find(caller, session)
        if found.key_id != caller.principal.holder_id:
            raise errors.Forbidden("A session is streamed with the key that made it. Make one of your own.")
        place = None if after is None else self._context.place(Listing(1, after), 1, name="after", remedy=_AFTER)
        try:
            return await self._context.engine.relay.connect(found, None if place is None else place[0])
        except SessionGone:
            raise not_found(_WHAT, session) from None
        except TooManyStreams as error:
            raise too_many_streams(
                error.limit, "connected listen sessions", "Stop one of its `uplift listen` commands"
            ) from None

    def disconnect(self, stream: Stream) -> None:
        """A stream's connection is over."""
        self._context.engine.relay.disconnect(stream)

    def place_of(self, handed: Handed) -> str:
        """Where an event stands in its stream, as text."""
        return f"test{handed.place}" if handed.place < 0 else self._context.cursors.encode((handed.place,))

    def take_answer(self, stream: Stream, answer: LocalResponse) -> None:
        """Note what a developer's machine answered."""
        text = answer.place
        if text.startswith("test-") and text[5:].isdecimal() and len(text) < 20:
            stream.answered(-int(text[5:]), answer)
            return
        place = self._context.cursors.decode(text, 1)
        if place is not None:
            stream.answered(place[0], answer)

    async def test(
        self, caller: Caller, session: str, type_name: str | None, *, problems: Sequence[Problem] = ()
    ) -> Tested:
        """Send an event to one connected session alone, and wait a while for what comes of it.

        It is not stored. Raises NotFound, Invalid, and Conflict where nobody is connected or too many tests are
        waited for.
        """
        caller.require(Scope.LISTEN)
        found = await self._find(caller, session)
        known = self._context.cache.event_types
        usable = [each.name for each in known.values() if not each.archived]
        name = test_events.default_type(Subscription(found.event_types), usable) if type_name is None else type_name
        event_type = None if name is None else known.get(name)
        wrong = []
        if event_type is None or event_type.archived:
            text = "The catalog has no such event type. List the event types."
            wrong.append(Problem("type", "event_type_unknown", text))
        refuse([*problems, *wrong])
        assert event_type is not None, "a missing one was refused"
        stream = self._context.engine.relay.stream_of(found.id)
        if stream is None:
            raise errors.Conflict("Nobody is connected to this session. Start `uplift listen`, then try again.")
        event_id, now = self._context.new_id(), self._context.now()
        data = test_events.data_from_example(event_type.record.example)
        body = envelope.build(ids.uuid_text(event_id), event_type.name, event_type.record.api_version, now, data)
        answered = stream.hand_test(event_id, event_type.name, now, body)
        if answered is None:
            raise errors.Conflict(
                f"{TESTS_AWAITED_MAX} examples wait for this session's answers already. Look whether `uplift listen`"
                " still answers, then try again in a few seconds."
            )
        try:
            answer = await asyncio.wait_for(answered, TEST_WAIT_S)
        except TimeoutError:
            answer = None
        return Tested(event_id, event_type.name, answer)

    def _problems(self, draft: ListenDraft) -> list[Problem]:
        _, found = pattern_problems(draft.event_types or (), self._context.cache.event_types)
        wrong = check_description(draft.description or "")
        return found if wrong is None else [*found, wrong]

    async def _create(
        self,
        caller: Caller,
        account_seq: int,
        draft: ListenDraft,
        since: int | None,
        after_event: bytes | None,
        repeat: Repeat | None,
    ) -> tuple[ListenSession, bool]:
        session_id, now = self._context.new_id(), self._context.now()
        horizon = await self._context.database.horizon()

        def create(connection: Transaction) -> ListenSession:
            session = listening.create(
                connection,
                session_id=session_id,
                account_seq=account_seq,
                key_id=caller.principal.holder_id,
                description=draft.description or "",
                event_types=tuple(dict.fromkeys(draft.event_types or ())),
                since=since,
                after_event=after_event,
                horizon=horizon,
                now=now,
            )
            details = {"description": session.description, "event_types": list(session.event_types)}
            subject = ids.prefixed(ids.LISTEN_SESSION, session_id)
            audit.add(connection, self._context.entry(caller, "listen_session.created", subject, details, account_seq))
            return session

        try:
            if repeat is None:
                # All accounts share the writer, so it does not get sessions that it would reject.
                await self._context.database.read(lambda c: listening.check_room(c, account_seq))
            return await self._context.database.write(
                lambda c: idempotency.once(
                    c,
                    request_of(repeat, account_seq, _WHAT),
                    object_id=session_id,
                    now=now,
                    create=lambda: create(c),
                    load=lambda earlier: listening.get(c, account_seq, earlier),
                )
            )
        except UnknownEvent as error:
            text = "There is no such event. List the events, or give an instant."
            raise errors.Invalid([Problem("since", "event_unknown", text)]) from error
        except Conflict as error:
            raise refusal(error) from error

    def _delete(self, connection: Transaction, caller: Caller, session: ListenSession) -> bool:
        if not listening.delete(connection, session):
            return False
        subject = ids.prefixed(ids.LISTEN_SESSION, session.id)
        entry = self._context.entry(caller, "listen_session.ended", subject, {}, session.account_seq)
        audit.add(connection, entry)
        return True

    async def _find(self, caller: Caller, text: str) -> ListenSession:
        session_id = parse_id(ids.LISTEN_SESSION, text, _WHAT)
        found = await self._context.database.read(lambda c: listening.get(c, caller.account_seq, session_id))
        if found is None:
            raise not_found(_WHAT, text)
        return found

    def _shown(self, session: ListenSession) -> ShownSession:
        return ShownSession(session, connected=self._context.engine.relay.stream_of(session.id) is not None)


def _since(text: str | None) -> tuple[int | None, bytes | None, list[Problem]]:
    """From when on, or behind which event."""
    if text is None:
        return None, None, []
    event_id = ids.parse_uuid(text)
    if event_id is not None:
        return None, event_id, []
    try:
        return parse_timestamp(text), None, []
    except ValueError as wrong:
        return None, None, [Problem("since", "since_invalid", f"This is no id of an event, and no instant. {wrong}")]
