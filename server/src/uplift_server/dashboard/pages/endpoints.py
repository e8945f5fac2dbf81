"""Pages that list, create, edit and delete the endpoints of an account."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.limits import ENDPOINT_TEXT_CHARACTERS_MAX
from uplift_server.core.operations.statistics import Series
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.core.security.signing import standard_form
from uplift_server.dashboard.charts import Column
from uplift_server.dashboard.endpoint_forms import (
    Filled,
    as_sent,
    draft_of,
    field_texts,
    filled_with,
    groups,
    named_at_fields,
)
from uplift_server.dashboard.endpoint_states import Summary, summary
from uplift_server.dashboard.figures import attempt_columns, attempt_words, success_share
from uplift_server.dashboard.filter_forms import PREVIEW_FIELD, ShownPreview, filter_of, named_paths
from uplift_server.dashboard.forms import Form, changed_since, key_of, seen_versions
from uplift_server.dashboard.routes import Door, Page, account_form, account_page
from uplift_server.dashboard.snippets import all_receivers, variable_line
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.context import Listing
from uplift_server.service.endpoint_queries import EndpointQuery
from uplift_server.service.endpoints import ShownEndpoint
from uplift_server.service.errors import Conflict, Invalid, NotFound, PreconditionFailed
from uplift_server.service.fields import Unset
from uplift_server.service.filter_previews import FilterPreviewDraft
from uplift_server.service.versions import version_of
from uplift_server.store.records import EventType

_NEW: Final = "endpoints/new.html"
_EDIT: Final = "endpoints/edit.html"
_TYPES_MAX: Final = 500
STATES: Final = (
    ("", "All"),
    ("enabled", "Enabled"),
    ("failing", "Failing"),
    ("paused", "Paused"),
    ("disabled", "Disabled"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """An endpoint in the list, with its statistics."""

    id: str
    shown: ShownEndpoint
    state: Summary
    success: float | None
    """The share of successful attempts in the last 24 hours, from 0 to 1, or None if there are no attempts."""
    told: str
    """The numbers of successful and failed attempts as text."""
    columns: Sequence[Column]
    """The attempts per hour as chart columns."""


async def listed(visit: Visit) -> Response:
    """List the endpoints that match the filters in the URL."""
    state = visit.query.text("state") if visit.query.text("state") in dict(STATES) else ""
    text = visit.query.text("text").replace("\0", "")[:ENDPOINT_TEXT_CHARACTERS_MAX]
    query = EndpointQuery([state] if state else [], text or None)
    page = await visit.services.endpoints.page(visit.caller, visit.listing(), query)
    names = [ids.prefixed(ids.ENDPOINT, shown.endpoint.id) for shown in page.items]
    numbers = await visit.services.statistics.of_endpoints(visit.caller, names)
    return visit.render(
        "endpoints/list.html",
        endpoints=[_row(name, shown, numbers[name]) for name, shown in zip(names, page.items, strict=True)],
        next=visit.cursor(page.next_key),
        state=state,
        call=link("/v1/endpoints", state=state or None, text=text or None),
        text=text,
        states=STATES,
        writes=visit.caller.principal.allows(Scope.ENDPOINTS_WRITE),
    )


def _row(name: str, shown: ShownEndpoint, day: Series) -> Row:
    share, told = success_share(day.totals), attempt_words(day.totals)
    return Row(name, shown, summary(shown), share, told, attempt_columns(day))


async def new(visit: Visit) -> Response:
    """Show the form that creates an endpoint."""
    visit.caller.require(Scope.ENDPOINTS_WRITE)
    return await _form(visit, _NEW, Filled())


async def create(visit: Visit) -> Response:
    """Create an endpoint and redirect to the page that shows its secret.

    If the form requests a preview, show the filter's preview instead.
    """
    form = await visit.form()
    if form.flag(PREVIEW_FIELD):
        return await _form(visit, _NEW, as_sent(form), preview=await _previewed(visit, form))
    draft, problems = draft_of(form)
    try:
        shown = await visit.services.endpoints.create(
            visit.caller, draft, idempotency_key=key_of(form), problems=problems
        )
    except Invalid as error:
        return await _form(visit, _NEW, as_sent(form), error.problems)
    except Conflict as error:
        return await _form(visit, _NEW, as_sent(form), refusal=error.detail)
    endpoint = ids.prefixed(ids.ENDPOINT, shown.endpoint.id)
    return visit.leave_with_secret(visit.path("endpoints", endpoint, "created"), endpoint, shown.secret)


async def created(visit: Visit) -> Response:
    """Show the secret of a new endpoint, and explain how to verify the requests that the endpoint receives."""
    endpoint = visit.parameter("endpoint")
    shown = await visit.services.endpoints.get(visit.caller, endpoint)
    active_since = shown.endpoint.secrets.at(visit.services.context.now()).created_at
    secret = visit.shown_secret(endpoint, since=active_since)
    return visit.render(
        "endpoints/created.html",
        shown=shown,
        secret=secret,
        standard=None if secret is None else standard_form(secret.secret),
        receivers=all_receivers(shown.endpoint.url),
        variable=variable_line(None if secret is None else secret.secret),
    )


async def edit(visit: Visit) -> Response:
    """Show the form that edits an endpoint."""
    visit.caller.require(Scope.ENDPOINTS_WRITE)
    shown = await visit.services.endpoints.get(visit.caller, visit.parameter("endpoint"))
    return await _form(visit, _EDIT, filled_with(shown), shown=shown)


async def update(visit: Visit) -> Response:
    """Update an endpoint. If the form requests a preview, show the filter's preview instead."""
    form = await visit.form()
    endpoint = visit.parameter("endpoint")
    shown = await visit.services.endpoints.get(visit.caller, endpoint)
    if form.flag(PREVIEW_FIELD):
        preview = await _previewed(visit, form)
        return await _form(visit, _EDIT, as_sent(form), shown=shown, version=form.text("version"), preview=preview)
    draft, problems = draft_of(form, shown)
    try:
        await visit.services.endpoints.update(
            visit.caller, endpoint, draft, versions=seen_versions(form), problems=problems
        )
    except Invalid as error:
        return await _form(visit, _EDIT, as_sent(form), error.problems, shown=shown, version=form.text("version"))
    except PreconditionFailed:
        shown = await visit.services.endpoints.get(visit.caller, endpoint)
        refusal = changed_since(field_texts(as_sent(form)), field_texts(filled_with(shown)))
        return await _form(visit, _EDIT, as_sent(form), refusal=refusal, shown=shown)
    except Conflict as error:
        return await _form(visit, _EDIT, as_sent(form), refusal=error.detail, shown=shown, version=form.text("version"))
    return visit.leave(
        visit.path("endpoints", endpoint, "subscription"), "Endpoint updated. The changes apply from the next attempt."
    )


