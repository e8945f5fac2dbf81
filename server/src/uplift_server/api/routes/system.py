"""What the server says of itself. Public."""

from fastapi import APIRouter
from starlette.responses import HTMLResponse, PlainTextResponse

from uplift_server.api.endpoint_page import endpoint_page
from uplift_server.api.reading import ServicesOf
from uplift_server.api.routes.documentation import PAGE_POLICY
from uplift_server.api.views import SourceIpsView
from uplift_server.core import source_addresses
from uplift_server.core.ids import ENDPOINT, parse_prefixed
from uplift_server.core.instants import instant_text
from uplift_server.service.refusals import not_found

router = APIRouter(tags=["Server"])
PUBLIC = frozenset(
    {
        "/v1/source-ips",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/docs",
        "/docs/{document}",
        "/endpoints/{endpoint}",
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


@router.get("/endpoints/{endpoint}", summary="Where mails about an endpoint lead", response_class=HTMLResponse)
async def get_endpoint_page(endpoint: str) -> HTMLResponse:
    """Public. Says how to look at an endpoint and what to do about it; nothing of the endpoint itself."""
    if parse_prefixed(ENDPOINT, endpoint) is None:
        raise not_found("endpoint", endpoint)
    return HTMLResponse(endpoint_page(endpoint), headers={"content-security-policy": PAGE_POLICY})
