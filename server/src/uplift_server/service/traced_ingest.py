"""Accepts events and records their traces."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from uplift_server.core import ids
from uplift_server.core.http.trace_context import parse_traceparent
from uplift_server.core.problems import Problem
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.ports import CacheFreshness, Clock
from uplift_server.observe.trace_records import TRACEPARENT, AcceptedEvent
from uplift_server.service.ingest import Acceptance, AcceptFuture, Incoming, Ingest
from uplift_server.service.principals import Caller

Record = Callable[[int, AcceptedEvent, str | None], None]
_NS_PER_MS: Final = 1_000_000
_NS_PER_US: Final = 1_000


class TracedIngest(Ingest):
    """Accepts events, and calls `record` for each stored event.

    `record` receives the event's sequence number, its trace data and the request's `traceparent` header.
    """

    def __init__(
        self,
        cache: EndpointCache,
        acceptance: Acceptance,
        clock: Clock,
        freshness: CacheFreshness | None,
        record: Record,
    ) -> None:
        super().__init__(cache, acceptance, clock, freshness)
        self._record = record

    def accept(self, account_seq: int, event: Incoming, problems: Sequence[Problem] = ()) -> AcceptFuture:
        """Accept an event, and record the trace of the event."""
        began = self._now()
        return self._traced(super().accept(account_seq, event, problems), account_seq, [event], began)

    async def accept_batch(
        self, caller: Caller, events: Sequence[Incoming], problems: Sequence[Problem] = ()
    ) -> AcceptFuture:
        """Accept all events or none, and record the traces of the events."""
        began = self._now()
        return self._traced(await super().accept_batch(caller, events, problems), caller.account_seq, events, began)

    def _now(self) -> tuple[int, int]:
        """Return the Unix time in ns, with a precision of 1 ms, and a monotonic clock's time in ns."""
        return self._clock.wall_ms() * _NS_PER_MS, self._clock.monotonic_us() * _NS_PER_US

    def _traced(
        self, future: AcceptFuture, account_seq: int | None, events: Sequence[Incoming], began: tuple[int, int]
    ) -> AcceptFuture:
        accounts = [self._account_text(account_seq, event.account) for event in events]
        future.add_done_callback(partial(self._stored, events, accounts, began, TRACEPARENT.get()))
        return future

    def _account_text(self, account_seq: int | None, named: str | None) -> str:
        """Return the ID of the account that an event names, or of the request's account if the event names none."""
        account = self._cache.accounts.get(account_seq or 0) if named is None else self._cache.find_account(named)
        return "" if account is None else ids.prefixed(ids.ACCOUNT, account.id)

    def _stored(
        self,
        events: Sequence[Incoming],
        accounts: Sequence[str],
        began: tuple[int, int],
        traceparent: str | None,
        future: AcceptFuture,
    ) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        stored = future.result()
        if not isinstance(stored, list):
            return
        began_at, since = began
        ended_at = began_at + self._clock.monotonic_us() * _NS_PER_US - since
        sender_span = None if traceparent is None else parse_traceparent(traceparent)
        for appended, event, account in zip(stored, events, accounts, strict=True):
            traced = AcceptedEvent(
                appended.id, event.type or "", account, began_at, ended_at, sender_span, appended.duplicate
            )
            self._record(appended.seq, traced, traceparent)
