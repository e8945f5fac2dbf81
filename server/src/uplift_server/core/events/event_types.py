"""Names of event types, and the patterns of subscriptions."""

import re
from typing import Final

from uplift_server.core.limits import EVENT_TYPE_NAME_CHARACTERS_MAX
from uplift_server.core.problems import Problem

GROUP_SUFFIX: Final = ".*"
"""The suffix of a pattern that matches all types of a group, at any depth."""

_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


def check_name(text: str, field: str = "type") -> Problem | None:
    """Return the problem with the name of an event type, if any."""
    if len(text) > EVENT_TYPE_NAME_CHARACTERS_MAX:
        return Problem(
            field,
            "event_type_invalid",
            f"The event type has {len(text)} characters. Use at most {EVENT_TYPE_NAME_CHARACTERS_MAX}.",
        )
    if not _NAME.fullmatch(text):
        return Problem(
            field,
            "event_type_invalid",
            "The event type is not valid. Use words of a-z, 0-9 and _, separated by dots, such as "
            "movement.analytics.created.",
        )
    return None


def check_pattern(text: str, field: str = "event_types") -> Problem | None:
    """Return the problem with an entry of a subscription (an exact name or `group.*`), if any."""
    if text == "*":
        return Problem(field, "event_type_invalid", "* alone is not a pattern. Use an empty list for all event types.")
    problem = check_name(text.removesuffix(GROUP_SUFFIX), field)
    if problem is not None and text.removesuffix(GROUP_SUFFIX).count("*"):
        return Problem(
            field, "event_type_invalid", "* is allowed only at the end, after a dot. Use the form movement.analytics.*."
        )
    return problem
