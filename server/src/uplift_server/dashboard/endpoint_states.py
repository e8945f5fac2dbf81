"""How an endpoint stands, in words: what is wrong, since when, what to do, and what happens next."""

from dataclasses import dataclass
from typing import Final

from uplift_server.core.deliveries.health import FAILURES_MIN
from uplift_server.core.deliveries.outcomes import Explanation, explain
from uplift_server.core.limits import HELD_COUNTED_MAX
from uplift_server.dashboard.words import count
from uplift_server.service.endpoints import ShownEndpoint
from uplift_server.store.records import DisabledReason, EndpointState, HeldAction

REASON_TEXTS: Final = {
    DisabledReason.FAILING: "It failed for too long.",
    DisabledReason.GONE: "It answered 410 Gone.",
    DisabledReason.OPERATOR: "An operator did it.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing to know: a text, an instant (Unix ms), or both."""

    label: str
    text: str = ""
    at: int | None = None


@dataclass(frozen=True, slots=True)
class StateCard:
    """What stands at the top of an endpoint's page."""

    kind: str
    """`healthy`, `failing`, `warned`, `unknown`, `paused` or `disabled`."""
    word: str
    """The kind for people."""
    title: str
    sentence: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """How an endpoint stands, for a line of a list."""

    kind: str
    """As that of its card."""
    text: str
    reason: str | None
    """Why it is disabled, or fails."""
    held: str


def summary(shown: ShownEndpoint) -> Summary:
    """An endpoint's state for a line of a list."""
    endpoint, held = shown.endpoint, held_text(shown)
    if endpoint.state is EndpointState.DISABLED:
        reason = endpoint.disabled_reason
        return Summary("disabled", "disabled", None if reason is None else REASON_TEXTS[reason], held)
    if endpoint.state is EndpointState.PAUSED:
        return Summary("paused", "paused", None, held)
    found, status = explanation_of(shown), endpoint.health.status
    text = {"unknown": "not tried yet", "warned": "failing, contacts told"}.get(status, status)
    return Summary(status, text, None if found is None else found.cause, held)


def state_card(shown: ShownEndpoint, *, now: int, contacts: int, sends_mail: bool) -> StateCard:
    """The card of an endpoint; `contacts` is how many people are told by mail, if the server sends any."""
    if shown.endpoint.state is EndpointState.PAUSED:
        return _paused(shown)
    if shown.endpoint.state is EndpointState.DISABLED:
        return _disabled(shown)
    if shown.endpoint.failing_since is not None:
        return _failing(shown, now, contacts, sends_mail=sends_mail)
    return _working(shown)


def explanation_of(shown: ShownEndpoint) -> Explanation | None:
    """Why the endpoint fails, where it does."""
    last = shown.last_failure
    if last is None:
        return None
    return explain(last.outcome, status_code=last.status_code, error=last.error, location=last.location)


def held_text(shown: ShownEndpoint) -> str:
    """How many deliveries are held."""
    held = shown.held_deliveries
    if held >= HELD_COUNTED_MAX:
        return f"{count(HELD_COUNTED_MAX)} deliveries or more"
    return f"{count(held)} {'delivery' if held == 1 else 'deliveries'}"


def _working(shown: ShownEndpoint) -> StateCard:
    endpoint = shown.endpoint
    if endpoint.last_success_at is None:
        # Enabling forgets how it answered before.
        since = endpoint.created_at if endpoint.state_since is None else endpoint.state_since
        when = "yet" if endpoint.state_since is None else "since it was enabled"
        return StateCard(
            "unknown",
            "not tried yet",
            f"Nothing that counts was sent to it {when}",
            "It is enabled, and gets the next event it wants. Its greeting and tests do not count.",
            (
                Row("Enabled since", at=since),
                Row("What to do", "Send a test to see whether it answers with 2xx."),
                *_held(shown),
            ),
        )
    rows = [Row("Last 2xx", at=endpoint.last_success_at)]
    if endpoint.last_failure_at is not None:
        rows.append(Row("Last failure", at=endpoint.last_failure_at))
    return StateCard(
        "healthy", "healthy", "It works", "The last attempt was answered with 2xx.", (*rows, *_held(shown))
    )


def _failing(shown: ShownEndpoint, now: int, contacts: int, *, sends_mail: bool) -> StateCard:
    endpoint = shown.endpoint
    failures = endpoint.consecutive_failures
    rows = [Row("Failing since", at=endpoint.failing_since), *_why(shown)]
    if shown.disable_at is None:
        rows.append(
            Row(
                "What happens next",
                "Many endpoints fail at once, which is seldom the fault of their owners: until that ends, nobody is"
                " warned and no endpoint is disabled. Attempts go on.",
            )
        )
    else:
        rows.append(Row("What happens next", "Every delivery is tried again as its schedule says; nothing is lost."))
        if shown.warn_at is not None:
            rows.append(_warning(shown.warn_at, failures, now, contacts, sends_mail=sends_mail))
        elif endpoint.health.warned:
            rows.append(Row("Contacts were told", at=endpoint.warned_at))
        rows.append(Row("Will be disabled", "unless an attempt succeeds before", at=shown.disable_at))
    if shown.next_probe_at is not None:
        text = (
            "one delivery is tried; meanwhile the others wait, and spend no attempts."
            " Once your server works, resend one: if it is taken, the others follow at once"
        )
        rows.append(Row("Next probe", text, at=max(now, shown.next_probe_at)))
    rows.append(Row("Last 2xx", "never" if endpoint.last_success_at is None else "", at=endpoint.last_success_at))
    tries = "The last attempt failed." if failures == 1 else f"The last {count(failures)} attempts failed."
    kind = "warned" if endpoint.health.warned else "failing"
    return StateCard(kind, "failing", "It fails", tries, (*rows, *_held(shown)))


def _warning(warn_at: int, failures: int, now: int, contacts: int, *, sends_mail: bool) -> Row:
    if not sends_mail:
        told = "here and in the audit log: this server sends no mail"
    elif contacts == 0:
        told = "nobody: the account has no contacts, see Settings"
    else:
        told = f"{contacts} contact{'' if contacts == 1 else 's'} by mail"
    if warn_at <= now and failures < FAILURES_MIN:
        return Row("Contacts are told", f"{told}; with the failed attempt number {FAILURES_MIN}")
    return Row("Contacts are told", told, at=warn_at)


def _paused(shown: ShownEndpoint) -> StateCard:
    return StateCard(
        "paused",
        "paused",
        "It is paused",
        "Nothing is sent to it. What is due to it is held, and nothing is lost.",
        (
            Row("Paused since", at=shown.endpoint.state_since),
            Row("What to do", "Enable it, and choose what becomes of what it holds."),
            *_held(shown),
        ),
    )


_DISABLED: Final = {
    DisabledReason.FAILING: "It failed for so long that we switched it off.",
    DisabledReason.GONE: "Your server answered 410 Gone, which says that this address will not come back.",
    DisabledReason.OPERATOR: "An operator of this service switched it off.",
    None: "It was switched off.",
}


def _disabled(shown: ShownEndpoint) -> StateCard:
    endpoint = shown.endpoint
    rows = [Row("Disabled since", at=endpoint.state_since)]
    if endpoint.failing_since is not None:
        rows.append(Row("Had failed since", at=endpoint.failing_since))
    rows.extend(_why(shown))
    if endpoint.disabled_reason is DisabledReason.OPERATOR:
        rows.append(Row("What to do", "Ask the operator why, and whether you may enable it."))
    rows.append(
        Row(
            "What happens next",
            "Nothing is sent; what is due to it is held, and nothing is lost. Send a test, which works in this state"
            " too, then enable it.",
        )
    )
    sentence = _DISABLED[endpoint.disabled_reason]
    return StateCard("disabled", "disabled", "It is disabled", sentence, (*rows, *_held(shown)))


def _why(shown: ShownEndpoint) -> list[Row]:
    found = explanation_of(shown)
    return [] if found is None else [Row("What is wrong", found.cause), Row("What to do", found.remedy)]


def _held(shown: ShownEndpoint) -> list[Row]:
    if shown.held_deliveries == 0:
        return []
    if shown.endpoint.state is not EndpointState.ENABLED:
        return [Row("Held", held_text(shown))]
    becomes = {
        HeldAction.KEEP: "kept until you enable it again, with another choice",
        HeldAction.DROP: "being dropped",
    }.get(shown.endpoint.held_action or HeldAction.SEND, "being sent, in the order of acceptance")
    return [Row("Held", f"{held_text(shown)}, {becomes}")]
