"""Email notifications: their kinds, the values in their texts, and the retry schedule."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from uplift_server.core.named_codes import NamedCode
from uplift_server.core.people.people import RESET_TTL_MS


class NotificationKind(NamedCode):
    """The kind of a notification. The database stores it as a number."""

    ENDPOINT_WARNED = 0
    ENDPOINT_DISABLED = 1
    ENDPOINT_RECOVERED = 2
    MASS_FAILURE_BEGAN = 3
    MASS_FAILURE_ENDED = 4
    MEMBER_INVITED = 5
    PASSWORD_RESET = 6
    CERTIFICATE_EXPIRING = 7
    SECOND_FACTOR_CHANGED = 8


class SecondFactorChange(StrEnum):
    """The change to a second factor that an email reports."""

    TURNED_ON = "turned_on"
    TURNED_OFF = "turned_off"
    RESET = "reset"
    """An operator turned off the person's second factor."""
    RECOVERY_CODE_USED = "recovery_code_used"


class NotificationState(StrEnum):
    """The state of an email in the table of emails to send (the outbox)."""

    WAITING = "waiting"
    """The server has not sent the email yet, but continues to try."""
    SENT = "sent"
    GIVEN_UP = "given_up"


FACTS: Final = {
    NotificationKind.ENDPOINT_WARNED: (
        "endpoint", "url", "description", "account", "failing_since", "failed_attempts", "cause", "remedy", "response",
        "disable_at"
    ),
    NotificationKind.ENDPOINT_DISABLED: (
        "endpoint", "url", "description", "account", "reason", "failing_since", "failed_attempts", "cause", "remedy",
        "response"
    ),
    NotificationKind.ENDPOINT_RECOVERED: ("endpoint", "url", "description", "account", "failed_since", "recovered_at"),
    NotificationKind.MASS_FAILURE_BEGAN: ("since", "endpoints", "attempted", "causes"),
    NotificationKind.MASS_FAILURE_ENDED: ("since", "ended_at", "endpoints", "still_failing"),
    NotificationKind.MEMBER_INVITED: ("invitation", "account", "role", "invited_by", "expires_at"),
    NotificationKind.PASSWORD_RESET: ("person", "expires_at", "mark"),
    NotificationKind.CERTIFICATE_EXPIRING: ("endpoint", "url", "description", "account", "expires_at"),
    NotificationKind.SECOND_FACTOR_CHANGED: ("change", "at"),
}  # fmt: skip
"""The names of the values in each kind of notification. Times are Unix ms, or null if unknown.

* `endpoint` is the public ID, and `account` is the name of the account.
* `cause` and `remedy` are the sentences from `Explanation` for the last failed attempt, or empty strings.
* `response` is the first line of that attempt's response body, or an empty string.
* `reason` is the code that states why the endpoint is disabled.
* `endpoints`, `attempted` and `still_failing` are counts.
* `causes` maps titles of causes to numbers of endpoints.
* `invitation` and `person` are IDs in hexadecimal.
* `mark` is the fingerprint of the password to replace. The token in the link is derived from the fingerprint and a key.
* `change` is a SecondFactorChange.

An email about several endpoints has the values of the first endpoint. `others` has the values of up to OTHERS_MAX
other endpoints, and `more` is the number of endpoints beyond them.
"""
CONTENT_FACTS: Final = ("cause", "remedy", "response")
"""The names of the values that can quote a response. The erasure of an event also erases these values."""
OTHERS_MAX: Final = 200


def with_endpoint(facts: Mapping[str, object], endpoint: Mapping[str, object]) -> dict[str, object]:
    """Return the values for the text of an email (`facts`), with another endpoint added to them.

    If the email already lists OTHERS_MAX other endpoints, only the number of further endpoints increases.
    """
    others, more = facts.get("others"), facts.get("more")
    listed = list(others) if isinstance(others, list) else []
    if len(listed) < OTHERS_MAX:
        return {**facts, "others": [*listed, dict(endpoint)]}
    return {**facts, "more": (more if isinstance(more, int) else 0) + 1}


def without_endpoint(facts: Mapping[str, object], endpoint: str) -> dict[str, object] | None:
    """Return the values for the text of an email (`facts`) without an endpoint (a public ID).

    Return None if the email is about no other endpoint. If it lists no other endpoint, but counts further ones, return
    the values unchanged.
    """
    others = facts.get("others")
    listed = [{name: facts[name] for name in facts if name != "others"}, *(others if isinstance(others, list) else [])]
    left = [each for each in listed if each["endpoint"] != endpoint]
    if not left:
        return dict(facts) if "more" in facts else None
    return {**left[0], "others": left[1:]} | ({"more": facts["more"]} if "more" in facts else {})


def endpoint_count(facts: Mapping[str, object]) -> int:
    """Return the number of endpoints that an email is about."""
    others, more = facts.get("others"), facts.get("more")
    return 1 + (len(others) if isinstance(others, list) else 0) + (more if isinstance(more, int) else 0)


GIVE_UP_AFTER_MS: Final = 3 * 86_400_000
"""Maximum time between the creation of an email and its last attempt, in ms."""
EXPIRES_AFTER_MS: Final = {NotificationKind.PASSWORD_RESET: RESET_TTL_MS}
"""For kinds of email that become useless before GIVE_UP_AFTER_MS: the maximum time between the creation of an email and
its last attempt, in ms."""
_DELAYS_MS: Final = tuple(minutes * 60_000 for minutes in (1, 5, 30, 120, 360, 720))
"""The waits in ms after attempts 1, 2, 3 and so on to send an email. The last wait is repeated."""


@dataclass(frozen=True, slots=True)
class Notification:
    """An email to send. Times are Unix ms."""

    seq: int
    id: bytes
    kind: NotificationKind
    recipient: str
    facts: Mapping[str, object]
    created_at: int
    attempts_made: int = 0


LATE_AFTER_MS: Final = 300_000
"""A warning is late if the server sends it more than this time after its creation, in ms."""


def at_sending(notification: Notification, now_ms: int) -> Notification:
    """Return an email as the server sends it at `now_ms` (Unix ms).

    If the email is a late warning, move the time when the server will disable the endpoints. Then the warning still
    gives the full time between warning and disabling.
    """
    facts = notification.facts
    disable_at, others = facts.get("disable_at"), facts.get("others")
    if not isinstance(disable_at, int) or now_ms <= notification.created_at + LATE_AFTER_MS:
        return notification
    later = {"disable_at": now_ms + disable_at - notification.created_at}
    listed = [{**each, **later} for each in others] if isinstance(others, list) else []
    return replace(notification, facts={**facts, **later, "others": listed})


def retry_at(
    attempts_made: int, *, created_at: int, now_ms: int, expires_after_ms: int = GIVE_UP_AFTER_MS
) -> int | None:
    """Return the time (Unix ms) at which to retry an email after a temporary failure, or None if the server gives up.

    The last attempt is due `expires_after_ms` after `created_at`. Server downtime can delay an attempt that is due, but
    does not cancel it.
    """
    end = created_at + expires_after_ms
    if now_ms >= end:
        return None
    return min(now_ms + _DELAYS_MS[min(attempts_made, len(_DELAYS_MS)) - 1], end)
