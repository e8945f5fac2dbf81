"""API calls that manage accounts, keys, members, erasures, links, retention and event types, and read the audit log."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from uplift_webhooks.api.calls import Call, Noun, Way, change, delete, every, get, get_page, given, post, texts, verb
from uplift_webhooks.api.pages import Instant, JsonObject, Order, Page, segment

_ACCOUNTS: Final = "/v1/accounts"
_EVENT_TYPES: Final = "/v1/event-types"
_SERVICE_KEYS: Final = "/v1/keys"


class Accounts(Noun[Way]):
    """`/v1/accounts`: accounts. These methods require an operator key or a service key."""

    @verb
    def list(self, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None) -> Call[Page]:
        """Return one page of accounts, newest first."""
        return get_page(_ACCOUNTS, limit=limit, cursor=cursor, order=order)

    iterate = every(list)

    @verb
    def get(self, account: str) -> Call[JsonObject]:
        """Return an account by its ID or uid."""
        return get(_account(account))

    @verb
    def create(
        self,
        name: str,
        *,
        contact_emails: str | Iterable[str] | None = None,
        uid: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Create an account. The server emails `contact_emails` when an endpoint of the account is failing.

        `uid` is an ID of your choice. You can pass `uid` in place of the account's `id`. `metadata` maps up to 50 keys
        to strings of your choice.
        """
        body = given(
            name=name,
            contact_emails=texts(contact_emails),
            uid=uid,
            metadata=None if metadata is None else {**metadata},
        )
        return post(_ACCOUNTS, body, idempotency_key=idempotency_key)

    @verb
    def put(
        self,
        account: str,
        name: str,
        *,
        contact_emails: str | Iterable[str] | None = None,
        uid: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_match: JsonObject | str | None = None,
    ) -> Call[JsonObject]:
        """Update or create the account whose uid is `account`. Omitted fields do not change.

        `metadata` replaces all existing metadata. `update` describes `if_match`.
        """
        body = given(
            name=name,
            contact_emails=texts(contact_emails),
            uid=uid,
            metadata=None if metadata is None else {**metadata},
        )
        return change("PUT", _account(account), body, if_match)

    @verb
    def update(self, account: str, /, *, if_match: JsonObject | str | None = None, **changes: Any) -> Call[JsonObject]:
        """Update the `name`, `contact_emails`, `uid` or `metadata` of an account. Omitted fields do not change.

        `metadata` contains only the keys to change. The value None removes a key. To detect concurrent changes, pass
        the account that you read as `if_match`. If the account has changed in the meantime, the call raises ApiError
        with status 412.
        """
        return change("PATCH", _account(account), changes, if_match)

    @verb
    def delete(self, account: str) -> Call[None]:
        """Delete an account with its keys and endpoints, and cancel its pending and held deliveries."""
        return delete(_account(account))


