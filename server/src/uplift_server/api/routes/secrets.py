"""Routes that show and rotate the secrets of endpoints."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import Nothing, SecretRotation
from uplift_server.api.reading import BodyReader, CallerOf, Sent, ServicesOf, key_of
from uplift_server.api.rendering import secret_view
from uplift_server.api.repeats import mark_repeated
from uplift_server.api.views import SecretView
from uplift_server.service.secrets import RotationDraft

router = APIRouter(tags=["Endpoints"])

_NOT_STORED: Final = "no-store"
"""Cache-Control value for responses that contain a secret."""


@router.get("/v1/endpoints/{endpoint}/secret", summary="Reveal an endpoint's secret", response_model_exclude_unset=True)
async def show_secret(response: Response, services: ServicesOf, caller: CallerOf, endpoint: str) -> SecretView:
    """Requires the scope `secrets:read`. The audit log records each reveal."""
    response.headers["cache-control"] = _NOT_STORED
    return secret_view(await services.secrets.reveal(caller, endpoint))


@router.post(
    "/v1/endpoints/{endpoint}/secret/rotate", summary="Rotate an endpoint's secret", response_model_exclude_unset=True
)
async def rotate_secret(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    endpoint: str,
    sent: Annotated[Sent, Depends(BodyReader(SecretRotation, required=False))],
) -> SecretView:
    """Requires the scope `secrets:write`. The response contains the new secret.

    The old secret stays active until the overlap ends.
    """
    shown = await services.secrets.rotate(
        caller,
        endpoint,
        RotationDraft(**sent.given),
        idempotency_key=key_of(request, sent),
        problems=sent.problems,
    )
    response.headers["cache-control"] = _NOT_STORED
    mark_repeated(response, repeated=shown.repeated)
    return secret_view(shown)


@router.post(
    "/v1/endpoints/{endpoint}/secret/expire-old",
    summary="Expire an endpoint's old secret",
    response_model_exclude_unset=True,
)
async def expire_old_secret(
    services: ServicesOf,
    caller: CallerOf,
    endpoint: str,
    sent: Annotated[Sent, Depends(BodyReader(Nothing, required=False))],
) -> SecretView:
    """Requires the scope `secrets:write`. Ends the overlap: the server signs requests with the current secret only."""
    return secret_view(await services.secrets.expire_old(caller, endpoint, problems=sent.problems))
