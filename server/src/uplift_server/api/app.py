"""The HTTP API, based on FastAPI. `api/ingest.py` handles the ingest of events."""

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from uplift_server import __version__
from uplift_server.api.guard import ANSWER_SECONDS_MAX, Guard
from uplift_server.api.openapi import openapi_document
from uplift_server.api.problems import ErrorResponse, error_response_of, problem
from uplift_server.api.routes import (
    accounts,
    audit,
    deliveries,
    documentation,
    endpoint_states,
    endpoints,
    erasures,
    event_types,
    events,
    fleet,
    keys,
    links,
    listening,
    members,
    metrics,
    packages,
    rejected_events,
    replays,
    secrets,
    statistics,
    system,
)
from uplift_server.service.errors import ServiceError
from uplift_server.service.services import Services
from uplift_server.store.errors import StoreError

_ROUTERS: Final = (
    accounts.router,
    keys.router,
    members.router,
    links.router,
    event_types.router,
    endpoints.router,
    endpoint_states.router,
    secrets.router,
    events.router,
    rejected_events.router,
    deliveries.router,
    audit.router,
    replays.router,
    erasures.router,
    statistics.router,
    fleet.router,
    listening.router,
    system.router,
    metrics.router,
    documentation.router,
    packages.router,
)
_ROUTES: Final = [route for router in _ROUTERS for route in router.routes if isinstance(route, APIRoute)]
_INGEST: Final = frozenset({"/v1/events", "/v1/events/batch"})
"""Paths whose POST requests `IngestRoutes` handles instead of FastAPI."""


def create_api(
    services: Services, *, public_url: str | None = None, answer_seconds_max: float = ANSWER_SECONDS_MAX
) -> FastAPI:
    """Return the application. The caller starts and stops the services.

    The OpenAPI document and the documentation's examples use `public_url` as the server's address.
    """
    api = _framework(public_url)
    api.state.services = services
    api.add_middleware(Guard, seconds_max=answer_seconds_max)
    api.add_exception_handler(ServiceError, _respond_to_error)
    api.add_exception_handler(StoreError, _respond_to_error)
    api.add_exception_handler(HTTPException, _respond_to_route_error)
    return api


def document() -> dict[str, Any]:
    """Return the OpenAPI document for all routes."""
    return _framework().openapi()


def _framework(public_url: str | None = None) -> FastAPI:
    # Disable redirects, because they would make clients send their key twice.
    # Disable FastAPI's documentation pages, because they load third-party scripts.
    # Disable FastAPI's OpenAPI route, because the route encodes the document for each request.
    api = FastAPI(title="Uplift Webhooks", version=__version__, redirect_slashes=False, openapi_url=None)
    # Do not call `include_router`: at the first requests, it would build each route a second time.
    for router in _ROUTERS:
        api.router.routes.extend(router.routes)
    known: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not known:
            known.update(openapi_document(api.routes, _ROUTES, __version__, public_url))
        return known

    api.openapi = openapi  # type: ignore[method-assign]
    return api


async def _respond_to_error(_request: Request, error: Exception) -> Response:
    return _response(error_response_of(error))


async def _respond_to_route_error(request: Request, error: Exception) -> Response:
    """Respond to a request whose path or method does not match a route."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods(request)))
        return _response(
            problem(
                "method_not_allowed",
                f"{path} does not accept {request.method}. Use {allowed}.",
                headers=[(b"allow", allowed.encode())],
            )
        )
    return _response(problem("not_found", f"The path {path} does not exist. See the API reference at /docs/api."))


def _methods(request: Request) -> set[str]:
    """Return the methods of all routes that match a request's path. FastAPI reports the methods of only one route."""
    found: set[str] = {"POST"} if request.url.path in _INGEST else set()
    for route in _ROUTES:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return found


def _response(error_response: ErrorResponse) -> Response:
    response = Response(error_response.body, error_response.status)
    response.raw_headers.extend(error_response.headers)
    return response
