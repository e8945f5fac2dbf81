"""Pages that list, create, edit, archive and delete event types."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core.events import envelope
from uplift_server.core.problems import Problem
from uplift_server.dashboard.forms import Form, by_label, changed_since, seen_versions
from uplift_server.dashboard.rendering import pretty
from uplift_server.dashboard.routes import operator_form, operator_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.errors import Invalid, PreconditionFailed
from uplift_server.service.event_types import EventTypeDraft
from uplift_server.service.fields import UNSET
from uplift_server.service.versions import version_of
from uplift_server.store.records import EventType

_NEW: Final = "operator/new_event_type.html"
_ONE: Final = "operator/event_type.html"
_TEXTS: Final = ("name", "group", "description", "api_version", "schema", "example")
_LABELS: Final = {
    "group": "Group",
    "description": "Description",
    "api_version": "Version",
    "schema": "Schema",
    "example": "Example",
}
FIRST: Final[Mapping[str, Any]] = {
    "name": "",
    "group": "",
    "description": "",
    "api_version": envelope.API_VERSION_DEFAULT,
    "schema": json.dumps(
        {"type": "object", "properties": {"object": {"type": "object"}}, "required": ["object"]}, indent=2
    ),
    "example": json.dumps({"object": {}}, indent=2),
}
"""The initial values in the form that creates an event type."""


async def listed(visit: Visit) -> Response:
    """List the event types that match the search, by group. The list includes archived types."""
    search = visit.query.text("search")
    types = [live.record for live in visit.services.context.cache.event_types.values()]
    found = [each for each in types if search.casefold() in f"{each.name} {each.description}".casefold()]
    groups: dict[str, list[EventType]] = {}
    for each in sorted(found, key=lambda record: (record.group, record.name)):
        groups.setdefault(each.group, []).append(each)
    return visit.render("operator/event_types.html", groups=groups, search=search, total=len(types))


async def new(visit: Visit) -> Response:
    """Show the form that creates an event type."""
    visit.caller.require_operator()
    return visit.render(_NEW, **FIRST)


async def publish(visit: Visit) -> Response:
    """Create an event type."""
    form = await visit.form()
    name = form.text("name")
    draft, problems = _draft(form)
    try:
        await visit.services.event_types.put(visit.caller, name, draft, must_be_new=True, problems=problems)
    except Invalid as error:
        return visit.refuse(_NEW, _at_fields(error.problems), **_sent(form))
    return visit.leave(f"/operator/event-types/{name}", f"Event type {name} created.")


async def one(visit: Visit) -> Response:
    """Show the form that edits an event type."""
    record = visit.services.event_types.get(visit.parameter("name"))
    return visit.render(_ONE, version=version_of(record), **_about(visit, record), **_filled(record))


async def update(visit: Visit) -> Response:
    """Update an event type."""
    form = await visit.form()
    record = visit.services.event_types.get(visit.parameter("name"))
    draft, problems = _draft(form)
    try:
        await visit.services.event_types.update(
            visit.caller, record.name, draft, versions=seen_versions(form), problems=problems
        )
    except Invalid as error:
        context = _about(visit, record) | _sent(form) | {"name": record.name, "version": form.text("version")}
        return visit.refuse(_ONE, _at_fields(error.problems), **context)
    except PreconditionFailed:
        record = visit.services.event_types.get(record.name)
        context = _about(visit, record) | _sent(form) | {"name": record.name, "version": version_of(record)}
        refusal = changed_since(by_label(_sent(form), _LABELS), by_label(_filled(record), _LABELS))
        return visit.render(_ONE, 409, refusal=refusal, **context)
    return visit.leave(_path(record.name), f"Event type {record.name} updated.")


async def archive(visit: Visit) -> Response:
    """Archive or restore an event type."""
    archived = (await visit.form()).flag("archived")
    draft = EventTypeDraft(archived=archived)
    record = await visit.services.event_types.update(visit.caller, visit.parameter("name"), draft)
    notice = "archived. The server rejects new events of this type." if archived else "restored."
    return visit.leave(_path(record.name), f"Event type {record.name} {notice}")


async def delete(visit: Visit) -> Response:
    """Delete an event type."""
    name = visit.parameter("name")
    await visit.services.event_types.delete(visit.caller, name)
    return visit.leave("/operator/event-types", f"Event type {name} deleted.")


def _draft(form: Form) -> tuple[EventTypeDraft, list[Problem]]:
    problems: list[Problem] = []
    draft = EventTypeDraft(
        description=form.raw("description").strip(),
        group=form.optional("group"),
        schema=_json(form, "schema", problems),
        example=_json(form, "example", problems),
        api_version=form.optional("api_version"),
    )
    return draft, problems


def _json(form: Form, name: str, problems: list[Problem]) -> Any:
    text = form.raw(name)
    if not text.strip():
        return None
    try:
        found = json.loads(text, parse_constant=_no_number)
        # Reject unpaired surrogates, which are not valid text: `encode` raises an error.
        json.dumps(found, ensure_ascii=False).encode()
        return found
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        problems.append(Problem(name, "malformed_json", f"Invalid JSON: {error.msg} at {where}."))
    except (ValueError, RecursionError):
        text = "Invalid JSON: it is nested too deeply, or contains NaN, Infinity or an unpaired surrogate."
        problems.append(Problem(name, "malformed_json", text))
    return UNSET


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _at_fields(problems: Sequence[Problem]) -> list[Problem]:
    """Set each problem's field to the matching form field.

    If the problem is inside a JSON value, add the path in the JSON value to the message.
    """
    found = []
    for problem in problems:
        field, _, place = problem.field.partition(".")
        found.append(Problem(field, problem.code, f"At {place}: {problem.message}") if place else problem)
    return found


def _filled(record: EventType) -> dict[str, Any]:
    return {
        "name": record.name,
        "group": record.group,
        "description": record.description,
        "api_version": record.api_version,
        "schema": "" if record.schema is None else pretty(record.schema),
        "example": "" if record.example is None else pretty(record.example),
    }


def _sent(form: Form) -> dict[str, str]:
    return {name: form.raw(name) for name in _TEXTS}


def _about(visit: Visit, record: EventType) -> dict[str, Any]:
    endpoints = visit.services.context.cache.endpoints.values()
    return {"record": record, "wanted_by": sum(live.subscription.matches(record.name) for live in endpoints)}


def _path(name: str) -> str:
    return f"/operator/event-types/{name}"


# The names of event types contain no hyphens, so `new-type` cannot be an event type.
PAGES: Final = (
    operator_page("/event-types", listed),
    operator_page("/event-types/new-type", new),
    operator_form("/event-types/new-type", publish),
    operator_page("/event-types/{name}", one),
    operator_form("/event-types/{name}", update),
    operator_form("/event-types/{name}/archive", archive, back="/event-types/{name}"),
    operator_form("/event-types/{name}/delete", delete, back="/event-types"),
)
