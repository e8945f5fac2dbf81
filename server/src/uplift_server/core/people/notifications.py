"""Notices: what people are told by mail, what each kind tells, and how long a mail is tried."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from uplift_server.core.named_codes import NamedCode
from uplift_server.core.people.people import RESET_TTL_MS


class NotificationKind(NamedCode):
    """What a notice is about. The number is what the store keeps."""

    ENDPOINT_WARNED = 0
    ENDPOINT_DISABLED = 1
    ENDPOINT_RECOVERED = 2
    MASS_FAILURE_BEGAN = 3
    MASS_FAILURE_ENDED = 4
    MEMBER_INVITED = 5
    PASSWORD_RESET = 6


class NotificationState(StrEnum):
    """What became of a mail so far."""

    WAITING = "waiting"
    """It is tried, for the first time or once more."""
    SENT = "sent"
    GIVEN_UP = "given_up"


FACTS: Final = {
    NotificationKind.ENDPOINT_WARNED: (
        "endpoint", "url", "description", "account", "failing_since", "failed_attempts", "cause", "remedy", "disable_at"
    ),
    NotificationKind.ENDPOINT_DISABLED: (
        "endpoint", "url", "description", "account", "reason", "failing_since", "failed_attempts", "cause", "remedy"
    ),
    NotificationKind.ENDPOINT_RECOVERED: ("endpoint", "url", "description", "account", "failed_since", "recovered_at"),
    NotificationKind.MASS_FAILURE_BEGAN: ("since", "endpoints", "attempted", "causes"),
    NotificationKind.MASS_FAILURE_ENDED: ("since", "ended_at", "endpoints", "still_failing"),
    NotificationKind.MEMBER_INVITED: ("invitation", "account", "role", "invited_by", "expires_at"),
    NotificationKind.PASSWORD_RESET: ("person", "expires_at", "mark"),
}  # fmt: skip
"""Which facts a notice of each kind carries.

`endpoint` is the public id, `account` its account's name; instants are Unix ms and may be null where unknown; `cause`
and `remedy` are the two sentences of `core.outcomes.Explanation` for the last failed attempt (empty where there is
none); `reason` is the name of a disabled reason; `endpoints`, `attempted` and `still_failing` are counts; `causes` maps
outcome names to how many endpoints fail so; `invitation` and `person` are ids in hexadecimal, `mark` that of the
password to be replaced: the tokens of links follow from these and a key, and stand in no notice.
"""

GIVE_UP_AFTER_MS: Final = 3 * 86_400_000
"""A mail that could not be handed over for so long is given up: what it tells is no news any more."""
EXPIRES_AFTER_MS: Final = {NotificationKind.PASSWORD_RESET: RESET_TTL_MS}
"""Of the kinds whose mails are of no use even sooner."""
_DELAYS_MS: Final = tuple(minutes * 60_000 for minutes in (1, 5, 30, 120, 360, 720))
"""The waits after attempts 1, 2, 3 …; the last one again and again."""


@dataclass(frozen=True, slots=True)
class Notification:
    """A mail that is owed. Instants are Unix ms."""

    seq: int
    id: bytes
    kind: NotificationKind
    recipient: str
    facts: Mapping[str, object]
    created_at: int
    attempts_made: int = 0


def retry_at(attempts_made: int, *, created_at: int, now_ms: int, lasts_ms: int = GIVE_UP_AFTER_MS) -> int | None:
    """When a mail that is of use for so long is tried again, after its latest attempt failed for now (Unix ms).

    None once it is given up.

    The last attempt is made when the time is over, so a mail owed by a server that was long down has one too.
    """
    end = created_at + lasts_ms
    if now_ms >= end:
        return None
    return min(now_ms + _DELAYS_MS[min(attempts_made, len(_DELAYS_MS)) - 1], end)
