"""Filters for lists of deliveries and attempts, and for bulk resends."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from uplift_server.core import ids
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.named_codes import NamedCode
from uplift_server.core.problems import Problem
from uplift_server.service.context import ServiceContext
from uplift_server.service.events import object_id_problems, parsed_ids, type_seqs_of
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import ENDPOINT_UNKNOWN
from uplift_server.store import endpoints
from uplift_server.store.records import DeliveryFilter

Code = TypeVar("Code", bound=NamedCode)

_STATUSES: Final = {each.text: each for each in Status}
_OUTCOMES: Final = {each.text: each for each in Outcome}
_STATUS_CODE: Final = re.compile(r"[1-5](?:\d\d|xx)")


class DeliveryQuery(NamedTuple):
    """Filters for deliveries. Timestamps are Unix ms.

    A delivery matches if it has one of the given values for each filter that is set.
    """

    status: Sequence[str] = ()
    endpoint: Sequence[str] = ()
    type: Sequence[str] = ()
    outcome: Sequence[str] = ()
    """Outcomes of the last attempt."""
    status_code: Sequence[str] = ()
    """Status codes of the last attempt, such as `404`, or status code classes, such as `5xx`."""
    object_id: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    test: bool | None = None
    """True for only test deliveries, False for only other deliveries, None for all deliveries."""
    id: Sequence[str] = ()


async def delivery_filter(
    context: ServiceContext, caller: Caller, query: DeliveryQuery, problems: list[Problem], *, id_field: str = "id"
) -> DeliveryFilter:
    """Return the filter for a query, and add the problems with the query to `problems`.

    `id_field` is the name of the parameter that contains delivery IDs.
    """
    endpoint_seqs = [await _endpoint_seq(context, caller, each, problems) for each in query.endpoint]
    type_seqs = type_seqs_of(context.cache, query.type, "type", problems)
    problems += object_id_problems(query.object_id)
    return DeliveryFilter(
        statuses=_named(_STATUSES, query.status, "status", problems),
        endpoint_seqs=tuple(each for each in endpoint_seqs if each is not None),
        type_seqs=type_seqs,
        outcomes=_named(_OUTCOMES, query.outcome, "outcome", problems),
        status_codes=_status_codes(query.status_code, problems),
        object_id=query.object_id,
        is_test=query.test,
        created_after=query.created_after,
        created_before=query.created_before,
        ids=parsed_ids(ids.parse_delivery_id, query.id, id_field, problems),
    )


def _named(known: dict[str, Code], names: Sequence[str], field: str, problems: list[Problem]) -> tuple[Code, ...]:
    if any(name not in known for name in names):
        problems.append(
            Problem(field, "value_unknown", f"A value is not allowed. Use one or more of {', '.join(known)}.")
        )
    return tuple(sorted({known[name] for name in names if name in known}))


def _status_codes(texts: Sequence[str], problems: list[Problem]) -> tuple[tuple[int, int], ...]:
    """Return the status codes as inclusive ranges, and add the problems with invalid codes to `problems`."""
    ranges = set()
    for text in texts:
        if _STATUS_CODE.fullmatch(text) is None:
            message = "The text is not a status code. Use a code such as 404, or a class such as 5xx."
            problems.append(Problem("status_code", "value_unknown", message))
            return ()
        ranges.add((int(text.replace("x", "0")), int(text.replace("x", "9"))))
    return tuple(sorted(ranges))


async def _endpoint_seq(context: ServiceContext, caller: Caller, text: str, problems: list[Problem]) -> int | None:
    """Return the sequence number of an endpoint, even if it was deleted. Add a problem for an unknown endpoint."""
    value = context.endpoint_id(caller, text)
    found = None
    if value is not None:
        live = context.cache.endpoints_by_id.get(value)
        if live is not None:
            found = live.record
        else:
            found = await context.database.read(lambda c: endpoints.get_including_deleted(c, value))
    if found is None or caller.account_seq not in {None, found.account_seq}:
        problems.append(ENDPOINT_UNKNOWN)
        return None
    return found.seq
