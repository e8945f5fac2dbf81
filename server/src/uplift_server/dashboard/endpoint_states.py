"""The state of an endpoint as text: its problem, when the problem began, how to fix it, and what happens next."""

from dataclasses import dataclass
from typing import Final

from uplift_server.core.deliveries.causes import cause_of
from uplift_server.core.deliveries.health import FAILURES_MIN
from uplift_server.core.limits import HELD_COUNTED_MAX
from uplift_server.dashboard.words import count
from uplift_server.service.endpoints import ShownEndpoint
from uplift_server.store.records import DisabledReason, EndpointState, HeldAction

REASON_TEXTS: Final = {
    DisabledReason.FAILING: "Failing for too long.",
    DisabledReason.GONE: "Responded with 410 Gone.",
    DisabledReason.OPERATOR: "Disabled by an operator.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a state card: text, a timestamp (Unix ms), or both."""

    label: str
    text: str = ""
    at: int | None = None


@dataclass(frozen=True, slots=True)
class StateCard:
    """The state of an endpoint in detail, for the endpoint's page."""

    kind: str
    """The state: `healthy`, `failing`, `warned`, `unknown`, `paused` or `disabled`."""
    word: str
    """The label of the state, in one or two words."""
    title: str
    sentence: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ProblemCard:
    """The short form of the state card, for an endpoint that has a problem."""

    state: "Summary"
    sentence: str
    how_to_fix: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """The state of an endpoint in a table row."""

    kind: str
    """The state. `StateCard.kind` lists the possible states."""
    text: str
    reason: str | None
    """The reason why the endpoint is disabled or failing."""
    held: str | None
    """The number of held deliveries as text, or None if there are no held deliveries."""


def summary(shown: ShownEndpoint) -> Summary:
    """Return the state of an endpoint for a table row."""
    endpoint = shown.endpoint
    held = f"{held_text(shown)} held" if shown.held_deliveries else None
    if endpoint.state is EndpointState.DISABLED:
        reason = endpoint.disabled_reason
        return Summary("disabled", "disabled", None if reason is None else REASON_TEXTS[reason], held)
    if endpoint.state is EndpointState.PAUSED:
        return Summary("paused", "paused", None, held)
    found, status = cause_of(endpoint.health), endpoint.health.status
    text = {"unknown": "no attempts yet"}.get(status, status)
    return Summary(status, text, None if found is None else found.title, held)


def state_card(shown: ShownEndpoint, *, now: int, contacts: int, sends_mail: bool) -> StateCard:
    """Return the state card of an endpoint at `now` (Unix ms).

    `contacts` is the number of contacts that receive emails.
    """
    if shown.endpoint.state is EndpointState.PAUSED:
        return _paused(shown)
    if shown.endpoint.state is EndpointState.DISABLED:
        return _disabled(shown)
    if shown.endpoint.failing_since is not None:
        return _failing(shown, now, contacts, sends_mail=sends_mail)
    return _working(shown)


def problem_card(shown: ShownEndpoint, *, now: int) -> ProblemCard:
    """Return the problem card of an endpoint that is failing, disabled or paused, or that has held deliveries."""
    endpoint, found = shown.endpoint, cause_of(shown.endpoint.health)
    fix = "" if found is None else found.remedy
    rows = []
    if endpoint.state is EndpointState.DISABLED:
        sentence = _DISABLED[endpoint.disabled_reason]
        fix = "" if found is None else found.hint
        rows.append(Row("Disabled since", at=endpoint.state_since))
    elif endpoint.state is EndpointState.PAUSED:
        sentence, fix = "The server holds this endpoint's deliveries.", ""
        rows.append(Row("Paused since", at=endpoint.state_since))
    elif endpoint.failing_since is None:
        sentence = "The endpoint has held deliveries."
    else:
        sentence = _tries(endpoint.consecutive_failures) if found is None else found.cause
    if endpoint.failing_since is not None:
        rows.append(Row("Failing since", at=endpoint.failing_since))
    if shown.backlog.pending:
        rows.append(Row("Pending", _deliveries(shown.backlog.pending)))
    if shown.backlog.oldest_due_at is not None:
        rows.append(Row("Oldest due", at=shown.backlog.oldest_due_at))
    if shown.next_probe_at is not None:
        rows.append(Row("Next attempt", at=max(now, shown.next_probe_at)))
    if shown.disable_at is not None:
        rows.append(Row("Will be disabled", at=shown.disable_at))
    elif endpoint.state is EndpointState.ENABLED and endpoint.failing_since is not None:
        rows.append(Row("Will be disabled", "not during the mass failure"))
    return ProblemCard(summary(shown), sentence, fix, (*rows, *_held(shown)))


def held_text(shown: ShownEndpoint) -> str:
    """Return the number of held deliveries as text."""
    held = shown.held_deliveries
    if held >= HELD_COUNTED_MAX:
        return f"{count(HELD_COUNTED_MAX)} or more deliveries"
    return _deliveries(held)


def _working(shown: ShownEndpoint) -> StateCard:
    endpoint = shown.endpoint
    if endpoint.last_success_at is None:
        # Start when the endpoint was created or last enabled, because enabling an endpoint resets its health.
        since = endpoint.created_at if endpoint.state_since is None else endpoint.state_since
        title = "No attempts yet" if endpoint.state_since is None else "No attempts since the endpoint was enabled"
        return StateCard(
            "unknown",
            "no attempts yet",
            title,
            "The endpoint receives the next matching event. Registration and test events do not count as attempts.",
            (
                Row("Enabled since", at=since),
                Row("How to check", "Send a test event. The endpoint must respond with 2xx."),
                *_held(shown),
            ),
        )
    rows = [Row("Last 2xx response", at=endpoint.last_success_at)]
    if endpoint.last_failure_at is not None:
        rows.append(Row("Last failure", at=endpoint.last_failure_at))
    return StateCard(
        "healthy",
        "healthy",
        "Healthy",
        "The endpoint responded to the last attempt with 2xx.",
        (*rows, *_pending(shown), *_held(shown)),
    )


def _failing(shown: ShownEndpoint, now: int, contacts: int, *, sends_mail: bool) -> StateCard:
    endpoint = shown.endpoint
    failures = endpoint.consecutive_failures
    rows = [Row("Failing since", at=endpoint.failing_since), *_why(shown), *_pending(shown)]
    if shown.disable_at is None:
        rows.append(
            Row(
                "Retries",
                "Many endpoints are failing at once (mass failure). Retries continue. The server does not warn"
                " about or disable endpoints until the mass failure ends.",
            )
        )
    else:
        rows.append(Row("Retries", "The server retries each delivery according to its retry schedule."))
        if shown.warn_at is not None:
            rows.append(_warning(shown.warn_at, failures, now, contacts, sends_mail=sends_mail))
        elif endpoint.health.warned:
            rows.append(Row("Contacts warned", at=endpoint.warned_at))
        rows.append(Row("Will be disabled", "unless an attempt succeeds first", at=shown.disable_at))
    if shown.next_probe_at is not None:
        text = (
            "with one delivery. Other deliveries wait and keep their remaining attempts."
            " To continue immediately, fix your server and resend one delivery."
        )
        rows.append(Row("Next probe", text, at=max(now, shown.next_probe_at)))
    rows.append(
        Row("Last 2xx response", "Never" if endpoint.last_success_at is None else "", at=endpoint.last_success_at)
    )
    kind = "warned" if endpoint.health.warned else "failing"
    return StateCard(kind, kind, "Failing", _tries(failures), (*rows, *_held(shown)))


def _tries(failures: int) -> str:
    return "The last attempt failed." if failures == 1 else f"The last {count(failures)} attempts failed."


def _deliveries(number: int) -> str:
    return f"{count(number)} {'delivery' if number == 1 else 'deliveries'}"


def _pending(shown: ShownEndpoint) -> tuple[Row, ...]:
    """Return the rows of the state card about pending deliveries: their number, and the due time of the oldest one."""
    pending, oldest = shown.backlog.pending, shown.backlog.oldest_due_at
    if not pending:
        return ()
    row = Row("Pending", _deliveries(pending))
    return (row,) if oldest is None else (row, Row("Oldest due since", at=oldest))


def _warning(warn_at: int, failures: int, now: int, contacts: int, *, sends_mail: bool) -> Row:
    if not sends_mail:
        recipients = "only in the dashboard and the audit log, because email is not configured on this server"
    elif contacts == 0:
        recipients = (
            "only in the dashboard and the audit log, because the account has no contacts. Add contacts in Settings."
        )
    else:
        recipients = f"email to {contacts} contact{'' if contacts == 1 else 's'}"
    if warn_at <= now and failures < FAILURES_MIN:
        return Row("Warning", f"after {FAILURES_MIN} failed attempts, {recipients}")
    return Row("Warning", recipients, at=warn_at)


def _paused(shown: ShownEndpoint) -> StateCard:
    return StateCard(
        "paused",
        "paused",
        "Paused",
        "The server holds this endpoint's deliveries.",
        (
            Row("Paused since", at=shown.endpoint.state_since),
            Row("How to resume", "Enable the endpoint and choose whether to send, keep or drop held deliveries."),
            *_held(shown),
        ),
    )


_DISABLED: Final = {
    DisabledReason.FAILING: "Uplift Webhooks disabled the endpoint because it had been failing for too long.",
    DisabledReason.GONE: "Uplift Webhooks disabled the endpoint because your server responded with 410 Gone.",
    DisabledReason.OPERATOR: "An operator of this service disabled the endpoint.",
    None: "The endpoint was disabled.",
}


def _disabled(shown: ShownEndpoint) -> StateCard:
    endpoint = shown.endpoint
    rows = [Row("Disabled since", at=endpoint.state_since)]
    if endpoint.failing_since is not None:
        rows.append(Row("Failing since", at=endpoint.failing_since))
    rows.extend(_why(shown))
    if endpoint.disabled_reason is DisabledReason.OPERATOR:
        rows.append(Row("Disabled by", "An operator. Ask the operator before you enable the endpoint."))
    rows.append(
        Row(
            "Next step",
            "The server holds this endpoint's deliveries. Send a test event, and enable the endpoint when your"
            " server responds with 2xx.",
        )
    )
    sentence = _DISABLED[endpoint.disabled_reason]
    return StateCard("disabled", "disabled", "Disabled", sentence, (*rows, *_held(shown)))


def _why(shown: ShownEndpoint) -> list[Row]:
    health = shown.endpoint.health
    found = cause_of(health)
    if found is None:
        return []
    label = "Last error" if health.last_response is None else "Response"
    error = [Row(label, health.last_error)] if health.last_error else []
    return [Row("Cause", found.cause), *error, Row("How to fix", found.remedy)]


def _held(shown: ShownEndpoint) -> list[Row]:
    if shown.held_deliveries == 0:
        return []
    if shown.endpoint.state is not EndpointState.ENABLED:
        return [Row("Held", held_text(shown))]
    progress = {
        HeldAction.KEEP: "kept until you release or drop them",
        HeldAction.DROP: "being dropped",
    }.get(shown.endpoint.held_action or HeldAction.SEND, "being sent, oldest first")
    return [Row("Held", f"{held_text(shown)}, {progress}")]
