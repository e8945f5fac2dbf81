"""Endpoint page: the state card, the actions, and the tabs Deliveries, Subscription and Activity."""

from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core.events.subscriptions import Subscription
from uplift_server.core.http.headers import mask
from uplift_server.core.lifecycle import Status
from uplift_server.core.people.audit import ACTIONS
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Right
from uplift_server.core.security.scopes import Scope
from uplift_server.core.timestamps import format_optional_timestamp
from uplift_server.dashboard.audit_words import details_words
from uplift_server.dashboard.auth_forms import expiring_certificate
from uplift_server.dashboard.endpoint_states import held_text, state_card
from uplift_server.dashboard.figures import (
    PERIODS,
    failure_counts,
    latency_lines,
    period_of,
    status_columns,
    status_words,
    success_share,
)
from uplift_server.dashboard.forms import by_field
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.delivery_queries import DeliveryQuery
from uplift_server.service.endpoints import ShownEndpoint
from uplift_server.service.errors import Invalid
from uplift_server.service.waiting_reasons import ShownDelivery
from uplift_server.store.audit import AuditFilter
from uplift_server.store.records import EndpointState, HeldAction, Page

_STATUSES: Final = {status.text: status for status in Status}
_HELD: Final = {action.text: action for action in HeldAction}


@dataclass(frozen=True, slots=True)
class Tab:
    """A tab of the endpoint page, with its own URL."""

    name: str
    """The last segment of the tab's URL. It is empty for the first tab."""
    title: str


async def tab(
    visit: Visit, name: str, *, shown: ShownEndpoint | None = None, status: int = 200, **context: Any
) -> Response:
    """Return the endpoint page with the state card and, below the card, the tab with this name. Raises NotFound."""
    endpoint = visit.parameter("endpoint")
    if shown is None:
        shown = await visit.services.endpoints.get(visit.caller, endpoint)
    assert visit.account is not None
    now = visit.services.context.now()
    card = state_card(
        shown,
        now=now,
        contacts=len(visit.account.contact_emails),
        sends_mail=visit.dashboard.sends_mail,
    )
    here = visit.path("endpoints", endpoint, *([name] if name else []))
    if visit.request.method == "GET" and visit.request.url.query:
        here = f"{here}?{visit.request.url.query}"
    return visit.render(
        f"endpoints/{name or 'deliveries'}.html",
        status,
        id=endpoint,
        shown=shown,
        card=card,
        held=held_text(shown),
        tabs=_tabs(visit),
        tab=name,
        here=here,
        writes=visit.caller.principal.allows(Scope.ENDPOINTS_WRITE),
        tests=visit.caller.principal.has_right(Right.ENDPOINTS_TEST),
        is_enabled=shown.endpoint.state is EndpointState.ENABLED,
        certificate_expires_at=expiring_certificate(shown, now),
        now=now,
        **context,
    )


def _tabs(visit: Visit) -> list[Tab]:
    """Return the tabs that the visitor can access."""
    principal = visit.caller.principal
    tabs = [Tab("", "Deliveries"), Tab("subscription", "Subscription")]
    if principal.allows(Scope.SECRETS_READ) or principal.allows(Scope.SECRETS_WRITE):
        tabs.append(Tab("security", "Security"))
    if principal.has_right(Right.ENDPOINTS_TEST):
        tabs.append(Tab("test", "Test"))
    if principal.has_right(Right.AUDIT_READ):
        tabs.append(Tab("activity", "Activity"))
    return tabs


async def deliveries(visit: Visit) -> Response:
    """Show the deliveries to the endpoint, newest first."""
    endpoint = visit.parameter("endpoint")
    asked = visit.query
    wanted = asked.text("status") if asked.text("status") in _STATUSES else ""
    type_name = asked.optional("type")
    wrong: list[Problem] = []
    after, before = asked.instant("created_after", wrong), asked.instant("created_before", wrong)
    status, problems = 200, {}
    page: Page[ShownDelivery] = Page([], None)
    try:
        page = await visit.services.deliveries.page_of_endpoint(
            visit.caller,
            endpoint,
            DeliveryQuery(
                status=[wanted] if wanted else [],
                type=[type_name] if type_name else [],
                created_after=after,
                created_before=before,
            ),
            visit.listing(),
            problems=wrong,
        )
    except Invalid as error:
        status, problems = 422, by_field(error.problems)
    narrowed = {name: asked.optional(name) for name in ("status", "type", "created_after", "created_before")}
    return await tab(
        visit,
        "",
        status=status,
        problems=problems,
        rows=page.items,
        next=visit.cursor(page.next_key),
        statuses=[("", "All"), *((name, name.capitalize()) for name in _STATUSES)],
        types=[("", "All"), *((name, name) for name in type_names(visit, type_name))],
        wanted=wanted,
        type_name=type_name or "",
        after=after,
        before=before,
        filters=link("", **narrowed).removeprefix("?"),
        query=link(
            "",
            status=wanted or None,
            type=type_name,
            created_after=format_optional_timestamp(after),
            created_before=format_optional_timestamp(before),
        ),
        may_replay=visit.caller.principal.allows(Scope.DELIVERIES_WRITE),
        **await _numbers(visit, endpoint),
    )


