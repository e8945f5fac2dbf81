"""Routes about the server itself: health, documents about it, and retention."""

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
"""Paths that need no key."""


@router.get("/v1/source-ips", summary="List the addresses requests come from")
async def get_source_ips(services: ServicesOf) -> SourceIpsView:
    """Public. Let these through your firewall."""
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
    """For operators. Resumes retention after the clock jumped forward by more than half of `UPLIFT_RETENTION`."""
    require_valid(sent.problems)
    return RetentionView(resumed_at=format_timestamp(await services.retention.resume(caller)))


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Whether the process lives", response_class=PlainTextResponse)
async def get_health() -> PlainTextResponse:
    """Public. Asks nothing of the database."""
    return PlainTextResponse("ok\n")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Whether the server can work", response_class=PlainTextResponse)
async def get_readiness(services: ServicesOf) -> PlainTextResponse:
    """Public. 503 while reads or writes of the database fail or do not finish; `detail` names the cause."""
    return PlainTextResponse("ready\n", headers={"uplift-database": await services.readiness.check()})