class Keys(Noun[Way]):
    """`/v1/accounts/{account}/keys`: an account's API keys. Only operators can call these methods."""

    @verb
    def list(
        self, account: str, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None
    ) -> Call[Page]:
        """Return one page of an account's keys that are not revoked, newest first."""
        return get_page(f"{_account(account)}/keys", limit=limit, cursor=cursor, order=order)

    iterate = every(list)

    @verb
    def create(
        self,
        account: str,
        name: str,
        *,
        scopes: str | Iterable[str] | None = None,
        expires_at: Instant | None = None,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Create a key. Only this response contains the key itself, in `key`."""
        body = given(name=name, scopes=texts(scopes), expires_at=expires_at)
        return post(f"{_account(account)}/keys", body, idempotency_key=idempotency_key)

    @verb
    def update(self, account: str, key: str, /, **changes: Any) -> Call[JsonObject]:
        """Update the `name` or `expires_at` of a key. Omitted fields do not change."""
        return change("PATCH", f"{_account(account)}/keys/{segment(key)}", changes)

    @verb
    def revoke(self, account: str, key: str) -> Call[None]:
        """Revoke a key."""
        return delete(f"{_account(account)}/keys/{segment(key)}")


class ServiceKeys(Noun[Way]):
    """`/v1/keys`: service keys, which can access all accounts within their scopes.

    Only operators can call these methods.
    """

    @verb
    def list(self, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None) -> Call[Page]:
        """Return one page of the service keys that are not revoked, newest first."""
        return get_page(_SERVICE_KEYS, limit=limit, cursor=cursor, order=order)

    iterate = every(list)

    @verb
    def create(
        self,
        name: str,
        scopes: str | Iterable[str],
        *,
        expires_at: Instant | None = None,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Create a service key. Only this response contains the key itself, in `key`."""
        body = given(name=name, scopes=texts(scopes), expires_at=expires_at)
        return post(_SERVICE_KEYS, body, idempotency_key=idempotency_key)

    @verb
    def update(self, key: str, /, **changes: Any) -> Call[JsonObject]:
        """Update the `name` or `expires_at` of a service key. Omitted fields do not change."""
        return change("PATCH", f"{_SERVICE_KEYS}/{segment(key)}", changes)

    @verb
    def revoke(self, key: str) -> Call[None]:
        """Revoke a service key."""
        return delete(f"{_SERVICE_KEYS}/{segment(key)}")


class Members(Noun[Way]):
    """`/v1/accounts/{account}/members`: the users of an account's dashboard. Only operators can call these methods."""

    @verb
    def list(
        self, account: str, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None
    ) -> Call[Page]:
        """Return one page of an account's members, newest first."""
        return get_page(f"{_account(account)}/members", limit=limit, cursor=cursor, order=order)

    iterate = every(list)

    @verb
    def invite(self, account: str, email: str, role: str, *, idempotency_key: str | None = None) -> Call[JsonObject]:
        """Invite a member by email. If email is not configured, the response contains the invitation link in `url`."""
        body = given(email=email, role=role)
        return post(f"{_account(account)}/members", body, idempotency_key=idempotency_key)

    @verb
    def update(self, account: str, member: str, role: str) -> Call[JsonObject]:
        """Change a member's role."""
        return change("PATCH", f"{_account(account)}/members/{segment(member)}", {"role": role})

    @verb
    def remove(self, account: str, member: str) -> Call[None]:
        """Remove a member, who can then no longer access the account."""
        return delete(f"{_account(account)}/members/{segment(member)}")

    @verb
    def reset_password(self, account: str, member: str) -> Call[JsonObject]:
        """Create a one-time `url` that resets a member's password. The URL is valid until `expires_at`."""
        return post(f"{_account(account)}/members/{segment(member)}/password-reset", {})

    @verb
    def reset_second_factor(self, account: str, member: str) -> Call[None]:
        """Turn off the second factor of a member who lost the authenticator app and the recovery codes."""
        return delete(f"{_account(account)}/members/{segment(member)}/second-factor")


class Invitations(Noun[Way]):
    """`/v1/accounts/{account}/invitations`: pending invitations. Only operators can call these methods."""

    @verb
    def list(
        self, account: str, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None
    ) -> Call[Page]:
        """Return one page of an account's pending invitations, newest first."""
        return get_page(f"{_account(account)}/invitations", limit=limit, cursor=cursor, order=order)

    iterate = every(list)

    @verb
    def withdraw(self, account: str, invitation: str) -> Call[None]:
        """Withdraw an invitation. The invitation link stops working."""
        return delete(f"{_account(account)}/invitations/{segment(invitation)}")


class Erasures(Noun[Way]):
    """`/v1/accounts/{account}/erasures`: erasures of personal data. Only operators can call these methods."""

    @verb
    def list(
        self, account: str, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None
    ) -> Call[Page]:
        """Return one page of an account's erasures, newest first."""
        return get_page(f"{_account(account)}/erasures", limit=limit, cursor=cursor, order=order)

    iterate = every(list)

    @verb
    def get(self, account: str, erasure: str) -> Call[JsonObject]:
        """Return an erasure. If its `state` is "completed", you can keep the response as a receipt."""
        return get(f"{_account(account)}/erasures/{segment(erasure)}")

    @verb
    def create(
        self,
        account: str,
        *,
        object_id: str | None = None,
        event_ids: str | Iterable[str] | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Start an erasure of the events about the object `object_id`, or of the events in `event_ids`.

        The call does not wait until the erasure is complete. With `dry_run`, only count the events.
        """
        body = given(object_id=object_id, event_ids=texts(event_ids), dry_run=dry_run or None)
        return post(f"{_account(account)}/erasures", body, idempotency_key=idempotency_key)


class Links(Noun[Way]):
    """One-time sign-in links for the dashboard. Only operators can call these methods."""

    @verb
    def portal(
        self, account: str, *, email: str | None = None, role: str | None = None, idempotency_key: str | None = None
    ) -> Call[JsonObject]:
        """Create a one-time `url` to an account's dashboard, valid until `expires_at`.

        With `email`, the link signs in this person, and adds the person as a member if needed. Without `email`, the
        link signs in a guest. `role` is the role of a guest or a new member.
        """
        body = given(email=email, role=role)
        return post(f"{_account(account)}/portal-links", body, idempotency_key=idempotency_key)

    @verb
    def list(
        self, account: str, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None
    ) -> Call[Page]:
        """Return one page of an account's unused portal links, newest first."""
        return get_page(f"{_account(account)}/portal-links", limit=limit, cursor=cursor, order=order)

    iterate = every(list)

    @verb
    def revoke(self, account: str, link: str) -> Call[None]:
        """Revoke an unused portal link."""
        return delete(f"{_account(account)}/portal-links/{segment(link)}")

    @verb
    def operator(self, *, read_only: bool | None = None, idempotency_key: str | None = None) -> Call[JsonObject]:
        """Create a one-time `url` that signs in an operator. The URL is valid until `expires_at`.

        With `read_only`, the operator cannot change anything.
        """
        return post("/v1/sign-in-links", given(read_only=read_only), idempotency_key=idempotency_key)


class Retention(Noun[Way]):
    """`/v1/retention`: retention, which deletes old events. Only operators can call these methods."""

    @verb
    def resume(self) -> Call[JsonObject]:
        """Resume retention, which the server stops if its clock jumps forward.

        In the response, `resumed_at` is the time of the call.
        """
        return post("/v1/retention/resume", {})


class EventTypes(Noun[Way]):
    """`/v1/event-types`: the event catalog. Only operators can change the catalog."""

    @verb
    def list(self, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None) -> Call[Page]:
        """Return one page of event types, newest first."""
        return get_page(_EVENT_TYPES, limit=limit, cursor=cursor, order=order)

    iterate = every(list)

    @verb
    def get(self, name: str) -> Call[JsonObject]:
        """Return an event type by its name, with the `schema` and an `example` of its data."""
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
        if_match: JsonObject | str | None = None,
    ) -> Call[JsonObject]:
        """Create or replace an event type. Omitted fields get their defaults.

        To detect concurrent changes, pass the event type that you read as `if_match`. If the event type has changed in
        the meantime, the call raises ApiError with status 412.
        """
        body = given(
            description=description,
            group=group,
            schema=schema,
            example=example,
            api_version=api_version,
            archived=archived,
        )
        return change("PUT", f"{_EVENT_TYPES}/{segment(name)}", body, if_match)

    @verb
    def update(self, name: str, /, *, if_match: JsonObject | str | None = None, **changes: Any) -> Call[JsonObject]:
        """Update fields of an event type. Omitted fields do not change. None resets a field to its default.

        To detect concurrent changes, pass the event type that you read as `if_match`. If the event type has changed in
        the meantime, the call raises ApiError with status 412.
        """
        return change("PATCH", f"{_EVENT_TYPES}/{segment(name)}", changes, if_match)

    @verb
    def delete(self, name: str) -> Call[None]:
        """Delete an event type. Its events remain."""
        return delete(f"{_EVENT_TYPES}/{segment(name)}")


class AuditLog(Noun[Way]):
    """`/v1/audit-log`: recorded actions, such as changes and sign-ins, with their actors, times and IP addresses."""

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
        order: Order | None = None,
    ) -> Call[Page]:
        """Return one page of audit log entries, newest first.

        You can filter by `actor`, `action` (such as `endpoint.changed`) or `subject`.
        """
        return get_page(
            "/v1/audit-log",
            actor=actor,
            action=action,
            subject=subject,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
            cursor=cursor,
            order=order,
        )

    iterate = every(list)


def _account(account: str) -> str:
    return f"{_ACCOUNTS}/{segment(account)}"
