"""Delivery lists with filters: the deliveries of one account or, for operators, of all accounts."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.replays import STATUSES_DEFAULT
from uplift_server.core.lifecycle import ENDED, Status
from uplift_server.core.limits import (
    FILTER_VALUES_MAX,
    REPLAY_RATE_PER_SECOND_DEFAULT,
    REPLAY_RATE_PER_SECOND_MAX,
)
from uplift_server.core.people.audit import without_query
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.core.timestamps import format_timestamp
from uplift_server.dashboard import words
from uplift_server.dashboard.account_filter import filtered_caller
from uplift_server.dashboard.forms import Form, key_of
from uplift_server.dashboard.pages.endpoint import type_names
from uplift_server.dashboard.routes import account_form, account_page, operator_page
from uplift_server.dashboard.visit import Visit
from uplift_server.dashboard.words import OUTCOMES
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.service.deliveries import DeliverySearch
from uplift_server.service.delivery_queries import DeliveryQuery
from uplift_server.service.errors import Conflict, Invalid
from uplift_server.service.principals import Caller
from uplift_server.store.records import Page

ENDPOINTS_LISTED_MAX: Final = 200
"""Maximum number of endpoints to list in the endpoint filter. If there are more endpoints, the filter is a text field.
"""
_RESEND: Final = "deliveries/resend.html"
_NONE: Final = DeliverySearch(Page([], None), None)
TESTS: Final = {"": False, "1": None, "only": True}
"""The choices in the filter for test deliveries. Each value in the URL maps to a value of `DeliveryQuery.test`."""
_SEPARATOR: Final = re.compile(r"[\s,]+")
_OPTIONS: Final = {
    "status": "--status",
    "endpoint": "--endpoint",
    "type": "--type",
    "outcome": "--outcome",
    "status_code": "--status-code",
    "object_id": "--object-id",
    "created_after": "--after",
    "created_before": "--before",
}


async def listed(visit: Visit) -> Response:
    """List the deliveries that match the filters in the URL. The deliveries of the newest events come first."""
    problems: list[Problem] = []
    caller = filtered_caller(visit, problems)
    query = _query(visit, visit.query, caller, problems)
    try:
        found = await visit.services.deliveries.search(caller, query, visit.listing(), problems=problems)
    except Invalid as error:
        return visit.refuse("deliveries/list.html", error.problems, **_context(visit, query, _NONE))
    return visit.render("deliveries/list.html", **_context(visit, query, found))


async def resend_preview(visit: Visit) -> Response:
    """Before a resend, show the number of deliveries that match the filters in the URL."""
    problems: list[Problem] = []
    query = _query(visit, visit.query, visit.caller, problems)
    if not query.status:
        query = query._replace(status=[each.text for each in STATUSES_DEFAULT])
    fields = _values(query)
    context: dict[str, Any] = {
        "statuses": " or ".join(query.status),
        "fields": fields,
        "body": _body(query),
        "options": [(_OPTIONS[name], value) for name, value in fields],
        "rate": REPLAY_RATE_PER_SECOND_DEFAULT,
        "rate_max": REPLAY_RATE_PER_SECOND_MAX,
        "cache": visit.services.context.cache,
    }
    try:
        preview = await visit.services.bulk_resends.preview(visit.caller, query, problems=problems)
    except Invalid as error:
        wrong = " ".join(dict.fromkeys(each.message for each in error.problems))
        return visit.render(_RESEND, 422, preview=None, refusal=wrong, **context)
    return visit.render(_RESEND, preview=preview, **context)


async def resend(visit: Visit) -> Response:
    """Create replays that resend the matching deliveries."""
    sent = await visit.form()
    problems: list[Problem] = []
    query = _query(visit, sent, visit.caller, problems)
    rate = sent.number("rate_per_second", problems)
    if rate is None or not 1 <= rate <= REPLAY_RATE_PER_SECOND_MAX:
        text = f"Enter a rate from 1 to {REPLAY_RATE_PER_SECOND_MAX} per second."
        problems.append(Problem("rate_per_second", "out_of_range", text))
    try:
        found = await visit.services.bulk_resends.create(
            visit.caller, query, rate, idempotency_key=key_of(sent), problems=problems
        )
    except (Invalid, Conflict) as error:
        text = error.detail if isinstance(error, Conflict) else " ".join(each.message for each in error.problems)
        return visit.leave(f"{visit.path('deliveries', 'resend')}?{urlencode(_values(query))}", problem=text)
    count = sum(each.replay.total for each in found.replays)
    done = f"Resend started: {_number(count, 'delivery', 'deliveries')} to {_number(len(found.replays), 'endpoint')}."
    return visit.leave(visit.path("replays"), done)


def _query(visit: Visit, asked: Form, caller: Caller, problems: list[Problem]) -> DeliveryQuery:
    codes = [code for text in asked.texts("status_code") for code in _SEPARATOR.split(text) if code]

    def limited(name: str, values: Sequence[str]) -> Sequence[str]:
        if len(values) > FILTER_VALUES_MAX:
            text = f"The filter has too many values. Choose at most {FILTER_VALUES_MAX} values."
            problems.append(Problem(name, "too_many_values", text))
        return values[:FILTER_VALUES_MAX]

    return DeliveryQuery(
        status=limited("status", asked.texts("status")),
        endpoint=_endpoints(visit, caller, limited("endpoint", asked.texts("endpoint")), problems),
        type=limited("type", asked.texts("type")),
        outcome=limited("outcome", asked.texts("outcome")),
        status_code=limited("status_code", codes),
        object_id=asked.optional("object_id"),
        created_after=asked.instant("created_after", problems),
        created_before=asked.instant("created_before", problems),
        test=TESTS.get(asked.text("tests"), False),
    )


def _endpoints(visit: Visit, caller: Caller, texts: Sequence[str], problems: list[Problem]) -> list[str]:
    """Return the endpoint IDs in `texts`, and the IDs of the endpoints whose URLs contain one of the other texts.

    Add a problem for each of these other texts that occurs in no URL, or in the URLs of too many endpoints.
    """
    found: dict[str, None] = {}
    for text in texts:
        if text.startswith(f"{ids.ENDPOINT}_"):
            found[text] = None
            continue
        matching = [each.id_text for each in _live(visit, caller) if each.has_in_url(text)]
        if not 0 < len(matching) <= FILTER_VALUES_MAX:
            message = "No endpoint has this text in its URL. Enter another part of the URL."
            if matching:
                message = f"More than {FILTER_VALUES_MAX} endpoints have this text in their URL. Enter a longer text."
            problems.append(Problem("endpoint", "endpoint_unknown", message))
        found |= dict.fromkeys(matching)
    return list(found)


def _live(visit: Visit, caller: Caller) -> list[LiveEndpoint]:
    endpoints = visit.services.context.cache.endpoints.values()
    return [each for each in endpoints if caller.account_seq in {None, each.record.account_seq}]


def _context(visit: Visit, query: DeliveryQuery, found: DeliverySearch) -> dict[str, Any]:
    cache = visit.services.context.cache
    asked = visit.query
    choices = []
    if visit.account is not None:
        choices = sorted((each.record.url, each.id_text) for each in _live(visit, visit.caller))
    filters = _values(query)
    return {
        "query": query,
        "rows": [
            (each, cache.endpoints.get(each.delivery.endpoint_seq), cache.accounts.get(each.delivery.account_seq))
            for each in found.page.items
        ],
        "searched_to": found.searched_to,
        "next": visit.cursor(found.page.next_key),
        "is_first": asked.optional("cursor") is None,
        "path": visit.request.url.path,
        "account_text": asked.text("account"),
        "tests": next(choice for choice, test in TESTS.items() if test is query.test),
        "endpoint_text": " ".join(asked.texts("endpoint")),
        "status_code_text": " ".join(query.status_code),
        "statuses": [(each.text, each.text.capitalize()) for each in Status],
        "outcomes": [(each.text, OUTCOMES[each]) for each in Outcome],
        "types": [(name, name) for name in sorted({*type_names(visit), *query.type})],
        "endpoints": [(id_text, without_query(url)) for url, id_text in choices]
        if len(choices) <= ENDPOINTS_LISTED_MAX
        else None,
        "narrowed": any(query[:-1]) or bool(asked.text("account")) or query.test is not False,
        "filters": filters,
        "options": [(_OPTIONS[name], value) for name, value in filters],
        "may_resend": visit.account is not None
        and bool(filters)
        and query.test is not True  # a resend does not include test deliveries
        and {each.text for each in ENDED}.issuperset(query.status)
        and visit.can_call(Scope.DELIVERIES_WRITE),
    }


def _number(count: int, noun: str, nouns: str | None = None) -> str:
    return f"{words.count(count)} {noun if count == 1 else nouns or noun + 's'}"


def _values(query: DeliveryQuery) -> list[tuple[str, str]]:
    return [(name, value) for name, each in _lists(query).items() for value in each]


def _body(query: DeliveryQuery) -> str:
    """Return the filters as the request body for a resend."""
    single = {"object_id", "created_after", "created_before"}
    return json.dumps({name: each[0] if name in single else [*each] for name, each in _lists(query).items() if each})


def _lists(query: DeliveryQuery) -> dict[str, Sequence[str]]:
    return {
        "status": query.status,
        "endpoint": query.endpoint,
        "type": query.type,
        "outcome": query.outcome,
        "status_code": query.status_code,
        "object_id": [query.object_id] if query.object_id else [],
        "created_after": [] if query.created_after is None else [format_timestamp(query.created_after)],
        "created_before": [] if query.created_before is None else [format_timestamp(query.created_before)],
    }


PAGES: Final = (
    account_page("/deliveries", listed),
    account_page("/deliveries/resend", resend_preview),
    account_form("/deliveries/resend", resend),
    operator_page("/deliveries", listed),
)
