"""Routes that pause, enable, disable, test and verify an endpoint."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import EndpointEnabling, EndpointTest, Nothing
from uplift_server.api.reading import BodyReader, CallerOf, Sent, ServicesOf, key_of
from uplift_server.api.rendering import attempt_view, delivery_view, signature_check_view
from uplift_server.api.repeats import mark_repeated
from uplift_server.api.routes.endpoints import send_endpoint
from uplift_server.api.views import AttemptView, DeliveryView, EndpointView, SignatureCheckView
from uplift_server.service.waiting_reasons import ShownDelivery
from uplift_server.store.records import HeldAction

router = APIRouter(tags=["Endpoints"])
Empty = Annotated[Sent, Depends(BodyReader(Nothing, required=False))]


@router.post("/v1/endpoints/{endpoint}/pause", summary="Pause an endpoint", response_model_exclude_unset=True)
async def pause_endpoint(
    response: Response, services: ServicesOf, caller: CallerOf, endpoint: str, sent: Empty
) -> EndpointView:
    """Requires the scope `endpoints:write`. Holds pending and new deliveries until the endpoint is enabled."""
    shown = await services.endpoint_states.pause(caller, endpoint, problems=sent.problems)
    return send_endpoint(response, services, caller, shown)


@router.post("/v1/endpoints/{endpoint}/enable", summary="Enable an endpoint", response_model_exclude_unset=True)
async def enable_endpoint(
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    endpoint: str,
    sent: Annotated[Sent, Depends(BodyReader(EndpointEnabling, required=False))],
) -> EndpointView:
    """Requires the scope `endpoints:write`.

    `held` specifies whether the server sends, drops or keeps held deliveries, even if the endpoint is already enabled.
    """
    held = HeldAction[(sent.given.get("held") or "send").upper()]
    shown = await services.endpoint_states.enable(caller, endpoint, held, problems=sent.problems)
    return send_endpoint(response, services, caller, shown)


@router.post("/v1/endpoints/{endpoint}/disable", summary="Disable an endpoint", response_model_exclude_unset=True)
async def disable_endpoint(
    response: Response, services: ServicesOf, caller: CallerOf, endpoint: str, sent: Empty
) -> EndpointView:
    """Requires an operator key.

    Holds deliveries until the endpoint is enabled. The account can enable the endpoint again.
    """
    shown = await services.endpoint_states.disable(caller, endpoint, problems=sent.problems)
    return send_endpoint(response, services, caller, shown)


@router.post(
    "/v1/endpoints/{endpoint}/test",
    summary="Test an endpoint",
    response_model_exclude_unset=True,
    responses={202: {"model": DeliveryView, "description": "The attempt is still in flight. Returns its delivery."}},
)
async def test_endpoint(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    endpoint: str,
    sent: Annotated[Sent, Depends(BodyReader(EndpointTest, required=False))],
) -> AttemptView | DeliveryView:
    """Requires the scope `endpoints:write`. Sends one test event immediately, in any endpoint state.

    The server does not retry the event. The result does not affect the endpoint's health.
    """
    test = await services.endpoint_tests.send(
        caller,
        endpoint,
        sent.given.get("type"),
        idempotency_key=key_of(request, sent),
        problems=sent.problems,
    )
    mark_repeated(response, repeated=test.repeated)
    if test.attempt is None:
        response.status_code = 202
        return delivery_view(ShownDelivery(test.delivery), spans=caller.spans_accounts)
    return attempt_view(test.attempt, test.delivery)


@router.post(
    "/v1/endpoints/{endpoint}/verify",
    summary="Check an endpoint's signature verification",
    response_model_exclude_unset=True,
)
async def verify_endpoint(services: ServicesOf, caller: CallerOf, endpoint: str, sent: Empty) -> SignatureCheckView:
    """Requires the scope `endpoints:write`. Sends a test event with a wrong signature, then one with a valid signature.

    The endpoint is verified if your server rejects the first with 4xx and accepts the second with 2xx.
    """
    return signature_check_view(await services.endpoint_tests.verify(caller, endpoint, problems=sent.problems))
