"""Switching endpoints off and on, and what becomes of what they hold."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.service import errors
from uplift_server.service.context import ServiceContext
from uplift_server.service.endpoints import Endpoints, Shown
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, parse_id, refusal, refuse
from uplift_server.store import audit, endpoint_backlog, endpoints
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.records import DisabledReason, Endpoint, EndpointState, HeldAction

HOLD_WITHIN_MS: Final = 3000
"""How long a caller waits until all that was pending is held: every answer comes within 5 s."""
HOLD_AT_ONCE_MS: Final = 200
"""How long the answer to switching one off waits for that: mostly little is pending."""
_WHAT: Final = "endpoint"
_STILL_HOLDING: Final = (
    "What was pending for the endpoint is still being set aside; until then it stays as it is. Try again in a moment."
)


class _Change(NamedTuple):
    """What a call does to an endpoint."""

    endpoint: Endpoint | None
    """As it is then: not None, since it was read in the same transaction."""
    action: str
    details: dict[str, object]
    tell: Callable[[int], None]
    """Lets the engine know."""


Decide = Callable[[Transaction, Endpoint], _Change | None]
"""Changes an endpoint, or finds it as it is wanted. Raises the store's Conflict."""


class _SwitchedOffSince(Exception):
    """An endpoint was paused or disabled after it was last looked at here."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__("switched off meanwhile")
        self.endpoint = endpoint


class EndpointStates:
    """What owners and operators do with endpoints' states. Repeating a call changes nothing more."""

    def __init__(self, context: ServiceContext, owned: Endpoints) -> None:
        self._context = context
        self._endpoints = owned

    async def pause(self, caller: Caller, endpoint: str, *, problems: Sequence[Problem] = ()) -> Shown:
        """Send nothing more until it is enabled; what is pending and what comes is held.

        Raises NotFound, and Conflict for one that is disabled.
        """
        caller.require(Scope.ENDPOINTS_WRITE)

        def pause(connection: Transaction, found: Endpoint) -> _Change | None:
            if found.state is EndpointState.DISABLED:
                raise Conflict(
                    "The endpoint is disabled: nothing is sent to it, and what comes for it is held. To have it paused,"
                    " enable it first; with `held` = `keep` what it holds stays held."
                )
            return None if found.state is EndpointState.PAUSED else self._off(connection, found, None)

        return await self._apply(caller, endpoint, pause, problems, hold=True)

    async def disable(self, caller: Caller, endpoint: str, *, problems: Sequence[Problem] = ()) -> Shown:
        """Switch an endpoint off, for operators. Raises NotFound."""
        caller.require_operator()

        def disable(connection: Transaction, found: Endpoint) -> _Change | None:
            reason = DisabledReason.OPERATOR
            return None if found.disabled_reason is reason else self._off(connection, found, reason)

        return await self._apply(caller, endpoint, disable, problems, hold=True)

    async def enable(
        self, caller: Caller, endpoint: str, held: HeldAction, *, problems: Sequence[Problem] = ()
    ) -> Shown:
        """Send again, and say what becomes of what is held; of an enabled endpoint, only the latter.

        What was pending when it was switched off is held first, so that one word goes for all of it. Raises NotFound,
        and Busy where that takes longer than an answer may.
        """
        caller.require(Scope.ENDPOINTS_WRITE)
        self._endpoints.live(caller, endpoint)
        refuse(problems)
        until = self._context.now() + HOLD_WITHIN_MS
        while True:
            record = self._endpoints.live(caller, endpoint)
            if not await self._context.engine.endpoints.finish_holding(record.seq, until - self._context.now()):
                raise errors.Busy(_STILL_HOLDING)
            try:
                return await self._apply(caller, endpoint, self._on(record, held), problems)
            except _SwitchedOffSince as news:
                # By another process, or just now: what was pending then is to be held first, too.
                self._context.cache.put_endpoint(news.endpoint)
                self._context.engine.endpoints.disabled(news.endpoint.seq)

    def _on(self, seen: Endpoint, held: HeldAction) -> Decide:
        """Enabling one of which all is held that was pending when it was last seen switched off."""

        def enable(connection: Transaction, found: Endpoint) -> _Change | None:
            details = {"held": held.text, **_was(found)}
            engine = self._context.engine
            if found.state is not EndpointState.ENABLED:
                if (seen.state, seen.state_since) != (found.state, found.state_since):
                    raise _SwitchedOffSince(found)
                changed = endpoints.switch_on(connection, found.seq, held, now=self._context.now())
                return _Change(changed, "endpoint.enabled", details, engine.endpoints.enabled)
            as_it_is = held is (HeldAction.SEND if found.held_action is None else found.held_action)
            if as_it_is or not endpoint_backlog.held_counts(connection, [found.seq], limit=1)[found.seq]:
                return None
            changed = endpoints.treat_held(connection, found.seq, held)
            return _Change(changed, "endpoint.enabled", details, engine.endpoints.held_action_changed)

        return enable

    def _off(self, connection: Transaction, found: Endpoint, reason: DisabledReason | None) -> _Change:
        state = EndpointState.PAUSED if reason is None else EndpointState.DISABLED
        action, details = "endpoint.paused", _was(found)
        if reason is not None:
            action, details = "endpoint.disabled", {"reason": reason.text, **details}
        changed = endpoints.switch_off(connection, found.seq, state, reason, now=self._context.now())
        return _Change(changed, action, details, self._context.engine.endpoints.disabled)

    async def _apply(
        self, caller: Caller, endpoint: str, decide: Decide, problems: Sequence[Problem], *, hold: bool = False
    ) -> Shown:
        self._endpoints.live(caller, endpoint)
        refuse(problems)
        changed = await self._context.carry_out(self._change(caller, endpoint, decide))
        if hold:
            # What waits leased in memory is no longer counted as if it were in flight.
            await self._context.engine.endpoints.finish_holding(changed.seq, HOLD_AT_ONCE_MS)
        return await self._endpoints.shown(changed)

    async def _change(self, caller: Caller, text: str, decide: Decide) -> Endpoint:
        endpoint_id = parse_id(ids.ENDPOINT, text, _WHAT)

        def decided(connection: Transaction) -> tuple[Endpoint | None, _Change | None]:
            found = endpoints.get(connection, caller.account_seq, endpoint_id)
            change = None if found is None else decide(connection, found)
            if found is not None and change is not None:
                subject = ids.prefixed(ids.ENDPOINT, found.id)
                entry = self._context.entry(caller, change.action, subject, change.details, found.account_seq)
                audit.add(connection, entry)
            return found, change

        try:
            found, change = await self._context.database.write(decided)
        except Conflict as error:
            raise refusal(error) from error
        if found is None:
            raise not_found(_WHAT, text)
        if change is None:
            return found
        assert change.endpoint is not None, "what was read in a transaction is not gone in it"
        self._context.cache.put_endpoint(change.endpoint)
        change.tell(found.seq)
        return change.endpoint


def _was(endpoint: Endpoint) -> dict[str, Any]:
    """How an endpoint stood before a change, for the audit log."""
    reason = endpoint.disabled_reason
    return {"from": endpoint.state.text} | ({} if reason is None else {"from_reason": reason.text})
