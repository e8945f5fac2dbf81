"""Filters for endpoint lists."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from uplift_server.core import ids
from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.core.events.subscriptions import matching_patterns
from uplift_server.core.problems import Problem
from uplift_server.service.context import ServiceContext
from uplift_server.service.events import parsed_ids, type_seqs_of
from uplift_server.store.records import EndpointFilter, EndpointState


class EndpointQuery(NamedTuple):
    """Filters for endpoints. An endpoint matches if it has one of the given values for each filter that is set."""

    state: Sequence[str] = ()
    """Names of states, or `failing` for enabled endpoints whose last attempt failed."""
    text: str | None = None
    id: Sequence[str] = ()
    event_type: Sequence[str] = ()
    """Event types that the endpoint is subscribed to."""
    cause: str | None = None
    """A cause code. If set, only failing endpoints with this cause match."""


def endpoint_filter(context: ServiceContext, query: EndpointQuery, problems: list[Problem]) -> EndpointFilter:
    """Return the filter for a query, and add the problems with the query to `problems`."""
    type_seqs_of(context.cache, query.event_type, "event_type", problems)
    return EndpointFilter(
        states=tuple(each for each in EndpointState if each.text in query.state),
        failing="failing" in query.state,
        text=query.text,
        cause=query.cause,
        ids=parsed_ids(partial(ids.parse_prefixed, ids.ENDPOINT), query.id, "id", problems),
        patterns=tuple({each: None for name in query.event_type for each in matching_patterns(name)}),
        without_patterns=not OPERATIONAL_TYPES.issuperset(query.event_type),
    )
