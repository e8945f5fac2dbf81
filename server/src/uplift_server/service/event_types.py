"""The event catalog. All callers can read it. Only operators can update it."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from uplift_server.core.events import envelope
from uplift_server.core.events.event_types import check_name
from uplift_server.core.events.schemas import check_depth, check_schema
from uplift_server.core.people.audit import difference
from uplift_server.core.problems import Problem
from uplift_server.delivery.endpoint_cache import LiveEventType, compile_schema
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.fields import UNSET, Unset, given_or, given_or_none
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, require_valid
from uplift_server.service.versions import Versions, require_version
from uplift_server.store import audit, event_types, locks
from uplift_server.store.contract import Transaction
from uplift_server.store.records import EventType, Page

EVENT_TYPE_JSON_BYTES_MAX: Final = 256 * 1024
_KIND: Final = "event type"
_AUDITED: Final = ("group", "api_version", "archived")
"""The fields whose values the audit log contains. The values of the other fields are too long."""
_TAKEN: Final = Problem("name", "taken", "The event type already exists. Update it, or use another name.")


@dataclass(frozen=True, slots=True)
class EventTypeDraft:
    """The event type fields in a request. None sets a field to its default."""

    description: str | Unset = UNSET
    group: str | Unset | None = UNSET
    schema: Any = UNSET
    example: Any = UNSET
    api_version: str | Unset | None = UNSET
    archived: bool | Unset = UNSET


class EventTypes:
    """Reads and updates the event catalog."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def put(
        self,
        caller: Caller,
        name: str,
        draft: EventTypeDraft,
        *,
        must_be_new: bool = False,
        versions: Versions = None,
        problems: Sequence[Problem] = (),
    ) -> tuple[EventType, bool]:
        """Create or replace an event type. Absent fields get their defaults.

        Return the event type, and whether it is new. Raises PreconditionFailed or Invalid. Also raises Invalid if
        `must_be_new` is set and the event type already exists.
        """
        caller.require_operator()
        wrong = check_name(name, "name")
        schema, example = _json_text(draft.schema), _json_text(draft.example)
        # Analyzing a large schema would block the event loop for too long.
        found = await asyncio.to_thread(_check, name, schema, example)
        require_valid([*problems, wrong, *found])
        return await self._context.run_shielded(
            self._put(caller, name, draft, schema, example, must_be_new=must_be_new, versions=versions)
        )

    async def update(
        self,
        caller: Caller,
        name: str,
        draft: EventTypeDraft,
        *,
        versions: Versions = None,
        problems: Sequence[Problem] = (),
    ) -> EventType:
        """Update an event type. Absent fields stay unchanged. Raises NotFound or PreconditionFailed."""
        caller.require_operator()
        while True:
            seen = await self._context.database.read(lambda c: event_types.get(c, name))
            if seen is None:
                raise not_found(_KIND, name)
            schema = seen.schema if draft.schema is UNSET else _json_text(draft.schema)
            example = seen.example if draft.example is UNSET else _json_text(draft.example)
            found: list[Problem] = []
            if (schema, example) != (seen.schema, seen.example):
                found = await asyncio.to_thread(_check, name, schema, example)
            # Do not reject an unchanged schema, because an earlier release may have accepted it.
            require_valid([*problems, *(each for each in found if draft.schema is not UNSET or each.field != "schema")])
            changed = await self._context.run_shielded(self._update(caller, seen, draft, schema, example, versions))
            if changed is not None:
                return changed

    async def page(self, listing: Listing, *, problems: Sequence[Problem] = ()) -> Page[EventType]:
        """Return a page of the event catalog."""
        request = self._context.page_request(listing, 1, problems)
        return await self._context.database.read(lambda c: event_types.page(c, request))

    def all(self) -> list[EventType]:
        """Return all event types in the catalog, sorted by group and name."""
        known = self._context.cache.event_types.values()
        return sorted((each.record for each in known), key=lambda each: (each.group, each.name))

    def exists(self, name: str) -> bool:
        """Return whether the catalog has an event type with this name."""
        return name in self._context.cache.event_types

    def get(self, name: str) -> EventType:
        """Return an event type. Raises NotFound."""
        found = self._context.cache.event_types.get(name)
        if found is None:
            raise not_found(_KIND, name)
        return found.record

    async def delete(self, caller: Caller, name: str) -> None:
        """Delete an event type. Events of this type remain. Raises NotFound."""
        caller.require_operator()
        await self._context.run_shielded(self._delete(caller, name))

    async def _put(
        self,
        caller: Caller,
        name: str,
        draft: EventTypeDraft,
        schema: str | None,
        example: str | None,
        *,
        must_be_new: bool,
        versions: Versions,
    ) -> tuple[EventType, bool]:
        now = self._context.now()

        def put(connection: Transaction) -> tuple[EventType, bool]:
            locks.take(connection, locks.CATALOG)
            before = event_types.get(connection, name)
            require_version(before, versions)
            if must_be_new and before is not None:
                require_valid([_TAKEN])
            values: dict[str, Any] = {
                "group": _group(name, draft.group),
                "description": given_or(draft.description, ""),
                "schema": schema,
                "example": example,
                "api_version": given_or_none(draft.api_version) or envelope.API_VERSION_DEFAULT,
                "archived": given_or(draft.archived, False),
            }
            if before is not None and values == _fields(before):
                return before, False
            stored, is_new = event_types.put(connection, name=name, **values, now=now)
            self._audit(connection, caller, before, stored)
            return stored, is_new

        stored, is_new = await self._context.database.write(put)
        self._context.cache.put_event_type(stored)
        return stored, is_new

    async def _update(
        self,
        caller: Caller,
        seen: EventType,
        draft: EventTypeDraft,
        schema: str | None,
        example: str | None,
        versions: Versions,
    ) -> EventType | None:
        """Update the event type. Return the new record, or None if the stored event type differs from `seen`."""
        now, name = self._context.now(), seen.name

        def update(connection: Transaction) -> EventType | None:
            locks.take(connection, locks.CATALOG)
            before = event_types.get(connection, name)
            if before is None:
                raise not_found(_KIND, name)
            require_version(before, versions)
            if before != seen:
                return None
            values: dict[str, Any] = {
                "group": _group(name, given_or(draft.group, before.group)),
                "description": given_or(draft.description, before.description),
                "schema": schema,
                "example": example,
                "api_version": given_or(draft.api_version, before.api_version) or envelope.API_VERSION_DEFAULT,
                "archived": given_or(draft.archived, before.archived_at is not None),
            }
            if values == _fields(before):
                return before
            stored, _ = event_types.put(connection, name=name, **values, now=now)
            self._audit(connection, caller, before, stored)
            return stored

        stored = await self._context.database.write(update)
        if stored is not None:
            self._context.cache.put_event_type(stored)
        return stored

    def _audit(self, connection: Transaction, caller: Caller, before: EventType | None, stored: EventType) -> None:
        details = {"new": True} if before is None else difference(_fields(before), _fields(stored), shown=_AUDITED)
        if details:
            audit.add(connection, self._context.audit_entry(caller, "event_type.published", stored.name, details, None))

    async def _delete(self, caller: Caller, name: str) -> None:
        now = self._context.now()

        def delete(connection: Transaction) -> bool:
            existed = event_types.delete(connection, name, now=now)
            if existed:
                audit.add(connection, self._context.audit_entry(caller, "event_type.deleted", name, {}, None))
            return existed

        if not await self._context.database.write(delete):
            raise not_found(_KIND, name)
        self._context.cache.drop_event_type(name)


