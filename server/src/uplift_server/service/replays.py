"""Replays: jobs that send many deliveries of one endpoint again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from uplift_server.core import ids
from uplift_server.core.deliveries.replays import STATUSES_DEFAULT, ReplayState, Wait, parse_statuses
from uplift_server.core.events.subscriptions import Subscription, pattern_problems
from uplift_server.core.lifecycle import Status
from uplift_server.core.limits import REPLAY_RATE_PER_SECOND_DEFAULT
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.replays.jobs import COUNT_ROWS
from uplift_server.service import errors
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.idempotency import Repeat, check_repeat, request_of
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, parse_id, refusal, refuse
from uplift_server.store import audit, event_times, idempotency, releases, replays
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.records import EndpointState, Page
from uplift_server.store.releases import Counted
from uplift_server.store.replays import Choice, EndpointBusy, NewReplay, Replay

COUNT_WITHIN_MS: Final = 2000
"""How long a caller waits for the count. The job itself counts what is left then."""
_WHAT: Final = "replay"
_DONE: Final = {
    ReplayState.PAUSED: "replay.paused",
    ReplayState.RUNNING: "replay.resumed",
    ReplayState.CANCELLED: "replay.cancelled",
}


@dataclass(frozen=True, slots=True)
class ReplayDraft:
    """What somebody wants to have sent again. Instants are those of the events, exclusive, in Unix ms."""

    endpoint: str | None = None
    status: Sequence[str] | None = None
    types: Sequence[str] | None = None
    created_after: int | None = None
    created_before: int | None = None
    rate_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What a replay would send, as far as it could be counted in the time of an answer."""

    count: int
    oldest_at: int | None
    newest_at: int | None
    complete: bool


@dataclass(frozen=True, slots=True)
class ShownReplay:
    """A replay as its owner sees it."""

    replay: Replay
    reason: Wait | None
    """Of one that runs: why nothing is sent now."""
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class _Counting:
    """What there is between two events, counted up to one of them."""

    first: int
    last: int
    counted: Counted

    @property
    def complete(self) -> bool:
        return self.counted.through >= self.last


