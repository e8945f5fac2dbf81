"""Finding the one thing a person means by a whole id, a unique beginning of one, or an account's name."""

import difflib
from collections.abc import Callable
from typing import Any, Final

from uplift_server.cli.client import ApiClient, ApiError, segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.tables import BETWEEN

SEARCHED_MAX: Final = 5000
"""How many of the newest items a beginning is looked for in."""
_SHOWN_MAX: Final = 5
_NEAR: Final = 0.5
_HOW: Final = dict.fromkeys(
    ("key", "endpoint", "delivery", "event", "replay"), "give its id, or a unique beginning of it"
) | {
    "account": "give its id, a unique beginning of it, or its exact name",
    **dict.fromkeys(("member", "invitation"), "give its id, a unique beginning of it, or the whole mail address"),
}
_LISTS: Final = {
    "account": "`uplift-server accounts`",
    "key": "`uplift-server keys --account ACCOUNT`",
    "member": "`uplift-server members --account ACCOUNT`",
    "invitation": "`uplift-server member invitations --account ACCOUNT`",
    "endpoint": "`uplift-server endpoints`",
    "delivery": "`uplift-server deliveries`",
    "event": "`uplift-server deliveries --json`",
    "replay": "`uplift-server replay list`",
}


def account(client: ApiClient, text: str) -> dict[str, Any]:
    """The account with this id, beginning of an id, or exact name."""
    return _one(client, "/v1/accounts", "account", "acc_", text, also=lambda each: bool(each.get("name") == text))


def key(client: ApiClient, text: str, account_id: str) -> dict[str, Any]:
    """The key of an account with this id or beginning of an id."""
    return _one(client, f"/v1/accounts/{segment(account_id)}/keys", "key", "key_", text)


def member(client: ApiClient, text: str, account_id: str) -> dict[str, Any]:
    """The member of an account with this id, beginning of an id, or mail address."""
    path = f"/v1/accounts/{segment(account_id)}/members"
    return _one(client, path, "member", "mem_", text, also=lambda each: bool(each["email"] == text.lower()))


def invitation(client: ApiClient, text: str, account_id: str) -> dict[str, Any]:
    """The open invitation of an account with this id, beginning of an id, or mail address."""
    path = f"/v1/accounts/{segment(account_id)}/invitations"
    return _one(client, path, "invitation", "inv_", text, also=lambda each: bool(each["email"] == text.lower()))


def endpoint(client: ApiClient, text: str, account_id: str | None = None) -> dict[str, Any]:
    """The endpoint with this id or beginning of an id."""
    return _one(client, "/v1/endpoints", "endpoint", "ep_", text, account_id)


def delivery(client: ApiClient, text: str, account_id: str | None = None) -> dict[str, Any]:
    """The delivery with this id or beginning of an id."""
    return _one(client, "/v1/deliveries", "delivery", "dlv_", text, account_id)


def replay(client: ApiClient, text: str, account_id: str | None = None) -> dict[str, Any]:
    """The replay with this id or beginning of an id."""
    return _one(client, "/v1/replays", "replay", "rpl_", text, account_id)


def event(client: ApiClient, text: str, account_id: str | None = None) -> dict[str, Any]:
    """The event with this id or beginning of an id."""
    return _one(client, "/v1/events", "event", "", text, account_id)


def event_type(client: ApiClient, name: str) -> dict[str, Any]:
    """The event type with this name."""
    try:
        found: dict[str, Any] = client.get(f"/v1/event-types/{segment(name)}")
    except ApiError as error:
        if error.status != 404:
            raise
        raise unknown_type(client, name) from error
    return found


def event_types(client: ApiClient) -> list[str]:
    """The names of the catalog's types that can be sent."""
    return [each["name"] for each in client.items("/v1/event-types", limit=SEARCHED_MAX) if not each.get("archived")]


def unknown_type(client: ApiClient, text: str) -> CliError:
    """That there is no such event type, and which is the nearest."""
    nearest = difflib.get_close_matches(text, event_types(client), n=1, cutoff=_NEAR)
    remedy = f"did you mean {nearest[0]}? " if nearest else ""
    return CliError(
        f"there is no event type {text}", f"{remedy}`uplift-server event-types` lists them all", ExitCode.NOT_FOUND
    )


def _one(
    client: ApiClient,
    path: str,
    noun: str,
    prefix: str,
    text: str,
    account_id: str | None = None,
    *,
    also: Callable[[dict[str, Any]], bool] = lambda _: False,
) -> dict[str, Any]:
    """One item of a list."""
    try:
        found: dict[str, Any] = client.get(f"{path}/{segment(text)}", account=account_id)
    except ApiError as error:
        # Not a whole id, or one whose account must be known first: the list tells.
        if error.status not in (404, 405, 422):
            raise
    else:
        return found
    beginning, _, ending = text.partition(BETWEEN)
    beginning = beginning if beginning.startswith(prefix) else prefix + beginning
    matches = [
        each
        for each in client.items(path, limit=SEARCHED_MAX, account=account_id)
        if (each["id"].startswith(beginning) and each["id"].endswith(ending)) or also(each)
    ]
    if not matches:
        raise CliError(f"there is no {noun} {text!r}", f"{_HOW[noun]}; {_LISTS[noun]} lists them", ExitCode.NOT_FOUND)
    if len(matches) > 1:
        raise _ambiguous(noun, text, matches, named=all(map(also, matches)))
    return matches[0]


def _ambiguous(noun: str, text: str, matches: list[dict[str, Any]], *, named: bool) -> CliError:
    ids = ", ".join(each["id"] for each in matches[:_SHOWN_MAX])
    more = len(matches) - _SHOWN_MAX
    if more > 0:
        ids += f" and {more} more"
    if named:
        return CliError(f"{len(matches)} {noun}s have the name {text!r}", f"give the id of one: {ids}", ExitCode.USAGE)
    cause = (
        f"{text!r} stands for {len(matches)} ids"
        if BETWEEN in text
        else f"{text!r} is the beginning of {len(matches)} ids"
    )
    return CliError(cause, f"give more of one: {ids}", ExitCode.USAGE)
