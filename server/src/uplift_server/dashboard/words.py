"""The text that pages show for outcomes, triggers, explanations, and reasons for waiting."""

from collections.abc import Mapping
from datetime import UTC, datetime
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
    Trigger.SCHEDULE: "Scheduled",
    Trigger.RESEND: "Resend",
    Trigger.REPLAY: "Replay",
    Trigger.TEST: "Test event",
}
REASONS: Final[Mapping[Reason, str]] = {
    Reason.PENDING: "Pending",
    Reason.DELIVERED: "Delivered",
    Reason.FAILED: "Failed",
    Reason.HELD: "Held",
    Reason.CANCELLED: "Cancelled",
    Reason.EXPIRED: "Expired",
    Reason.NOT_SUBSCRIBED: "Not subscribed",
    Reason.FILTERED: "Filtered",
    Reason.ENDPOINT_NEWER: "Endpoint created later",
    Reason.ENDPOINT_DELETED: "Endpoint deleted",
    Reason.DEVELOPMENT_ENDPOINT: "Listen session",
}
WAITS: Final[Mapping[WaitingFor, str]] = {
    WaitingFor.SCHEDULE: "Waiting for its scheduled time",
    WaitingFor.PROBE: "Waiting for the next probe, because the endpoint's circuit breaker is open",
    WaitingFor.ORDER: "Waiting for another delivery, to keep the order",
    WaitingFor.TURN: "Waiting for earlier deliveries",
    WaitingFor.WORKER: "In flight, or queued in a worker",
}
REPLAY_WAITS: Final[Mapping[Wait, str]] = {
    "counting": "The server is counting the deliveries.",
    "endpoint_paused": "Waiting: the endpoint is paused. The replay continues when you enable the endpoint.",
    "endpoint_disabled": "Waiting: the endpoint is disabled. The replay continues when you enable the endpoint.",
    "endpoint_failing": "Waiting: the circuit breaker is open. The replay continues after a successful probe.",
}


def day(ms: int) -> str:
    """Format the date of a timestamp (Unix ms), in UTC: `Nov 29`."""
    at = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{at:%b} {at.day}"


def count(number: float) -> str:
    """Format a number with thousands separators."""
    whole = number == int(number)
    return f"{number:,.0f}" if whole else f"{number:,g}"
