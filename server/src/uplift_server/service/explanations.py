"""Why an event did or did not reach each endpoint of its account."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from uplift_server.core import ids
from uplift_server.core.catalog import WEBHOOK_CREATED
from uplift_server.core.explanations import TheDelivery, TheEndpoint, TheEvent, Why, why, why_listened
from uplift_server.core.limits import ENDPOINTS_PER_ACCOUNT_MAX
from uplift_server.core.listening import SESSIONS_PER_ACCOUNT_MAX
from uplift_server.core.outcomes import Explanation, Outcome, explain
from uplift_server.core.problems import Problem
from uplift_server.core.scopes import Scope
from uplift_server.service.events import find_event
from uplift_server.service.means import Means
from uplift_server.service.principals import Caller
from uplift_server.service.refusals import refuse
from uplift_server.service.waits import ShownDelivery, shown
from uplift_server.store import deliveries, listening, trials
from uplift_server.store.contract import Transaction
from uplift_server.store.listening import ListenSession
from uplift_server.store.records import Attempt, Delivery, Endpoint, Event

DELIVERIES_MAX: Final = 2 * ENDPOINTS_PER_ACCOUNT_MAX
"""How many deliveries of one event are looked at: those to endpoints that exist, and as many to deleted ones."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What became of an event at one endpoint."""

    endpoint: str
    """The id of the endpoint, or of a listen session."""
    why: Why
    delivery: Delivery | None


class Explanations:
    """Answers to "why not?"."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def of_event(
        self, caller: Caller, event: str, endpoint: str | None, *, problems: Sequence[Problem] = ()
    ) -> list[Explained]:
        """For every endpoint of the event's account, or one; the newest first. Raises as `Events.get` does."""
        caller.require(Scope.DELIVERIES_READ)
        found = await find_event(self._means, caller, event)
        refuse(problems)
        owed, failures, is_trial, sessions = await self._means.database.read(lambda c: _read(c, found))
        by_endpoint = {each.delivery.endpoint_seq: each for each in shown(self._means, owed)}
        for_one = is_trial or found.type == WEBHOOK_CREATED
        about = TheEvent(found.type, found.created_at, found.expires_at, for_one, is_trial)
        live = {each.seq: each.record for each in self._means.directory.endpoints_of(found.account_seq)}
        explained = [
            self._explained(about, live.get(seq), by_endpoint.get(seq), failures.get(seq))
            for seq in sorted({*live, *by_endpoint}, reverse=True)
        ]
        explained += [
            Explained(ids.prefixed(ids.LISTEN_SESSION, session.id), why_listened(session.description), None)
            for session in sessions
        ]
        if endpoint is None:
            return explained
        one = [each for each in explained if each.endpoint == endpoint]
        if not one:
            text = "The event's account has no such endpoint. List its endpoints."
            refuse([Problem("endpoint", "endpoint_unknown", text)])
        return one

    def _explained(
        self, event: TheEvent, endpoint: Endpoint | None, found: ShownDelivery | None, failure: Attempt | None
    ) -> Explained:
        delivery = None if found is None else found.delivery
        endpoint_id = endpoint.id if endpoint is not None else delivery.endpoint_id if delivery is not None else b""
        answer = why(
            event,
            None if endpoint is None else self._of_endpoint(endpoint),
            None if found is None else _of_delivery(found, failure),
            now_ms=self._means.now(),
        )
        return Explained(ids.prefixed(ids.ENDPOINT, endpoint_id), answer, delivery)

    def _of_endpoint(self, endpoint: Endpoint) -> TheEndpoint:
        return TheEndpoint(
            endpoint.state.text,
            endpoint.created_at,
            endpoint.updated_at,
            endpoint.event_types,
            self._means.engine.next_probe_at(endpoint.seq),
        )


def _read(
    connection: Transaction, event: Event
) -> tuple[list[Delivery], dict[int, Attempt], bool, list[ListenSession]]:
    """An event's deliveries, the last attempt of each that failed last, whether it is a test, and who listens."""
    owed = deliveries.page_of_event(connection, event.seq, limit=DELIVERIES_MAX).items
    failures = {}
    for delivery in owed:
        if delivery.last_outcome not in (None, Outcome.DELIVERED):
            for last in deliveries.page_of_attempts(connection, event.seq, delivery.endpoint_seq, limit=1).items:
                failures[delivery.endpoint_seq] = last
    sessions = listening.page(connection, event.account_seq, limit=SESSIONS_PER_ACCOUNT_MAX).items
    return owed, failures, trials.is_trial(connection, event.seq), sessions


def _of_delivery(found: ShownDelivery, failure: Attempt | None) -> TheDelivery:
    delivery = found.delivery
    return TheDelivery(
        delivery.status,
        found.waiting,
        delivery.attempts_made,
        delivery.completed_at,
        delivery.failed_reason,
        None if failure is None else _of_failure(failure),
    )


def _of_failure(attempt: Attempt) -> Explanation | None:
    return explain(attempt.outcome, status_code=attempt.status_code, error=attempt.error, location=attempt.location)
