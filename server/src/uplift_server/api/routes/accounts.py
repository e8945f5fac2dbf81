"""Routes that list, show, create, update and delete accounts."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import AccountChange, AccountNew
from uplift_server.api.object_headers import expected_versions, send_location, send_version
from uplift_server.api.queries import Paging
from uplift_server.api.reading import BodyReader, CallerOf, ParsedQuery, QueryReader, Sent, ServicesOf, key_of
from uplift_server.api.rendering import account_view, listed
from uplift_server.api.repeats import mark_repeated
from uplift_server.api.views import AccountView, Listed
from uplift_server.core import ids
from uplift_server.service.accounts import AccountDraft

router = APIRouter(tags=["Accounts"])


@router.post("/v1/accounts", status_code=201, summary="Create an account")
async def create_account(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    sent: Annotated[Sent, Depends(BodyReader(AccountNew))],
) -> AccountView:
    """Requires an operator key, or a service key with the scope `accounts:write`."""
    account, repeated = await services.accounts.create(
        caller, AccountDraft(**sent.given), idempotency_key=key_of(request, sent), problems=sent.problems
    )
    mark_repeated(response, repeated=repeated)
    send_location(response, "accounts", ids.prefixed(ids.ACCOUNT, account.id))
    send_version(response, account)
    return account_view(account)


@router.get("/v1/accounts", summary="List accounts", response_model_exclude_unset=True)
async def list_accounts(
    services: ServicesOf, caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[AccountView]:
    """Requires an operator key, or a service key with the scope `accounts:read`. Returns accounts, newest first."""
    page = await services.accounts.page(caller, parsed.values.listing(), problems=parsed.problems)
    return listed(page, account_view, services.context)


@router.get("/v1/account", summary="Get your account")
async def get_own_account(response: Response, services: ServicesOf, caller: CallerOf) -> AccountView:
    """With an account key, returns the account that the key belongs to.

    With an operator key, or a service key with the scope `accounts:read`, specify the account in the header
    `Uplift-Account`.
    """
    found = services.accounts.own(caller)
    send_version(response, found)
    return account_view(found)


@router.get("/v1/accounts/{account}", summary="Get an account")
async def get_account(response: Response, services: ServicesOf, caller: CallerOf, account: str) -> AccountView:
    """Requires an operator key, or a service key with the scope `accounts:read`."""
    found = await services.accounts.get(caller, account)
    send_version(response, found)
    return account_view(found)


@router.put(
    "/v1/accounts/{account}",
    summary="Create or update an account",
    responses={201: {"model": AccountView, "description": "The account is new."}},
)
async def put_account(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    account: str,
    sent: Annotated[Sent, Depends(BodyReader(AccountNew))],
) -> AccountView:
    """Requires an operator key, or a service key with the scope `accounts:write`.

    Updates or creates the account with this `uid`. Omitted fields stay unchanged.
    """
    stored, is_new = await services.accounts.put(
        caller,
        account,
        AccountDraft(**sent.given),
        versions=expected_versions(request),
        problems=sent.problems,
    )
    if is_new:
        response.status_code = 201
        send_location(response, "accounts", ids.prefixed(ids.ACCOUNT, stored.id))
    send_version(response, stored)
    return account_view(stored)


@router.patch("/v1/accounts/{account}", summary="Update an account")
async def change_account(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    account: str,
    sent: Annotated[Sent, Depends(BodyReader(AccountChange))],
) -> AccountView:
    """Requires an operator key, or a service key with the scope `accounts:write`. Omitted fields stay unchanged."""
    draft = AccountDraft(**sent.given, merges=True)
    changed = await services.accounts.update(
        caller, account, draft, versions=expected_versions(request), problems=sent.problems
    )
    send_version(response, changed)
    return account_view(changed)


@router.delete("/v1/accounts/{account}", status_code=204, summary="Delete an account")
async def delete_account(services: ServicesOf, caller: CallerOf, account: str) -> None:
    """Requires an operator key, or a service key with the scope `accounts:write`.

    Revokes the account's keys, deletes its endpoints, and cancels their deliveries.
    """
    await services.accounts.delete(caller, account)
