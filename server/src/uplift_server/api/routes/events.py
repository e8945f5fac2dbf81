"""Routes that list, show and explain events. `api/ingest.py` accepts new events."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from uplift_server.api.queries import EventsQuery, ExplanationQuery, Paging
from uplift_server.api.reading import CallerOf, ParsedQuery, QueryReader, ServicesOf
from uplift_server.api.rendering import (
    delivery_view,
    event_view,
    events_with_bodies,
    explanation_view,
    listed,
    one_event,
)
from uplift_server.api.views import DeliveryView, EventView, ExplanationsView, Listed, OneEventView
from uplift_server.service.events import EventQuery

router = APIRouter(tags=["Events"])


@router.get("/v1/events", summary="List events", response_model=Listed[EventView], response_model_exclude_unset=True)
async def list_events(
    services: ServicesOf, caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(EventsQuery))]
) -> Listed[EventView] | Response:
    """Requires the scope `events:read`. Returns events, newest first. Use `order=asc` to poll for new events."""
    values: EventsQuery = parsed.values
    query = EventQuery(
        values.type, values.created_after, values.created_before, values.object_id, values.id, values.test
    )
    listing, with_bodies = values.listing(), "body" in values.include
    read = services.events.forward if listing.ascending else services.events.page
    page = await read(caller, query, listing, with_bodies=with_bodies, problems=parsed.problems)
    if with_bodies:
        content = events_with_bodies(page, services.context, spans=caller.spans_accounts)
        return Response(content, media_type="application/json")
    return listed(page, lambda event: event_view(event, spans=caller.spans_accounts), services.context)


@router.get(
    "/v1/events/{event}",
    summary="Get an event",
    response_model=OneEventView,
)
async def get_event(services: ServicesOf, caller: CallerOf, event: str) -> Response:
    """Requires the scope `events:read`. `body` in the response is the envelope that endpoints receive."""
    found = await services.events.get(caller, event)
    return Response(one_event(found, spans=caller.spans_accounts), media_type="application/json")


@router.get("/v1/events/{event}/explain", summary="Explain the deliveries of an event")
async def explain_event(
    services: ServicesOf,
    caller: CallerOf,
    event: str,
    parsed: Annotated[ParsedQuery, Depends(QueryReader(ExplanationQuery))],
) -> ExplanationsView:
    """Requires the scope `deliveries:read`. Explains why the event did or did not reach each endpoint."""
    found = await services.explanations.of_event(caller, event, parsed.values.endpoint, problems=parsed.problems)
    return ExplanationsView(data=[explanation_view(each) for each in found])


@router.get("/v1/events/{event}/deliveries", summary="List an event's deliveries", response_model_exclude_unset=True)
async def list_event_deliveries(
    services: ServicesOf, caller: CallerOf, event: str, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[DeliveryView]:
    """Requires the scope `deliveries:read`. Returns the event's deliveries.

    The delivery to the newest endpoint is first.
    """
    page = await services.events.deliveries(caller, event, parsed.values.listing(), problems=parsed.problems)
    return listed(page, lambda delivery: delivery_view(delivery, spans=caller.spans_accounts), services.context)
