"""Routes that list and show rejected events."""

from typing import Annotated

from fastapi import APIRouter, Depends

from uplift_server.api.reading import CallerOf, ParsedQuery, QueryReader, ServicesOf
from uplift_server.api.rejected_event_models import RejectedEventsQuery, RejectedEventView, rejected_event_view
from uplift_server.api.rendering import listed
from uplift_server.api.views import Listed
from uplift_server.store.rejected_events import RejectedEventFilter

router = APIRouter(tags=["Events"])


@router.get("/v1/rejected-events", summary="List rejected events", response_model_exclude_unset=True)
async def list_rejected_events(
    services: ServicesOf, caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(RejectedEventsQuery))]
) -> Listed[RejectedEventView]:
    """Requires the scope `events:read`. Returns rejected events, newest first."""
    values: RejectedEventsQuery = parsed.values
    filters = RejectedEventFilter(
        values.event_type, values.event_id, values.idempotency_key, values.since, values.until
    )
    page = await services.rejected_events.page(caller, filters, values.listing(), problems=parsed.problems)
    return listed(page, lambda each: rejected_event_view(each, spans=caller.spans_accounts), services.context)


@router.get("/v1/rejected-events/{rejected_event}", summary="Get a rejected event", response_model_exclude_unset=True)
async def get_rejected_event(services: ServicesOf, caller: CallerOf, rejected_event: str) -> RejectedEventView:
    """Requires the scope `events:read`."""
    found = await services.rejected_events.get(caller, rejected_event)
    return rejected_event_view(found, spans=caller.spans_accounts)
