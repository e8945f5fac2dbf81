"""Routes that list, show, resend and cancel deliveries, and that list and show attempts."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import BulkResendNew, Nothing
from uplift_server.api.object_headers import send_location
from uplift_server.api.queries import AttemptsQuery, DeliveriesQuery, Paging
from uplift_server.api.reading import BodyReader, CallerOf, ParsedQuery, QueryReader, Sent, ServicesOf, key_of
from uplift_server.api.rendering import (
    attempt_view,
    bulk_resend_preview,
    bulk_resend_view,
    delivery_view,
    listed,
)
from uplift_server.api.repeats import mark_repeated
from uplift_server.api.views import AttemptView, BulkResendPreview, BulkResendView, DeliveryView, Listed
from uplift_server.core.timestamps import parse_timestamp
from uplift_server.service.delivery_queries import DeliveryQuery

router = APIRouter(tags=["Deliveries"])
Empty = Annotated[Sent, Depends(BodyReader(Nothing, required=False))]


@router.get("/v1/deliveries", summary="List deliveries", response_model_exclude_unset=True)
async def list_deliveries(
    services: ServicesOf, caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(DeliveriesQuery))]
) -> Listed[DeliveryView]:
    """Requires the scope `deliveries:read`. Returns deliveries, newest event first."""
    query = parsed.values.delivery_query(parsed.values.endpoint)._replace(id=parsed.values.id)
    page = await services.deliveries.page(caller, query, parsed.values.listing(), problems=parsed.problems)
    return listed(page, lambda delivery: delivery_view(delivery, spans=caller.spans_accounts), services.context)


@router.post(
    "/v1/deliveries/resend",
    status_code=201,
    summary="Resend deliveries in bulk",
    response_model_exclude_unset=True,
    responses={200: {"model": BulkResendPreview, "description": "With `dry_run`: the number of deliveries."}},
)
async def resend_deliveries(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    sent: Annotated[Sent, Depends(BodyReader(BulkResendNew))],
) -> BulkResendView | BulkResendPreview:
    """Requires the scope `deliveries:write`.

    Creates a replay for each endpoint with matching completed deliveries, except deleted endpoints and endpoints with
    an unfinished replay. With `dry_run`, the server only counts the deliveries.
    """
    given = dict(sent.given)
    dry_run, rate = given.pop("dry_run", False), given.pop("rate_per_second", None)
    for name in ("created_after", "created_before"):
        if given.get(name) is not None:
            given[name] = parse_timestamp(given[name])
    query = DeliveryQuery(**given)
    if dry_run:
        response.status_code = 200
        return bulk_resend_preview(await services.bulk_resends.preview(caller, query, problems=sent.problems))
    found = await services.bulk_resends.create(
        caller, query, rate, idempotency_key=key_of(request, sent), problems=sent.problems
    )
    mark_repeated(response, repeated=found.repeated)
    send_location(response, "replays")
    return bulk_resend_view(found, spans=caller.spans_accounts)


@router.get("/v1/deliveries/{delivery}", summary="Get a delivery", response_model_exclude_unset=True)
async def get_delivery(services: ServicesOf, caller: CallerOf, delivery: str) -> DeliveryView:
    """Requires the scope `deliveries:read`."""
    return delivery_view(await services.deliveries.get(caller, delivery), spans=caller.spans_accounts)


@router.get("/v1/attempts", summary="List attempts", response_model_exclude_unset=True)
async def list_attempts(
    services: ServicesOf, caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(AttemptsQuery))]
) -> Listed[AttemptView]:
    """Requires the scope `deliveries:read`.

    Returns attempts, newest event first. For each delivery, the newest attempt is first.
    """
    values: AttemptsQuery = parsed.values
    page = await services.deliveries.list_attempts(
        caller, values.delivery_query(), values.listing(), problems=parsed.problems
    )
    return listed(page, lambda each: attempt_view(*each, spans=caller.spans_accounts), services.context)


@router.get("/v1/attempts/{attempt}", summary="Get an attempt", response_model_exclude_unset=True)
async def get_attempt(services: ServicesOf, caller: CallerOf, attempt: str) -> AttemptView:
    """Requires the scope `deliveries:read`."""
    return attempt_view(*await services.deliveries.get_attempt(caller, attempt), spans=caller.spans_accounts)


@router.get(
    "/v1/deliveries/{delivery}/attempts", summary="List a delivery's attempts", response_model_exclude_unset=True
)
async def list_delivery_attempts(
    services: ServicesOf, caller: CallerOf, delivery: str, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[AttemptView]:
    """Requires the scope `deliveries:read`. Returns the attempts of one delivery, newest first."""
    found, page = await services.deliveries.attempts(
        caller, delivery, parsed.values.listing(), problems=parsed.problems
    )
    return listed(page, lambda attempt: attempt_view(attempt, found, spans=caller.spans_accounts), services.context)


@router.post(
    "/v1/deliveries/{delivery}/resend", status_code=202, summary="Resend a delivery", response_model_exclude_unset=True
)
async def resend_delivery(services: ServicesOf, caller: CallerOf, delivery: str, sent: Empty) -> DeliveryView:
    """Requires the scope `deliveries:write`. Starts a new attempt immediately.

    A successful attempt sets the delivery's status to `delivered`, and a failed attempt does not change the retry
    schedule.
    """
    found = await services.deliveries.resend(caller, delivery, problems=sent.problems)
    return delivery_view(found, spans=caller.spans_accounts)


@router.post(
    "/v1/deliveries/{delivery}/cancel",
    summary="Cancel a delivery",
    response_model_exclude_unset=True,
    responses={202: {"model": DeliveryView, "description": "The worker will cancel the delivery later."}},
)
async def cancel_delivery(
    services: ServicesOf, caller: CallerOf, delivery: str, sent: Empty, response: Response
) -> DeliveryView:
    """Requires the scope `deliveries:write`. Cancels a pending or held delivery."""
    found, is_cancelled = await services.deliveries.cancel(caller, delivery, problems=sent.problems)
    if not is_cancelled:
        response.status_code = 202
    return delivery_view(found, spans=caller.spans_accounts)
