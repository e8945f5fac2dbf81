"""Response models for keys, members, invitations and links."""

from typing import Literal

from pydantic import BaseModel, Field

from uplift_server.api.views import CreatedAt, ExpiresAt, Timestamp


class KeyView(BaseModel):
    """An API key of an account."""

    id: str = Field(description="Key ID (`key_…`).")
    account: str = Field(description="Account ID.")
    name: str = Field(description="Display name.")
    ends_with: str = Field(description="The last characters of the key.")
    scopes: list[str] = Field(description="Permissions of the key.")
    created_at: CreatedAt
    expires_at: Timestamp | None = Field(description="When the key expires. Null: never.")
    key: str | None = Field(default=None, description="The API key (`sk_…`). Returned only when you create the key.")


class ServiceKeyView(BaseModel):
    """A service key."""

    id: str = Field(description="Key ID (`key_…`).")
    name: str = Field(description="Display name.")
    ends_with: str = Field(description="The last characters of the key.")
    scopes: list[str] = Field(description="Permissions of the key.")
    created_at: CreatedAt
    expires_at: Timestamp | None = Field(description="When the key expires. Null: never.")
    key: str | None = Field(
        default=None, description="The service key (`svc_…`). Returned only when you create the key."
    )


RoleName = Literal["member", "manager", "admin", "owner"]


class MemberView(BaseModel):
    """A member of an account."""

    id: str = Field(description="Member ID (`mem_…`).")
    account: str = Field(description="Account ID.")
    email: str | None = Field(description="Email address. Null for guests.")
    name: str = Field(description="Display name.")
    role: RoleName = Field(description="Role in the account.")
    has_password: bool = Field(description="Whether the member can sign in with a password.")
    has_second_factor: bool = Field(
        description="Whether the member needs a second factor to sign in with the password."
    )
    created_at: CreatedAt


class InvitationView(BaseModel):
    """A pending invitation to join an account."""

    id: str = Field(description="Invitation ID (`inv_…`).")
    account: str = Field(description="Account ID.")
    email: str = Field(description="Email address of the invited person.")
    role: RoleName = Field(description="Role of the new member.")
    invited_by: str = Field(description="Name of the inviter.")
    created_at: CreatedAt
    expires_at: ExpiresAt
    url: str | None = Field(
        default=None,
        description="Link for the invited person. Returned only when you create the invitation, and only if email is"
        " not configured.",
    )


class PortalLinkView(BaseModel):
    """An unused portal link, which signs a person in to an account's dashboard."""

    id: str = Field(description="Link ID (`lnk_…`).")
    account: str = Field(description="Account ID.")
    email: str | None = Field(description="The person's email address. Null for a guest.")
    role: RoleName = Field(description="Role of a new member or guest.")
    expires_at: ExpiresAt
    url: str | None = Field(
        default=None, description="One-time link for the person. Returned only when you create the link."
    )


class LinkView(BaseModel):
    """A one-time link to the dashboard."""

    url: str = Field(description="One-time link for the person.")
    expires_at: ExpiresAt
