"""Numbers of an account, of its endpoints, and of all, for those who may read deliveries.

They are counted a second or two after what they tell of, and begin with the version of the program that first counted.
"""

from collections.abc import Sequence
from typing import Final

from uplift_server.core import ids
from uplift_server.core.operations.statistics import HOUR_MS, Period, Series, Span, series
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.service.context import ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, refuse
from uplift_server.store import statistics

HOURS_OF_LISTED: Final = 24
"""Of each endpoint or account on a list."""


class Statistics:
    """What accounts and operators read of what was counted."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def of_account(self, caller: Caller, period: Period, *, problems: Sequence[Problem] = ()) -> Series:
        """The numbers of the caller's account, its deleted endpoints included. Raises AccountRequired."""
        caller.require(Scope.DELIVERIES_READ)
        refuse(problems)
        return await self._one(statistics.Scope(caller.one_account(), 0), period)

    async def of_endpoint(
        self, caller: Caller, endpoint: str, period: Period, *, problems: Sequence[Problem] = ()
    ) -> Series:
        """The numbers of one endpoint. Raises NotFound."""
        caller.require(Scope.DELIVERIES_READ)
        scope = self._scope(caller, endpoint)
        refuse(problems)
        return await self._one(scope, period)

    async def of_endpoints(self, caller: Caller, endpoints: Sequence[str]) -> dict[str, Series]:
        """The last hours of a page's endpoints, hour by hour, by their ids: one read. Raises NotFound.

        One that this process does not know, since it was made elsewhere or deleted just now, has none.
        """
        caller.require(Scope.DELIVERIES_READ)
        known = self._context.cache.endpoints_by_id
        scopes = {
            endpoint: self._scope(caller, endpoint)
            for endpoint in endpoints
            if (value := ids.parse_prefixed(ids.ENDPOINT, endpoint)) is None or value in known
        }
        span = Span(HOURS_OF_LISTED, HOUR_MS)
        none = series(span, self._context.now(), [])
        return dict.fromkeys(endpoints, none) | await self._several(scopes, span)

    async def of_accounts(self, caller: Caller, accounts: Sequence[str]) -> dict[str, Series]:
        """The same of accounts, for operators."""
        caller.require_operator()
        scopes = {account: self._scope_of_account(account) for account in accounts}
        return await self._several(scopes, Span(HOURS_OF_LISTED, HOUR_MS))

    async def fleet(self, caller: Caller, period: Period, *, problems: Sequence[Problem] = ()) -> Series:
        """The numbers of all accounts together, for operators."""
        caller.require_operator()
        refuse(problems)
        return await self._one(statistics.FLEET, period)

    async def _one(self, scope: statistics.Scope, period: Period) -> Series:
        return (await self._several({"": scope}, period.span))[""]

    async def _several(self, scopes: dict[str, statistics.Scope], span: Span) -> dict[str, Series]:
        now = self._context.now()
        since = span.starts(now)[0]
        found = await self._context.database.read(lambda c: statistics.by_hour(c, scopes.values(), since=since))
        return {name: series(span, now, found[scope]) for name, scope in scopes.items()}

    def _scope(self, caller: Caller, text: str) -> statistics.Scope:
        value = ids.parse_prefixed(ids.ENDPOINT, text)
        found = None if value is None else self._context.cache.endpoints_by_id.get(value)
        if found is None or caller.account_seq not in {None, found.record.account_seq}:
            raise not_found("endpoint", text)
        return statistics.Scope(found.record.account_seq, found.seq)

    def _scope_of_account(self, text: str) -> statistics.Scope:
        value = ids.parse_prefixed(ids.ACCOUNT, text)
        found = None if value is None else self._context.cache.accounts_by_id.get(value)
        if found is None:
            raise not_found("account", text)
        return statistics.Scope(found.seq, 0)
