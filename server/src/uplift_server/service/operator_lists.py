"""Lists of all accounts, endpoints and emails for operators. Accounts and endpoints come from the cache."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final, NamedTuple, Protocol, TypeVar

from uplift_server.core import ids
from uplift_server.core.deliveries.health import Health
from uplift_server.core.limits import HELD_COUNTED_MAX
from uplift_server.core.operations.severity import Severity, of_endpoints
from uplift_server.core.people.notifications import NotificationState
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.service.backlogs import UNKNOWN, Backlogs, EndpointBacklog, Reading, total
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.failure_causes import FailureCause, failure_cause
from uplift_server.service.principals import Caller
from uplift_server.store import endpoint_backlog, outbox
from uplift_server.store.contract import Transaction
from uplift_server.store.outbox import DueEmail
from uplift_server.store.records import Account, Endpoint, EndpointState, Page

ACCOUNTS_LISTED_MAX: Final = 200
ENDPOINTS_WITH_HELD_MAX: Final = 10_000
"""Maximum number of endpoints that the filter `held` finds."""


class EndpointStatus(StrEnum):
    """Status filters for the endpoint list."""

    FAILING = "failing"
    """Endpoints that are failing or warned, or that the server disabled because of failures or a 410 response."""
    WARNED = "warned"
    DISABLED = "disabled"
    PAUSED = "paused"
    HELD = "held"
    """Endpoints with held deliveries, in any state."""
    AT_LIMIT = "at-limit"
    """Endpoints whose concurrency or rate limit delays a due delivery."""


class EndpointOrder(StrEnum):
    """Sort orders for the list of failing endpoints."""

    SINCE = "since"
    """The endpoints that have been failing for the longest time come first."""
    PENDING = "pending"
    """The endpoints with the most pending deliveries come first."""
    OLDEST = "oldest"
    """The endpoints with the oldest due deliveries come first."""


LISTED_PER_CAUSE: Final = 5
SORTED_MAX: Final = 200
"""The maximum number of failing endpoints in a list for one cause.

The list has only one page, because the order of the endpoints changes between requests.
"""


class EndpointSearch(NamedTuple):
    """The search text, the filters and the sort order for the endpoint list."""

    status: EndpointStatus | None = None
    text: str = ""
    """The text to search for: an ID, or a part of a URL, a description, an account's name or an account's contact."""
    account: str | None = None
    cause: str | None = None
    """The code of a failure cause."""
    order: EndpointOrder = EndpointOrder.SINCE


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """An account and its endpoint counts."""

    account: Account
    endpoints: int
    failing: int
    broken: int
    """The number of endpoints that are failing, or that the server disabled because of failures or a 410 response."""
    off: int
    """The number of endpoints that are paused or disabled."""
    backlog: EndpointBacklog
    severity: Severity


@dataclass(frozen=True, slots=True)
class EndpointSummary:
    """An endpoint with its account and health."""

    account: Account
    endpoint: Endpoint
    health: Health
    """The endpoint's health after its last attempt."""
    held_deliveries: int
    """The number of held deliveries, counted up to HELD_COUNTED_MAX."""
    next_probe_at: int | None
    """When the next probe is due (Unix ms). Set only while the circuit breaker is open."""
    disable_at: int | None
    """When the server will disable the endpoint (Unix ms). Set only while it is failing."""
    backlog: EndpointBacklog
    cause: FailureCause | None
    """The cause of the failures. Set only if the endpoint is failing, or if the server disabled it because of failures
    or a 410 response."""


class EndpointList(NamedTuple):
    """A page of endpoints and, for each status filter, the number of endpoints that match the search."""

    page: Page[EndpointSummary]
    counts: Mapping[EndpointStatus | None, int]
    causes: Sequence[tuple[FailureCause, int]]
    """The failure causes, each with its number of failing endpoints, highest number first."""
    accounts: Sequence[tuple[Account, int]]
    """Accounts, each with its number of matching endpoints, highest number first, at most ACCOUNTS_LISTED_MAX."""


