"""The dashboard as an ASGI application."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from uplift_server.core.operations.branding import Branding
from uplift_server.dashboard import live, rendering
from uplift_server.dashboard.assets import PATH, asset
from uplift_server.dashboard.brand import create_brand
from uplift_server.dashboard.gate import App, Receive, Scope, Send
from uplift_server.dashboard.pages import (
    catalog,
    deliveries,
    delivery_lists,
    developers,
    endpoint,
    endpoints,
    erasures,
    events,
    get_started,
    invitations,
    members,
    operator,
    overview,
    passwords,
    rejected_events,
    replays,
    search,
    second_factor,
    secrets,
    settings,
    sign_in,
    single_sign_on,
    test_deliveries,
    you,
)
from uplift_server.dashboard.routes import Page, refused, route
from uplift_server.dashboard.security import SESSION_COOKIE, Safety
from uplift_server.dashboard.visit import Dashboard, Visit, written
from uplift_server.service.errors import NotFound
from uplift_server.service.services import Services
from uplift_server.service.system import System
from uplift_server.store.errors import StoreError

PAGES: Final[Sequence[Page]] = tuple(
    chain.from_iterable(
        module.PAGES
        for module in (
            sign_in,
            single_sign_on,
            second_factor,
            invitations,
            passwords,
            you,
            get_started,
            overview,
            endpoints,
            endpoint,
            secrets,
            test_deliveries,
            search,
            events,
            rejected_events,
            delivery_lists,
            deliveries,
            replays,
            erasures,
            catalog,
            developers,
            members,
            settings,
            operator,
            live,
        )
    )
)
"""The routes for all pages and forms."""
ASSET_CACHE: Final = "public, max-age=31536000, immutable"


class DashboardApp:
    """The dashboard as an ASGI application. The caller starts and stops the services."""

    def __init__(self, dashboard: Dashboard, api: App) -> None:
        """Create the application. `api` handles requests for unknown paths from clients that do not accept HTML."""
        self._dashboard = dashboard
        self._api = api
        routes = [Route(f"{PATH}/{{name:path}}", self._serve_asset), *(route(page, dashboard) for page in PAGES)]
        self._pages = Starlette(routes=routes, exception_handlers={HTTPException: self._refuse_route})
        self._pages.router.redirect_slashes = False
        self._pages.router.default = self._not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._pages(scope, receive, send)

    def close(self) -> None:
        """Close all live streams."""
        self._dashboard.live.close()

    async def _serve_asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = self._dashboard.brand.assets.get(name) or asset(name)
        if found is None:
            return PlainTextResponse("File not found.", 404)
        response = Response(found.body, media_type=found.media_type, headers={"cache-control": ASSET_CACHE})
        self._dashboard.safety.protect(response, cached=True)
        return response

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if "text/html" not in request.headers.get("accept", ""):
            await self._api(scope, receive, send)
            return
        response = await self._refusal(request)
        await response(scope, receive, send)

    async def _refuse_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = await self._refusal(request)
        response.status_code = error.status_code
        return response

    async def _refusal(self, request: Request) -> Response:
        """Return the error page for an unknown path. The page contains the visitor's menu."""
        visit = Visit(request, self._dashboard)
        with suppress(StoreError):
            visit.visitor = await self._dashboard.services.sessions.visitor(visit.cookie(SESSION_COOKIE))
        return await written(refused(visit, NotFound("This page does not exist. Check the URL.")))


def create_dashboard(
    services: Services,
    *,
    key: bytes,
    public_url: str,
    frame_ancestors: str | None,
    system: System,
    sends_mail: bool,
    allows_private_networks: bool,
    branding: Branding,
    api: App,
) -> DashboardApp:
    """Return the dashboard. `key` signs form tokens and cookies.

    The function reads templates, so call it outside the event loop.
    """
    rendering.prepare()
    safety = Safety(key, public_url, frame_ancestors)
    dashboard = Dashboard(
        services,
        safety,
        live.Live(),
        system,
        sends_mail,
        allows_private_networks,
        create_brand(branding),
    )
    return DashboardApp(dashboard, api)
