"""Replays: jobs that resend many of an endpoint's deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from uplift_server.core import ids
from uplift_server.core.deliveries.replays import STATUSES_DEFAULT, ReplayState, Wait, parse_statuses
from uplift_server.core.events.catalog import WEBHOOK_CREATED
from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.core.events.subscriptions import Subscription, pattern_problems
from uplift_server.core.lifecycle import Status
from uplift_server.core.limits import REPLAY_RATE_PER_SECOND_DEFAULT
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.replays.jobs import COUNT_ROWS
from uplift_server.service import errors
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import ENDPOINT_UNKNOWN, as_conflict, not_found, parse_id, require_valid
from uplift_server.store import audit, event_times, releases, replays
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.records import EndpointState, Page
from uplift_server.store.releases import ReplayCount
from uplift_server.store.replays import EndpointBusy, MissingEvents, NewReplay, Replay, ReplaySelection

COUNT_WAIT_MS: Final = 2000
"""The maximum time that a request spends counting deliveries, in ms. The replay job counts the remaining deliveries
later."""
_KIND: Final = "replay"
_ACTIONS: Final = {
    ReplayState.PAUSED: "replay.paused",
    ReplayState.RUNNING: "replay.resumed",
    ReplayState.CANCELLED: "replay.cancelled",
}


@dataclass(frozen=True, slots=True)
class ReplayDraft:
    """The replay fields in a request. `created_after` and `created_before` are exclusive bounds in Unix ms."""

    endpoint: str | None = None
    status: Sequence[str] | None = None
    types: Sequence[str] | None = None
    created_after: int | None = None
    created_before: int | None = None
    rate_per_second: int | None = None
    include_missing: bool = False
    """Whether the replay also creates deliveries for events that have no delivery to the endpoint."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The number of deliveries in a replay. `complete` is False if the count did not finish in time."""

    count: int
    missing: int
    """How many of the counted deliveries the replay would create, because they do not exist yet."""
    oldest_at: int | None
    newest_at: int | None
    complete: bool
    filtered: bool
    """Whether the counts are upper bounds, because the endpoint's filter can exclude events without a delivery."""


@dataclass(frozen=True, slots=True)
class ShownReplay:
    """A replay as its owner sees it."""

    replay: Replay
    reason: Wait | None
    """Why a running replay is not sending deliveries. None if it is sending deliveries, or is not running."""
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class _Counting:
    """The number of deliveries that have been counted so far in a range of events."""

    first: int
    last: int
    counted: ReplayCount

    @property
    def complete(self) -> bool:
        return self.counted.through >= self.last