class OperatorLists:
    """Lists accounts, endpoints and emails for operators.

    A text search matches IDs, and parts of names, URLs, descriptions and contacts.
    """

    def __init__(self, context: ServiceContext, backlogs: Backlogs) -> None:
        self._context = context
        self._backlogs = backlogs

    async def accounts(self, caller: Caller, search: str | None, listing: Listing) -> Page[AccountSummary]:
        """Return a page of accounts, newest first."""
        caller.require_operator(reads=True)
        before = self._context.decode_cursor(listing, 1)
        text = (search or "").casefold()
        found = [each for each in self._context.cache.accounts.values() if _account_matches(each, text)]
        page = _page(found, before, listing.limit)
        reading = await self._backlogs.latest()
        return Page([self._account_summary(each, reading) for each in page.items], page.next_key)

    async def account_summary(self, account: Account) -> AccountSummary:
        """Return an account with its endpoint counts."""
        return self._account_summary(account, await self._backlogs.latest())

    def _account_summary(self, account: Account, reading: Reading | None) -> AccountSummary:
        own = list(self._context.cache.endpoints_of(account.seq))
        off = sum(not each.takes_deliveries for each in own)
        backlog = UNKNOWN if reading is None else total([reading.of(each.seq) for each in own])
        broken = sum(each.is_broken for each in own)
        severity = of_endpoints(broken, sum(each.takes_deliveries or each.is_broken for each in own))
        return AccountSummary(account, len(own), sum(map(_is_failing, own)), broken, off, backlog, severity)

    async def endpoints(self, caller: Caller, search: EndpointSearch, listing: Listing) -> EndpointList:
        """Return a page of the endpoints that match a search, newest first.

        With the status filter FAILING, the endpoints are grouped by cause, largest group first, and each group is
        sorted by `search.order`. If the search does not filter by cause, each group has up to LISTED_PER_CAUSE
        endpoints. Raises NotFound if the search names an unknown account.
        """
        caller.require_operator(reads=True)
        before = self._context.decode_cursor(listing, 1)
        reading = await self._backlogs.latest()
        with_held = set(
            await self._context.database.read(
                lambda c: endpoint_backlog.endpoints_with_held(c, limit=ENDPOINTS_WITH_HELD_MAX)
            )
        )
        matching = self._matching(caller, search)
        groups: dict[EndpointStatus | None, list[LiveEndpoint]] = {
            each: [live for live in matching if self._has_status(live, each, with_held, reading)]
            for each in EndpointStatus
        }
        groups[None] = matching
        found = groups[search.status]
        accounts = Counter(live.record.account_seq for live in found)
        by_cause: dict[FailureCause, list[LiveEndpoint]] = defaultdict(list)
        for live in sorted(groups[EndpointStatus.FAILING], key=_order_of(search.order, reading)):
            if (cause := failure_cause(live)) is not None:
                by_cause[cause].append(live)
        causes = sorted(by_cause.items(), key=lambda each: (-len(each[1]), each[0].title))
        if search.status is not EndpointStatus.FAILING:
            page = _page(found, before, listing.limit)
        elif search.cause is None:
            page = Page([live for _, group in causes for live in group[:LISTED_PER_CAUSE]], None)
        else:
            page = Page(
                [live for cause, group in causes for live in group if cause.code == search.cause][:SORTED_MAX], None
            )
        seqs = [live.seq for live in page.items if live.seq in with_held]
        held = await self._context.database.read(lambda c: _held(c, seqs)) if seqs else {}
        # Skip endpoints that were deleted during the count.
        listed = [
            self._endpoint_summary(live, held.get(live.seq, 0), reading) for live in page.items if not live.deleted
        ]
        return EndpointList(
            Page(listed, page.next_key),
            {name: len(group) for name, group in groups.items()},
            [(cause, len(group)) for cause, group in causes],
            [
                (self._context.cache.accounts[seq], count)
                for seq, count in accounts.most_common(ACCOUNTS_LISTED_MAX)
                if seq in self._context.cache.accounts
            ],
        )

    def _matching(self, caller: Caller, search: EndpointSearch) -> list[LiveEndpoint]:
        cache, text = self._context.cache, search.text.casefold()
        own = None if search.account is None else self._context.find_account(caller, search.account).seq
        return [
            each
            for each in cache.endpoints.values()
            if own in (None, each.record.account_seq)
            and (
                not text
                or _endpoint_matches(each, text)
                or _account_matches(cache.accounts[each.record.account_seq], text)
            )
        ]

    def _has_status(
        self, live: LiveEndpoint, status: EndpointStatus, with_held: Collection[int], reading: Reading | None
    ) -> bool:
        match status:
            case EndpointStatus.FAILING:
                return live.is_broken
            case EndpointStatus.WARNED:
                return _is_failing(live) and live.health.warned
            case EndpointStatus.DISABLED:
                return live.record.state is EndpointState.DISABLED
            case EndpointStatus.PAUSED:
                return live.record.state is EndpointState.PAUSED
            case EndpointStatus.HELD:
                return live.seq in with_held
            case EndpointStatus.AT_LIMIT:
                is_due = reading is not None and live.seq in reading.due and live.takes_deliveries
                return is_due and self._context.engine.status.held_up_by(live.seq) is HeldUpBy.ENDPOINT

    async def emails(self, caller: Caller, state: NotificationState | None, listing: Listing) -> Page[DueEmail]:
        """Return emails in the outbox, newest first.

        With `state` WAITING, sort the emails by the time of the next attempt.
        """
        caller.require_operator(reads=True)
        before = self._context.decode_cursor(listing, 2 if state is NotificationState.WAITING else 1)
        return await self._context.database.read(lambda c: outbox.page(c, state, limit=listing.limit, before=before))

    def _endpoint_summary(self, live: LiveEndpoint, held: int, reading: Reading | None) -> EndpointSummary:
        status = self._context.engine.status
        return EndpointSummary(
            self._context.cache.accounts[live.record.account_seq],
            live.record,
            live.health,
            held,
            status.next_probe_at(live.seq),
            status.disable_at(live.seq),
            UNKNOWN if reading is None else reading.of(live.seq),
            failure_cause(live),
        )


