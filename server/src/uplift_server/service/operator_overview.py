"""The overview of the server for operators: problems, backlog, load, health and processes."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from uplift_server.core import ids
from uplift_server.core.operations.fleet import (
    LATE_MS,
    CauseGroup,
    FleetProblem,
    FleetState,
    LimitedEndpoint,
    find_onset,
    fleet_problems,
)
from uplift_server.core.operations.severity import Severity, worst
from uplift_server.core.operations.statistics import HOUR_MS
from uplift_server.core.people.audit import without_query
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.scheduling.lanes import Load
from uplift_server.service.backlogs import UNKNOWN, Backlogs, EndpointBacklog, Reading, total
from uplift_server.service.context import ServiceContext
from uplift_server.service.failure_causes import FailureCause, failure_cause
from uplift_server.service.principals import Caller
from uplift_server.service.readiness import Readiness
from uplift_server.service.replays import Replays, ShownReplay
from uplift_server.store import backlog, rejected_events, replays
from uplift_server.store.contract import Transaction
from uplift_server.store.processes import Process

COUNT_SLICE: Final = 1_000
"""The number of endpoints that are counted before other tasks can run."""
REPLAYS_LISTED_MAX: Final = 20
LEASED_COUNTED_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class OverviewState:
    """The state of the server. Timestamps are Unix ms."""

    fleet: FleetState
    problems: Sequence[FleetProblem]
    """The server's problems, worst first."""
    backlog: EndpointBacklog
    """The combined backlog of all accounts."""
    read_at: int | None
    """When the backlog was read (Unix ms). None if the database does not respond."""
    load: Load
    replays: Sequence[ShownReplay]
    """Unfinished replays, at most REPLAYS_LISTED_MAX."""
    processes: Sequence[Process] | None
    """The live processes that use the database, sorted by process ID. None if there can be only one process."""
    accounts: int
    endpoints: Mapping[str, int]
    """The number of endpoints in each state. Enabled endpoints have a separate count for each health status."""
    rejected_rows: int
    """The number of rows that the database has rejected since this process started."""
    rejected_events: int | None
    """The number of rejected events in the last 24 hours. None if the database has no rejected events of any age."""

    @property
    def severity(self) -> Severity:
        """The severity of the worst problem."""
        return worst(each.severity for each in self.problems)


@dataclass(slots=True)
class _Group:
    """The failing endpoints that share one cause."""

    accounts: set[int] = field(default_factory=set)
    backlogs: list[EndpointBacklog] = field(default_factory=list)
    since: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Counts:
    """The number of endpoints in each state, and the number of failing endpoints for each cause."""

    states: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    groups: dict[FailureCause, _Group] = field(default_factory=dict)
    enabled: int = 0
    failing_since: list[int] = field(default_factory=list)
    disabled: int = 0


