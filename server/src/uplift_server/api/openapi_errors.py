"""The error responses and the response headers in the OpenAPI document."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from uplift_server.api.openapi_operations import Operation
from uplift_server.api.problems import MEDIA_TYPE
from uplift_server.api.repeats import HEADER as REPLAYED
from uplift_server.service.problem_documents import STATUS, TITLES

PROBLEM: Final = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "description": "Path of the documentation for this code."},
        "title": {"type": "string", "description": "Short description of the code."},
        "status": {"type": "integer", "description": "HTTP status code."},
        "detail": {"type": "string", "description": "The cause, and how to fix it."},
        "code": {"type": "string", "enum": list(STATUS), "description": "Stable error code."},
        "errors": {
            "type": "array",
            "description": "The problems with the request, at most 100.",
            "items": {
                "type": "object",
                "required": ["field", "code", "message"],
                "properties": {
                    "field": {"type": "string", "description": "Path of the field, such as `headers.X-Team`."},
                    "code": {"type": "string", "description": "Stable field code."},
                    "message": {"type": "string", "description": "The problem, and how to fix it."},
                },
            },
        },
    },
}
_REPLAYED: Final = REPLAYED.title()
RESPONSE_HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    _REPLAYED: {
        "description": "`true` if an earlier request with the same key created the object. Omitted otherwise.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "ETag": {
        "description": "Version of the object, for `If-Match`.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "Path of the new object.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds to wait before you send the request again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "Uplift-Database": {
        "description": "Random ID of the database. Every database has a different ID.",
        "required": True,
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {
        "description": "Authentication scheme that the server accepts.",
        "required": True,
        "schema": {"type": "string"},
    },
}
"""The definitions of the response headers. The keys are header names."""
_OF_STATUS: Final = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
"""The headers of error responses. The keys are status codes."""
_EVERY: Final = ("malformed_request", "duplicate_header", "internal_error", "unavailable")
_WITH_KEY: Final = ("unauthorized", "forbidden", "not_found", "validation_failed")
_WITH_BODY: Final = (
    "malformed_json",
    "request_timeout",
    "payload_too_large",
    "unsupported_media_type",
    "rate_limited",
)
_OF_HEADER: Final = {"Idempotency-Key": "idempotency_conflict", "If-Match": "precondition_failed"}
"""Error codes that a request header can cause. The keys are header names."""
_DEFAULT: Final = {
    "description": "Another error. `code` identifies the cause.",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def success_headers(operation: Operation, described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers of an operation's successful responses."""
    repeatable = any(each["name"] == "Idempotency-Key" for each in described.get("parameters", ()))
    return headers_of([*operation.headers, *([_REPLAYED] if repeatable else [])])


def error_responses(operation: Operation, described: Mapping[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """Return an operation's error responses by status code, as references to the responses in `shared`.

    This function adds missing responses to `shared`.
    """
    by_status: dict[int, list[str]] = {}
    codes = {*operation.codes, *_implied_codes(described)}
    for code in (each for each in STATUS if each in codes):
        by_status.setdefault(STATUS[code], []).append(code)
    found: dict[str, Any] = {}
    for status, together in by_status.items():
        name = "-".join(together)
        shared[name] = _response(status, together)
        found[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return {**found, "default": _DEFAULT}


def _implied_codes(described: Mapping[str, Any]) -> Iterator[str]:
    """Yield the error codes that an operation's authentication, body and parameters can cause."""
    yield from _EVERY
    if described.get("security") != []:
        yield from _WITH_KEY
    if "requestBody" in described:
        yield from _WITH_BODY
    for each in described.get("parameters", ()):
        if each["name"] == "endpoint":
            # The uid of an endpoint is unique only within its account, so some callers must select the account.
            yield "account_required"
        if each["name"] in _OF_HEADER:
            yield _OF_HEADER[each["name"]]


def _response(status: int, codes: Iterable[str]) -> dict[str, Any]:
    response = {**_DEFAULT, "description": " ".join(f"`{code}`: {TITLES[code]}." for code in codes)}
    headers = headers_of(_OF_STATUS.get(status, ()))
    return {**response, "headers": headers} if headers else response


def headers_of(names: Iterable[str]) -> dict[str, Any]:
    """Return references to the response headers with these names."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
