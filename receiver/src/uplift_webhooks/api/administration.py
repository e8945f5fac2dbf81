"""Calls for administration: accounts, keys, members, links, the event catalog and the audit log."""

from collections.abc import Iterable
from typing import Any, Final

from uplift_webhooks.api.calls import Call, Noun, Way, change, delete, every, get, get_page, given, post, texts, verb
from uplift_webhooks.api.pages import Instant, JsonObject, Page, segment

_ACCOUNTS: Final = "/v1/accounts"
_EVENT_TYPES: Final = "/v1/event-types"


class Accounts(Noun[Way]):
    """`/v1/accounts`, for operators."""

    @verb
    def list(self, *, limit: int | None = None, cursor: str | None = None) -> Call[Page]:
        """One page, newest first."""
        return get_page(_ACCOUNTS, limit=limit, cursor=cursor)

    iterate = every(list)

    @verb
    def get(self, account: str) -> Call[JsonObject]:
        """One account by its ID."""
        return get(_account(account))

    @verb
    def create(
        self, name: str, *, contact_emails: Iterable[str] | None = None, idempotency_key: str | None = None
    ) -> Call[JsonObject]:
        """Create an account. Its contacts are notified when an endpoint fails."""
        body = given(name=name, contact_emails=texts(contact_emails))
        return post(_ACCOUNTS, body, idempotency_key=idempotency_key)

    @verb
    def update(self, account: str, /, **changes: Any) -> Call[JsonObject]:
        """Update its `name` or `contact_emails`. Omitted fields stay."""
        return change("PATCH", _account(account), changes)

    @verb
    def delete(self, account: str) -> Call[None]:
        """Delete an account: its keys are revoked, its endpoints deleted, and its pending deliveries cancelled."""
        return delete(_account(account))


class Keys(Noun[Way]):
    """`/v1/accounts/{account}/keys`, for operators."""

    @verb
    def list(self, account: str, *, limit: int | None = None, cursor: str | None = None) -> Call[Page]:
        """One page of an account's active keys, newest first."""
        return get_page(f"{_account(account)}/keys", limit=limit, cursor=cursor)

    iterate = every(list)

    @verb
    def create(
        self, account: str, name: str, *, scopes: Iterable[str] | None = None, idempotency_key: str | None = None
    ) -> Call[JsonObject]:
        """Create a key. Only this response contains its text, `key`."""
        body = given(name=name, scopes=texts(scopes))
        return post(f"{_account(account)}/keys", body, idempotency_key=idempotency_key)

    @verb
    def revoke(self, account: str, key: str) -> Call[None]:
        """Revoke a key."""
        return delete(f"{_account(account)}/keys/{segment(key)}")


class Members(Noun[Way]):
    """`/v1/accounts/{account}/members`, for operators: people who sign in to an account's dashboard."""

    @verb
    def list(self, account: str, *, limit: int | None = None, cursor: str | None = None) -> Call[Page]:
        """One page of an account's members, newest first."""
        return get_page(f"{_account(account)}/members", limit=limit, cursor=cursor)

    iterate = every(list)

    @verb
    def invite(self, account: str, email: str, role: str, *, idempotency_key: str | None = None) -> Call[JsonObject]:
        """Invite a person by email. If the server sends no emails, the response has the `url` to pass on."""
        body = given(email=email, role=role)
        return post(f"{_account(account)}/members", body, idempotency_key=idempotency_key)

    @verb
    def update(self, account: str, member: str, role: str) -> Call[JsonObject]:
        """Change a member's role."""
        return change("PATCH", f"{_account(account)}/members/{segment(member)}", {"role": role})

    @verb
    def remove(self, account: str, member: str) -> Call[None]:
        """Remove a member and end its sessions."""
        return delete(f"{_account(account)}/members/{segment(member)}")

    @verb
    def reset_password(self, account: str, member: str) -> Call[JsonObject]:
        """Create a `url` with which a member sets a new password, once and until `expires_at`."""
        return post(f"{_account(account)}/members/{segment(member)}/password-reset", {})


class Invitations(Noun[Way]):
    """`/v1/accounts/{account}/invitations`, for operators: open invitations."""

    @verb
    def list(self, account: str, *, limit: int | None = None, cursor: str | None = None) -> Call[Page]:
        """One page of an account's open invitations, newest first."""
        return get_page(f"{_account(account)}/invitations", limit=limit, cursor=cursor)

    iterate = every(list)

    @verb
    def withdraw(self, account: str, invitation: str) -> Call[None]:
        """Withdraw an invitation. Its link stops working."""
        return delete(f"{_account(account)}/invitations/{segment(invitation)}")


class Links(Noun[Way]):
    """One-time links into the dashboard, for operators."""

    @verb
    def portal(
        self, account: str, *, email: str | None = None, role: str | None = None, idempotency_key: str | None = None
    ) -> Call[JsonObject]:
        """Create a `url` that opens an account's dashboard once, until `expires_at`; without `email`, as a guest."""
        body = given(email=email, role=role)
        return post(f"{_account(account)}/portal-links", body, idempotency_key=idempotency_key)

    @verb
    def operator(self, *, idempotency_key: str | None = None) -> Call[JsonObject]:
        """Create a `url` that signs an operator in once, until `expires_at`."""
        return post("/v1/sign-in-links", {}, idempotency_key=idempotency_key)


class Retention(Noun[Way]):
    """Deletion of old events, for operators."""

    @verb
    def resume(self) -> Call[JsonObject]:
        """Confirm that the server's clock is right, so that retention continues: `resumed_at`."""
        return post("/v1/retention/resume", {})


class EventTypes(Noun[Way]):
    """`/v1/event-types`: the event catalog. Everyone reads it, operators change it."""

    @verb
    def list(self, *, limit: int | None = None, cursor: str | None = None) -> Call[Page]:
        """One page."""
        return get_page(_EVENT_TYPES, limit=limit, cursor=cursor)

    iterate = every(list)

    @verb
    def get(self, name: str) -> Call[JsonObject]:
        """One event type by its name, with the `schema` and an `example` of its data."""
        return get(f"{_EVENT_TYPES}/{segment(name)}")

    @verb
    def put(
        self,
        name: str,
        description: str,
        *,
        group: str | None = None,
        schema: JsonObject | None = None,
        example: object = None,
        api_version: str | None = None,
        archived: bool | None = None,
    ) -> Call[JsonObject]:
        """Create or replace an event type. Omitted fields get their defaults."""
        body = given(
            description=description,
            group=group,
            schema=schema,
            example=example,
            api_version=api_version,
            archived=archived,
        )
        return change("PUT", f"{_EVENT_TYPES}/{segment(name)}", body)

    @verb
    def delete(self, name: str) -> Call[None]:
        """Delete an event type. Its events stay."""
        return delete(f"{_EVENT_TYPES}/{segment(name)}")


class AuditLog(Noun[Way]):
    """`/v1/audit-log`: who did what, when and from where."""

    @verb
    def list(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        subject: str | None = None,
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[Page]:
        """One page, newest first. Filter by `actor`, `action` (such as `endpoint.changed`) or `subject`."""
        return get_page(
            "/v1/audit-log",
            actor=actor,
            action=action,
            subject=subject,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
            cursor=cursor,
        )

    iterate = every(list)


def _account(account: str) -> str:
    return f"{_ACCOUNTS}/{segment(account)}"
