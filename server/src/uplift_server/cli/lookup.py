"""Finding the one thing a person means by a whole id, a unique beginning of one, or an account's name."""

from collections.abc import Callable
from typing import Any, Final

from uplift_server.cli.client import ApiClient, ApiError, segment
from uplift_server.cli.errors import CliError, ExitCode

SEARCHED_MAX: Final = 5000
"""How many of the newest items a beginning is looked for in."""
_SHOWN_MAX: Final = 5


def account(client: ApiClient, text: str) -> dict[str, Any]:
    """The account with this id, beginning of an id, or exact name."""
    return _one(client, "/v1/accounts", "account", "acc_", text, also=lambda each: bool(each.get("name") == text))


def key(client: ApiClient, text: str, account_id: str) -> dict[str, Any]:
    """The key of an account with this id or beginning of an id."""
    return _one(client, f"/v1/accounts/{segment(account_id)}/keys", "key", "key_", text)


def endpoint(client: ApiClient, text: str, account_id: str | None = None) -> dict[str, Any]:
    """The endpoint with this id or beginning of an id."""
    return _one(client, "/v1/endpoints", "endpoint", "ep_", text, account_id)


def delivery(client: ApiClient, text: str, account_id: str | None = None) -> dict[str, Any]:
    """The delivery with this id or beginning of an id."""
    return _one(client, "/v1/deliveries", "delivery", "dlv_", text, account_id)


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
    beginning = text if text.startswith(prefix) else prefix + text
    matches = [
        each
        for each in client.items(path, limit=SEARCHED_MAX, account=account_id)
        if each["id"].startswith(beginning) or also(each)
    ]
    if not matches:
        raise CliError(
            f"there is no {noun} {text!r}", f"give its id, a unique beginning of it{_or_name(noun)}", ExitCode.NOT_FOUND
        )
    if len(matches) > 1:
        ids = ", ".join(each["id"] for each in matches[:_SHOWN_MAX])
        raise CliError(f"{text!r} is the beginning of {len(matches)} ids", f"give more of one: {ids}", ExitCode.USAGE)
    return matches[0]


def _or_name(noun: str) -> str:
    return ", or its exact name" if noun == "account" else ""
