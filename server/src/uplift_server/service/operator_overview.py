"""The overview of the server for operators: backlog, load, health and processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.health.outage_guard import Outage
from uplift_server.delivery.scheduling.lanes import Load
from uplift_server.service.context import ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.service.replays import Replays, ShownReplay
from uplift_server.store import backlog, replays
from uplift_server.store.backlog import Backlog
from uplift_server.store.contract import Transaction
from uplift_server.store.processes import Process
from uplift_server.store.records import Account
from uplift_server.store.replays import Replay

COUNTED_MAX: Final = 10_000
"""Maximum of each count. With a million deliveries of 2,000 endpoints in SQLite, all counts took 26 ms."""
DUE_ENDPOINTS_PER_READ: Final = 1_000
LISTED_MAX: Final = 20
"""Maximum number of listed endpoints with an open circuit breaker, and of listed replays."""


@dataclass(frozen=True, slots=True)
class ProbedEndpoint:
    """An endpoint with an open circuit breaker, which gets one probe at a time."""

    account: Account
    endpoint: str
    url: str
    failing_since: int | None
    next_probe_at: int


@dataclass(frozen=True, slots=True)
class OverviewState:
    """The state of the server. Timestamps are Unix ms."""

    backlog: Backlog
    """Counts in the database, each up to COUNTED_MAX."""
    oldest_due_at: int | None
    """When the oldest due delivery of an endpoint with a closed circuit breaker became due, if any."""
    load: Load
    probed: Sequence[ProbedEndpoint]
    """Up to LISTED_MAX endpoints, longest failing first. `load.probes` contains all of them."""
    replays: Sequence[ShownReplay]
    """Unfinished replays."""
    mass_failure: Outage | None
    processes: Sequence[Process] | None
    """The live processes on the database, by number. None if there can be only one."""
    heartbeat_overdue_ms: int | None
    """Age of the last heartbeat of this process if it has expired. The other processes are then unknown."""
    accounts: int
    endpoints: Mapping[str, int]
    """Endpoints by state, and enabled ones by health."""
    rejected_rows: int
    """Rows that the database has rejected since this process started."""


class OperatorOverview:
    """Reads the state of the server."""

    def __init__(self, context: ServiceContext, replays: Replays) -> None:
        self._context = context
        self._replays = replays

    async def state(self, caller: Caller) -> OverviewState:
        """Return the state of the server. Raises Unavailable."""
        caller.require_operator(reads=True)
        load, now = self._context.engine.status.load(), self._context.now()
        stored_backlog, running = await self._context.database.read(lambda c: _read(c, now))
        cache = self._context.cache
        states: dict[str, int] = {}
        for live in cache.endpoints.values():
            state = live.health.status if live.takes_deliveries else live.record.state.text
            states[state] = states.get(state, 0) + 1
        return OverviewState(
            stored_backlog,
            await self._oldest_due(load.probes, now),
            load,
            self._probed(load.probes),
            [self._replays.show(replay) for replay in running],
            self._context.engine.status.outage,
            self._context.engine.status.processes(),
            self._context.engine.status.heartbeat_age_ms(),
            len(cache.accounts),
            states,
            sum(self._context.engine.counters.set_aside),
        )

    async def _oldest_due(self, probes: Mapping[int, int], now: int) -> int | None:
        """Return when the oldest delivery that should have been sent became due."""
        oldest, after = now, 0
        while True:
            found = await self._context.database.due_endpoints(after=after, limit=DUE_ENDPOINTS_PER_READ)
            oldest = min([oldest, *(due.due_at for due in found if due.endpoint_seq not in probes)])
            if len(found) < DUE_ENDPOINTS_PER_READ:
                return oldest if oldest < now else None
            after = found[-1].endpoint_seq

    def _probed(self, probes: Mapping[int, int]) -> list[ProbedEndpoint]:
        known = self._context.cache.endpoints
        found = [known[seq] for seq in probes if seq in known and known[seq].takes_deliveries]
        found.sort(key=lambda live: (live.health.failing_since or 0, live.seq))
        return [self._as_probed(live, probes[live.seq]) for live in found[:LISTED_MAX]]

    def _as_probed(self, live: LiveEndpoint, next_probe_at: int) -> ProbedEndpoint:
        account = self._context.cache.accounts[live.record.account_seq]
        return ProbedEndpoint(account, live.id_text, live.record.url, live.health.failing_since, next_probe_at)


def _read(connection: Transaction, now: int) -> tuple[Backlog, list[Replay]]:
    return backlog.count(connection, now=now, limit=COUNTED_MAX), replays.unfinished(connection, limit=LISTED_MAX)