class OperatorOverview:
    """Reads the state of the server, and detects its problems."""

    def __init__(self, context: ServiceContext, replays: Replays, backlogs: Backlogs, readiness: Readiness) -> None:
        self._context = context
        self._replays = replays
        self._backlogs = backlogs
        self._readiness = readiness

    async def state(self, caller: Caller) -> OverviewState:
        """Return the state of the server. Raises Unavailable."""
        caller.require_operator(reads=True)
        context, status = self._context, self._context.engine.status
        reading = await self._backlogs.latest()
        running = await context.database.read(lambda c: replays.unfinished(c, limit=REPLAYS_LISTED_MAX))
        counts = await self._count(reading)
        load, processes = status.load(), status.processes()
        oldest, limited = await self._late(reading)
        causes = _cause_groups(counts.groups)
        commits, p99_ms = context.database.measures.recent_commits.p99_ms(time.monotonic())
        engine, now = context.engine.counters, context.now()
        own_failures, attempts = engine.recent_own_failures.recent(sum(engine.attempts), now / 1000)
        sums = UNKNOWN if reading is None else reading.total()
        stream = None if context.stream is None else context.stream.reading
        fleet = FleetState(
            now=now,
            failing=len(counts.failing_since),
            disabled=counts.disabled,
            enabled=counts.enabled,
            accounts=len(set().union(*(each.accounts for each in counts.groups.values()))),
            causes=causes,
            pending=sums.pending,
            pending_failing=sum(each.pending for each in causes),
            oldest_due_at=oldest,
            limited=limited,
            in_flight=load.in_flight,
            in_flight_max=load.in_flight_max,
            heartbeat_overdue_ms=status.heartbeat_age_ms(),
            has_worker=not processes or any(each.role.delivers for each in processes),
            sends=not processes or any(each.delivers for each in processes),
            sending_stopped=load.stopped,
            database_problem=self._readiness.failure_cause(),
            has_stream=context.stream is not None,
            stream_problem=None if context.stream is None else context.stream.trouble(),
            stream_messages=0 if stream is None else stream.messages,
            stream_oldest_at=None if stream is None else stream.oldest_at,
            commits=commits,
            commit_p99_ms=p99_ms,
            attempts=attempts,
            own_failures=own_failures,
            mass_failure=status.outage is not None,
            onset=find_onset(counts.failing_since),
        )
        return OverviewState(
            fleet,
            fleet_problems(fleet),
            sums,
            None if reading is None else reading.stored.read_at,
            load,
            [self._replays.show(replay) for replay in running],
            processes,
            len(context.cache.accounts),
            counts.states,
            sum(engine.set_aside),
            await context.database.read(lambda c: _rejected_events(c, now)),
        )

    async def _count(self, reading: Reading | None) -> _Counts:
        """Count the cached endpoints in each state, and group the failing endpoints by cause."""
        counts = _Counts()
        for place, live in enumerate(list(self._context.cache.endpoints.values()), 1):
            counts.states[live.health.status if live.takes_deliveries else live.record.state.text] += 1
            counts.enabled += live.takes_deliveries
            if (cause := failure_cause(live)) is not None:
                group = counts.groups.setdefault(cause, _Group())
                group.accounts.add(live.record.account_seq)
                group.backlogs.append(UNKNOWN if reading is None else reading.of(live.seq))
                if live.takes_deliveries:
                    counts.failing_since.append(live.health.failing_since or 0)
                else:
                    counts.disabled += 1
                group.since.append(live.health.failing_since or live.record.state_since or 0)
            if place % COUNT_SLICE == 0:
                await asyncio.sleep(0)
        return counts

    async def _late(self, reading: Reading | None) -> tuple[dict[HeldUpBy, int], list[LimitedEndpoint]]:
        """Return, for each cause of delay, the earliest due time of the delayed deliveries.

        Also return the endpoints whose own limits delay their deliveries.
        """
        if reading is None:
            return {}, []
        context, oldest, limited = self._context, dict[HeldUpBy, int](), []
        leased: Mapping[int, int] | None = None
        for endpoint_seq, due_at in reading.due.items():
            live = context.cache.endpoints.get(endpoint_seq)
            if live is None or not live.takes_deliveries:
                continue
            held_up_by = context.engine.status.held_up_by(endpoint_seq)
            is_late = reading.stored.read_at - due_at > LATE_MS
            if is_late and held_up_by is HeldUpBy.SERVER and not context.engine.status.owns(endpoint_seq):
                # The lane is in another process's memory, so count the leased deliveries in the database.
                if leased is None:
                    leased = await context.database.read(lambda c: backlog.leased(c, limit=LEASED_COUNTED_MAX))
                if leased.get(endpoint_seq, 0) >= context.engine.status.in_flight_max_of(live):
                    held_up_by = HeldUpBy.ENDPOINT
            oldest[held_up_by] = min(due_at, oldest.get(held_up_by, due_at))
            if is_late and held_up_by is HeldUpBy.ENDPOINT:
                limited.append(self._limited(live, reading.of(endpoint_seq), due_at))
        return oldest, sorted(limited, key=lambda each: each.oldest_due_at)

    def _limited(self, live: LiveEndpoint, waiting: EndpointBacklog, due_at: int) -> LimitedEndpoint:
        rate = live.record.settings.rate_limit_per_second
        in_flight_max = self._context.engine.status.in_flight_max_of(live)
        noun = "concurrent request" if in_flight_max == 1 else "concurrent requests"
        return LimitedEndpoint(
            ids.prefixed(ids.ACCOUNT, self._context.cache.accounts[live.record.account_seq].id),
            live.id_text,
            without_query(live.record.url),
            f"{in_flight_max} {noun}" + (f", {rate} per second" if rate else ""),
            waiting.pending or 0,
            due_at,
        )


def _rejected_events(connection: Transaction, now: int) -> int | None:
    if not rejected_events.has_any(connection, None):
        return None
    return rejected_events.count_since(connection, now - 24 * HOUR_MS)


def _cause_groups(groups: Mapping[FailureCause, _Group]) -> list[CauseGroup]:
    """Return a summary of the failing endpoints for each cause. The cause with the most endpoints comes first."""
    found: Iterable[CauseGroup] = (
        CauseGroup(
            *cause,
            len(group.since),
            len(group.accounts),
            (sums := total(group.backlogs)).pending or 0,
            sums.oldest_due_at,
            min(group.since),
        )
        for cause, group in groups.items()
    )
    return sorted(found, key=lambda each: (-each.endpoints, -each.pending, each.code))
