"""Readers of request bodies and query parameters.

The readers return the problems with invalid fields instead of raising an error. The readers pass the valid fields and
the problems to the service, which checks the permissions first and then reports all problems at once. FastAPI's own
validation would report values of the wrong type or outside their bounds, but not the problems that the service finds.
If a route reads no query parameters, `caller_of` rejects them at once.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, NamedTuple, get_origin

import msgspec
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect

from uplift_server.api.route_readers import readers_of
from uplift_server.core import ids
from uplift_server.core.limits import (
    REQUEST_BODY_BYTES_MAX,
    REQUEST_CONTAINERS_MAX,
    REQUEST_ENTRIES_MAX,
)
from uplift_server.core.problems import Problem
from uplift_server.core.suggestions import FIELD_CHARACTERS_MAX, unknown_fields
from uplift_server.service.errors import Invalid, Malformed, PayloadTooLarge, UnsupportedMediaType
from uplift_server.service.idempotency import IdempotencyKey
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import malformed_json
from uplift_server.service.services import Services

_JSON: Final = "application/json"


class Sent(NamedTuple):
    """The parsed body of a request, and the problems with its fields."""

    given: dict[str, Any]
    """The names and values of the valid fields."""
    problems: Sequence[Problem]
    digest: bytes
    """The SHA-256 digest of the body."""


class ParsedQuery(NamedTuple):
    """The parsed query of a request, and the problems with its parameters."""

    values: Any
    """An instance of the query's model, with defaults for the invalid parameters."""
    problems: Sequence[Problem]


# Use coroutines, because FastAPI calls other functions in a thread. Only the event loop's thread may use the cache.
async def services_of(request: Request) -> Services:
    """Return the services of the application."""
    services: Services = request.app.state.services
    return services


async def caller_of(request: Request) -> Caller:
    """Return the caller of a request.

    Raises Unauthorized if the key is not valid, or NotFound if the account in `Uplift-Account` does not exist or
    does not belong to the caller. Raises Invalid if the request has query parameters, and its route reads none.
    """
    authorization = request.headers.get("authorization")
    caller = (await services_of(request)).authenticator.caller(
        None if authorization is None else authorization.encode("latin-1"),
        request.headers.get("uplift-account"),
        None if request.client is None else request.client.host,
    )
    if request.query_params and not any(isinstance(each, QueryReader) for each in readers_of(request.scope["route"])):
        raise Invalid(unknown_fields(request.query_params, ()))
    return caller


ServicesOf = Annotated[Services, Depends(services_of)]
CallerOf = Annotated[Caller, Depends(caller_of)]


def account_id(services: Services, caller: Caller, account: str) -> str:
    """Return the ID of the account with this ID or `uid`. Raises NotFound if the account does not exist."""
    return ids.prefixed(ids.ACCOUNT, services.context.find_account(caller, account).id)


class BodyReader:
    """A dependency that parses a JSON body with a model. The OpenAPI document describes the body with the same model.

    `required` is false for calls with an optional body.
    """

    def __init__(self, model: type[BaseModel], *, required: bool = True) -> None:
        self.model = model
        self.required = required

    async def __call__(self, request: Request, caller: CallerOf) -> Sent:
        """Read the body. Raises Malformed, PayloadTooLarge, UnsupportedMediaType, RateLimited or Busy."""
        body = await _read(request, caller)
        if not body and not self.required:
            return Sent({}, (), hashlib.sha256(body).digest())
        content_type = request.headers.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() != _JSON:
            shown = (
                f"The content type {content_type[:100]} is not supported."
                if content_type
                else "The content type is missing."
            )
            raise UnsupportedMediaType(f"{shown} Send `Content-Type: {_JSON}`.")
        given, problems = read_object(self.model, _decoded(body))
        return Sent(given, problems, hashlib.sha256(body).digest())


