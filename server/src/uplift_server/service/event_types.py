"""The event catalog. All callers can read it, and operators can change it."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
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
# The audit log records only that these fields changed, because they are long.
_AUDITED: Final = ("group", "api_version", "archived")
_TAKEN: Final = Problem("name", "taken", "The event type already exists. Update it, or use another name.")


@dataclass(frozen=True, slots=True)
class EventTypeDraft:
    """The fields of an event type in a request. Absent fields have their defaults."""

    description: str | Unset = UNSET
    group: str | Unset | None = UNSET
    schema: Any = UNSET
    example: Any = UNSET
    api_version: str | Unset | None = UNSET
    archived: bool | Unset = UNSET


class Expected(Enum):
    """The catalog entry that the writer of an event type expects."""

    ANYTHING = "anything"
    NONE = "none"
    """No type of this name. The request must not replace one."""
    ONE = "one"
    """A type of this name. It stays archived or published."""


class EventTypes:
    """Manages the event catalog."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def put(
        self,
        caller: Caller,
        name: str,
        draft: EventTypeDraft,
        *,
        expected: Expected = Expected.ANYTHING,
        versions: Versions = None,
        problems: Sequence[Problem] = (),
    ) -> tuple[EventType, bool]:
        """Create or replace an event type. Return it, and whether it is new.

        Raises Invalid, including if Expected.NONE does not hold, NotFound if Expected.ONE does not hold, and
        PreconditionFailed.
        """
        caller.require_operator()
        wrong = check_name(name, "name")
        schema, example = _json_text(draft.schema), _json_text(draft.example)
        # The analysis of a large schema would block the event loop for too long.
        found = await asyncio.to_thread(_check, name, schema, example)
        require_valid([*problems, wrong, *found])
        return await self._context.run_shielded(self._put(caller, name, draft, schema, example, expected, versions))

    async def archive(self, caller: Caller, name: str, *, archived: bool) -> EventType:
        """Archive a type, so that new events are rejected, or publish it again. Raises NotFound."""
        caller.require_operator()
        return await self._context.run_shielded(self._archive(caller, name, archived=archived))

    async def page(self, listing: Listing, *, problems: Sequence[Problem] = ()) -> Page[EventType]:
        """Return the catalog."""
        request = self._context.page_request(listing, 1, problems)
        return await self._context.database.read(lambda c: event_types.page(c, request))

    def all(self) -> list[EventType]:
        """Return the whole catalog by group and name."""
        known = self._context.cache.event_types.values()
        return sorted((each.record for each in known), key=lambda each: (each.group, each.name))

    def exists(self, name: str) -> bool:
        """Whether the catalog has a type of this name."""
        return name in self._context.cache.event_types

    def get(self, name: str) -> EventType:
        """Return a type. Raises NotFound."""
        found = self._context.cache.event_types.get(name)
        if found is None:
            raise not_found(_KIND, name)
        return found.record

    async def delete(self, caller: Caller, name: str) -> None:
        """Delete a type. Its events remain. Raises NotFound."""
        caller.require_operator()
        await self._context.run_shielded(self._delete(caller, name))

    async def _put(
        self,
        caller: Caller,
        name: str,
        draft: EventTypeDraft,
        schema: str | None,
        example: str | None,
        expected: Expected,
        versions: Versions,
    ) -> tuple[EventType, bool]:
        now = self._context.now()
        description = given_or(draft.description, "")
        group = given_or_none(draft.group) or name.partition(".")[0]
        api_version = given_or_none(draft.api_version) or envelope.API_VERSION_DEFAULT

        def put(connection: Transaction) -> tuple[EventType, bool]:
            locks.take(connection, locks.CATALOG)
            before = event_types.get(connection, name)
            require_version(before, versions)
            archived = given_or(draft.archived, False)
            if expected is Expected.NONE and before is not None:
                require_valid([_TAKEN])
            if expected is Expected.ONE:
                if before is None:
                    raise not_found(_KIND, name)
                archived = before.archived_at is not None
            stored, is_new = event_types.put(
                connection,
                name=name,
                group=group,
                description=description,
                schema=schema,
                example=example,
                api_version=api_version,
                archived=archived,
                now=now,
            )
            self._audit(connection, caller, before, stored)
            return stored, is_new

        stored, is_new = await self._context.database.write(put)
        self._context.cache.put_event_type(stored)
        return stored, is_new

    async def _archive(self, caller: Caller, name: str, *, archived: bool) -> EventType:
        now = self._context.now()

        def archive(connection: Transaction) -> EventType | None:
            locks.take(connection, locks.CATALOG)
            before = event_types.get(connection, name)
            stored = event_types.set_archived(connection, name, archived=archived, now=now)
            if stored is not None:
                self._audit(connection, caller, before, stored)
            return stored

        stored = await self._context.database.write(archive)
        if stored is None:
            raise not_found(_KIND, name)
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


def _fields(event_type: EventType) -> dict[str, object]:
    """Return the fields to compare for the audit log."""
    return {
        "description": event_type.description,
        "group": event_type.group,
        "schema": event_type.schema,
        "example": event_type.example,
        "api_version": event_type.api_version,
        "archived": event_type.archived_at is not None,
    }


def _json_text(value: Any) -> str | None:
    return None if value is UNSET or value is None else json.dumps(value, ensure_ascii=False)


def _size_problem(field: str, text: str) -> Problem | None:
    """Return the problem with a schema or an example that is too large or too complex."""
    if len(text.encode()) > EVENT_TYPE_JSON_BYTES_MAX:
        return Problem(field, "too_long", f"The JSON is too large. Use at most {EVENT_TYPE_JSON_BYTES_MAX} bytes.")
    value = json.loads(text)
    return check_schema(value, text) if field == "schema" else check_depth(value, field)


def _check(name: str, schema: str | None, example: str | None) -> list[Problem]:
    """Return the problems with a schema and an example, including whether the example matches the schema."""
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
