"""What the server says of itself. Public."""

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from uplift_server.api.reading import ServicesOf
from uplift_server.api.views import SourceIpsView
from uplift_server.core import source_addresses
from uplift_server.core.instants import instant_text

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
    now = services.means.now()
    announced = source_addresses.upcoming(services.source_ips, now)
    return SourceIpsView(
        current=source_addresses.current(services.source_ips, now),
        upcoming=[{"address": each.address, "from": instant_text(each.since or now)} for each in announced],
    )


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Whether the process lives", response_class=PlainTextResponse)
async def get_health() -> PlainTextResponse:
    """Public. Asks nothing of the database."""
    return PlainTextResponse("ok\n")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Whether the server can work", response_class=PlainTextResponse)
async def get_readiness(services: ServicesOf) -> PlainTextResponse:
    """Public. 503 while the database does not answer."""
    await services.check_ready()
    return PlainTextResponse("ready\n")
