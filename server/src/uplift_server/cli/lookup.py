"""Finds the account, key or other object that a command's argument identifies."""

from typing import Any

from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.lookup import find


def account(calls: Calls, text: str) -> dict[str, Any]:
    """Find an account by its ID, its uid, a unique ID prefix, or its exact name."""
    how = "use its ID, uid, a unique ID prefix, or its exact name"
    return find(
        calls, "/v1/accounts", "account", "acc_", text, also=lambda each: bool(each.get("name") == text), how=how
    )


def owner(calls: Calls, account_text: str | None) -> str | None:
    """Return the ID of the account in the `--account` option, or None if the option is omitted."""
    return None if account_text is None else str(account(calls, account_text)["id"])


def account_path(calls: Calls, text: str) -> str:
    """Find an account by its ID, its uid, a unique ID prefix, or its exact name. Return the account's API path."""
    return f"/v1/accounts/{segment(account(calls, text)['id'])}"


def key(calls: Calls, text: str, path: str) -> dict[str, Any]:
    """Find an API key by its ID or a unique ID prefix, in the list at the API path `path`."""
    return find(calls, path, "key", "key_", text)


def member(calls: Calls, text: str, owner_path: str) -> dict[str, Any]:
    """Find an account's member by ID, unique ID prefix, or email address."""
    return _person(calls, f"{owner_path}/members", "member", "mem_", text)


def invitation(calls: Calls, text: str, owner_path: str) -> dict[str, Any]:
    """Find an account's pending invitation by ID, unique ID prefix, or email address."""
    return _person(calls, f"{owner_path}/invitations", "invitation", "inv_", text)


def _person(calls: Calls, path: str, noun: str, prefix: str, text: str) -> dict[str, Any]:
    how = "use its ID, a unique ID prefix, or the full email address"
    return find(calls, path, noun, prefix, text, also=lambda each: bool(each["email"] == text.lower()), how=how)


def endpoint(calls: Calls, text: str, account_id: str | None = None) -> dict[str, Any]:
    """Find an endpoint by its ID, its uid or a unique ID prefix."""
    return find(calls, "/v1/endpoints", "endpoint", "ep_", text, account_id)


def delivery(calls: Calls, text: str, account_id: str | None = None) -> dict[str, Any]:
    """Find a delivery by its ID or a unique ID prefix."""
    return find(calls, "/v1/deliveries", "delivery", "dlv_", text, account_id)


def attempt(calls: Calls, text: str, account_id: str | None = None) -> dict[str, Any]:
    """Find an attempt by its ID or a unique ID prefix."""
    return find(calls, "/v1/attempts", "attempt", "att_", text, account_id)


def replay(calls: Calls, text: str, account_id: str | None = None) -> dict[str, Any]:
    """Find a replay by its ID or a unique ID prefix."""
    return find(calls, "/v1/replays", "replay", "rpl_", text, account_id)


def rejected_event(calls: Calls, text: str, account_id: str | None = None) -> dict[str, Any]:
    """Find a rejected event by its ID or a unique ID prefix."""
    return find(calls, "/v1/rejected-events", "rejected event", "rej_", text, account_id)


def event(calls: Calls, text: str, account_id: str | None = None) -> dict[str, Any]:
    """Find an event by its ID or a unique ID prefix."""
    return find(calls, "/v1/events", "event", "", text, account_id)
