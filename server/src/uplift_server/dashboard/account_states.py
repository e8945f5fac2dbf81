"""How an account fares, in one sentence."""

from uplift_server.service.troubles import Troubles


def account_sentence(troubles: Troubles) -> tuple[str, str]:
    """How an account fares: a class for its colour, and one sentence."""
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
    if troubles.shown:
        count = len(troubles.shown)
        return "warned", f"No endpoint fails, but {count} hold{_s(count)} deliveries until somebody decides about them."
    return "healthy", "All is well: no endpoint fails."


def _of(count: int, whole: int) -> str:
    verb = "is" if count == 1 else "are"
    if whole == 1:
        return f"the endpoint {verb}"
    return f"{count:,} of {whole:,} endpoints {verb}"


def _s(count: int) -> str:
    return "s" if count == 1 else ""
