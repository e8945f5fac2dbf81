"""The page for managing the members and invitations of an account."""

from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.people.people import INVITATIONS_PER_ACCOUNT_MAX
from uplift_server.core.security.rights import GUEST_ROLE_MAX, Right, Role, can_grant
from uplift_server.dashboard.forms import key_of
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.visit import SHOWN, Visit
from uplift_server.service.context import Listing
from uplift_server.service.errors import Conflict, Invalid, NotFound, RateLimited
from uplift_server.service.members import InvitationDraft
from uplift_server.store.records import Member

ROLE_WORDS: Final = {
    Role.MEMBER: (
        "Views endpoints, events, deliveries, replays, contacts and the event catalog. Sends test events. Cannot view"
        " secrets, listen sessions, API keys, the member list or the audit log."
    ),
    Role.MANAGER: (
        "Also creates, edits, pauses, enables and deletes endpoints, reveals and rotates secrets, resends, cancels and"
        " replays deliveries, and uses listen sessions."
    ),
    Role.ADMIN: (
        "Also manages API keys, contacts and members, except owners. Views the member list and the audit log."
    ),
    Role.OWNER: "Also adds, changes and removes owners.",
}
"""The permissions of each role, as text for users. Each role includes the permissions of the previous role."""
_PAGE: Final = "settings/members.html"
_PATH: Final = "settings"


async def page(visit: Visit) -> Response:
    """List the members. Redirect visitors who cannot view members to the contacts page."""
    if not visit.caller.principal.has_right(Right.MEMBERS_MANAGE):
        return visit.leave(visit.path(_PATH, "contacts"))
    return await _page(visit)


async def invite(visit: Visit) -> Response:
    """Invite a person by email. If the server cannot send email, redirect to the page with the invitation link."""
    sent = await visit.form()
    email, role = sent.text("email"), sent.text("role")
    draft = InvitationDraft(email, role)
    try:
        made = await visit.services.members.invite(visit.caller, _account(visit), draft, idempotency_key=key_of(sent))
    except Invalid as error:
        return await _page(visit, invalid=error, email=email, role=role)
    except (Conflict, RateLimited) as error:
        status = 429 if isinstance(error, RateLimited) else 409
        return await _page(visit, status=status, refusal=error.detail, email=email, role=role)
    if made.url is None:
        return visit.leave(visit.path(_PATH), f"Invitation created. The server emails it to {email}.")
    return visit.leave_with_secret(visit.path(_PATH), ids.prefixed(ids.INVITATION, made.invitation.id), made.url)


async def change_role(visit: Visit) -> Response:
    """Change the role of a member."""
    sent = await visit.form()
    members, member = visit.services.members, visit.parameter("member")
    try:
        changed = await members.change_role(visit.caller, _account(visit), member, sent.text("role"))
    except Invalid as error:
        return visit.leave(visit.path(_PATH), problem=error.problems[0].message)
    return visit.leave(visit.path(_PATH), f"Role of {changed.person.title} changed to {changed.role.text}.")


async def remove(visit: Visit) -> Response:
    """Remove a member."""
    await visit.services.members.remove(visit.caller, _account(visit), visit.parameter("member"))
    return visit.leave(visit.path(_PATH), "Member removed.")


async def reset_password(visit: Visit) -> Response:
    """Create a password reset link for a member. Raises NotFound if the visitor is not an operator."""
    if not visit.caller.principal.is_operator:
        raise NotFound("This page does not exist. Check the URL.")
    link = await visit.services.members.reset_password(visit.caller, _account(visit), visit.parameter("member"))
    return visit.leave_with_secret(visit.path(_PATH), visit.parameter("member"), link.url)


async def reset_second_factor(visit: Visit) -> Response:
    """Turn off the second factor for a member. Raises NotFound if the visitor is not an operator."""
    if not visit.caller.principal.is_operator:
        raise NotFound("This page does not exist. Check the URL.")
    await visit.services.members.reset_second_factor(visit.caller, _account(visit), visit.parameter("member"))
    return visit.leave(visit.path(_PATH), "The member's second factor is off.")


async def withdraw(visit: Visit) -> Response:
    """Withdraw an invitation."""
    await visit.services.members.withdraw(visit.caller, _account(visit), visit.parameter("invitation"))
    return visit.leave(visit.path(_PATH), "Invitation withdrawn. Its link no longer works.")


async def _page(
    visit: Visit,
    *,
    status: int = 200,
    invalid: Invalid | None = None,
    refusal: str | None = None,
    email: str = "",
    role: str = Role.MEMBER.text,
) -> Response:
    services, caller = visit.services, visit.caller
    found = await services.members.page(caller, _account(visit), visit.listing())
    invited = await services.members.invitations(caller, _account(visit), Listing(INVITATIONS_PER_ACCOUNT_MAX))
    created = visit.query.text(SHOWN)
    secret = visit.shown_secret(created)
    own = Role.OWNER if caller.principal.role is None else caller.principal.role
    context: dict[str, Any] = {
        "tab": "",
        "members": [(ids.prefixed(ids.MEMBER, member.id), member, _roles_for(own, member)) for member in found.items],
        "next": visit.cursor(found.next_key),
        "you": caller.actor.id,
        "invitations": [
            (ids.prefixed(ids.INVITATION, each.id), each, can_grant(own, each.role)) for each in invited.items
        ],
        "roles": [(each.text, each.text.capitalize()) for each in Role if can_grant(own, each)],
        "words": ROLE_WORDS,
        "created": created,
        "secret": secret,
        "reset": secret if created.startswith(f"{ids.MEMBER}_") else None,
        "email": email,
        "role": role,
        "account": _account(visit),
    }
    if invalid is not None:
        return visit.refuse(_PAGE, invalid.problems, **context)
    return visit.render(_PAGE, status, refusal=refusal, **context)


def _roles_for(own: Role, member: Member) -> list[Role]:
    """Return the roles that a visitor can assign to a member. `own` is the visitor's role.

    The list is empty if the visitor cannot update the member.
    """
    if not can_grant(own, member.role):
        return []
    most = GUEST_ROLE_MAX if member.person.email is None else Role.OWNER
    return [role for role in Role if can_grant(own, role) and role <= most]


def _account(visit: Visit) -> str:
    assert visit.account is not None
    return ids.prefixed(ids.ACCOUNT, visit.account.id)


PAGES: Final = (
    account_page(f"/{_PATH}", page),
    account_form(f"/{_PATH}/invitations", invite, back=f"/{_PATH}"),
    account_form(f"/{_PATH}/invitations/{{invitation}}/withdraw", withdraw, back=f"/{_PATH}"),
    account_form(f"/{_PATH}/members/{{member}}/role", change_role, back=f"/{_PATH}"),
    account_form(f"/{_PATH}/members/{{member}}/remove", remove, back=f"/{_PATH}"),
    account_form(f"/{_PATH}/members/{{member}}/password-link", reset_password, back=f"/{_PATH}"),
    account_form(f"/{_PATH}/members/{{member}}/second-factor", reset_second_factor, back=f"/{_PATH}"),
)
