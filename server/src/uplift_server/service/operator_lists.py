"""Accounts and endpoints of everybody, as operators look through them: from memory, so that long lists cost little."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, TypeVar

from uplift_server.core import ids
from uplift_server.core.deliveries.health import Health
from uplift_server.core.limits import HELD_COUNTED_MAX
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.store import endpoint_backlog
from uplift_server.store.contract import Transaction
from uplift_server.store.records import Account, Endpoint, EndpointState, Page

HOLDING_MAX: Final = 10_000
"""How many endpoints that hold deliveries are looked for."""


class EndpointFilter(StrEnum):
    """Which endpoints are asked for."""

    FAILING = "failing"
    """Those that fail now, warned ones too."""
    WARNED = "warned"
    DISABLED = "disabled"
    PAUSED = "paused"
    HELD = "held"
    """Those that hold deliveries, in whatever state they are."""


@dataclass(frozen=True, slots=True)
class ListedAccount:
    """An account with how its endpoints fare, as counts."""

    account: Account
    endpoints: int
    failing: int
    off: int
    """Paused or disabled."""


@dataclass(frozen=True, slots=True)
class ListedEndpoint:
    """An endpoint of anybody's."""

    account: Account
    endpoint: Endpoint
    health: Health
    """As of its last attempt."""
    held_deliveries: int
    """Counted up to HELD_COUNTED_MAX."""
    next_probe_at: int | None
    """While it is only probed (Unix ms)."""
    disable_at: int | None
    """While it fails: when it will be disabled (Unix ms)."""


class EndpointList(NamedTuple):
    """A stretch of the list, and how many there are behind each filter for the same search."""

    page: Page[ListedEndpoint]
    counts: Mapping[EndpointFilter | None, int]


class OperatorLists:
    """What operators look through. A search is for a part of a name, URL, description, contact, or for an id."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    def accounts(self, caller: Caller, search: str | None, listing: Listing) -> Page[ListedAccount]:
        """Accounts, newest first."""
        caller.require_operator()
        before = self._context.place(listing, 1)
        wanted = (search or "").casefold()
        found = [each for each in self._context.cache.accounts.values() if _of_account(each, wanted)]
        page = _stretch(found, before, listing.limit)
        return Page([self.listed(each) for each in page.items], page.next_key)

    def listed(self, account: Account) -> ListedAccount:
        """An account with how its endpoints fare."""
        own = list(self._context.cache.endpoints_of(account.seq))
        off = sum(not each.takes_deliveries for each in own)
        return ListedAccount(account, len(own), sum(map(_fails, own)), off)

    async def endpoints(
        self, caller: Caller, wanted: EndpointFilter | None, search: str | None, listing: Listing
    ) -> EndpointList:
        """Endpoints of all accounts, newest first."""
        caller.require_operator()
        before = self._context.place(listing, 1)
        cache, text = self._context.cache, (search or "").casefold()
        holding = set(
            await self._context.database.read(lambda c: endpoint_backlog.holding_endpoints(c, limit=HOLDING_MAX))
        )
        found = [
            each
            for each in cache.endpoints.values()
            if not text or _of_endpoint(each, text) or _of_account(cache.accounts[each.record.account_seq], text)
        ]
        groups: dict[EndpointFilter | None, list[LiveEndpoint]] = {
            each: [live for live in found if _is(live, each, holding)] for each in EndpointFilter
        }
        groups[None] = found
        page = _stretch(groups[wanted], before, listing.limit)
        seqs = [live.seq for live in page.items if live.seq in holding]
        held = await self._context.database.read(lambda c: _held(c, seqs)) if seqs else {}
        # Some may have been deleted while their deliveries were counted.
        listed = [self._listed(live, held.get(live.seq, 0)) for live in page.items if not live.deleted]
        return EndpointList(Page(listed, page.next_key), {name: len(group) for name, group in groups.items()})

    def _listed(self, live: LiveEndpoint, held: int) -> ListedEndpoint:
        engine = self._context.engine
        account = self._context.cache.accounts[live.record.account_seq]
        probe_at, disable_at = engine.status.next_probe_at(live.seq), engine.status.disable_at(live.seq)
        return ListedEndpoint(account, live.record, live.health, held, probe_at, disable_at)


def _held(connection: Transaction, endpoint_seqs: Sequence[int]) -> Mapping[int, int]:
    return endpoint_backlog.held_counts(connection, endpoint_seqs, limit=HELD_COUNTED_MAX)


def _fails(live: LiveEndpoint) -> bool:
    return live.takes_deliveries and live.health.failing_since is not None


def _is(live: LiveEndpoint, wanted: EndpointFilter, holding: Collection[int]) -> bool:
    match wanted:
        case EndpointFilter.FAILING:
            return _fails(live)
        case EndpointFilter.WARNED:
            return _fails(live) and live.health.warned
        case EndpointFilter.DISABLED:
            return live.record.state is EndpointState.DISABLED
        case EndpointFilter.PAUSED:
            return live.record.state is EndpointState.PAUSED
        case EndpointFilter.HELD:
            return live.seq in holding


def _of_account(account: Account, text: str) -> bool:
    return (
        text in account.name.casefold()
        or text == ids.prefixed(ids.ACCOUNT, account.id)
        or any(text in email.casefold() for email in account.contact_emails)
    )


def _of_endpoint(live: LiveEndpoint, text: str) -> bool:
    record = live.record
    return text in record.url.casefold() or text in record.description.casefold() or text == live.id_text


class _Numbered(Protocol):
    """What a list goes by."""

    @property
    def seq(self) -> int: ...


Listed = TypeVar("Listed", bound=_Numbered)


def _stretch(found: Iterable[Listed], before: tuple[int, ...] | None, limit: int) -> Page[Listed]:
    """A page of what is in memory, newest first."""
    rest = [each for each in found if before is None or each.seq < before[0]]
    rest.sort(key=lambda each: each.seq, reverse=True)
    return Page(rest[:limit], (rest[limit - 1].seq,) if len(rest) > limit else None)
