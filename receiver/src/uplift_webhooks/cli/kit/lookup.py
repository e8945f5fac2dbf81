"""Find objects by ID, unique ID prefix, or name."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from uplift_webhooks.cli.kit.calls import CallRejected, Calls, segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.tables import BETWEEN

SEARCHED_MAX: Final = 5000
"""Maximum number of objects to compare with an ID or name. The search begins with the newest object."""
_SHOWN_MAX: Final = 5
_SIMILARITY_LEAST: Final = 0.5


def find(
    calls: Calls,
    path: str,
    noun: str,
    prefix: str,
    text: str,
    account: str | None = None,
    *,
    also: Callable[[dict[str, Any]], bool] = lambda _: False,
    how: str = "use its ID or a unique ID prefix",
) -> dict[str, Any]:
    """Find an object by its ID, its uid, a unique ID prefix or the short ID that tables show.

    `also` returns True for other objects that match, such as an object with a matching name. `how` is the part of the
    error that says how to identify an object. Raises CliError if no object or several objects match.
    """
    try:
        found: dict[str, Any] = calls.get(f"{path}/{segment(text)}", account=account)
    except CallRejected as error:
        # These status codes mean that the text is not a complete ID, or that its account is not known yet.
        if error.status not in (404, 405, 422):
            raise
    else:
        return found
    beginning, _, ending = text.partition(BETWEEN)
    beginning = beginning if beginning.startswith(prefix) else prefix + beginning
    matches = [
        each
        for each in calls.items(path, limit=SEARCHED_MAX, account=account)
        if (each["id"].startswith(beginning) and each["id"].endswith(ending)) or each.get("uid") == text or also(each)
    ]
    if not matches:
        listing = calls.advice.lists.get(noun)
        remedy = f"{how}; to list them: {listing}" if listing else how
        raise CliError(f"there is no {noun} {text!r}", remedy, ExitCode.NOT_FOUND)
    if len(matches) > 1:
        raise _ambiguous(noun, text, matches, named=all(map(also, matches)))
    return matches[0]


def _ambiguous(noun: str, text: str, matches: list[dict[str, Any]], *, named: bool) -> CliError:
    ids = ", ".join(each["id"] for each in matches[:_SHOWN_MAX])
    more = len(matches) - _SHOWN_MAX
    if more > 0:
        ids += f" and {more} more"
    if named:
        return CliError(
            f"{len(matches)} {noun}s have the name {text!r}", f"use one of these IDs: {ids}", ExitCode.USAGE
        )
    return CliError(f"{text!r} matches {len(matches)} IDs", f"use one of these IDs: {ids}", ExitCode.USAGE)


def find_type(calls: Calls, name: str) -> dict[str, Any]:
    """Find an event type by its name. If there is none, raise a CliError that suggests the most similar name."""
    try:
        found: dict[str, Any] = calls.get(f"/v1/event-types/{segment(name)}")
    except CliError as error:
        if error.code is not ExitCode.NOT_FOUND:
            raise
        raise unknown_type(calls, name) from error
    return found


def matching(
    calls: Calls,
    account: str | None = None,
    *,
    endpoint: Sequence[str] | None = None,
    delivery: Sequence[str] | None = None,
    event_type: Sequence[str] | None = None,
    after: str | None = None,
    before: str | None = None,
    **filters: object,
) -> dict[str, Any]:
    """Convert a command's options to the query parameters of a request that lists events, deliveries or attempts.

    Replaces short IDs with full IDs. Raises CliError for an unknown object or event type.
    """
    for name in event_type or ():
        find_type(calls, name)
    return {
        "endpoint": [find(calls, "/v1/endpoints", "endpoint", "ep_", each, account)["id"] for each in endpoint or ()],
        "delivery": [find(calls, "/v1/deliveries", "delivery", "dlv_", each, account)["id"] for each in delivery or ()],
        "type": event_type,
        "created_after": after,
        "created_before": before,
        **filters,
    }


@contextmanager
def known_type(calls: Calls, name: str | None) -> Iterator[None]:
    """If a call in the block fails because of an unknown event type, raise a CliError that suggests a similar type."""
    try:
        yield
    except CallRejected as error:
        if name is None or "event_type_unknown" not in error.fields.values():
            raise
        raise unknown_type(calls, name) from error


def unknown_type(calls: Calls, name: str, *, groups_too: bool = False) -> CliError:
    """Return the error for an unknown event type. With `groups_too`, the error can also suggest a group."""
    nearest = _nearest_type(calls, name, groups_too=groups_too)
    listing = calls.advice.lists["event type"]
    remedy = f"did you mean {nearest}? To list all: {listing}" if nearest else f"to list all: {listing}"
    return CliError(f"there is no event type {name}", remedy, ExitCode.NOT_FOUND)


def _nearest_type(calls: Calls, name: str, *, groups_too: bool) -> str:
    """Return the event type whose name is most similar to `name`, or an empty string if no name is similar.

    Ignore archived event types. With `groups_too`, also compare the names of groups, such as `movement.*`.
    """
    types = calls.items("/v1/event-types", limit=SEARCHED_MAX)
    names = [str(each["name"]) for each in types if not each.get("archived")]
    if groups_too:
        names += sorted(
            {f"{each.rsplit('.', count)[0]}.*" for each in names for count in range(1, each.count(".") + 1)}
        )
    elif name.endswith(".*"):
        # The command accepts event types but no groups, so suggest an event type of the group.
        inside = [each for each in names if each.startswith(name[:-1])]
        if inside:
            return inside[0]
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=_SIMILARITY_LEAST)), "")
