"""API keys of accounts."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import KeyNew, Paging
from uplift_server.api.people_rendering import key_view
from uplift_server.api.people_views import KeyView
from uplift_server.api.reading import BodyReader, CallerOf, ParsedQuery, QueryReader, Sent, ServicesOf, key_of
from uplift_server.api.rendering import listed
from uplift_server.api.repeats import mark_repeated
from uplift_server.api.views import Listed
from uplift_server.service.keys import KeyDraft

router = APIRouter(tags=["Accounts"])


@router.post(
    "/v1/accounts/{account}/keys", status_code=201, summary="Create an API key", response_model_exclude_unset=True
)
async def create_key(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    account: str,
    sent: Annotated[Sent, Depends(BodyReader(KeyNew))],
) -> KeyView:
    """Requires an operator key. Only this response contains `key`, the API key itself."""
    key, text = await services.keys.create(
        caller,
        account,
        KeyDraft(**sent.given),
        idempotency_key=key_of(request, sent),
        problems=sent.problems,
    )
    mark_repeated(response, repeated=text is None)
    return key_view(key, account, text)


@router.get("/v1/accounts/{account}/keys", summary="List API keys", response_model_exclude_unset=True)
async def list_keys(
    services: ServicesOf, caller: CallerOf, account: str, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[KeyView]:
    """Requires an operator key. Returns active keys, newest first."""
    page = await services.keys.page(caller, account, parsed.values.listing(), problems=parsed.problems)
    return listed(page, lambda key: key_view(key, account), services.context.cursors)


@router.delete("/v1/accounts/{account}/keys/{key}", status_code=204, summary="Revoke an API key")
async def revoke_key(services: ServicesOf, caller: CallerOf, account: str, key: str) -> None:
    """Requires an operator key. The key stops working immediately."""
    await services.keys.revoke(caller, account, key)