class Replays:
    """What owners do with replays."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def preview(self, caller: Caller, draft: ReplayDraft, *, problems: Sequence[Problem] = ()) -> Preview:
        """What a replay would send; nothing is stored. Raises Invalid."""
        caller.require(Scope.DELIVERIES_WRITE)
        _, choice = self._choice(caller, draft, problems)
        found = await self._count(choice)
        return Preview(found.counted.count, found.counted.oldest_at, found.counted.newest_at, found.complete)

    async def create(
        self, caller: Caller, draft: ReplayDraft, *, repeat: Repeat | None = None, problems: Sequence[Problem] = ()
    ) -> ShownReplay:
        """Start a replay. Raises Invalid, and Conflict while its endpoint has an unfinished one."""
        caller.require(Scope.DELIVERIES_WRITE)
        endpoint, choice = self._choice(caller, draft, [*problems, *check_repeat(repeat)])
        found = await self._count(choice)
        new = NewReplay(
            id=self._context.new_id(),
            account_seq=endpoint.record.account_seq,
            choice=choice,
            types=tuple(draft.types or ()),
            rate_per_second=draft.rate_per_second or REPLAY_RATE_PER_SECOND_DEFAULT,
            total=found.counted.count,
            counted_through=found.counted.through,
            first_event_seq=found.first,
            last_event_seq=found.last,
        )
        return await self._context.carry_out(self._create(caller, endpoint, new, repeat))

    async def page(self, caller: Caller, listing: Listing, *, problems: Sequence[Problem] = ()) -> Page[ShownReplay]:
        """The account's replays, newest first."""
        caller.require(Scope.DELIVERIES_READ)
        before = self._context.place(listing, 1, problems)
        found = await self._context.database.read(
            lambda c: replays.page(c, caller.account_seq, limit=listing.limit, before=before)
        )
        return Page([self.shown(replay) for replay in found.items], found.next_key)

    async def get(self, caller: Caller, replay: str) -> ShownReplay:
        """One replay. Raises NotFound."""
        caller.require(Scope.DELIVERIES_READ)
        return self.shown(await self._find(caller, replay))

    async def put_into(
        self, caller: Caller, replay: str, state: ReplayState, *, problems: Sequence[Problem] = ()
    ) -> ShownReplay:
        """Pause, resume or cancel a replay; from then on nothing of it begins to be sent, or goes on.

        Raises NotFound, and Conflict where it has ended.
        """
        caller.require(Scope.DELIVERIES_WRITE)
        found = await self._find(caller, replay)
        refuse(problems)
        return await self._context.carry_out(self._put_into(caller, found.id, state))

    async def _find(self, caller: Caller, replay: str) -> Replay:
        replay_id = parse_id(ids.REPLAY, replay, _WHAT)
        found = await self._context.database.read(lambda c: replays.get(c, caller.account_seq, replay_id))
        if found is None:
            raise not_found(_WHAT, replay)
        return found

    async def _create(
        self, caller: Caller, endpoint: LiveEndpoint, new: NewReplay, repeat: Repeat | None
    ) -> ShownReplay:
        choice = new.choice
        details = {
            "endpoint": endpoint.id_text,
            "status": [status.text for status in choice.statuses],
            "types": list(new.types),
            "rate_per_second": new.rate_per_second,
            "count": new.total,
        }
        entry = self._context.entry(
            caller, "replay.created", ids.prefixed(ids.REPLAY, new.id), details, new.account_seq
        )

        def create(connection: Transaction) -> Replay:
            created = replays.create(connection, new)
            audit.add(connection, entry)
            return created

        def create_once(connection: Transaction) -> tuple[Replay, bool]:
            return idempotency.once(
                connection,
                request_of(repeat, new.account_seq, _WHAT),
                object_id=new.id,
                now=choice.made_at,
                create=lambda: create(connection),
                load=lambda earlier: replays.get(connection, new.account_seq, earlier),
            )

        try:
            replay, repeated = await self._context.database.write(create_once)
        except EndpointBusy as busy:
            other = ids.prefixed(ids.REPLAY, busy.replay_id)
            raise errors.Conflict(
                f"The endpoint has an unfinished replay already: {other}. Wait for its end, or cancel it."
            ) from busy
        except Conflict as error:
            raise refusal(error) from error
        if not repeated:
            self._context.engine.replays.put(replay)
        return self.shown(replay, repeated=repeated)

    async def _put_into(self, caller: Caller, replay_id: bytes, state: ReplayState) -> ShownReplay:
        now = self._context.now()

        def change(connection: Transaction) -> tuple[Replay, bool]:
            found = replays.put_into(connection, caller.account_seq, replay_id, state, now=now)
            assert found is not None, "replays in use are kept"
            if found[1]:
                subject = ids.prefixed(ids.REPLAY, replay_id)
                audit.add(connection, self._context.entry(caller, _DONE[state], subject, {}, found[0].account_seq))
            return found

        try:
            replay, changed = await self._context.database.write(change)
        except Conflict as error:
            raise refusal(error) from error
        if changed:
            self._context.engine.replays.put(replay)
        return self.shown(replay)

    async def _count(self, choice: Choice) -> _Counting:
        """Count in bites, each a read of its own, for as long as a caller can wait."""
        read = self._context.database.read
        first, last = await read(
            lambda c: event_times.bounds(c, after=choice.created_after, before=choice.created_before)
        )
        counted = Counted(0, None, None, first - 1)
        until = self._context.now() + COUNT_WITHIN_MS
        while counted.through < last and self._context.now() < until:
            at = counted.through + 1
            bite = await read(lambda c: releases.count(c, choice, first=at, last=last, rows=COUNT_ROWS))  # noqa: B023 - run before the next turn
            counted = counted.then(bite)
        return _Counting(first, last, counted)

    def _choice(self, caller: Caller, draft: ReplayDraft, problems: Sequence[Problem]) -> tuple[LiveEndpoint, Choice]:
        """What is to be sent again, and where. Raises Invalid with everything that is wrong."""
        found = list(problems)
        endpoint = self._endpoint(caller, draft.endpoint, found)
        statuses: tuple[Status, ...] = STATUSES_DEFAULT
        if draft.status is not None:
            statuses, wrong = parse_statuses(draft.status)
            found.extend(wrong)
        type_seqs = self._type_seqs(draft.types or (), found)
        after, before = draft.created_after, draft.created_before
        if after is not None and before is not None and after >= before:
            text = "Nothing lies after created_after and before created_before. Exchange them, or leave one out."
            found.append(Problem("created_before", "range_empty", text))
        refuse(found)
        assert endpoint is not None, "a missing one was refused"
        return endpoint, Choice(endpoint.seq, statuses, type_seqs, after, before, self._context.now())

    def _endpoint(self, caller: Caller, text: str | None, problems: list[Problem]) -> LiveEndpoint | None:
        if text is None:
            if not any(problem.field == "endpoint" for problem in problems):
                problems.append(Problem("endpoint", "required", "This field is required."))
            return None
        value = ids.parse_prefixed(ids.ENDPOINT, text)
        found = None if value is None else self._context.cache.endpoints_by_id.get(value)
        if found is None or caller.account_seq not in {None, found.record.account_seq}:
            text = "There is no such endpoint. List the endpoints."
            problems.append(Problem("endpoint", "endpoint_unknown", text))
            return None
        return found

    def _type_seqs(self, patterns: Sequence[str], problems: list[Problem]) -> tuple[int, ...]:
        """The event types that names and patterns mean now; none for all of them."""
        known = self._context.cache.event_types
        right, wrong = pattern_problems(patterns, known, "types")
        problems.extend(wrong)
        if not right:
            return ()
        wanted = Subscription(right)
        return tuple(sorted(event_type.seq for name, event_type in known.items() if wanted.matches(name)))

    def shown(self, replay: Replay, *, repeated: bool = False) -> ShownReplay:
        """A replay that was read just now, as people see it."""
        return ShownReplay(replay, self._reason(replay), repeated)

    def _reason(self, replay: Replay) -> Wait | None:
        """Why a replay that runs sends nothing now."""
        if replay.state is not ReplayState.RUNNING:
            return None
        if not replay.is_counted:
            return "counting"
        endpoint = self._context.cache.endpoints.get(replay.choice.endpoint_seq)
        if endpoint is not None and not endpoint.takes_deliveries:
            return "endpoint_paused" if endpoint.record.state is EndpointState.PAUSED else "endpoint_disabled"
        failing = self._context.engine.status.next_probe_at(replay.choice.endpoint_seq) is not None
        return "endpoint_failing" if failing else None
