"""Routes that manage the API keys of accounts, and service keys."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import KeyChange, KeyNew, ServiceKeyNew
from uplift_server.api.object_headers import send_location
from uplift_server.api.people_rendering import key_view, service_key_view
from uplift_server.api.people_views import KeyView, ServiceKeyView
from uplift_server.api.queries import Paging
from uplift_server.api.reading import (
    BodyReader,
    CallerOf,
    ParsedQuery,
    QueryReader,
    Sent,
    ServicesOf,
    account_id,
    key_of,
)
from uplift_server.api.rendering import listed
from uplift_server.api.repeats import mark_repeated
from uplift_server.api.views import Listed
from uplift_server.core import ids
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
    owner = account_id(services, caller, account)
    send_location(response, "accounts", owner, "keys", ids.prefixed(ids.KEY, key.id))
    return key_view(key, owner, text)


@router.get("/v1/accounts/{account}/keys", summary="List API keys", response_model_exclude_unset=True)
async def list_keys(
    services: ServicesOf, caller: CallerOf, account: str, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[KeyView]:
    """Requires an operator key. Returns the account's keys that are not revoked, newest first."""
    page = await services.keys.page(caller, account, parsed.values.listing(), problems=parsed.problems)
    owner = account_id(services, caller, account)
    return listed(page, lambda key: key_view(key, owner), services.context)


@router.patch("/v1/accounts/{account}/keys/{key}", summary="Update an API key", response_model_exclude_unset=True)
async def change_key(
    services: ServicesOf,
    caller: CallerOf,
    account: str,
    key: str,
    sent: Annotated[Sent, Depends(BodyReader(KeyChange))],
) -> KeyView:
    """Requires an operator key. Updates the name or expiration time of the API key. Omitted fields stay unchanged."""
    changed = await services.keys.update(caller, account, key, KeyDraft(**sent.given), problems=sent.problems)
    return key_view(changed, account_id(services, caller, account))


@router.delete("/v1/accounts/{account}/keys/{key}", status_code=204, summary="Revoke an API key")
async def revoke_key(services: ServicesOf, caller: CallerOf, account: str, key: str) -> None:
    """Requires an operator key. The revoked API key stops working immediately."""
    await services.keys.revoke(caller, account, key)


@router.post("/v1/keys", status_code=201, summary="Create a service key", response_model_exclude_unset=True)
async def create_service_key(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    sent: Annotated[Sent, Depends(BodyReader(ServiceKeyNew))],
) -> ServiceKeyView:
    """Requires an operator key. Only this response contains `key`, the service key itself."""
    key, text = await services.service_keys.create(
        caller, KeyDraft(**sent.given), idempotency_key=key_of(request, sent), problems=sent.problems
    )
    mark_repeated(response, repeated=text is None)
    send_location(response, "keys", ids.prefixed(ids.KEY, key.id))
    return service_key_view(key, text)


@router.get("/v1/keys", summary="List service keys", response_model_exclude_unset=True)
async def list_service_keys(
    services: ServicesOf, caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[ServiceKeyView]:
    """Requires an operator key. Returns service keys that are not revoked, newest first."""
    page = await services.service_keys.page(caller, parsed.values.listing(), problems=parsed.problems)
    return listed(page, service_key_view, services.context)


@router.patch("/v1/keys/{key}", summary="Update a service key", response_model_exclude_unset=True)
async def change_service_key(
    services: ServicesOf, caller: CallerOf, key: str, sent: Annotated[Sent, Depends(BodyReader(KeyChange))]
) -> ServiceKeyView:
    """Requires an operator key. Updates the name or expiration time of the service key.

    Omitted fields stay unchanged.
    """
    changed = await services.service_keys.update(caller, key, KeyDraft(**sent.given), problems=sent.problems)
    return service_key_view(changed)


@router.delete("/v1/keys/{key}", status_code=204, summary="Revoke a service key")
async def revoke_service_key(services: ServicesOf, caller: CallerOf, key: str) -> None:
    """Requires an operator key. The revoked service key stops working immediately."""
    await services.service_keys.revoke(caller, key)
