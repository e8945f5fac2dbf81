"""The health of an account in one sentence."""

from uplift_server.core.durations import format_span
from uplift_server.core.operations.fleet import LATE_MS
from uplift_server.core.operations.severity import Severity, of_endpoints
from uplift_server.core.operations.statistics import Statistics
from uplift_server.dashboard import words
from uplift_server.service.endpoint_problems import EndpointProblems


def account_sentence(troubles: EndpointProblems, numbers: Statistics, span: str, *, now: int) -> tuple[str, str]:
    """Return the health of an account at `now` (Unix ms) as a CSS class and a sentence.

    `numbers` contains the statistics for the period `span`, such as `last 24 hours`.
    """
    if not troubles.endpoints:
        return "unknown", "No endpoints yet. Create an endpoint to receive events."
    wrong = []
    if troubles.disabled:
        wrong.append(f"{_of(troubles.disabled, troubles.endpoints)} disabled")
    if troubles.failing:
        wrong.append(f"{_of(troubles.failing, troubles.endpoints)} failing")
    if wrong:
        # Endpoints that operators disabled do not count as broken.
        kind = of_endpoints(troubles.broken, troubles.delivering) if troubles.broken else Severity.ATTENTION
        return kind, f"Action required: {' and '.join(wrong)}.{backlog_sentence(troubles, now)}"
    if troubles.paused == troubles.endpoints:
        return "paused", "All endpoints are paused. The server holds their deliveries until you enable them."
    oldest = troubles.backlog.oldest_due_at
    if oldest is not None and now - oldest > LATE_MS:
        return (
            Severity.ATTENTION,
            f"No endpoints are failing, but deliveries are late.{backlog_sentence(troubles, now)}",
        )
    return _without_problems(troubles, numbers, span)


def backlog_sentence(troubles: EndpointProblems, now: int) -> str:
    """Return a sentence that states the number of pending deliveries, and how long the oldest one has been due.

    The sentence begins with a space. Return an empty string if no delivery is pending.
    """
    pending, oldest = troubles.backlog.pending, troubles.backlog.oldest_due_at
    if not pending:
        return ""
    whole = "1 delivery is pending" if pending == 1 else f"{words.count(pending)} deliveries are pending"
    age = "" if oldest is None else f"; the oldest has been due for {format_span((now - oldest) / 1000)}"
    return f" {whole}{age}."


def _without_problems(troubles: EndpointProblems, numbers: Statistics, span: str) -> tuple[str, str]:
    """Return the CSS class and the sentence for an account that has no failing or disabled endpoints."""
    if count := troubles.holding:
        counted = "1 endpoint has" if count == 1 else f"{words.count(count)} endpoints have"
        return "paused", f"Action required: {counted} held deliveries. Release or drop them."
    if count := len(troubles.shown):
        counted = "1 endpoint" if count == 1 else f"{words.count(count)} endpoints"
        return (
            Severity.OK,
            f"No endpoints are failing. The server is sending or dropping the held deliveries of {counted}.",
        )
    if numbers.failed:
        what = "1 delivery" if numbers.failed == 1 else f"{words.count(numbers.failed)} deliveries"
        return Severity.ATTENTION, f"No endpoints are failing now, but {what} failed in the {span}."
    if numbers.delivered:
        return Severity.OK, f"No endpoints are failing, and no deliveries failed in the {span}."
    return Severity.OK, f"No endpoints are failing. There were no deliveries in the {span}."


def _of(count: int, whole: int) -> str:
    verb = "is" if count == 1 else "are"
    if whole == 1:
        return f"the endpoint {verb}"
    return f"{words.count(count)} of {words.count(whole)} endpoints {verb}"
