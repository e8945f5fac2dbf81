"""Previews of filters: which of an account's newest events a filter matches."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uplift_server.core.events.catalog import WEBHOOK_CREATED
from uplift_server.core.events.envelope import data_of
from uplift_server.core.events.filters import Filter, check_filter, filter_text
from uplift_server.core.events.subscriptions import Subscription, pattern_problems
from uplift_server.core.limits import BATCH_CHECK_SECONDS_MAX, FILTER_PREVIEW_EVENTS_DEFAULT
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.delivery.filters import FilterEvaluation
from uplift_server.service.context import ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import require_valid
from uplift_server.store import events
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Event, EventFilter


@dataclass(frozen=True, slots=True)
class FilterPreviewDraft:
    """The filter preview fields in a request."""

    filter: Mapping[str, object] | None = None
    event_types: Sequence[str] | None = None
    limit: int | None = None
    """The maximum number of events to check."""


@dataclass(frozen=True, slots=True)
class PreviewedEvent:
    """An event, and the path in its data at which the filter does not match. The path is None if the event matches."""

    event: Event
    mismatch: str | None


class FilterPreviews:
    """Evaluates a filter against stored events."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def preview(
        self, caller: Caller, draft: FilterPreviewDraft, *, problems: Sequence[Problem] = ()
    ) -> list[PreviewedEvent]:
        """Evaluate a filter against the account's newest events, newest first. Raises Invalid.

        The result does not include test events, registration events or erased events.
        """
        caller.require(Scope.ENDPOINTS_READ)
        caller.require(Scope.EVENTS_READ)
        account_seq = caller.require_account()
        types = self._context.cache.event_types
        patterns, unknown = pattern_problems(draft.event_types or (), types)
        wrong = [] if draft.filter is None else check_filter(draft.filter)
        require_valid([*problems, *unknown, *wrong])
        subscription = Subscription(patterns)
        seqs = tuple(each.seq for name, each in types.items() if subscription.matches(name) and name != WEBHOOK_CREATED)
        if not seqs:
            return []
        wanted = EventFilter(type_seqs=seqs, is_test=False)
        request = PageRequest(draft.limit or FILTER_PREVIEW_EVENTS_DEFAULT)
        page = await self._context.database.read(
            lambda c: events.page(c, account_seq, wanted, request, with_bodies=True)
        )
        return await _evaluated(page.items, None if draft.filter is None else Filter(filter_text(draft.filter)))


async def _evaluated(found: Sequence[Event], pattern: Filter | None) -> list[PreviewedEvent]:
    """Evaluate a filter against events. Other requests can run between two evaluations."""
    previewed = []
    began = time.monotonic()
    for event in found:
        if event.body is None:
            continue
        mismatch = None if pattern is None else FilterEvaluation(data_of(event.body)).mismatch(pattern)
        previewed.append(PreviewedEvent(event, mismatch))
        if time.monotonic() - began > BATCH_CHECK_SECONDS_MAX:
            await asyncio.sleep(0)
            began = time.monotonic()
    return previewed
