"""The objects that the arguments of commands mean."""

from typing import Any

from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.lookup import find


def account(calls: Calls, text: str) -> dict[str, Any]:
    """The account with this id, beginning of an id, or exact name."""
    how = "give its id, a unique beginning of it, or its exact name"
    return find(
        calls, "/v1/accounts", "account", "acc_", text, also=lambda each: bool(each.get("name") == text), how=how
    )


def owner(calls: Calls, account_text: str | None) -> str | None:
    """The id of the account that an option names. None without the option."""
    return None if account_text is None else str(account(calls, account_text)["id"])


def account_path(calls: Calls, text: str) -> str:
    """The path of the account with this id, beginning of an id, or exact name."""
    return f"/v1/accounts/{segment(account(calls, text)['id'])}"


def key(calls: Calls, text: str, owner_path: str) -> dict[str, Any]:
    """The key of an account with this id or beginning of an id."""
    return find(calls, f"{owner_path}/keys", "key", "key_", text)


def member(calls: Calls, text: str, owner_path: str) -> dict[str, Any]:
    """The member of an account with this id, beginning of an id, or email address."""
    return _person(calls, f"{owner_path}/members", "member", "mem_", text)


def invitation(calls: Calls, text: str, owner_path: str) -> dict[str, Any]:
    """The open invitation of an account with this id, beginning of an id, or email address."""
    return _person(calls, f"{owner_path}/invitations", "invitation", "inv_", text)


def _person(calls: Calls, path: str, noun: str, prefix: str, text: str) -> dict[str, Any]:
    how = "give its id, a unique beginning of it, or the whole email address"
    return find(calls, path, noun, prefix, text, also=lambda each: bool(each["email"] == text.lower()), how=how)


def endpoint(calls: Calls, text: str, account_id: str | None = None) -> dict[str, Any]:
    """The endpoint with this id or beginning of an id."""
    return find(calls, "/v1/endpoints", "endpoint", "ep_", text, account_id)


def delivery(calls: Calls, text: str, account_id: str | None = None) -> dict[str, Any]:
    """The delivery with this id or beginning of an id."""
    return find(calls, "/v1/deliveries", "delivery", "dlv_", text, account_id)


def replay(calls: Calls, text: str, account_id: str | None = None) -> dict[str, Any]:
    """The replay with this id or beginning of an id."""
    return find(calls, "/v1/replays", "replay", "rpl_", text, account_id)


def event(calls: Calls, text: str, account_id: str | None = None) -> dict[str, Any]:
    """The event with this id or beginning of an id."""
    return find(calls, "/v1/events", "event", "", text, account_id)
