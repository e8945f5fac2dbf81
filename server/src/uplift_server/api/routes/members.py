"""Routes for the members and invitations of accounts."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import MemberChange, MemberNew, Nothing
from uplift_server.api.object_headers import send_location
from uplift_server.api.people_rendering import invitation_view, link_view, member_view
from uplift_server.api.people_views import InvitationView, LinkView, MemberView
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
from uplift_server.service.fields import UNSET
from uplift_server.service.members import InvitationDraft

router = APIRouter(tags=["Accounts"])


@router.get("/v1/accounts/{account}/members", summary="List members", response_model_exclude_unset=True)
async def list_members(
    services: ServicesOf, caller: CallerOf, account: str, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[MemberView]:
    """Requires an operator key. Returns the account's members, newest first."""
    page = await services.members.page(caller, account, parsed.values.listing(), problems=parsed.problems)
    owner = account_id(services, caller, account)
    return listed(page, lambda member: member_view(member, owner), services.context)


@router.post(
    "/v1/accounts/{account}/members", status_code=201, summary="Invite a member", response_model_exclude_unset=True
)
async def invite_member(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    account: str,
    sent: Annotated[Sent, Depends(BodyReader(MemberNew))],
) -> InvitationView:
    """Requires an operator key. Sends an invitation by email. The invitation is valid for 7 days.

    If email is not configured, send the person the `url` from the response.
    """
    made = await services.members.invite(
        caller,
        account,
        InvitationDraft(**sent.given),
        idempotency_key=key_of(request, sent),
        problems=sent.problems,
    )
    mark_repeated(response, repeated=made.repeated)
    owner = account_id(services, caller, account)
    send_location(response, "accounts", owner, "invitations", ids.prefixed(ids.INVITATION, made.invitation.id))
    return invitation_view(made.invitation, owner, made.url)


@router.patch("/v1/accounts/{account}/members/{member}", summary="Change the role of a member")
async def change_member(
    services: ServicesOf,
    caller: CallerOf,
    account: str,
    member: str,
    sent: Annotated[Sent, Depends(BodyReader(MemberChange))],
) -> MemberView:
    """Requires an operator key. You cannot change the last owner's role."""
    role = sent.given.get("role", UNSET)
    changed = await services.members.change_role(caller, account, member, role, problems=sent.problems)
    return member_view(changed, account_id(services, caller, account))


@router.delete("/v1/accounts/{account}/members/{member}", status_code=204, summary="Remove a member")
async def remove_member(services: ServicesOf, caller: CallerOf, account: str, member: str) -> None:
    """Requires an operator key. Ends the member's access to the account. You cannot remove the last owner."""
    await services.members.remove(caller, account, member)


@router.post(
    "/v1/accounts/{account}/members/{member}/password-reset",
    status_code=201,
    summary="Create a password reset link",
)
async def reset_password(
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    account: str,
    member: str,
    sent: Annotated[Sent, Depends(BodyReader(Nothing, required=False))],
) -> LinkView:
    """Requires an operator key. Returns a one-time link to reset the member's password.

    The link is valid for 1 hour.
    """
    link = await services.members.reset_password(caller, account, member, problems=sent.problems)
    send_location(response, "accounts", account_id(services, caller, account), "members", member)
    return link_view(link)


@router.delete(
    "/v1/accounts/{account}/members/{member}/second-factor", status_code=204, summary="Reset a member's second factor"
)
async def reset_second_factor(services: ServicesOf, caller: CallerOf, account: str, member: str) -> None:
    """Requires an operator key.

    Turns off the second factor for a member who lost the authenticator app and the recovery codes.
    """
    await services.members.reset_second_factor(caller, account, member)


@router.get("/v1/accounts/{account}/invitations", summary="List pending invitations", response_model_exclude_unset=True)
async def list_invitations(
    services: ServicesOf, caller: CallerOf, account: str, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[InvitationView]:
    """Requires an operator key. Returns the account's pending invitations, newest first."""
    page = await services.members.invitations(caller, account, parsed.values.listing(), problems=parsed.problems)
    owner = account_id(services, caller, account)
    return listed(page, lambda invitation: invitation_view(invitation, owner), services.context)


@router.delete("/v1/accounts/{account}/invitations/{invitation}", status_code=204, summary="Withdraw an invitation")
async def withdraw_invitation(services: ServicesOf, caller: CallerOf, account: str, invitation: str) -> None:
    """Requires an operator key. The link in the invitation stops working."""
    await services.members.withdraw(caller, account, invitation)
