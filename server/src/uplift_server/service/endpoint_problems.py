"""The endpoints of an account that need attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from uplift_server.core.security.scopes import Scope
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.service.backlogs import Backlogs, EndpointBacklog, total
from uplift_server.service.context import ServiceContext
from uplift_server.service.endpoints import Endpoints, ShownEndpoint
from uplift_server.service.principals import Caller
from uplift_server.store.records import Endpoint, EndpointState, HeldAction

LISTED_MAX: Final = 20
"""The maximum number of listed endpoints.

The limit is low, because counting held deliveries takes 0.5 ms per endpoint.
"""


@dataclass(frozen=True, slots=True)
class EndpointProblems:
    """Counts of an account's endpoints by health, and the endpoints that need attention."""

    endpoints: int
    disabled: int
    paused: int
    failing: int
    """The number of enabled endpoints that are failing, including warned endpoints."""
    broken: int
    """The number of endpoints that are failing, or that the server disabled because of failures or a 410 response."""
    delivering: int
    """The number of endpoints that are enabled or counted in `broken`: the total for the share of broken endpoints."""
    holding: int
    """The number of endpoints whose held deliveries wait until someone releases or drops them."""
    backlog: EndpointBacklog
    """The combined backlog of the account's endpoints."""
    shown: Sequence[ShownEndpoint]
    """The endpoints that are disabled, are failing or have held deliveries, worst first, at most LISTED_MAX."""


class ProblemFinder:
    """Finds the endpoints that need attention."""

    def __init__(self, context: ServiceContext, endpoints: Endpoints, backlogs: Backlogs) -> None:
        self._context = context
        self._backlogs = backlogs
        self._endpoints = endpoints

    async def of_account(self, caller: Caller) -> EndpointProblems:
        """Return the endpoint counts of the caller's account, and the endpoints that need attention.

        Raises AccountRequired.
        """
        caller.require(Scope.ENDPOINTS_READ)
        live = list(self._context.cache.endpoints_of(caller.require_account()))
        candidates = sorted(filter(_is_candidate, live), key=_rank)[:LISTED_MAX]
        shown = await self._endpoints.get_many([each.seq for each in candidates])
        backlogs = await self._backlogs.of_endpoints([each.seq for each in live])
        broken = sum(each.is_broken for each in live)
        return EndpointProblems(
            endpoints=len(live),
            disabled=sum(each.record.state is EndpointState.DISABLED for each in live),
            paused=sum(each.record.state is EndpointState.PAUSED for each in live),
            failing=sum(_is_failing(each) for each in live),
            broken=broken,
            delivering=sum(each.takes_deliveries or each.is_broken for each in live),
            holding=max(
                sum(bool(backlogs[each.seq].held) and _keeps_held(each.record) for each in live),
                # These counts are newer.
                sum(bool(each.held_deliveries) and _keeps_held(each.endpoint) for each in shown),
            ),
            backlog=total(backlogs.values()),
            shown=[each for each in shown if _needs_attention(each)],
        )


def _is_failing(live: LiveEndpoint) -> bool:
    return live.record.state is EndpointState.ENABLED and live.health.failing_since is not None


def _is_candidate(live: LiveEndpoint) -> bool:
    """Return whether an endpoint is failing, or was ever paused or disabled.

    Other endpoints do not need attention: they are not failing and have no held deliveries.
    """
    return live.health.failing_since is not None or live.record.state_since is not None


def _rank(live: LiveEndpoint) -> tuple[int, int, int]:
    """Return the sort key of an endpoint.

    Disabled endpoints come first, then failing endpoints (longest failing first), then paused endpoints, then other
    endpoints.
    """
    kinds = [live.record.state is EndpointState.DISABLED, _is_failing(live), not live.takes_deliveries]
    kind = kinds.index(True) if True in kinds else len(kinds)
    return kind, live.health.failing_since or 0, -live.seq


def _keeps_held(endpoint: Endpoint) -> bool:
    """Return whether the server neither sends nor drops the endpoint's held deliveries."""
    if endpoint.state is EndpointState.ENABLED:
        return endpoint.held_action is HeldAction.KEEP
    return endpoint.held_action is not HeldAction.DROP


def _needs_attention(shown: ShownEndpoint) -> bool:
    endpoint = shown.endpoint
    if endpoint.state is EndpointState.DISABLED or shown.held_deliveries:
        return True
    return endpoint.state is EndpointState.ENABLED and endpoint.failing_since is not None
