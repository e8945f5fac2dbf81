"""How an account fares, in one sentence."""

from uplift_server.core.operations.statistics import Statistics
from uplift_server.dashboard import words
from uplift_server.service.endpoint_problems import EndpointProblems


def account_sentence(troubles: EndpointProblems, numbers: Statistics, span: str) -> tuple[str, str]:
    """How an account fares: a class for its colour, and one sentence.

    `numbers` are of the time that `span` names, such as `the last 24 hours`.
    """
    if not troubles.endpoints:
        return "unknown", "Nobody is told of anything yet: this account has no endpoint."
    wrong = []
    if troubles.disabled:
        wrong.append(f"{_of(troubles.disabled, troubles.endpoints)} disabled and get{_s(troubles.disabled)} nothing")
    if troubles.failing:
        wrong.append(f"{_of(troubles.failing, troubles.endpoints)} failing")
    if wrong:
        kind = "disabled" if troubles.disabled else "failing"
        return kind, f"Something needs you: {', and '.join(wrong)}."
    if troubles.paused == troubles.endpoints:
        return "paused", "Every endpoint is paused: what comes is held until one is enabled."
    return _of_what_works(troubles, numbers, span)


def _of_what_works(troubles: EndpointProblems, numbers: Statistics, span: str) -> tuple[str, str]:
    """Of an account whose endpoints answer."""
    if troubles.shown:
        count = len(troubles.shown)
        return "paused", f"No endpoint fails, but {count} hold{_s(count)} deliveries until somebody decides about them."
    if numbers.failed:
        what = "1 delivery" if numbers.failed == 1 else f"{words.count(numbers.failed)} deliveries"
        return "warned", f"No endpoint fails now, but {what} of {span} came to nothing for good."
    if numbers.delivered:
        return "healthy", f"All is well: whatever was to be delivered in {span} was, or is on its way."
    return "healthy", f"All is well: no endpoint fails. Nothing was delivered in {span}."


def _of(count: int, whole: int) -> str:
    verb = "is" if count == 1 else "are"
    if whole == 1:
        return f"the endpoint {verb}"
    return f"{words.count(count)} of {words.count(whole)} endpoints {verb}"


def _s(count: int) -> str:
    return "s" if count == 1 else ""
