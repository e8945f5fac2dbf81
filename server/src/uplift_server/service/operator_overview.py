"""All that the server has to do, as operators look at it."""

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
"""How many deliveries that wait are counted: with a million of 2,000 endpoints in SQLite that took 26 ms in all."""
DUE_ENDPOINTS: Final = 1_000
"""So many endpoints with something due are read at a time."""
LISTED_MAX: Final = 20
"""How many endpoints that are only probed, and how many replays, are told of one by one."""


@dataclass(frozen=True, slots=True)
class Probed:
    """An endpoint that fails so often that single attempts only are made."""

    account: Account
    endpoint: str
    url: str
    failing_since: int | None
    next_probe_at: int


@dataclass(frozen=True, slots=True)
class OverviewState:
    """The queue, what is in hand, and what is out of the ordinary. Instants are Unix ms."""

    backlog: Backlog
    """In the database, each number counted up to COUNTED_MAX."""
    oldest_due_at: int | None
    """Since when something is due for an endpoint that is not only probed; None: nothing waits for its turn there."""
    load: Load
    probed: Sequence[Probed]
    """The first LISTED_MAX, those that fail longest first; `load.probes` has all."""
    replays: Sequence[ShownReplay]
    """Unfinished ones."""
    mass_failure: Outage | None
    processes: Sequence[Process] | None
    """Those that share the database and live, by number; None where there can be only one."""
    unheard_ms: int | None
    """For how long nobody has heard of this process, where that is so long that it knows nothing of the others."""
    accounts: int
    endpoints: Mapping[str, int]
    """How many endpoints are in each state; enabled ones by their health."""
    set_aside: int
    """How many rows the database has rejected since this process started."""


class OperatorOverview:
    """What there is to do."""

    def __init__(self, context: ServiceContext, owned: Replays) -> None:
        self._context = context
        self._replays = owned

    async def now(self, caller: Caller) -> OverviewState:
        """How things stand. Raises Unavailable."""
        caller.require_operator()
        load, now = self._context.engine.status.load(), self._context.now()
        waiting, running = await self._context.database.read(lambda c: _read(c, now))
        cache = self._context.cache
        states: dict[str, int] = {}
        for live in cache.endpoints.values():
            state = live.health.status if live.takes_deliveries else live.record.state.text
            states[state] = states.get(state, 0) + 1
        return OverviewState(
            waiting,
            await self._oldest_due(load.probes, now),
            load,
            self._probed(load.probes),
            [self._replays.shown(replay) for replay in running],
            self._context.engine.status.outage,
            self._context.engine.status.processes(),
            self._context.engine.status.unheard_ms(),
            len(cache.accounts),
            states,
            sum(self._context.engine.counters.set_aside),
        )

    async def _oldest_due(self, probes: Mapping[int, int], now: int) -> int | None:
        """Since when something is due that should have been sent."""
        oldest, after = now, 0
        while True:
            found = await self._context.database.due_endpoints(after=after, limit=DUE_ENDPOINTS)
            oldest = min([oldest, *(due.due_at for due in found if due.endpoint_seq not in probes)])
            if len(found) < DUE_ENDPOINTS:
                return oldest if oldest < now else None
            after = found[-1].endpoint_seq

    def _probed(self, probes: Mapping[int, int]) -> list[Probed]:
        known = self._context.cache.endpoints
        found = [known[seq] for seq in probes if seq in known and known[seq].takes_deliveries]
        found.sort(key=lambda live: (live.health.failing_since or 0, live.seq))
        return [self._as_probed(live, probes[live.seq]) for live in found[:LISTED_MAX]]

    def _as_probed(self, live: LiveEndpoint, next_probe_at: int) -> Probed:
        account = self._context.cache.accounts[live.record.account_seq]
        return Probed(account, live.id_text, live.record.url, live.health.failing_since, next_probe_at)


def _read(connection: Transaction, now: int) -> tuple[Backlog, list[Replay]]:
    return backlog.count(connection, now=now, limit=COUNTED_MAX), replays.unfinished(connection, limit=LISTED_MAX)