class QueryReader:
    """A dependency that parses query parameters with a model. All fields of the model have defaults."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model

    async def __call__(self, request: Request, _caller: CallerOf) -> ParsedQuery:
        pairs = request.query_params.multi_items()
        counts = Counter(name for name, _ in pairs)
        given, problems = _known(self.model, dict(pairs))
        lists = {name for name in given if get_origin(self.model.model_fields[name].annotation) is list}
        given |= {name: request.query_params.getlist(name) for name in lists}
        problems += [
            Problem(name, "repeated", "The request repeats this parameter. Send the parameter once.")
            for name in given
            if counts[name] > 1 and name not in lists
        ]
        try:
            return ParsedQuery(self.model.model_validate(given), problems)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            # Several values of a list parameter can be invalid. Report only the first problem of each parameter.
            first = {detail["loc"][0]: detail for detail in reversed(details)}
            problems += [replace(_problem(detail), field=str(name)) for name, detail in reversed(first.items())]
            bad = {detail["loc"][0] for detail in details}
            readable = {name: value for name, value in given.items() if name not in bad}
            return ParsedQuery(self.model.model_validate(readable), problems)


def key_of(request: Request, sent: Sent) -> IdempotencyKey | None:
    """Return the idempotency key of a request, if it has one."""
    key = request.headers.get("idempotency-key")
    return None if key is None else IdempotencyKey(key, sent.digest)


def read_object(model: type[BaseModel], value: Any) -> tuple[dict[str, Any], list[Problem]]:
    """Return the valid fields of a decoded body, and all problems with the body."""
    if not isinstance(value, dict):
        return {}, [Problem("", "type_object", "The body must be a JSON object.")]
    known, problems = _known(model, value)
    # Report only one problem for a field with too many entries. Creating thousands of problems would take seconds.
    endless = {name for name, each in known.items() if _is_endless(model, name, each)}
    problems += [
        Problem(name, "too_many", f"The field has too many entries. Send at most {REQUEST_ENTRIES_MAX} entries.")
        for name in known
        if name in endless
    ]
    known |= {name: type(known[name])() for name in endless}
    try:
        model.model_validate(known, strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        # The `type` of an object selects its model. Omit the whole object if any of its fields is invalid.
        variants = {detail["loc"][0] for detail in details if _variant(detail, known)}
        details = [_without_variant(detail, known) for detail in details]
        # The models use only JSON types, so validation does not change a value. Return the values that were sent.
        bad = endless | variants | {detail["loc"][0] for detail in details if len(detail["loc"]) == 1}
        given = {name: _without(each, name, details) for name, each in known.items() if name not in bad}
        return given, [*problems, *map(_problem, details)]
    return {name: each for name, each in known.items() if name not in endless}, problems


def _variant(detail: ErrorDetails, known: dict[str, Any]) -> bool:
    """Return whether pydantic added an object's `type` to a problem's path."""
    field, *rest = detail["loc"]
    value = known.get(str(field))
    return len(rest) > 1 and isinstance(value, dict) and value.get("type") == rest[0]


def _without_variant(detail: ErrorDetails, known: dict[str, Any]) -> ErrorDetails:
    """Return a problem without the `type` that pydantic adds to the path."""
    if not _variant(detail, known):
        return detail
    field, _, *rest = detail["loc"]
    return {**detail, "loc": (field, *rest)}


def _known(model: type[BaseModel], value: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return the known fields of a body, and problems for unknown fields, up to the maximum number of problems."""
    names = {field.alias or name for name, field in model.model_fields.items()}
    return {name: each for name, each in value.items() if name in names}, unknown_fields(value, names)


def _is_endless(model: type[BaseModel], name: str, value: Any) -> bool:
    """Return whether a field has more than REQUEST_ENTRIES_MAX entries and the model would check each entry."""
    if not isinstance(value, list | dict) or len(value) <= REQUEST_ENTRIES_MAX:
        return False
    return all(field.annotation is not Any for key, field in model.model_fields.items() if (field.alias or key) == name)


def _without(value: Any, name: str, details: Sequence[ErrorDetails]) -> Any:
    """Return a list or an object without its invalid entries. The service checks the remaining entries."""
    bad = {detail["loc"][1] for detail in details if detail["loc"][0] == name and len(detail["loc"]) > 1}
    if isinstance(value, list):
        return [each for index, each in enumerate(value) if index not in bad]
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if key not in bad}
    return value


