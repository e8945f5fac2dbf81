"""Lists of all accounts, endpoints and emails for operators. Accounts and endpoints come from the cache."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, TypeVar

from uplift_server.core import ids
from uplift_server.core.deliveries.health import Health
from uplift_server.core.limits import HELD_COUNTED_MAX
from uplift_server.core.people.notifications import NotificationState
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.store import endpoint_backlog, outbox
from uplift_server.store.contract import Transaction
from uplift_server.store.outbox import DueEmail
from uplift_server.store.records import Account, Endpoint, EndpointState, Page

ENDPOINTS_WITH_HELD_MAX: Final = 10_000
"""Maximum number of endpoints with held deliveries in the list."""


class EndpointStatus(StrEnum):
    """The filters of the list of endpoints."""

    FAILING = "failing"
    """Failing endpoints, including warned ones."""
    WARNED = "warned"
    DISABLED = "disabled"
    PAUSED = "paused"
    HELD = "held"
    """Endpoints with held deliveries, in any state."""


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """An account and counts of its endpoints."""

    account: Account
    endpoints: int
    failing: int
    off: int
    """Paused or disabled."""


@dataclass(frozen=True, slots=True)
class EndpointSummary:
    """An endpoint with its account and health."""

    account: Account
    endpoint: Endpoint
    health: Health
    """The health after its last attempt."""
    held_deliveries: int
    """Counted up to HELD_COUNTED_MAX."""
    next_probe_at: int | None
    """When the next probe is due (Unix ms). Set only while the circuit breaker is open."""
    disable_at: int | None
    """When the server will disable the endpoint (Unix ms). Set only while it is failing."""


class EndpointList(NamedTuple):
    """A page of the list, and the number of matches of each filter for the same search."""

    page: Page[EndpointSummary]
    counts: Mapping[EndpointStatus | None, int]


class OperatorLists:
    """Lists for operators. A search matches an ID, or a part of a name, URL, description or contact."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    def accounts(self, caller: Caller, search: str | None, listing: Listing) -> Page[AccountSummary]:
        """Return accounts, newest first."""
        caller.require_operator(reads=True)
        before = self._context.decode_cursor(listing, 1)
        text = (search or "").casefold()
        found = [each for each in self._context.cache.accounts.values() if _account_matches(each, text)]
        page = _page(found, before, listing.limit)
        return Page([self.account_summary(each) for each in page.items], page.next_key)

    def account_summary(self, account: Account) -> AccountSummary:
        """Return an account with counts of its endpoints."""
        own = list(self._context.cache.endpoints_of(account.seq))
        off = sum(not each.takes_deliveries for each in own)
        return AccountSummary(account, len(own), sum(map(_is_failing, own)), off)

    async def endpoints(
        self, caller: Caller, status: EndpointStatus | None, search: str | None, listing: Listing
    ) -> EndpointList:
        """Return endpoints of all accounts, newest first."""
        caller.require_operator(reads=True)
        before = self._context.decode_cursor(listing, 1)
        cache, text = self._context.cache, (search or "").casefold()
        with_held = set(
            await self._context.database.read(
                lambda c: endpoint_backlog.endpoints_with_held(c, limit=ENDPOINTS_WITH_HELD_MAX)
            )
        )
        found = [
            each
            for each in cache.endpoints.values()
            if not text
            or _endpoint_matches(each, text)
            or _account_matches(cache.accounts[each.record.account_seq], text)
        ]
        groups: dict[EndpointStatus | None, list[LiveEndpoint]] = {
            each: [live for live in found if _has_status(live, each, with_held)] for each in EndpointStatus
        }
        groups[None] = found
        page = _page(groups[status], before, listing.limit)
        seqs = [live.seq for live in page.items if live.seq in with_held]
        held = await self._context.database.read(lambda c: _held(c, seqs)) if seqs else {}
        # Skip endpoints that were deleted during the count.
        listed = [self._endpoint_summary(live, held.get(live.seq, 0)) for live in page.items if not live.deleted]
        return EndpointList(Page(listed, page.next_key), {name: len(group) for name, group in groups.items()})

    async def emails(self, caller: Caller, state: NotificationState | None, listing: Listing) -> Page[DueEmail]:
        """Return emails in the outbox, newest first; waiting ones in the order of their next attempt."""
        caller.require_operator(reads=True)
        before = self._context.decode_cursor(listing, 2 if state is NotificationState.WAITING else 1)
        return await self._context.database.read(lambda c: outbox.page(c, state, limit=listing.limit, before=before))

    def _endpoint_summary(self, live: LiveEndpoint, held: int) -> EndpointSummary:
        engine = self._context.engine
        account = self._context.cache.accounts[live.record.account_seq]
        probe_at, disable_at = engine.status.next_probe_at(live.seq), engine.status.disable_at(live.seq)
        return EndpointSummary(account, live.record, live.health, held, probe_at, disable_at)


def _held(connection: Transaction, endpoint_seqs: Sequence[int]) -> Mapping[int, int]:
    return endpoint_backlog.held_counts(connection, endpoint_seqs, limit=HELD_COUNTED_MAX)


def _is_failing(live: LiveEndpoint) -> bool:
    return live.takes_deliveries and live.health.failing_since is not None


def _has_status(live: LiveEndpoint, status: EndpointStatus, with_held: Collection[int]) -> bool:
    match status:
        case EndpointStatus.FAILING:
            return _is_failing(live)
        case EndpointStatus.WARNED:
            return _is_failing(live) and live.health.warned
        case EndpointStatus.DISABLED:
            return live.record.state is EndpointState.DISABLED
        case EndpointStatus.PAUSED:
            return live.record.state is EndpointState.PAUSED
        case EndpointStatus.HELD:
            return live.seq in with_held


def _account_matches(account: Account, text: str) -> bool:
    return (
        text in account.name.casefold()
        or text == ids.prefixed(ids.ACCOUNT, account.id)
        or any(text in email.casefold() for email in account.contact_emails)
    )


def _endpoint_matches(live: LiveEndpoint, text: str) -> bool:
    record = live.record
    return text in record.url.casefold() or text in record.description.casefold() or text == live.id_text


class _Numbered(Protocol):
    """A record with a sequence number."""

    @property
    def seq(self) -> int: ...


Listed = TypeVar("Listed", bound=_Numbered)


def _page(found: Iterable[Listed], before: tuple[int, ...] | None, limit: int) -> Page[Listed]:
    """Return a page of records, newest first."""
    rest = [each for each in found if before is None or each.seq < before[0]]
    rest.sort(key=lambda each: each.seq, reverse=True)
    return Page(rest[:limit], (rest[limit - 1].seq,) if len(rest) > limit else None)
