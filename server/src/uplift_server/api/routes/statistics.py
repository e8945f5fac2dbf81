"""Statistics of an account, an endpoint or the server."""

from typing import Annotated

from fastapi import APIRouter, Depends

from uplift_server.api.bodies import StatsQuery
from uplift_server.api.reading import CallerOf, ParsedQuery, QueryReader, ServicesOf
from uplift_server.api.statistics_rendering import stats_view
from uplift_server.api.views import StatsView
from uplift_server.core.operations.statistics import Period

router = APIRouter(tags=["Statistics"])
PeriodQuery = Annotated[ParsedQuery, Depends(QueryReader(StatsQuery))]


@router.get("/v1/stats", summary="Get the statistics of an account")
async def get_stats(services: ServicesOf, caller: CallerOf, parsed: PeriodQuery) -> StatsView:
    """Requires the scope `deliveries:read`. With an operator key and no account, covers all accounts."""
    ask = services.statistics.of_all_accounts if caller.spans_accounts else services.statistics.of_account
    return stats_view(parsed.values.period, await ask(caller, Period(parsed.values.period), problems=parsed.problems))


@router.get("/v1/endpoints/{endpoint}/stats", summary="Get the statistics of an endpoint")
async def get_endpoint_stats(services: ServicesOf, caller: CallerOf, endpoint: str, parsed: PeriodQuery) -> StatsView:
    """Requires the scope `deliveries:read`."""
    period = Period(parsed.values.period)
    found = await services.statistics.of_endpoint(caller, endpoint, period, problems=parsed.problems)
    return stats_view(parsed.values.period, found)
