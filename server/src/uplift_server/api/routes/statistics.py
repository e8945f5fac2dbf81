"""Routes that return statistics for an account, an endpoint or the server."""

from typing import Annotated

from fastapi import APIRouter, Depends

from uplift_server.api.reading import CallerOf, ParsedQuery, QueryReader, ServicesOf
from uplift_server.api.statistics_models import EndpointStatsQuery, StatsQuery, StatsView
from uplift_server.api.statistics_rendering import range_view, stats_view
from uplift_server.core.operations.statistics import Period

router = APIRouter(tags=["Statistics"])


@router.get("/v1/stats", summary="Get the statistics of an account", response_model_exclude_unset=True)
async def get_stats(
    services: ServicesOf, caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(StatsQuery))]
) -> StatsView:
    """Requires the scope `deliveries:read`.

    With an operator key and without `Uplift-Account`, the statistics cover all accounts.
    """
    values: StatsQuery = parsed.values
    query, problems = values.range_query(), [*parsed.problems, *values.problems()]
    if query is not None:
        found = await services.statistics.of_range(caller, query, values.listing(), problems=problems)
        return range_view(query, found, services.context)
    period = Period(values.period or Period.LAST_24_HOURS)
    ask = services.statistics.of_all_accounts if caller.spans_accounts else services.statistics.of_account
    return stats_view(period, await ask(caller, period, problems=problems))


@router.get(
    "/v1/endpoints/{endpoint}/stats",
    summary="Get the statistics of an endpoint",
    response_model_exclude_unset=True,
)
async def get_endpoint_stats(
    services: ServicesOf,
    caller: CallerOf,
    endpoint: str,
    parsed: Annotated[ParsedQuery, Depends(QueryReader(EndpointStatsQuery))],
) -> StatsView:
    """Requires the scope `deliveries:read`."""
    values: EndpointStatsQuery = parsed.values
    query, problems = values.range_query(), [*parsed.problems, *values.problems()]
    if query is not None:
        found = await services.statistics.of_range(caller, query, endpoint=endpoint, problems=problems)
        return range_view(query, found, services.context)
    period = Period(values.period or Period.LAST_24_HOURS)
    return stats_view(period, await services.statistics.of_endpoint(caller, endpoint, period, problems=problems))
