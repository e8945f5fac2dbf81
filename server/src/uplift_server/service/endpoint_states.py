"""Pause, disable and enable endpoints, and release, keep or drop their held deliveries."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.service import errors
from uplift_server.service.context import ServiceContext
from uplift_server.service.endpoints import Endpoints, ShownEndpoint
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, require_valid
from uplift_server.store import audit, endpoint_backlog, endpoints, outbox
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.records import DisabledReason, Endpoint, EndpointState, HeldAction

HOLD_WAIT_MS: Final = 3000
"""The maximum time, in ms, that a request to enable an endpoint waits for all pending deliveries to be held.

Every API response takes at most 5 s.
"""
HOLD_WAIT_SHORT_MS: Final = 200
"""The maximum time, in ms, that a request to pause or disable an endpoint waits for pending deliveries to be held.

A short time is usually enough, because few deliveries are pending.
"""
_KIND: Final = "endpoint"
_STILL_HOLDING: Final = (
    "The endpoint's state did not change, because the server has not finished holding its pending deliveries. Try"
    " again in a moment."
)


class _Change(NamedTuple):
    """A completed change to an endpoint's state, with the facts that the audit log needs."""

    endpoint: Endpoint | None
    action: str
    details: dict[str, object]


StateChange = Callable[[Transaction, Endpoint], _Change | None]
"""A function that changes an endpoint. Returns None if the endpoint already has the requested state.

Raises the store's Conflict.
"""


