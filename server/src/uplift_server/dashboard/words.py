"""What pages call the things that the store knows by number."""

from collections.abc import Mapping
from typing import Final

from uplift_server.core.deliveries.explanations import Reason
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.replays import Wait
from uplift_server.core.lifecycle import Trigger
from uplift_server.core.scheduling.waiting import WaitingFor

OUTCOMES: Final[Mapping[Outcome, str]] = {
    Outcome.DELIVERED: "Delivered",
    Outcome.REDIRECT: "Redirect",
    Outcome.CLIENT_ERROR: "Client error",
    Outcome.SERVER_ERROR: "Server error",
    Outcome.THROTTLED: "Throttled",
    Outcome.TIMEOUT: "Timeout",
    Outcome.DNS_ERROR: "DNS error",
    Outcome.CONNECT_ERROR: "Connect error",
    Outcome.TLS_ERROR: "TLS error",
    Outcome.PROTOCOL_ERROR: "Protocol error",
    Outcome.BLOCKED: "Blocked",
}
TRIGGERS: Final[Mapping[Trigger, str]] = {
    Trigger.SCHEDULE: "by the schedule",
    Trigger.RESEND: "resent",
    Trigger.REPLAY: "by a replay",
    Trigger.TEST: "a test",
}
REASONS: Final[Mapping[Reason, str]] = {
    Reason.PENDING: "Pending",
    Reason.DELIVERED: "Delivered",
    Reason.FAILED: "Failed",
    Reason.HELD: "Held",
    Reason.CANCELLED: "Cancelled",
    Reason.EXPIRED: "Expired",
    Reason.NOT_SUBSCRIBED: "Not subscribed",
    Reason.ENDPOINT_NEWER: "Registered later",
    Reason.ENDPOINT_DELETED: "Endpoint deleted",
    Reason.DEVELOPMENT_ENDPOINT: "Listen session",
}
WAITS: Final[Mapping[WaitingFor, str]] = {
    WaitingFor.SCHEDULE: "its instant in the schedule",
    WaitingFor.PROBE: "the next probe of its endpoint, which fails so often that it is only probed",
    WaitingFor.TURN: "its turn",
    WaitingFor.WORKER: "the worker that has it in hand, which does not say whether an attempt is in flight",
}
REPLAY_WAITS: Final[Mapping[Wait, str]] = {
    "counting": "It is counting what there is to send.",
    "endpoint_paused": "It waits: its endpoint is paused. It goes on once the endpoint is enabled.",
    "endpoint_disabled": "It waits: its endpoint is disabled. It goes on once the endpoint is enabled.",
    "endpoint_failing": "It waits: its endpoint fails so often that it is only probed. A probe ends that.",
}


def count(number: float) -> str:
    """A number with its thousands apart, the same wherever one is shown."""
    whole = number == int(number)
    return (f"{number:,.0f}" if whole else f"{number:,g}").replace(",", "\u202f")
