"""Converts keys, members, invitations and links to API models."""

from typing import Final

from uplift_server.api.people_views import (
    InvitationView,
    KeyView,
    LinkView,
    MemberView,
    PortalLinkView,
    RoleName,
    ServiceKeyView,
)
from uplift_server.core import ids
from uplift_server.core.security.rights import Role
from uplift_server.core.timestamps import format_optional_timestamp, format_timestamp
from uplift_server.service.portal_links import ShownLink
from uplift_server.store.records import ApiKey, Invitation, Link, Member, ServiceKey

_ROLE_NAMES: Final[dict[Role, RoleName]] = {
    Role.MEMBER: "member",
    Role.MANAGER: "manager",
    Role.ADMIN: "admin",
    Role.OWNER: "owner",
}


def key_view(key: ApiKey, account: str, text: str | None = None) -> KeyView:
    """Return the API model of an account's key.

    `account` is the account's public ID. Pass `text`, the key itself, only for a new key.
    """
    return KeyView(
        id=ids.prefixed(ids.KEY, key.id),
        account=account,
        name=key.name,
        ends_with=key.ends_with,
        scopes=sorted(key.scopes),
        created_at=format_timestamp(key.created_at),
        expires_at=format_optional_timestamp(key.expires_at),
        **({} if text is None else {"key": text}),
    )


def service_key_view(key: ServiceKey, text: str | None = None) -> ServiceKeyView:
    """Return the API model of a service key. Pass `text`, the key itself, only for a new key."""
    return ServiceKeyView(
        id=ids.prefixed(ids.KEY, key.id),
        name=key.name,
        ends_with=key.ends_with,
        scopes=sorted(key.scopes),
        created_at=format_timestamp(key.created_at),
        expires_at=format_optional_timestamp(key.expires_at),
        **({} if text is None else {"key": text}),
    )


def member_view(member: Member, account: str) -> MemberView:
    """Return the API model of a member. `account` is the account's public ID."""
    return MemberView(
        id=ids.prefixed(ids.MEMBER, member.id),
        account=account,
        email=member.person.email,
        name=member.person.name,
        role=_ROLE_NAMES[member.role],
        has_password=member.person.password_hash is not None,
        has_second_factor=member.has_second_factor,
        created_at=format_timestamp(member.created_at),
    )


def invitation_view(invitation: Invitation, account: str, url: str | None = None) -> InvitationView:
    """Return the API model of an invitation. Pass `url` only for a new invitation, if email is not configured."""
    return InvitationView(
        id=ids.prefixed(ids.INVITATION, invitation.id),
        account=account,
        email=invitation.email,
        role=_ROLE_NAMES[invitation.role],
        invited_by=invitation.invited_by,
        created_at=format_timestamp(invitation.created_at),
        expires_at=format_timestamp(invitation.expires_at),
        **({} if url is None else {"url": url}),
    )


def portal_link_view(link: Link, account: str, url: str | None = None) -> PortalLinkView:
    """Return the API model of an account's portal link. Pass `url` only for a new link."""
    return PortalLinkView(
        id=ids.prefixed(ids.LINK, link.id),
        account=account,
        email=link.email,
        role=_ROLE_NAMES[link.role],
        expires_at=format_timestamp(link.expires_at),
        **({} if url is None else {"url": url}),
    )


def link_view(link: ShownLink) -> LinkView:
    """Return the API model of a one-time link."""
    return LinkView(url=link.url, expires_at=format_timestamp(link.expires_at))