def _fields(event_type: EventType) -> dict[str, Any]:
    return {
        "description": event_type.description,
        "group": event_type.group,
        "schema": event_type.schema,
        "example": event_type.example,
        "api_version": event_type.api_version,
        "archived": event_type.archived_at is not None,
    }


def _group(name: str, group: str | Unset | None) -> str:
    return given_or_none(group) or name.partition(".")[0]


def _json_text(value: Any) -> str | None:
    return None if value is UNSET or value is None else json.dumps(value, ensure_ascii=False)


def _size_problem(field: str, text: str) -> Problem | None:
    """Return a problem if a schema or an example is too large or too complex."""
    if len(text.encode()) > EVENT_TYPE_JSON_BYTES_MAX:
        return Problem(field, "too_long", f"The JSON is too large. Use at most {EVENT_TYPE_JSON_BYTES_MAX} bytes.")
    value = json.loads(text)
    return check_schema(value, text) if field == "schema" else check_depth(value, field)


def _check(name: str, schema: str | None, example: str | None) -> list[Problem]:
    """Return the problems with a schema and an example, including an example that does not match the schema."""
    found = {
        field: _size_problem(field, text)
        for field, text in (("schema", schema), ("example", example))
        if text is not None
    }
    problems = [problem for problem in found.values() if problem is not None]
    if schema is None or found["schema"] is not None:
        return problems
    try:
        compile_schema(schema)
    except ValueError as error:
        return [*problems, _compile_problem(schema, str(error).partition("\n")[0][:300])]
    if example is None or problems:
        return problems
    record = EventType(
        seq=0,
        name=name,
        group="",
        description="",
        schema=schema,
        example=None,
        api_version="",
        documented=False,
        created_at=0,
        updated_at=0,
        archived_at=None,
    )
    live = LiveEventType(record)
    return [
        Problem("example" + problem.field.removeprefix("data"), problem.code, problem.message)
        for problem in live.problems(example.encode())
    ]


def _compile_problem(schema: str, error: str) -> Problem:
    """Return the problem with a schema that the validator rejects."""
    try:
        compile_schema(schema, may_backtrack=True)
    except ValueError:
        return Problem(
            "schema", "schema_invalid", f"The schema is not valid JSON Schema 2020-12: {error}. Correct the schema."
        )
    text = f"A pattern is not supported: {error}. Do not use lookaround, backreferences or large repetitions."
    return Problem("schema", "pattern_unsupported", text)
