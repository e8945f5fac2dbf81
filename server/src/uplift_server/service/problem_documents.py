"""Problem documents (RFC 9457): the JSON form of errors in responses and in rejected events."""

from collections.abc import Sequence
from typing import Any, Final

from uplift_server.core.problems import Problem

TYPE_PREFIX: Final = "/docs/errors#"
"""The start of each error's documentation URL. The error code completes the URL."""

STATUS: Final = {
    "malformed_request": 400,
    "malformed_json": 400,
    "duplicate_header": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "conflict": 409,
    "idempotency_conflict": 409,
    "precondition_failed": 412,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "misdirected": 421,
    "validation_failed": 422,
    "account_required": 422,
    "rate_limited": 429,
    "head_too_large": 431,
    "internal_error": 500,
    "unavailable": 503,
}
"""The HTTP status code for each error code."""

TITLES: Final = {
    "malformed_request": "Malformed request",
    "malformed_json": "Malformed JSON",
    "duplicate_header": "Repeated header",
    "unauthorized": "Missing or invalid API key",
    "forbidden": "Not allowed",
    "not_found": "Not found",
    "method_not_allowed": "Method not allowed",
    "request_timeout": "Request timeout",
    "conflict": "Conflict with the current state",
    "idempotency_conflict": "Idempotency key or ID already used",
    "precondition_failed": "Object changed",
    "payload_too_large": "Request body too large",
    "unsupported_media_type": "Unsupported content type",
    "misdirected": "Not an API server",
    "validation_failed": "Invalid request",
    "account_required": "Account required",
    "rate_limited": "Rate limit exceeded",
    "head_too_large": "Request headers too large",
    "internal_error": "Internal error",
    "unavailable": "Temporarily unavailable",
}
"""The title for each error code."""


def problem_document(code: str, detail: str, problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """Return the problem document for an error. `code` is a key of STATUS."""
    document: dict[str, Any] = {
        "type": TYPE_PREFIX + code,
        "title": TITLES[code],
        "status": STATUS[code],
        "detail": detail,
        "code": code,
    }
    if problems:
        document["errors"] = [{"field": each.field, "code": each.code, "message": each.message} for each in problems]
    return document
