"""The health of an account in one sentence."""

from uplift_server.core.operations.statistics import Statistics
from uplift_server.dashboard import words
from uplift_server.service.endpoint_problems import EndpointProblems


def account_sentence(troubles: EndpointProblems, numbers: Statistics, span: str) -> tuple[str, str]:
    """Return the health of an account: a CSS class and a sentence.

    `numbers` are the statistics of the period `span`, such as `last 24 hours`.
    """
    if not troubles.endpoints:
        return "unknown", "No endpoints yet. Create an endpoint to receive events."
    wrong = []
    if troubles.disabled:
        wrong.append(f"{_of(troubles.disabled, troubles.endpoints)} disabled")
    if troubles.failing:
        wrong.append(f"{_of(troubles.failing, troubles.endpoints)} failing")
    if wrong:
        kind = "disabled" if troubles.disabled else "failing"
        return kind, f"Action required: {' and '.join(wrong)}."
    if troubles.paused == troubles.endpoints:
        return "paused", "All endpoints are paused. The server holds their deliveries until you enable them."
    return _without_problems(troubles, numbers, span)


def _without_problems(troubles: EndpointProblems, numbers: Statistics, span: str) -> tuple[str, str]:
    """Return the health of an account without failing or disabled endpoints."""
    if troubles.shown:
        count = len(troubles.shown)
        counted = "1 endpoint has" if count == 1 else f"{words.count(count)} endpoints have"
        return "paused", f"Action required: {counted} held deliveries. Release or drop them."
    if numbers.failed:
        what = "1 delivery" if numbers.failed == 1 else f"{words.count(numbers.failed)} deliveries"
        return "warned", f"No endpoints are failing now, but {what} failed in the {span}."
    if numbers.delivered:
        return "healthy", f"All endpoints are healthy. No deliveries failed in the {span}."
    return "healthy", f"No endpoints are failing. There were no deliveries in the {span}."


def _of(count: int, whole: int) -> str:
    verb = "is" if count == 1 else "are"
    if whole == 1:
        return f"the endpoint {verb}"
    return f"{words.count(count)} of {words.count(whole)} endpoints {verb}"