class Replays:
    """Previews, creates, reads, pauses, resumes and cancels replays."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def preview(self, caller: Caller, draft: ReplayDraft, *, problems: Sequence[Problem] = ()) -> Preview:
        """Count the deliveries that a replay would send, without creating the replay. Raises Invalid."""
        caller.require(Scope.DELIVERIES_WRITE)
        endpoint, selection = self._select(caller, draft, problems)
        found = await self._count(selection)
        counted = found.counted
        filtered = counted.missing > 0 and endpoint.record.filter is not None
        return Preview(counted.count, counted.missing, counted.oldest_at, counted.newest_at, found.complete, filtered)

    async def create(
        self,
        caller: Caller,
        draft: ReplayDraft,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> ShownReplay:
        """Create a replay.

        Raises Invalid, or Conflict if its endpoint has an unfinished replay or the account has too many unfinished
        replays.
        """
        caller.require(Scope.DELIVERIES_WRITE)
        endpoint, selection = self._select(caller, draft, [*problems, check_idempotency_key(idempotency_key)])
        found = await self._count(selection)
        new = NewReplay(
            id=self._context.new_id(),
            account_seq=endpoint.record.account_seq,
            selection=selection,
            types=tuple(draft.types or ()),
            rate_per_second=draft.rate_per_second or REPLAY_RATE_PER_SECOND_DEFAULT,
            total=found.counted.count,
            counted_through=found.counted.through,
            first_event_seq=found.first,
            last_event_seq=found.last,
        )
        return await self._context.run_shielded(self._create(caller, endpoint, new, idempotency_key))

    async def page(self, caller: Caller, listing: Listing, *, problems: Sequence[Problem] = ()) -> Page[ShownReplay]:
        """Return a page of the account's replays."""
        caller.require(Scope.DELIVERIES_READ)
        request = self._context.page_request(listing, 1, problems)
        found = await self._context.database.read(lambda c: replays.page(c, caller.account_seq, request))
        return found.of([self.show(replay) for replay in found.items])

    async def get(self, caller: Caller, replay: str) -> ShownReplay:
        """Return a replay. Raises NotFound."""
        caller.require(Scope.DELIVERIES_READ)
        return self.show(await self._find(caller, replay))

    async def set_state(
        self, caller: Caller, replay: str, state: ReplayState, *, problems: Sequence[Problem] = ()
    ) -> ShownReplay:
        """Pause, resume or cancel a replay immediately. Raises NotFound, or Conflict if the replay has ended."""
        caller.require(Scope.DELIVERIES_WRITE)
        found = await self._find(caller, replay)
        require_valid(problems)
        return await self._context.run_shielded(self._set_state(caller, found.id, state))

    async def _find(self, caller: Caller, replay: str) -> Replay:
        replay_id = parse_id(ids.REPLAY, replay, _KIND)
        found = await self._context.database.read(lambda c: replays.get(c, caller.account_seq, replay_id))
        if found is None:
            raise not_found(_KIND, replay)
        return found

    async def _create(
        self, caller: Caller, endpoint: LiveEndpoint, new: NewReplay, idempotency_key: IdempotencyKey | None
    ) -> ShownReplay:
        selection = new.selection
        details = {
            "endpoint": endpoint.id_text,
            "status": [status.text for status in selection.statuses],
            "types": list(new.types),
            "rate_per_second": new.rate_per_second,
            "count": new.total,
            **({} if selection.missing is None else {"include_missing": True}),
        }
        entry = self._context.audit_entry(
            caller, "replay.created", ids.prefixed(ids.REPLAY, new.id), details, new.account_seq
        )

        def create(connection: Transaction) -> Replay:
            created = replays.create(connection, new)
            audit.add(connection, entry)
            return created

        def load(connection: Transaction, earlier: bytes) -> Replay | None:
            return replays.get(connection, new.account_seq, earlier)

        request = idempotent_request(idempotency_key, new.account_seq, _KIND)
        try:
            replay, repeated = await self._context.database.write(
                create_once(request, new.id, selection.selected_at, create, load)
            )
        except EndpointBusy as busy:
            other = ids.prefixed(ids.REPLAY, busy.replay_id)
            raise errors.Conflict(
                f"The endpoint already has an unfinished replay: {other}. Wait until it completes, or cancel it."
            ) from busy
        except Conflict as error:
            raise as_conflict(error) from error
        if not repeated:
            self._context.engine.replays.put(replay)
        return self.show(replay, repeated=repeated)

    async def _set_state(self, caller: Caller, replay_id: bytes, state: ReplayState) -> ShownReplay:
        now = self._context.now()

        def change(connection: Transaction) -> tuple[Replay, bool]:
            found = replays.change_state(connection, caller.account_seq, replay_id, state, now=now)
            assert found is not None, "replays in use are kept"
            if found[1]:
                subject = ids.prefixed(ids.REPLAY, replay_id)
                audit.add(
                    connection, self._context.audit_entry(caller, _ACTIONS[state], subject, {}, found[0].account_seq)
                )
            return found

        replay, changed = await self._context.write(change)
        if changed:
            self._context.engine.replays.put(replay)
        return self.show(replay)

    async def _count(self, selection: ReplaySelection) -> _Counting:
        """Count a replay's deliveries, one batch at a time, but stop after COUNT_WAIT_MS."""
        read = self._context.database.read
        first, last = await read(
            lambda c: event_times.bounds(c, after=selection.created_after, before=selection.created_before)
        )
        counted = ReplayCount(0, None, None, first - 1)
        until = self._context.now() + COUNT_WAIT_MS
        while counted.through < last and self._context.now() < until:
            start = counted.through + 1
            batch = await read(lambda c: releases.count(c, selection, first=start, last=last, rows=COUNT_ROWS))  # noqa: B023 - called in this iteration
            counted = counted.then(batch)
        return _Counting(first, last, counted)

    def _select(
        self, caller: Caller, draft: ReplayDraft, problems: Sequence[Problem | None]
    ) -> tuple[LiveEndpoint, ReplaySelection]:
        """Return the endpoint and the selection of deliveries. Raises Invalid with all problems."""
        found = [problem for problem in problems if problem is not None]
        endpoint = self._endpoint(caller, draft.endpoint, found)
        statuses: tuple[Status, ...] = STATUSES_DEFAULT
        if draft.status is not None:
            statuses, wrong = parse_statuses(draft.status, may_be_empty=draft.include_missing)
            found.extend(wrong)
        type_seqs = self._type_seqs(draft.types or (), found)
        after, before = draft.created_after, draft.created_before
        if after is not None and before is not None and after >= before:
            text = "The time range is empty. Use a `created_before` that is later than `created_after`."
            found.append(Problem("created_before", "range_empty", text))
        require_valid(found)
        assert endpoint is not None, "a missing endpoint has already been rejected"
        missing = self._missing(endpoint, type_seqs) if draft.include_missing else None
        now = self._context.now()
        return endpoint, ReplaySelection(endpoint.seq, statuses, type_seqs, after, before, now, missing=missing)

    def _missing(self, endpoint: LiveEndpoint, type_seqs: Sequence[int]) -> MissingEvents:
        """Return the selection of events that the endpoint may have missed.

        The selection contains the event types to which the endpoint now subscribes, including deleted types. The
        selection excludes operational event types and `webhook.created`, because the server does not send these events
        to every subscribed endpoint.
        """
        subscription, excluded = endpoint.subscription, OPERATIONAL_TYPES | {WEBHOOK_CREATED}
        matching = (
            seq
            for seq, each in self._context.cache.event_types_by_seq.items()
            if each.name not in excluded and subscription.matches(each.name) and (not type_seqs or seq in type_seqs)
        )
        return MissingEvents(endpoint.record.account_seq, tuple(sorted(matching)))

    def _endpoint(self, caller: Caller, text: str | None, problems: list[Problem]) -> LiveEndpoint | None:
        if text is None:
            if not any(problem.field == "endpoint" for problem in problems):
                problems.append(Problem("endpoint", "required", "The field is required."))
            return None
        found = self._context.find_endpoint(caller, text)
        if found is None:
            problems.append(ENDPOINT_UNKNOWN)
        return found

    def _type_seqs(self, patterns: Sequence[str], problems: list[Problem]) -> tuple[int, ...]:
        """Return the sequence numbers of the event types that currently match the patterns.

        Without patterns, the result is empty.
        """
        known = self._context.cache.event_types
        valid, wrong = pattern_problems(patterns, known, "types")
        problems.extend(wrong)
        if not valid:
            return ()
        subscription = Subscription(valid)
        return tuple(sorted(event_type.seq for name, event_type in known.items() if subscription.matches(name)))

    def show(self, replay: Replay, *, repeated: bool = False) -> ShownReplay:
        """Return a stored replay as its owner sees it."""
        return ShownReplay(replay, self._reason(replay), repeated)

    def _reason(self, replay: Replay) -> Wait | None:
        """Return why a running replay is not sending deliveries. Return None for any other replay."""
        if replay.state is not ReplayState.RUNNING:
            return None
        if not replay.is_counted:
            return "counting"
        endpoint = self._context.cache.endpoints.get(replay.selection.endpoint_seq)
        if endpoint is not None and not endpoint.takes_deliveries:
            return "endpoint_paused" if endpoint.record.state is EndpointState.PAUSED else "endpoint_disabled"
        is_failing = self._context.engine.status.next_probe_at(replay.selection.endpoint_seq) is not None
        return "endpoint_failing" if is_failing else None
