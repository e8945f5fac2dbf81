"""Statistics for any time range, grouped by hour, day, event type or endpoint."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from uplift_server.core import ids
from uplift_server.core.operations.statistics import DAY_MS, HOUR_MS, Series, Statistics, gathered_into
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import require_valid
from uplift_server.store import endpoints, statistics
from uplift_server.store.contract import Transaction
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Page

DAYS_BY_HOUR_MAX: Final = 31
"""Maximum range, in days, for statistics that are grouped by hour, event type or endpoint."""
DAYS_BY_DAY_MAX: Final = 366
_UNTIL_MAX: Final = 253_370_764_800_000
"""The latest end of a range: the start of the year 9999 (Unix ms).

The server cannot format later timestamps.
"""


class StatisticsQuery(NamedTuple):
    """The range (Unix ms) and the grouping of the statistics."""

    since: int | None = None
    """The start of the range. Default: one day before `until`."""
    until: int | None = None
    """The end of the range. Default: now."""
    by: str | None = None
    """The grouping: `hour` (default), `day`, `type` or `endpoint`."""

    @property
    def is_grouped(self) -> bool:
        """Whether the statistics are grouped by event type or endpoint."""
        return self.by in {"type", "endpoint"}

    def starts(self, now_ms: int, problems: list[Problem]) -> range:
        """Return the start times of the buckets. Add problems with the range to `problems`.

        Extend the range to whole hours or days in UTC.
        """
        until = now_ms if self.until is None else self.until
        since = until - DAY_MS if self.since is None else self.since
        days, step = (DAYS_BY_DAY_MAX, DAY_MS) if self.by == "day" else (DAYS_BY_HOUR_MAX, HOUR_MS)
        if not 0 <= until <= _UNTIL_MAX:
            text = "The time is out of range. Use a year from 1970 to 9998."
            problems.append(Problem("until", "instant_invalid", text))
        elif since >= until:
            text = "The range is empty. Use a time before `until` (default: now)."
            problems.append(Problem("since", "range_empty", text))
        elif until - since > days * DAY_MS:
            longer = "" if self.by == "day" else f" Statistics by day can cover {DAYS_BY_DAY_MAX} days."
            text = f"The range is longer than {days} days. Use a later time.{longer}"
            problems.append(Problem("since", "range_too_long", text))
        return range(since - since % step, until + -until % step, step)


class Group(NamedTuple):
    """The statistics of an event type or an endpoint, without the outcomes and the durations of attempts."""

    name: str
    """The event type, or the ID of the endpoint."""
    statistics: Statistics


class RangeStatistics(NamedTuple):
    """The statistics for a range. They include a page of groups if the grouping is `type` or `endpoint`."""

    series: Series
    groups: Page[Group] | None = None


class StatisticsRanges:
    """Reads statistics for any time range."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def of_account(
        self, caller: Caller, query: StatisticsQuery, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> RangeStatistics:
        """Return the statistics for the caller's account, or for all accounts if the caller sees all accounts."""
        caller.require(Scope.DELIVERIES_READ)
        found = [*problems]
        starts = query.starts(self._context.now(), found)
        request = self._context.page_request(listing, 1, found)
        scope = statistics.Scope(caller.account_seq or 0, 0)

        def read(connection: Transaction) -> RangeStatistics:
            series = _series(connection, scope, starts)
            if not query.is_grouped:
                return RangeStatistics(series)
            page = self._types(scope.account_seq, request)
            if query.by == "endpoint":
                page = _endpoints(connection, caller.account_seq, request)
            sums = statistics.sums(connection, dict(page.items).keys(), since=starts[0], until=starts.stop)
            groups = [Group(name, sums[key]) for key, name in page.items if key in sums]
            return RangeStatistics(series, page.of(groups))

        return await self._context.database.read(read)

    async def of_endpoint(
        self, caller: Caller, scope: statistics.Scope, query: StatisticsQuery, problems: Sequence[Problem]
    ) -> RangeStatistics:
        """Return the statistics for an endpoint."""
        caller.require(Scope.DELIVERIES_READ)
        found = [*problems]
        starts = query.starts(self._context.now(), found)
        require_valid(found)
        return RangeStatistics(await self._context.database.read(lambda c: _series(c, scope, starts)))

    def _types(self, account_seq: int, request: PageRequest) -> Page[tuple[statistics.Scope, str]]:
        """Return a page of event types, including deleted types.

        Each item contains the name of an event type, and the `Scope` that selects its statistics in the database.
        """
        rows = request.chosen(self._context.cache.event_types_by_seq.items(), lambda each: each[0])
        page = request.page(rows, lambda each: (each[0],))
        return page.of([(statistics.Scope.of_type(account_seq, seq), each.name) for seq, each in page.items])


def _series(connection: Transaction, scope: statistics.Scope, starts: range) -> Series:
    found = statistics.by_bucket(connection, [scope], since=starts[0], until=starts.stop)
    return gathered_into(starts, found[scope])


def _endpoints(
    connection: Transaction, account_seq: int | None, request: PageRequest
) -> Page[tuple[statistics.Scope, str]]:
    page = endpoints.page_of_scopes(connection, account_seq, request)
    return page.of(
        [(statistics.Scope(account, seq), ids.prefixed(ids.ENDPOINT, value)) for account, seq, value in page.items]
    )
