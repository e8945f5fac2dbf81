"""Routes for one-time links to the dashboard."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import LinkNew, SignInLinkNew
from uplift_server.api.object_headers import send_location
from uplift_server.api.people_rendering import link_view, portal_link_view
from uplift_server.api.people_views import LinkView, PortalLinkView
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
from uplift_server.service.portal_links import LinkDraft

router = APIRouter(tags=["Accounts"])


@router.post(
    "/v1/accounts/{account}/portal-links",
    status_code=201,
    summary="Create a portal link",
    response_model_exclude_unset=True,
)
async def create_portal_link(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    account: str,
    sent: Annotated[Sent, Depends(BodyReader(LinkNew, required=False))],
) -> PortalLinkView:
    """Requires an operator key. The link works once, and signs a person in to the account for 12 hours."""
    link = await services.portal_links.create(
        caller,
        account,
        LinkDraft(**sent.given),
        idempotency_key=key_of(request, sent),
        problems=sent.problems,
    )
    mark_repeated(response, repeated=link.repeated)
    assert link.link is not None, "a portal link is stored"
    owner = account_id(services, caller, account)
    send_location(response, "accounts", owner, "portal-links", ids.prefixed(ids.LINK, link.link.id))
    return portal_link_view(link.link, owner, link.url)


@router.get("/v1/accounts/{account}/portal-links", summary="List portal links", response_model_exclude_unset=True)
async def list_portal_links(
    services: ServicesOf, caller: CallerOf, account: str, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[PortalLinkView]:
    """Requires an operator key. Returns unused links that have not expired, newest first."""
    page = await services.portal_links.page(caller, account, parsed.values.listing(), problems=parsed.problems)
    owner = account_id(services, caller, account)
    return listed(page, lambda link: portal_link_view(link, owner), services.context)


@router.delete("/v1/accounts/{account}/portal-links/{link}", status_code=204, summary="Revoke a portal link")
async def revoke_portal_link(services: ServicesOf, caller: CallerOf, account: str, link: str) -> None:
    """Requires an operator key. The revoked link stops working.

    Existing dashboard sessions do not end.
    """
    await services.portal_links.revoke(caller, account, link)


@router.post("/v1/sign-in-links", status_code=201, summary="Create a sign-in link")
async def create_sign_in_link(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    sent: Annotated[Sent, Depends(BodyReader(SignInLinkNew, required=False))],
) -> LinkView:
    """Requires an operator key. The link works once, within 5 minutes, and signs an operator in.

    With `read_only`, the operator cannot change anything. If you revoke the key that you used for this request, the
    link stops working, and any session from this link ends.
    """
    link = await services.portal_links.create_for_operator(
        caller,
        is_read_only=sent.given.get("read_only") is True,
        idempotency_key=key_of(request, sent),
        problems=sent.problems,
    )
    mark_repeated(response, repeated=link.repeated)
    assert link.link is not None, "a sign-in link is stored"
    send_location(response, "sign-in-links", ids.prefixed(ids.LINK, link.link.id))
    return link_view(link)
