"""The catalog as operators write it: publishing event types, changing, archiving and deleting them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core.events import envelope
from uplift_server.core.problems import Problem
from uplift_server.dashboard.forms import Form
from uplift_server.dashboard.rendering import pretty
from uplift_server.dashboard.routes import operator_form, operator_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.errors import Invalid
from uplift_server.service.event_types import EventTypeDraft, Expected
from uplift_server.service.fields import UNSET
from uplift_server.store.records import EventType

_NEW: Final = "operator/new_event_type.html"
_ONE: Final = "operator/event_type.html"
_TEXTS: Final = ("name", "group", "description", "api_version", "schema", "example")
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
"""What stands in the form of a new type."""


async def listed(visit: Visit) -> Response:
    """All types by group, archived ones too, or those a search finds."""
    search = visit.query.text("search")
    types = [live.record for live in visit.services.context.cache.event_types.values()]
    found = [each for each in types if search.casefold() in f"{each.name} {each.description}".casefold()]
    groups: dict[str, list[EventType]] = {}
    for each in sorted(found, key=lambda record: (record.group, record.name)):
        groups.setdefault(each.group, []).append(each)
    return visit.render("operator/event_types.html", groups=groups, search=search, total=len(types))


async def new(visit: Visit) -> Response:
    """The form of a new type."""
    return visit.render(_NEW, **FIRST)


async def publish(visit: Visit) -> Response:
    """Add it to the catalog."""
    form = await visit.form()
    name = form.text("name")
    draft, problems = _draft(form)
    try:
        await visit.services.event_types.put(visit.caller, name, draft, expected=Expected.NONE, problems=problems)
    except Invalid as error:
        return visit.refuse(_NEW, _at_fields(error.problems), **_sent(form))
    return visit.leave(f"/operator/event-types/{name}", f"{name} is published: events of it are accepted from now on.")


async def one(visit: Visit) -> Response:
    """The form with a type as it is."""
    record = visit.services.event_types.get(visit.parameter("name"))
    return visit.render(_ONE, **_about(visit, record), **_filled(record))


async def update(visit: Visit) -> Response:
    """Change what is said of a type."""
    form = await visit.form()
    record = visit.services.event_types.get(visit.parameter("name"))
    draft, problems = _draft(form)
    try:
        await visit.services.event_types.put(visit.caller, record.name, draft, expected=Expected.ONE, problems=problems)
    except Invalid as error:
        return visit.refuse(
            _ONE, _at_fields(error.problems), **_about(visit, record), **{**_sent(form), "name": record.name}
        )
    return visit.leave(_path(record.name), f"{record.name} is changed.")


async def archive(visit: Visit) -> Response:
    """Refuse new events of a type, or accept them again."""
    archived = (await visit.form()).flag("archived")
    record = await visit.services.event_types.archive(visit.caller, visit.parameter("name"), archived=archived)
    notice = "is archived: new events of it are refused." if archived else "is published again."
    return visit.leave(_path(record.name), f"{record.name} {notice}")


async def delete(visit: Visit) -> Response:
    """Take a type out of the catalog."""
    name = visit.parameter("name")
    await visit.services.event_types.delete(visit.caller, name)
    return visit.leave("/operator/event-types", f"{name} is deleted; its events stay.")


def _draft(form: Form) -> tuple[EventTypeDraft, list[Problem]]:
    """What the form says, and what of it is no JSON."""
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
        return UNSET
    try:
        found = json.loads(text, parse_constant=_no_number)
        # Fails at half of a pair of surrogates, which is no text.
        json.dumps(found, ensure_ascii=False).encode()
        return found
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        problems.append(Problem(name, "malformed_json", f"This is no JSON: {error.msg} at {where}."))
    except (ValueError, RecursionError):
        why = "This is no JSON: it is nested too deeply, has a number that JSON does not know, or half of a character."
        problems.append(Problem(name, "malformed_json", why))
    return UNSET


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _at_fields(problems: Sequence[Problem]) -> list[Problem]:
    """Problems of parts of an example, at the example, with the place in it."""
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


# No type can be called `new-type`: names have no hyphen.
PAGES: Final = (
    operator_page("/event-types", listed),
    operator_page("/event-types/new-type", new),
    operator_form("/event-types/new-type", publish),
    operator_page("/event-types/{name}", one),
    operator_form("/event-types/{name}", update),
    operator_form("/event-types/{name}/archive", archive),
    operator_form("/event-types/{name}/delete", delete),
)