class _DisabledSince(Exception):
    """The endpoint was paused or disabled after this process cached it."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__("paused or disabled in the meantime")
        self.endpoint = endpoint


class EndpointStates:
    """Changes endpoint states. All methods are idempotent."""

    def __init__(self, context: ServiceContext, endpoints: Endpoints) -> None:
        self._context = context
        self._endpoints = endpoints

    async def pause(self, caller: Caller, endpoint: str, *, problems: Sequence[Problem] = ()) -> ShownEndpoint:
        """Pause an endpoint: hold its pending and new deliveries.

        Raises NotFound, or Conflict for a disabled endpoint.
        """
        caller.require(Scope.ENDPOINTS_WRITE)

        def pause(connection: Transaction, found: Endpoint) -> _Change | None:
            if found.state is EndpointState.DISABLED:
                raise Conflict(
                    "The endpoint is disabled, and its deliveries are held. To pause the endpoint, first enable it with"
                    " `held` = `keep`."
                )
            return None if found.state is EndpointState.PAUSED else self._pause_or_disable(connection, found, None)

        return await self._apply(caller, endpoint, pause, problems, hold=True)

    async def disable(self, caller: Caller, endpoint: str, *, problems: Sequence[Problem] = ()) -> ShownEndpoint:
        """Disable an endpoint. Only operators can disable endpoints. Raises NotFound."""
        caller.require_operator()

        def disable(connection: Transaction, found: Endpoint) -> _Change | None:
            reason = DisabledReason.OPERATOR
            return None if found.disabled_reason is reason else self._pause_or_disable(connection, found, reason)

        return await self._apply(caller, endpoint, disable, problems, hold=True)

    async def enable(
        self, caller: Caller, endpoint: str, held: HeldAction, *, problems: Sequence[Problem] = ()
    ) -> ShownEndpoint:
        """Enable an endpoint. The action `held` determines whether its held deliveries are released, kept or dropped.

        If the endpoint is already enabled, change only the action. Otherwise, first hold the deliveries that are still
        pending, so that the action also applies to these deliveries. Raises NotFound, or Busy if the server cannot hold
        the deliveries within HOLD_WAIT_MS.
        """
        caller.require(Scope.ENDPOINTS_WRITE)
        self._endpoints.find_cached(caller, endpoint)
        require_valid(problems)
        until = self._context.now() + HOLD_WAIT_MS
        while True:
            record = self._endpoints.find_cached(caller, endpoint)
            if not await self._context.engine.endpoints.finish_holding(record.seq, until - self._context.now()):
                raise errors.Busy(_STILL_HOLDING)
            try:
                return await self._apply(caller, endpoint, self._enable(record, held), problems)
            except _DisabledSince as newer:
                # The endpoint was disabled again. First hold the deliveries that were pending when it was disabled.
                self._context.engine.endpoints.apply(newer.endpoint)

    def _enable(self, cached: Endpoint, held: HeldAction) -> StateChange:
        """Return a function that enables an endpoint within a transaction.

        `cached` is the endpoint as it was before the server held its pending deliveries. If the endpoint has been
        paused or disabled again in the meantime, the function raises _DisabledSince.
        """

        def enable(connection: Transaction, found: Endpoint) -> _Change | None:
            details = {"held": held.text, **_before(found)}
            if found.state is not EndpointState.ENABLED:
                if (cached.state, cached.state_since) != (found.state, found.state_since):
                    raise _DisabledSince(found)
                outbox.withdraw_warnings(connection, found.account_seq, ids.prefixed(ids.ENDPOINT, found.id))
                changed = endpoints.enable(connection, found.seq, held, now=self._context.now())
                return _Change(changed, "endpoint.enabled", details)
            is_unchanged = held is (HeldAction.SEND if found.held_action is None else found.held_action)
            if is_unchanged or not endpoint_backlog.held_counts(connection, [found.seq], limit=1)[found.seq]:
                return None
            changed = endpoints.set_held_action(connection, found.seq, held)
            return _Change(changed, "endpoint.enabled", details)

        return enable

    def _pause_or_disable(self, connection: Transaction, found: Endpoint, reason: DisabledReason | None) -> _Change:
        state = EndpointState.PAUSED if reason is None else EndpointState.DISABLED
        action, details = "endpoint.paused", _before(found)
        if reason is not None:
            action, details = "endpoint.disabled", {"reason": reason.text, **details}
        changed = endpoints.deactivate(connection, found.seq, state, reason, now=self._context.now())
        return _Change(changed, action, details)

    async def _apply(
        self,
        caller: Caller,
        endpoint: str,
        change_state: StateChange,
        problems: Sequence[Problem],
        *,
        hold: bool = False,
    ) -> ShownEndpoint:
        record = self._endpoints.find_cached(caller, endpoint)
        require_valid(problems)
        changed = await self._context.run_shielded(self._change(caller, record.id, change_state))
        if hold:
            # Without this wait, leased deliveries that wait in memory would count as in flight in the response.
            await self._context.engine.endpoints.finish_holding(changed.seq, HOLD_WAIT_SHORT_MS)
        return await self._endpoints.show(changed)

    async def _change(self, caller: Caller, endpoint_id: bytes, change_state: StateChange) -> Endpoint:
        def apply(connection: Transaction) -> tuple[Endpoint | None, _Change | None]:
            found = endpoints.get(connection, caller.account_seq, endpoint_id, lock=True)
            change = None if found is None else change_state(connection, found)
            if found is not None and change is not None:
                subject = ids.prefixed(ids.ENDPOINT, found.id)
                entry = self._context.audit_entry(caller, change.action, subject, change.details, found.account_seq)
                audit.add(connection, entry)
            return found, change

        found, change = await self._context.write(apply)
        if found is None:
            raise not_found(_KIND, ids.prefixed(ids.ENDPOINT, endpoint_id))
        if change is None:
            return found
        assert change.endpoint is not None, "the same transaction read it"
        self._context.engine.endpoints.apply(change.endpoint)
        return change.endpoint


def _before(endpoint: Endpoint) -> dict[str, Any]:
    """Return the audit log's details about an endpoint's state before a change."""
    reason = endpoint.disabled_reason
    return {"from": endpoint.state.text} | ({} if reason is None else {"from_reason": reason.text})
