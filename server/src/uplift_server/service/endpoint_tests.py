"""Test deliveries. A test delivery sends one immediate request to an endpoint in any state.

A signature check sends two requests: one with a wrong signature, which the receiver must reject, and one with a valid
signature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from uplift_server.core import ids
from uplift_server.core.deliveries import test_events
from uplift_server.core.deliveries.responses import first_line
from uplift_server.core.deliveries.signature_checks import Result, Verdict, verdict
from uplift_server.core.lifecycle import Status
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Right
from uplift_server.delivery.endpoint_cache import LiveEventType
from uplift_server.delivery.sending.commands import TestRejected
from uplift_server.delivery.sending.test_deliveries import Busy
from uplift_server.service import errors
from uplift_server.service.context import ServiceContext
from uplift_server.service.endpoints import Endpoints
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, idempotent_request
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import archived_event_type, as_conflict, require_valid, unknown_event_type
from uplift_server.store import audit, commands, endpoints, idempotency
from uplift_server.store import test_deliveries as store
from uplift_server.store.commands import Command, CommandKind, NewTest
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Attempt, Delivery, Endpoint

WAIT_MS: Final = 3500
"""The maximum time that a caller waits for the attempt, in ms. Every API response takes at most 5 s."""
CHECK_WAIT_MS: Final = 1900
"""The maximum time that a signature check waits for each of its two attempts, in ms."""
_DELETED: Final = "The endpoint was deleted. Create a new endpoint, then test it."
_REJECTIONS: Final[dict[Busy, tuple[type[errors.ServiceError], str]]] = {
    Busy.STOPPED: (
        errors.Busy,
        "The server is not sending deliveries. Try again later, or contact the operator.",
    ),
    Busy.IN_FLIGHT: (errors.Conflict, "A test event to this endpoint is already in flight. Wait for its outcome."),
    Busy.FULL: (errors.Busy, "The server has reached its limit of attempts in flight. Try again in a moment."),
    Busy.SHARE: (
        errors.RateLimited,
        "The account has reached its limit of attempts in flight, in total or for this host. Try again in a moment.",
    ),
    Busy.RATE_LIMITED: (
        errors.RateLimited,
        "The endpoint has reached its `rate_limit_per_second`. Try again in a moment.",
    ),
    Busy.DELETED: (errors.Conflict, _DELETED),
}


@dataclass(frozen=True, slots=True)
class EndpointTest:
    """A test delivery. The attempt can still be in flight."""

    delivery: Delivery
    attempt: Attempt | None
    """The attempt. None if it is in flight or the server did not start it."""
    repeated: bool


@dataclass(frozen=True, slots=True)
class SignatureCheck:
    """The tests of a signature check, and the verdict of the check."""

    verdict: Verdict
    wrong: EndpointTest
    valid: EndpointTest | None
    """The test with a valid signature. None if the test with a wrong signature already determined the verdict."""
    verified_at: int | None
    """When this check verified the endpoint (Unix ms). None if this check did not verify the endpoint."""


def result_of(attempt: Attempt | None) -> Result | None:
    """Return the parts of an attempt that a signature check compares, or None if there is no attempt."""
    if attempt is None:
        return None
    response = first_line(attempt.response_body)
    return Result(attempt.outcome, attempt.status_code, attempt.error, attempt.location, response)


class EndpointTests:
    """Sends test deliveries, and waits for their outcomes."""

    def __init__(self, context: ServiceContext, endpoints: Endpoints) -> None:
        self._context = context
        self._endpoints = endpoints

    async def send(
        self,
        caller: Caller,
        endpoint: str,
        type_name: str | None,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> EndpointTest:
        """Send a test delivery, and wait up to WAIT_MS for its outcome.

        Raises NotFound, Invalid, Conflict if another test is in flight, or Busy or RateLimited if a limit is reached.
        """
        return await self._send(caller, endpoint, type_name, idempotency_key=idempotency_key, problems=problems)

    async def verify(self, caller: Caller, endpoint: str, *, problems: Sequence[Problem] = ()) -> SignatureCheck:
        """Send a test with a wrong signature, then a test with a valid signature, and wait for both outcomes.

        If the receiver rejects the first test and accepts the second test, mark the endpoint as verified. If the
        receiver does not respond to the first test, do not send the second test. Raises the same errors as `send`.
        """
        caller.require_right(Right.ENDPOINTS_TEST)
        # Keep the endpoint's current URL, because the URL can change during the check.
        checked = self._endpoints.find_cached(caller, endpoint)
        wrong = await self._send(caller, endpoint, None, problems=problems, wait_ms=CHECK_WAIT_MS, wrong_signature=True)
        valid = None
        if wrong.attempt is not None and wrong.attempt.status_code is not None:
            valid = await self._send(caller, endpoint, None, wait_ms=CHECK_WAIT_MS)
        found = verdict(result_of(wrong.attempt), result_of(None if valid is None else valid.attempt))
        verified_at = await self._note_verified(caller, checked) if found.code == "verified" else None
        return SignatureCheck(found, wrong, valid, verified_at)

    async def _send(
        self,
        caller: Caller,
        endpoint: str,
        type_name: str | None,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
        wait_ms: int = WAIT_MS,
        wrong_signature: bool = False,
    ) -> EndpointTest:
        caller.require_right(Right.ENDPOINTS_TEST)
        record = self._endpoints.find_cached(caller, endpoint)
        until = self._context.now() + wait_ms
        event_type, wrong = self._event_type(record, type_name)
        require_valid([*problems, *wrong, check_idempotency_key(idempotency_key)])
        assert event_type is not None, "an unknown type has already been rejected"
        request = idempotent_request(idempotency_key, record.account_seq, f"test of {record.id.hex()}")
        event_id = None if request is None else await self._earlier_event(request)
        repeated = event_id is not None
        if event_id is None:
            result = await self._context.run_shielded(
                self._begin(caller, record, event_type, request, wrong_signature=wrong_signature)
            )
            event_id, repeated = result.event_id, result.repeated
            assert event_id is not None, "a started test has an event"
        delivery, attempt = await self._outcome(record, event_id, until)
        return EndpointTest(delivery, attempt, repeated)

    async def _earlier_event(self, request: idempotency.Request) -> bytes | None:
        try:
            return await self._context.database.read(lambda c: idempotency.find(c, request))
        except Conflict as error:
            raise as_conflict(error) from error

    async def _begin(
        self,
        caller: Caller,
        endpoint: Endpoint,
        event_type: LiveEventType,
        request: idempotency.Request | None,
        *,
        wrong_signature: bool,
    ) -> commands.Result:
        event_id, subject = self._context.new_id(), ids.prefixed(ids.ENDPOINT, endpoint.id)
        details = {"type": event_type.name, "delivery": ids.delivery_id(event_id, endpoint.id)}
        entry = self._context.audit_entry(caller, "endpoint.tested", subject, details, endpoint.account_seq)
        test = NewTest(event_id, event_type.seq, request, wrong_signature)
        command = Command(CommandKind.TEST, endpoint.account_seq, endpoint.seq, entry, test=test)
        try:
            return await self._context.engine.commands.execute(command)
        except TestRejected as error:
            kind, text = _REJECTIONS[error.busy]
            raise kind(text) from error
        except Conflict as error:
            raise as_conflict(error) from error

    async def _note_verified(self, caller: Caller, endpoint: Endpoint) -> int | None:
        """Mark the endpoint as verified, and return the time of verification.

        Return None if the endpoint was deleted or its URL has changed.
        """
        now, subject = self._context.now(), ids.prefixed(ids.ENDPOINT, endpoint.id)
        entry = self._context.audit_entry(caller, "endpoint.verified", subject, {}, endpoint.account_seq)

        def note(connection: Transaction) -> int | None:
            if not endpoints.set_verified(connection, endpoint, now=now):
                return None
            audit.add(connection, entry)
            return now

        return await self._context.run_shielded(self._context.database.write(note))

    async def _outcome(self, endpoint: Endpoint, event_id: bytes, until: int) -> tuple[Delivery, Attempt | None]:
        """Wait until a test ends, or until the time `until` (Unix ms).

        Return the test's delivery, and its attempt if the attempt has ended.
        """
        tail = ids.endpoint_tail(endpoint.id)
        while True:
            found = await self._context.database.read(
                lambda c: store.get_result(c, endpoint.account_seq, event_id, tail)
            )
            if found is None:
                raise errors.IdempotencyConflict(idempotency.GONE)
            left_ms = until - self._context.now()
            if found[0].status is not Status.PENDING or left_ms <= 0:
                return found
            await self._context.engine.commands.wait_for_test(endpoint.seq, left_ms)

    def _event_type(self, endpoint: Endpoint, name: str | None) -> tuple[LiveEventType | None, list[Problem]]:
        known = self._context.cache.event_types
        if name is None:
            live = self._context.cache.endpoints[endpoint.seq]
            name = test_events.default_type(live.subscription, list(self._context.cache.usable_types()))
            if name is None:
                return None, [unknown_event_type(None)]
        event_type = known.get(name)
        if event_type is None:
            return None, [unknown_event_type(name, catalog=self._context.cache.usable_types())]
        if event_type.archived:
            return None, [archived_event_type(name)]
        return event_type, []