async def _read(request: Request, caller: Caller) -> bytes:
    """Receive the complete body. Raises PayloadTooLarge if the body has more than REQUEST_BODY_BYTES_MAX bytes."""
    too_large = PayloadTooLarge(f"The request body has more than {REQUEST_BODY_BYTES_MAX} bytes. Send a smaller body.")
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdigit() else 0
    if size > REQUEST_BODY_BYTES_MAX:
        raise too_large
    body = bytearray()
    try:
        with (await services_of(request)).unfinished_bodies.reservation_of(caller.principal) as reservation:
            reservation.grow_to(size)
            async for part in request.stream():
                body += part
                if len(body) > REQUEST_BODY_BYTES_MAX:
                    raise too_large
                reservation.grow_to(len(body))
    except ClientDisconnect:
        # A disconnected client does not read the response, so do not log this error.
        raise Malformed("The request body is incomplete. Retry the request.") from None
    return bytes(body)


def _decoded(body: bytes) -> Any:
    # This also counts brackets in strings, but in practice, strings contain few brackets.
    if body.count(b"[") + body.count(b"{") > REQUEST_CONTAINERS_MAX:
        raise PayloadTooLarge(
            f"The request body has too many lists and objects. Send at most {REQUEST_CONTAINERS_MAX}."
        )
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise malformed_json(error) from error


_TEXTS: Final[dict[str, tuple[str, str]]] = {
    "missing": ("required", "The field is required."),
    "extra_forbidden": ("unknown_field", "The field does not exist. Check its spelling, or omit it."),
    "union_tag_not_found": ("required", "The object has no type. Add the field `type`."),
    "model_attributes_type": ("type_object", "The field must be an object."),
    "string_type": ("type_text", "The field must be a string."),
    "bool_type": ("type_boolean", "The field must be true or false."),
    "bool_parsing": ("type_boolean", "The field must be true or false."),
    "int_type": ("type_number", "The field must be a whole number."),
    "int_parsing": ("type_number", "The field must be a whole number."),
    "int_from_float": ("type_number", "The field must be a whole number."),
    "list_type": ("type_list", "The field must be a list."),
    "dict_type": ("type_object", "The field must be an object."),
    "model_type": ("type_object", "The field must be an object."),
}
_FORMS: Final[dict[str, tuple[str, Callable[[dict[str, Any]], str]]]] = {
    "greater_than_equal": ("out_of_range", lambda ctx: f"The number is too small. The minimum is {ctx['ge']}."),
    "less_than_equal": (
        "out_of_range",
        lambda ctx: f"The number is too large. The maximum is {ctx['le']}.",
    ),
    "int_parsing_size": ("out_of_range", lambda _: "The number is too large. Use a smaller whole number."),
    "string_too_long": ("too_long", lambda ctx: f"The text is too long. Use at most {ctx['max_length']} characters."),
    "string_too_short": (
        "too_short",
        lambda ctx: f"The text is too short. Use at least {ctx['min_length']} characters.",
    ),
    "string_pattern_mismatch": ("characters_invalid", lambda ctx: f"The text must match {ctx['pattern']}."),
    "too_long": ("too_many", lambda ctx: f"The list is too long. Use at most {ctx['max_length']} entries."),
    "union_tag_invalid": (
        "value_unknown",
        lambda ctx: f"The type is not known. Use {ctx['expected_tags'].replace(', ', ' or ')}.",
    ),
    "literal_error": ("value_unknown", lambda ctx: f"The value is not allowed. Use {ctx['expected']}."),
    "value_error": ("instant_invalid", lambda ctx: str(ctx["error"])),
}


def _problem(detail: ErrorDetails) -> Problem:
    field = ".".join(str(part) for part in detail["loc"])[:FIELD_CHARACTERS_MAX]
    kind = detail["type"]
    if kind in _TEXTS:
        return Problem(field, *_TEXTS[kind])
    if kind in _FORMS:
        code, text = _FORMS[kind]
        return Problem(field, code, text(detail.get("ctx", {})))
    return Problem(field, "invalid", f"{detail['msg']}.")
