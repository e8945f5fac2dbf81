"""Routes for the server itself: the health checks, the list of egress IPs, and the resumption of retention."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import PlainTextResponse

from uplift_server.api.bodies import Nothing
from uplift_server.api.reading import BodyReader, CallerOf, Sent, ServicesOf
from uplift_server.api.views import RetentionView, SourceIpsView
from uplift_server.core.http import source_addresses
from uplift_server.core.timestamps import format_timestamp
from uplift_server.service.rejections import require_valid

router = APIRouter(tags=["Server"])
PUBLIC = frozenset(
    {
        "/v1/source-ips",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/docs",
        "/docs/{document}",
    }
)
"""Paths that the OpenAPI document marks as public, because they do not require an API key."""


@router.get("/v1/source-ips", summary="List egress IPs")
async def get_source_ips(services: ServicesOf) -> SourceIpsView:
    """Public. Returns the IP addresses from which the server sends requests to endpoints.

    Allow these addresses in your firewall.
    """
    now = services.context.now()
    announced = source_addresses.upcoming(services.source_ips, now)
    return SourceIpsView(
        current=source_addresses.current(services.source_ips, now),
        upcoming=[{"address": each.address, "from": format_timestamp(each.since or now)} for each in announced],
    )


@router.post("/v1/retention/resume", summary="Resume retention")
async def resume_retention(
    services: ServicesOf, caller: CallerOf, sent: Annotated[Sent, Depends(BodyReader(Nothing, required=False))]
) -> RetentionView:
    """Requires an operator key. Resumes retention after a clock jump of more than half of `UPLIFT_RETENTION`."""
    require_valid(sent.problems)
    return RetentionView(resumed_at=format_timestamp(await services.retention.resume(caller)))


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Check that the process is running", response_class=PlainTextResponse)
async def get_health() -> PlainTextResponse:
    """Public. Returns 200 while the process is running, without checking the database."""
    return PlainTextResponse("ok\n")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Check that the server is ready", response_class=PlainTextResponse)
async def get_readiness(services: ServicesOf) -> PlainTextResponse:
    """Public. Returns 503 while the server cannot accept events, and describes the problem in `detail`.

    If the server uses an event stream and the database has a problem, the second line of a 200 response describes the
    database problem.
    """
    ready = await services.readiness.check()
    headers = {} if ready.database_id is None else {"uplift-database": ready.database_id}
    limitation = "" if ready.database_problem is None else f"{ready.database_problem}\n"
    return PlainTextResponse(f"ready\n{limitation}", headers=headers)