async def delete(visit: Visit) -> Response:
    """Delete an endpoint."""
    await visit.services.endpoints.delete(visit.caller, visit.parameter("endpoint"))
    return visit.leave(visit.path("endpoints"), "Endpoint deleted. The server cancels its pending and held deliveries.")


async def permalink(visit: Visit) -> Response:
    """Redirect to the endpoint's page. Emails contain links to this permanent URL."""
    endpoint = visit.parameter("endpoint")
    account = _account_of(visit, endpoint)
    return visit.leave(f"/accounts/{account}/endpoints/{endpoint}")


def _account_of(visit: Visit, endpoint: str) -> str:
    """Return the ID of the account that owns the endpoint.

    Raises NotFound if the visitor has no access to the endpoint.
    """
    assert visit.visitor is not None, "the page requires a signed-in visitor"
    services = visit.services
    if visit.visitor.person is None:
        record = services.endpoints.find_cached(visit.visitor.operator(visit.address), endpoint)
        return ids.prefixed(ids.ACCOUNT, services.context.cache.accounts[record.account_seq].id)
    for membership in visit.visitor.memberships:
        account = ids.prefixed(ids.ACCOUNT, membership.account.id)
        try:
            services.endpoints.find_cached(visit.visitor.caller(account, visit.address), endpoint)
        except NotFound:
            continue
        return account
    raise NotFound(
        "Your accounts have no endpoint with this ID. If the endpoint still exists, sign in as a different member."
    )


async def _previewed(visit: Visit, form: Form) -> ShownPreview | None:
    """Return a preview of the filter in the form, or None if there is no filter.

    The preview contains the newest events of the selected types, or the problems with the filter.
    """
    problems: list[Problem] = []
    pattern = filter_of(form, problems)
    if pattern is None:
        return None
    draft = FilterPreviewDraft(None if isinstance(pattern, Unset) else pattern, form.texts("event_types"))
    try:
        return ShownPreview(await visit.services.filter_previews.preview(visit.caller, draft, problems=problems))
    except Invalid as error:
        return ShownPreview(problems=named_paths(error.problems))


async def catalog(visit: Visit) -> Sequence[EventType]:
    """Return the event types that the form offers."""
    return (await visit.services.event_types.page(Listing(_TYPES_MAX))).items


async def _form(
    visit: Visit,
    template: str,
    filled: Filled,
    problems: Sequence[Problem] = (),
    *,
    refusal: str | None = None,
    shown: ShownEndpoint | None = None,
    version: str | None = None,
    preview: ShownPreview | None = None,
) -> Response:
    """Return a page with the form. `version` is the version that the visitor has seen, by default that of `shown`."""
    context: dict[str, Any] = {
        "filled": filled,
        "groups": groups(await catalog(visit), filled.event_types),
        "shown": shown,
        "version": version_of(shown.endpoint) if version is None and shown is not None else version,
        "preview": preview,
    }
    if problems:
        return visit.refuse(template, named_at_fields(problems), **context)
    return visit.render(template, 200 if refusal is None else 409, refusal=refusal, **context)


PAGES: Final = (
    Page("GET", "/endpoints/{endpoint}", permalink, Door.VISITOR),
    account_page("/endpoints", listed),
    account_page("/endpoints/new", new),
    account_form("/endpoints/new", create),
    account_page("/endpoints/{endpoint}/created", created),
    account_page("/endpoints/{endpoint}/edit", edit),
    account_form("/endpoints/{endpoint}/edit", update),
    account_form("/endpoints/{endpoint}/delete", delete, back="/endpoints"),
)
