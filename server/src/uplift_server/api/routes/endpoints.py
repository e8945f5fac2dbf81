"""Routes that list, show, create, update and delete endpoints, list their deliveries, and preview filters."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import EndpointChange, EndpointNew, FilterPreviewRequest
from uplift_server.api.object_headers import expected_versions, send_location, send_version
from uplift_server.api.queries import EndpointDeliveriesQuery, EndpointsQuery
from uplift_server.api.reading import BodyReader, CallerOf, ParsedQuery, QueryReader, Sent, ServicesOf, key_of
from uplift_server.api.rendering import delivery_view, endpoint_view, filter_preview_view, listed
from uplift_server.api.repeats import mark_repeated
from uplift_server.api.views import DeliveryView, EndpointView, FilterPreviewView, Listed
from uplift_server.core import ids
from uplift_server.service.endpoint_drafts import EndpointDraft
from uplift_server.service.endpoints import ShownEndpoint
from uplift_server.service.filter_previews import FilterPreviewDraft
from uplift_server.service.principals import Caller
from uplift_server.service.services import Services

router = APIRouter(tags=["Endpoints"])


@router.post("/v1/endpoints", status_code=201, summary="Create an endpoint", response_model_exclude_unset=True)
async def create_endpoint(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    sent: Annotated[Sent, Depends(BodyReader(EndpointNew))],
) -> EndpointView:
    """Requires the scope `endpoints:write`. The response contains the signing secret.

    The server sends a `webhook.created` event to the endpoint.
    """
    shown = await services.endpoints.create(
        caller,
        EndpointDraft.from_fields(sent.given),
        idempotency_key=key_of(request, sent),
        problems=sent.problems,
    )
    mark_repeated(response, repeated=shown.repeated)
    send_location(response, "endpoints", ids.prefixed(ids.ENDPOINT, shown.endpoint.id))
    return send_endpoint(response, services, caller, shown)


@router.get("/v1/endpoints", summary="List endpoints", response_model_exclude_unset=True)
async def list_endpoints(
    services: ServicesOf, caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(EndpointsQuery))]
) -> Listed[EndpointView]:
    """Requires the scope `endpoints:read`. Returns endpoints, newest first."""
    values: EndpointsQuery = parsed.values
    page = await services.endpoints.page(caller, values.listing(), values.endpoint_query(), problems=parsed.problems)
    return listed(page, lambda shown: _view(services, caller, shown), services.context)


@router.post("/v1/endpoints/filter-preview", summary="Preview a filter")
async def preview_filter(
    services: ServicesOf, caller: CallerOf, sent: Annotated[Sent, Depends(BodyReader(FilterPreviewRequest))]
) -> FilterPreviewView:
    """Requires the scopes `endpoints:read` and `events:read`. Evaluates a filter against the newest events.

    The preview excludes test events, registration events and erased events.
    """
    draft = FilterPreviewDraft(**sent.given)
    return filter_preview_view(await services.filter_previews.preview(caller, draft, problems=sent.problems))


@router.get("/v1/endpoints/{endpoint}", summary="Get an endpoint", response_model_exclude_unset=True)
async def get_endpoint(response: Response, services: ServicesOf, caller: CallerOf, endpoint: str) -> EndpointView:
    """Requires the scope `endpoints:read`."""
    return send_endpoint(response, services, caller, await services.endpoints.get(caller, endpoint))


@router.put(
    "/v1/endpoints/{endpoint}",
    summary="Create or update an endpoint",
    response_model_exclude_unset=True,
    responses={201: {"model": EndpointView, "description": "The endpoint is new."}},
)
async def put_endpoint(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    endpoint: str,
    sent: Annotated[Sent, Depends(BodyReader(EndpointNew))],
) -> EndpointView:
    """Requires the scope `endpoints:write`. Updates or creates the endpoint with this `uid`.

    Omitted fields stay unchanged. The response contains the signing secret only if the request creates the endpoint.
    """
    shown, is_new = await services.endpoints.put(
        caller,
        endpoint,
        EndpointDraft.from_fields(sent.given),
        versions=expected_versions(request),
        problems=sent.problems,
    )
    if is_new:
        response.status_code = 201
        send_location(response, "endpoints", ids.prefixed(ids.ENDPOINT, shown.endpoint.id))
    return send_endpoint(response, services, caller, shown)


@router.patch("/v1/endpoints/{endpoint}", summary="Update an endpoint", response_model_exclude_unset=True)
async def change_endpoint(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    endpoint: str,
    sent: Annotated[Sent, Depends(BodyReader(EndpointChange))],
) -> EndpointView:
    """Requires the scope `endpoints:write`. Omitted fields stay unchanged. The next attempt uses the new values."""
    draft = EndpointDraft.from_fields(sent.given, merges=True)
    shown = await services.endpoints.update(
        caller, endpoint, draft, versions=expected_versions(request), problems=sent.problems
    )
    return send_endpoint(response, services, caller, shown)


@router.delete("/v1/endpoints/{endpoint}", status_code=204, summary="Delete an endpoint")
async def delete_endpoint(services: ServicesOf, caller: CallerOf, endpoint: str) -> None:
    """Requires the scope `endpoints:write`. Cancels the endpoint's pending and held deliveries."""
    await services.endpoints.delete(caller, endpoint)


@router.get(
    "/v1/endpoints/{endpoint}/deliveries", summary="List an endpoint's deliveries", response_model_exclude_unset=True
)
async def list_endpoint_deliveries(
    services: ServicesOf,
    caller: CallerOf,
    endpoint: str,
    parsed: Annotated[ParsedQuery, Depends(QueryReader(EndpointDeliveriesQuery))],
) -> Listed[DeliveryView]:
    """Requires the scope `deliveries:read`. Returns the endpoint's deliveries, newest event first."""
    page = await services.deliveries.page_of_endpoint(
        caller, endpoint, parsed.values.delivery_query(), parsed.values.listing(), problems=parsed.problems
    )
    return listed(page, lambda delivery: delivery_view(delivery, spans=caller.spans_accounts), services.context)


def send_endpoint(response: Response, services: Services, caller: Caller, shown: ShownEndpoint) -> EndpointView:
    """Set the `ETag` header of the response, and return the API model of the endpoint."""
    send_version(response, shown.endpoint)
    return _view(services, caller, shown)


def _view(services: Services, caller: Caller, shown: ShownEndpoint) -> EndpointView:
    """Return the API model of an endpoint.

    If the caller can access several accounts, the model contains the endpoint's account.
    """
    owner = services.context.cache.accounts.get(shown.endpoint.account_seq) if caller.spans_accounts else None
    return endpoint_view(shown, None if owner is None else ids.prefixed(ids.ACCOUNT, owner.id))
