"""Listen sessions. Each session is a live stream of an account's events to a developer."""

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
from uplift_server.delivery.listening.streams import Stream, StreamItem
from uplift_server.service import errors
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import (
    archived_event_type,
    as_conflict,
    not_found,
    parse_id,
    require_valid,
    too_many_streams,
    unknown_event_type,
)
from uplift_server.store import audit, listening
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.listening import ListenResponse, ListenSession, UnknownEvent
from uplift_server.store.records import Page

TEST_WAIT_S: Final = 3.5
"""How long a caller waits for the response to a test, in seconds. Every API response takes at most 5 s."""
_KIND: Final = "listen session"
_AFTER_INVALID: Final = "The stream position is not valid. Use the `place` of an event from this stream."


@dataclass(frozen=True, slots=True)
class ListenDraft:
    """The listen session fields in a request."""

    event_types: Sequence[str] | None = None
    since: str | None = None
    """The start of the stream: a timestamp, or an event ID. With an event ID, the stream starts after that event."""
    description: str | None = None


@dataclass(frozen=True, slots=True)
class ShownSession:
    """A listen session as its owner sees it."""

    session: ListenSession
    connected: bool
    secret: str | None = None
    """The signing secret. Set only in responses to the request that created the session."""
    repeated: bool = False
    """Whether an earlier request created the session."""

    @property
    def expires_at(self) -> int | None:
        """The time (Unix ms) at which the server will delete the session if no client connects.

        None while a client is connected.
        """
        return None if self.connected else self.session.last_seen_at + UNUSED_EXPIRES_AFTER_MS


@dataclass(frozen=True, slots=True)
class SentTest:
    """A test event that was sent to one session, and its response.

    The response is None if it did not arrive in time.
    """

    event_id: bytes
    type: str
    response: ListenResponse | None


