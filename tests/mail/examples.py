"""One example of each kind of notification."""

from typing import Any

from uplift_server.core.people.notifications import FACTS, Notification, NotificationKind

AT = 1_764_000_000_000
"""November 24, 2025 at 16:00 UTC."""
DAY = 86_400_000
PUBLIC_URL = "https://hooks.uplift.example"
LINK_KEY = b"l" * 32
ENDPOINT_ID = "ep_0197f0c25b1e7c3a9d5e2f6a8b0c4d1e"

_ENDPOINT = {
    "endpoint": ENDPOINT_ID,
    "url": "https://hooks.rapids.example:8443/uplift/captures?token=geheim#part",
    "description": "Captures of the U17 squad",
    "account": "Rapids Academy",
}
_ERROR = {
    "cause": "Your server responded with 302, a redirect to https://u:pw@login.example/in?next=geheim, and "
    "redirects are not followed.",
    "remedy": "Change the endpoint's URL to that address if it is yours, or respond with 2xx.",
    "response": "Found. Sign in at https://login.example/in",
}
_EXAMPLES: dict[NotificationKind, dict[str, object]] = {
    NotificationKind.ENDPOINT_WARNED: _ENDPOINT
    | _ERROR
    | {"failing_since": AT - 3 * DAY, "failed_attempts": 1234, "disable_at": AT + 2 * DAY},
    NotificationKind.ENDPOINT_DISABLED: _ENDPOINT
    | _ERROR
    | {"failing_since": AT - 5 * DAY, "failed_attempts": 99, "reason": "failing"},
    NotificationKind.ENDPOINT_RECOVERED: _ENDPOINT | {"failed_since": AT - 4 * DAY, "recovered_at": AT},
    NotificationKind.MASS_FAILURE_BEGAN: {
        "since": AT, "endpoints": 412, "attempted": 500, "causes": {"Timeout": 12, "Connection refused": 400},
    },
    NotificationKind.MASS_FAILURE_ENDED: {
        "since": AT, "ended_at": AT + 2 * 3_600_000, "endpoints": 412, "still_failing": 1,
    },
    NotificationKind.MEMBER_INVITED: {
        "invitation": bytes(range(16)).hex(), "account": "Rapids Academy", "role": "manager",
        "invited_by": "Ann <ann@rapids.example>", "expires_at": AT + 7 * DAY,
    },
    NotificationKind.PASSWORD_RESET: {
        "person": bytes(range(16)).hex(), "expires_at": AT + 3_600_000, "mark": "ab" * 32,
    },
    NotificationKind.CERTIFICATE_EXPIRING: _ENDPOINT | {"expires_at": AT + 30 * DAY},
    NotificationKind.SECOND_FACTOR_CHANGED: {"change": "turned_on", "at": AT},
}  # fmt: skip


def example(kind: NotificationKind, *, recipient: str = "coach@rapids.example", **changed: Any) -> Notification:
    """Return a notification of a kind, with changed values."""
    facts = _EXAMPLES[kind] | changed
    assert set(facts) == set(FACTS[kind])
    return Notification(1, bytes(range(16)), kind, recipient, facts, AT)
