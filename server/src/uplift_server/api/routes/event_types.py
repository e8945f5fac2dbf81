"""Routes for the event catalog."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.event_type_bodies import EventTypeChange, EventTypeNew
from uplift_server.api.object_headers import expected_versions, send_location, send_version
from uplift_server.api.queries import Paging
from uplift_server.api.reading import BodyReader, CallerOf, ParsedQuery, QueryReader, Sent, ServicesOf
from uplift_server.api.rendering import event_type_view, listed
from uplift_server.api.views import EventTypeView, Listed
from uplift_server.service.event_types import EventTypeDraft

router = APIRouter(tags=["Event types"])


@router.put(
    "/v1/event-types/{name}",
    summary="Create or replace an event type",
    responses={201: {"model": EventTypeView, "description": "The event type is new."}},
)
async def put_event_type(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    name: str,
    sent: Annotated[Sent, Depends(BodyReader(EventTypeNew))],
) -> EventTypeView:
    """Requires an operator key. The change takes effect with the next event. Omitted fields get their defaults."""
    event_type, fresh = await services.event_types.put(
        caller, name, EventTypeDraft(**sent.given), versions=expected_versions(request), problems=sent.problems
    )
    if fresh:
        response.status_code = 201
        send_location(response, "event-types", event_type.name)
    send_version(response, event_type)
    return event_type_view(event_type)


@router.get("/v1/event-types", summary="List event types", response_model_exclude_unset=True)
async def list_event_types(
    services: ServicesOf, _caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[EventTypeView]:
    """Requires any API key. Returns event types, newest first."""
    page = await services.event_types.page(parsed.values.listing(), problems=parsed.problems)
    return listed(page, event_type_view, services.context)


@router.get("/v1/event-types/{name}", summary="Get an event type")
async def get_event_type(response: Response, services: ServicesOf, _caller: CallerOf, name: str) -> EventTypeView:
    """Requires any API key."""
    found = services.event_types.get(name)
    send_version(response, found)
    return event_type_view(found)


@router.patch("/v1/event-types/{name}", summary="Update an event type")
async def change_event_type(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    name: str,
    sent: Annotated[Sent, Depends(BodyReader(EventTypeChange))],
) -> EventTypeView:
    """Requires an operator key. The change takes effect with the next event. Omitted fields stay unchanged."""
    event_type = await services.event_types.update(
        caller, name, EventTypeDraft(**sent.given), versions=expected_versions(request), problems=sent.problems
    )
    send_version(response, event_type)
    return event_type_view(event_type)


@router.delete("/v1/event-types/{name}", status_code=204, summary="Delete an event type")
async def delete_event_type(services: ServicesOf, caller: CallerOf, name: str) -> None:
    """Requires an operator key. Existing events of this type remain."""
    await services.event_types.delete(caller, name)