class Listening:
    """Creates, reads and deletes listen sessions, and starts the streams of events to developers.

    Derives the signing secrets of sessions from `secret_key`.
    """

    def __init__(self, context: ServiceContext, secret_key: bytes) -> None:
        self._context = context
        self._secret_key = secret_key

    async def create(
        self,
        caller: Caller,
        draft: ListenDraft,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> ShownSession:
        """Create a listen session. Raises Invalid, or Conflict if the account has too many sessions.

        A repeated request with the same API key returns the secret again.
        """
        caller.require(Scope.LISTEN)
        if not caller.principal.is_key:
            raise errors.Forbidden("Only API keys can create listen sessions. Use `uplift listen` with an API key.")
        account_seq = caller.require_account()
        since, after_event, wrong = _since(draft.since)
        require_valid([*problems, *self._problems(draft), *wrong, check_idempotency_key(idempotency_key)])
        session, repeated = await self._context.run_shielded(
            self._create(caller, account_seq, draft, since, after_event, idempotency_key)
        )
        is_own = session.key_id == caller.principal.id
        secret = session_secret(self._secret_key, session.key_id) if is_own else None
        return replace(self._shown(session), secret=secret, repeated=repeated)

    async def page(self, caller: Caller, listing: Listing, *, problems: Sequence[Problem] = ()) -> Page[ShownSession]:
        """Return a page of the account's listen sessions."""
        caller.require(Scope.LISTEN)
        request = self._context.page_request(listing, 1, problems)
        found = await self._context.database.read(lambda c: listening.page(c, caller.account_seq, request))
        return found.of([self._shown(session) for session in found.items])

    async def get(self, caller: Caller, session: str) -> ShownSession:
        """Return a listen session. Raises NotFound."""
        caller.require(Scope.LISTEN)
        return self._shown(await self._find(caller, session))

    async def responses(
        self, caller: Caller, session: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ListenResponse]:
        """Return the responses from the developer's server to the events of this listen session. Raises NotFound."""
        caller.require(Scope.LISTEN)
        found = await self._find(caller, session)
        request = self._context.page_request(listing, 1, problems)
        return await self._context.database.read(lambda c: listening.page_of_responses(c, found.seq, request))

    async def delete(self, caller: Caller, session: str) -> None:
        """Delete a listen session, and end its stream. Raises NotFound."""
        caller.require(Scope.LISTEN)
        found = await self._find(caller, session)

        async def delete() -> None:
            if not await self._context.database.write(lambda c: self._delete(c, caller, found)):
                raise not_found(_KIND, session)
            self._context.engine.relay.end(found.id)

        await self._context.run_shielded(delete())

    async def connect(self, caller: Caller, session: str, after: str | None) -> Stream:
        """Start a listen session's stream after the position `after`. If `after` is None, use the stored position.

        Raises NotFound, RateLimited, Busy, Invalid for an invalid position, or Forbidden unless the caller's key
        created the session.
        """
        caller.require(Scope.LISTEN)
        found = await self._find(caller, session)
        if found.key_id != caller.principal.id:
            raise errors.Forbidden("Another API key created this session. Use that key, or create your own session.")
        position = self._context.decode_cursor(Listing(1, after), 1, name="after", message=_AFTER_INVALID)
        try:
            return await self._context.engine.relay.connect(found, None if position is None else position[0])
        except SessionGone:
            raise not_found(_KIND, session) from None
        except TooManyStreams as error:
            raise too_many_streams(
                error.limit, "connected listen sessions", "Stop an `uplift listen` command"
            ) from None

    def disconnect(self, stream: Stream) -> None:
        """Release the resources of a listen session's stream after its connection has ended."""
        self._context.engine.relay.disconnect(stream)

    def position_of(self, item: StreamItem) -> str:
        """Return, as text, the position of an event in a listen session's stream."""
        return f"test{item.position}" if item.position < 0 else self._context.cursors.encode((item.position,))

    def record_response(self, stream: Stream, response: LocalResponse) -> None:
        """Record a response from a developer's server to an event."""
        text = response.place
        if text.startswith("test-") and text[5:].isdecimal() and len(text) < 20:
            stream.record_response(-int(text[5:]), response)
            return
        position = self._context.cursors.decode(text, 1)
        if position is not None:
            stream.record_response(position[0], response)

    async def test(
        self, caller: Caller, session: str, type_name: str | None, *, problems: Sequence[Problem] = ()
    ) -> SentTest:
        """Send a test event to one connected session, and wait up to TEST_WAIT_S for the response.

        The server does not store the event. Raises NotFound, Invalid, or Conflict if no client is connected or too many
        tests are waiting for a response.
        """
        caller.require(Scope.LISTEN)
        found = await self._find(caller, session)
        known = self._context.cache.event_types
        usable = list(self._context.cache.usable_types())
        name = test_events.default_type(Subscription(found.event_types), usable) if type_name is None else type_name
        event_type = None if name is None else known.get(name)
        if event_type is None:
            wrong = [unknown_event_type(name, catalog=usable)]
        else:
            wrong = [archived_event_type(event_type.name)] if event_type.archived else []
        require_valid([*problems, *wrong])
        assert event_type is not None, "an unknown type has already been rejected"
        stream = self._context.engine.relay.stream_of(found.id)
        if stream is None:
            raise errors.Conflict("No client is connected to this session. Start `uplift listen`, then try again.")
        event_id, now = self._context.new_id(), self._context.now()
        data = test_events.data_from_example(event_type.record.example)
        body = envelope.build_test(ids.uuid_text(event_id), event_type.name, event_type.record.api_version, now, data)
        pending = stream.send_test(event_id, event_type.name, now, body)
        if pending is None:
            raise errors.Conflict(
                f"{TESTS_AWAITED_MAX} test events of this session are already waiting for a response. Check that"
                " `uplift listen` is running, then try again in a few seconds."
            )
        try:
            response = await asyncio.wait_for(pending, TEST_WAIT_S)
        except TimeoutError:
            response = None
        return SentTest(event_id, event_type.name, response)

    def _problems(self, draft: ListenDraft) -> list[Problem | None]:
        _, found = pattern_problems(draft.event_types or (), self._context.cache.event_types)
        return [*found, check_description(draft.description or "")]

    async def _create(
        self,
        caller: Caller,
        account_seq: int,
        draft: ListenDraft,
        since: int | None,
        after_event: bytes | None,
        idempotency_key: IdempotencyKey | None,
    ) -> tuple[ListenSession, bool]:
        session_id, now = self._context.new_id(), self._context.now()
        stream_position = await self._context.database.stream_position()

        def create(connection: Transaction) -> ListenSession:
            session = listening.create(
                connection,
                session_id=session_id,
                account_seq=account_seq,
                key_id=caller.principal.id,
                description=draft.description or "",
                event_types=tuple(dict.fromkeys(draft.event_types or ())),
                since=since,
                after_event=after_event,
                stream_position=stream_position,
                now=now,
            )
            details = {"description": session.description, "event_types": list(session.event_types)}
            subject = ids.prefixed(ids.LISTEN_SESSION, session_id)
            audit.add(
                connection, self._context.audit_entry(caller, "listen_session.created", subject, details, account_seq)
            )
            return session

        def load(connection: Transaction, earlier: bytes) -> ListenSession | None:
            return listening.get(connection, account_seq, earlier)

        request = idempotent_request(idempotency_key, account_seq, _KIND)
        try:
            if idempotency_key is None:
                # Check the limit with a read, so that rejected requests do not use the writer that all accounts share.
                await self._context.database.read(lambda c: listening.require_capacity(c, account_seq))
            return await self._context.database.write(create_once(request, session_id, now, create, load))
        except UnknownEvent as error:
            text = "The event does not exist. Send the ID of an event from GET /v1/events, or a timestamp."
            raise errors.Invalid([Problem("since", "event_unknown", text)]) from error
        except Conflict as error:
            raise as_conflict(error) from error

    def _delete(self, connection: Transaction, caller: Caller, session: ListenSession) -> bool:
        if not listening.delete(connection, session):
            return False
        subject = ids.prefixed(ids.LISTEN_SESSION, session.id)
        entry = self._context.audit_entry(caller, "listen_session.ended", subject, {}, session.account_seq)
        audit.add(connection, entry)
        return True

    async def _find(self, caller: Caller, text: str) -> ListenSession:
        session_id = parse_id(ids.LISTEN_SESSION, text, _KIND)
        found = await self._context.database.read(lambda c: listening.get(c, caller.account_seq, session_id))
        if found is None:
            raise not_found(_KIND, text)
        return found

    def _shown(self, session: ListenSession) -> ShownSession:
        return ShownSession(session, connected=self._context.engine.relay.stream_of(session.id) is not None)


def _since(text: str | None) -> tuple[int | None, bytes | None, list[Problem]]:
    """Parse the start of a stream. Return the timestamp or the event ID in `text`, and any problem with `text`."""
    if text is None:
        return None, None, []
    event_id = ids.parse_uuid(text)
    if event_id is not None:
        return None, event_id, []
    try:
        return parse_timestamp(text), None, []
    except ValueError as wrong:
        text = f"The value is not an event ID or a timestamp. {wrong}"
        return None, None, [Problem("since", "since_invalid", text)]
