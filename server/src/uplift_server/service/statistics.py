"""Statistics for endpoints, accounts and the server.

An event or attempt appears in the statistics within 2 seconds, or within 10 seconds while the process is busy.
"""

from collections.abc import Sequence
from typing import Final

from uplift_server.core import ids
from uplift_server.core.limits import PAGE_ITEMS_DEFAULT
from uplift_server.core.operations.statistics import HOUR_MS, Period, Series, Span, series
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, require_valid
from uplift_server.service.statistics_ranges import RangeStatistics, StatisticsQuery, StatisticsRanges
from uplift_server.store import statistics

HOURS_IN_LISTS: Final = 24
FIRST_PAGE: Final = Listing(PAGE_ITEMS_DEFAULT)


class Statistics:
    """Reads statistics for endpoints, accounts and the server."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._ranges = StatisticsRanges(context)

    async def of_account(self, caller: Caller, period: Period, *, problems: Sequence[Problem] = ()) -> Series:
        """Return the statistics of the caller's account. The statistics include deleted endpoints.

        Raises AccountRequired.
        """
        caller.require(Scope.DELIVERIES_READ)
        require_valid(problems)
        return await self._read_one(statistics.Scope(caller.require_account(), 0), period)

    async def of_endpoint(
        self, caller: Caller, endpoint: str, period: Period, *, problems: Sequence[Problem] = ()
    ) -> Series:
        """Return the statistics of an endpoint. Raises NotFound."""
        caller.require(Scope.DELIVERIES_READ)
        scope = self._scope(caller, endpoint)
        require_valid(problems)
        return await self._read_one(scope, period)

    async def of_endpoints(self, caller: Caller, endpoints: Sequence[str]) -> dict[str, Series]:
        """Return the hourly statistics of these endpoints for the last 24 hours. The keys are the given IDs and uids.

        An ID that is not in the cache has empty statistics. Raises NotFound for an unknown uid or another account's
        endpoint.
        """
        caller.require(Scope.DELIVERIES_READ)
        known = self._context.cache.endpoints_by_id
        scopes = {
            endpoint: self._scope(caller, endpoint)
            for endpoint in endpoints
            if (value := ids.parse_prefixed(ids.ENDPOINT, endpoint)) is None or value in known
        }
        span = Span(HOURS_IN_LISTS, HOUR_MS)
        empty = series(span, self._context.now(), [])
        return dict.fromkeys(endpoints, empty) | await self._read(scopes, span)

    async def of_accounts(self, caller: Caller, accounts: Sequence[str]) -> dict[str, Series]:
        """Return the hourly statistics of these accounts for the last 24 hours. The keys are the given IDs and uids.

        Raises NotFound, or Forbidden unless the caller is an operator.
        """
        caller.require_operator(reads=True)
        scopes = {account: self._scope_of_account(account) for account in accounts}
        return await self._read(scopes, Span(HOURS_IN_LISTS, HOUR_MS))

    async def of_all_accounts(self, caller: Caller, period: Period, *, problems: Sequence[Problem] = ()) -> Series:
        """Return the total statistics of all accounts.

        Raises Forbidden unless the caller is an operator, or a service key with the scope `deliveries:read`.
        """
        caller.require_all_accounts(Scope.DELIVERIES_READ, reads=True)
        require_valid(problems)
        return await self._read_one(statistics.ALL_ACCOUNTS, period)

    async def of_range(
        self,
        caller: Caller,
        query: StatisticsQuery,
        listing: Listing = FIRST_PAGE,
        *,
        endpoint: str | None = None,
        problems: Sequence[Problem] = (),
    ) -> RangeStatistics:
        """Return statistics in a time range for an endpoint, the caller's account, or all accounts. Raises NotFound."""
        if endpoint is None:
            return await self._ranges.of_account(caller, query, listing, problems=problems)
        caller.require(Scope.DELIVERIES_READ)
        return await self._ranges.of_endpoint(caller, self._scope(caller, endpoint), query, problems)

    async def _read_one(self, scope: statistics.Scope, period: Period) -> Series:
        return (await self._read({"": scope}, period.span))[""]

    async def _read(self, scopes: dict[str, statistics.Scope], span: Span) -> dict[str, Series]:
        now = self._context.now()
        since = span.starts(now)[0]
        minutes = span.bucket_ms < HOUR_MS
        found = await self._context.database.read(
            lambda c: statistics.by_bucket(c, scopes.values(), since=since, minutes=minutes)
        )
        return {name: series(span, now, found[scope]) for name, scope in scopes.items()}

    def _scope(self, caller: Caller, text: str) -> statistics.Scope:
        found = self._context.find_endpoint(caller, text)
        if found is None:
            raise not_found("endpoint", text)
        return statistics.Scope(found.record.account_seq, found.seq)

    def _scope_of_account(self, text: str) -> statistics.Scope:
        found = self._context.cache.find_account(text)
        if found is None:
            raise not_found("account", text)
        return statistics.Scope(found.seq, 0)
