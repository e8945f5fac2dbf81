"""Evaluates endpoint filters against an event's data."""

from collections.abc import Iterable
from typing import Final

import msgspec

from uplift_server.core.events.filters import Budget, BudgetExceeded, Filter
from uplift_server.core.limits import FILTER_STEPS_MAX, FILTERS_STEPS_MAX
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.observe.counters import EngineCounters

_NOT_READABLE: Final = object()


class FilterEvaluation:
    """Evaluates filters against one event's data, within a limited number of steps.

    The evaluation blocks the event loop, so it must be short. If the evaluation of a filter exceeds the limit, or if
    the data is not valid JSON, the endpoint receives the event.
    """

    __slots__ = ("_data", "_mismatches", "_steps", "exceeded")

    def __init__(self, data: bytes) -> None:
        """`data` is the event's data as JSON."""
        self.exceeded = 0
        """The number of filters without a result, because the steps ran out or the data was unreadable."""
        self._steps = FILTERS_STEPS_MAX
        self._mismatches: dict[Filter, str | None] = {}
        try:
            self._data = msgspec.json.decode(data)
        except (ValueError, RecursionError):
            self._data = _NOT_READABLE

    @property
    def steps_taken(self) -> int:
        """The number of steps that all evaluations have taken so far."""
        return FILTERS_STEPS_MAX - self._steps

    def mismatch(self, pattern: Filter) -> str | None:
        """Return the path of the first value in the event that does not match the filter.

        Return None if the endpoint receives the event.
        """
        # Evaluate each filter once, because several endpoints can have the same filter.
        if pattern not in self._mismatches:
            self._mismatches[pattern] = self._first_mismatch(pattern)
        return self._mismatches[pattern]

    def _first_mismatch(self, pattern: Filter) -> str | None:
        budget = Budget(min(FILTER_STEPS_MAX, self._steps))
        before = budget.steps
        try:
            if self._data is not _NOT_READABLE:
                return pattern.first_mismatch(self._data, budget)
        except BudgetExceeded:
            pass
        finally:
            self._steps -= before - budget.steps
        self.exceeded += 1
        return None


def accepting(endpoints: Iterable[LiveEndpoint], data: bytes, counters: EngineCounters) -> list[LiveEndpoint]:
    """Return the endpoints that have no filter, or whose filter matches the event's data (JSON).

    Include endpoints whose filter cannot be evaluated, and count these filters.
    """
    evaluation = FilterEvaluation(data)
    found = [each for each in endpoints if each.filter is None or evaluation.mismatch(each.filter) is None]
    counters.filter_budget_exceeded += evaluation.exceeded
    return found
