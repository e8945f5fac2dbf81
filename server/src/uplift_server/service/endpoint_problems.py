"""What is wrong with an account's endpoints: those that need somebody, the worst first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from uplift_server.core.security.scopes import Scope
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.service.context import ServiceContext
from uplift_server.service.endpoints import Endpoints, Shown
from uplift_server.service.principals import Caller
from uplift_server.store.records import EndpointState

LOOKED_AT_MAX: Final = 20
"""Of so many at most it is counted what they hold, which takes half a millisecond each."""


@dataclass(frozen=True, slots=True)
class EndpointProblems:
    """How the endpoints of an account fare."""

    endpoints: int
    disabled: int
    paused: int
    failing: int
    """Of the enabled ones; some of them were warned of."""
    shown: Sequence[Shown]
    """Those that are disabled, fail, or hold deliveries: the worst first, at most LOOKED_AT_MAX."""


class ProblemFinder:
    """Looks for what needs somebody."""

    def __init__(self, context: ServiceContext, owned: Endpoints) -> None:
        self._context = context
        self._owned = owned

    async def of_account(self, caller: Caller) -> EndpointProblems:
        """The caller's account's. Raises AccountRequired."""
        caller.require(Scope.ENDPOINTS_READ)
        live = list(self._context.cache.endpoints_of(caller.one_account()))
        suspects = sorted(filter(_is_suspect, live), key=_rank)[:LOOKED_AT_MAX]
        shown = await self._owned.of_numbers([each.seq for each in suspects])
        return EndpointProblems(
            endpoints=len(live),
            disabled=sum(each.record.state is EndpointState.DISABLED for each in live),
            paused=sum(each.record.state is EndpointState.PAUSED for each in live),
            failing=sum(_fails(each) for each in live),
            shown=[each for each in shown if _is_troubled(each)],
        )


def _fails(live: LiveEndpoint) -> bool:
    return live.record.state is EndpointState.ENABLED and live.health.failing_since is not None


def _is_suspect(live: LiveEndpoint) -> bool:
    """Whether it may be in trouble: whatever was never switched off since it was made holds nothing."""
    return live.health.failing_since is not None or live.record.state_since is not None


def _rank(live: LiveEndpoint) -> tuple[int, int, int]:
    """Disabled ones before failing ones before others; of failing ones those that have failed the longest."""
    kinds = [live.record.state is EndpointState.DISABLED, _fails(live), not live.takes_deliveries]
    kind = kinds.index(True) if True in kinds else len(kinds)
    return kind, live.health.failing_since or 0, -live.seq


def _is_troubled(shown: Shown) -> bool:
    endpoint = shown.endpoint
    if endpoint.state is EndpointState.DISABLED or shown.held_deliveries:
        return True
    return endpoint.state is EndpointState.ENABLED and endpoint.failing_since is not None