def _order_of(order: EndpointOrder, reading: Reading | None) -> Callable[[LiveEndpoint], tuple[float, int]]:
    """Return the function that computes the sort key of a failing endpoint."""

    def key(live: LiveEndpoint) -> tuple[float, int]:
        backlog = UNKNOWN if reading is None else reading.of(live.seq)
        match order:
            case EndpointOrder.SINCE:
                return live.health.failing_since or 0, live.seq
            case EndpointOrder.PENDING:
                return -(backlog.pending or 0), live.seq
            case EndpointOrder.OLDEST:
                return backlog.oldest_due_at or inf, live.seq

    return key


def _held(connection: Transaction, endpoint_seqs: Sequence[int]) -> Mapping[int, int]:
    return endpoint_backlog.held_counts(connection, endpoint_seqs, limit=HELD_COUNTED_MAX)


def _is_failing(live: LiveEndpoint) -> bool:
    return live.takes_deliveries and live.health.failing_since is not None


def _account_matches(account: Account, text: str) -> bool:
    return (
        text in account.name.casefold()
        or text in (ids.prefixed(ids.ACCOUNT, account.id), (account.uid or "").casefold())
        or any(text in email.casefold() for email in account.contact_emails)
    )


def _endpoint_matches(live: LiveEndpoint, text: str) -> bool:
    return live.has_in_url(text) or text in live.record.description.casefold() or live.is_named(text)


class _Numbered(Protocol):
    @property
    def seq(self) -> int: ...


Listed = TypeVar("Listed", bound=_Numbered)


def _page(found: Iterable[Listed], before: tuple[int, ...] | None, limit: int) -> Page[Listed]:
    rest = [each for each in found if before is None or each.seq < before[0]]
    rest.sort(key=lambda each: each.seq, reverse=True)
    return Page(rest[:limit], (rest[limit - 1].seq,) if len(rest) > limit else None)