def type_names(visit: Visit, chosen: str | None = None) -> list[str]:
    """Return the names of the event types that the filter offers.

    The names include the selected event type, even if the event type was deleted.
    """
    live = visit.services.context.cache.event_types.values()
    return sorted({each.name for each in live if not each.archived} | ({chosen} if chosen else set()))


async def _numbers(visit: Visit, endpoint: str) -> dict[str, Any]:
    """Return an endpoint's statistics and charts for the period in the URL. Raises NotFound."""
    period = period_of(visit.query.text("period"))
    series = await visit.services.statistics.of_endpoint(visit.caller, endpoint, period)
    labels, latencies = latency_lines(series)
    return {
        "period": period.value,
        "periods": [(each.value, title) for each, title in PERIODS.items()],
        "since": series.buckets[0].at,
        "numbers": series.totals,
        "success": success_share(series.totals),
        "became": status_words(series.totals),
        "columns": status_columns(series),
        "labels": labels,
        "latencies": latencies,
        "failures": failure_counts(series.totals),
    }


async def subscription(visit: Visit) -> Response:
    """Show the subscription and settings of the endpoint."""
    shown = await visit.services.endpoints.get(visit.caller, visit.parameter("endpoint"))
    wanted = Subscription(shown.endpoint.event_types)
    live = visit.services.context.cache.event_types.values()
    return await tab(
        visit,
        "subscription",
        shown=shown,
        matching=sorted(each.name for each in live if not each.archived and wanted.matches(each.name)),
        headers={name: mask(name, value) for name, value in shown.headers.items()},
    )


async def activity(visit: Visit) -> Response:
    """Show the audit log of the endpoint. The newest entries come first."""
    page = await visit.services.audit_log.page(
        visit.caller, AuditFilter(subject=visit.parameter("endpoint")), visit.listing()
    )
    entries = [(entry, ACTIONS.get(entry.action, ""), details_words(entry.details)) for entry in page.items]
    return await tab(visit, "activity", entries=entries, next=visit.cursor(page.next_key))


async def pause(visit: Visit) -> Response:
    """Pause the endpoint."""
    endpoint = visit.parameter("endpoint")
    await visit.services.endpoint_states.pause(visit.caller, endpoint)
    return visit.leave(visit.path("endpoints", endpoint), "Endpoint paused. The server holds its deliveries.")


_DONE: Final = {
    HeldAction.SEND: "The server sends the held deliveries, oldest first.",
    HeldAction.DROP: "The server cancels the held deliveries.",
    HeldAction.KEEP: "The held deliveries stay held until you release or drop them.",
}


async def enable(visit: Visit) -> Response:
    """Enable the endpoint. The form field `held` selects whether to send, drop or keep its held deliveries."""
    endpoint = visit.parameter("endpoint")
    held = _HELD.get((await visit.form()).text("held"), HeldAction.SEND)
    await visit.services.endpoint_states.enable(visit.caller, endpoint, held)
    return visit.leave(visit.path("endpoints", endpoint), f"Endpoint enabled. {_DONE[held]}")


PAGES: Final = (
    account_page("/endpoints/{endpoint}", deliveries),
    account_page("/endpoints/{endpoint}/subscription", subscription),
    account_page("/endpoints/{endpoint}/activity", activity),
    account_form("/endpoints/{endpoint}/pause", pause, back="/endpoints/{endpoint}"),
    account_form("/endpoints/{endpoint}/enable", enable, back="/endpoints/{endpoint}"),
)
