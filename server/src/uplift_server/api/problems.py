"""Error responses in `application/problem+json` (RFC 9457) with stable codes, independent of FastAPI."""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import structlog

from uplift_server.core.problems import Problem
from uplift_server.service import errors
from uplift_server.store import errors as store_errors

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "/docs/errors#"
"""The URL of the documentation, without the code at its end."""

Headers = Sequence[tuple[bytes, bytes]]

_log = structlog.get_logger("uplift.api")

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
"""The HTTP status of each code."""

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
    "idempotency_conflict": "Idempotency key already used",
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
"""The title of each code."""


class ErrorResponse(NamedTuple):
    """An error response."""

    status: int
    headers: Headers
    body: bytes


def error_response_of(error: Exception) -> ErrorResponse:
    """Return the response for an error. Log an unexpected error, and omit its details from the response."""
    if isinstance(error, errors.ServiceError):
        return problem(error.code, error.detail, problems=error.problems, retry_after_s=error.retry_after_s)
    if isinstance(error, store_errors.Unavailable):
        return unavailable()
    if isinstance(error, store_errors.Conflict):
        return problem("conflict", str(error))
    _log.error("request failed with unexpected error", exc_info=error)
    detail = "An internal error occurred, and the server may not have completed the request. Try again later."
    return problem("internal_error", detail)


def unavailable() -> ErrorResponse:
    """Return the response while the database is unavailable or too slow."""
    return problem("unavailable", "The database is temporarily unavailable. Try again in a moment.", retry_after_s=1)


def problem(
    code: str, detail: str, *, problems: Sequence[Problem] = (), retry_after_s: int | None = None, headers: Headers = ()
) -> ErrorResponse:
    """Return an error response with one of the codes of STATUS."""
    status = STATUS[code]
    body: dict[str, Any] = {
        "type": TYPE_PREFIX + code,
        "title": TITLES[code],
        "status": status,
        "detail": detail,
        "code": code,
    }
    if problems:
        body["errors"] = [{"field": each.field, "code": each.code, "message": each.message} for each in problems]
    all_headers = [(b"content-type", MEDIA_TYPE.encode()), *headers]
    if status == 401:
        all_headers.append((b"www-authenticate", b'Bearer realm="uplift"'))
    if retry_after_s is not None:
        all_headers.append((b"retry-after", str(retry_after_s).encode()))
    # Request values may contain lone surrogates, which UTF-8 cannot encode.
    return ErrorResponse(status, all_headers, json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
