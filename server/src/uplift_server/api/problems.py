"""Every refusal as RFC 9457 has it: `application/problem+json` with a stable code. Knows no framework."""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import structlog

from uplift_server.core.problems import Problem
from uplift_server.service import errors
from uplift_server.store import errors as store_errors

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "/docs/errors#"
"""Before the code: where people read about it."""

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
    "malformed_request": "Not HTTP",
    "malformed_json": "The body is not JSON",
    "duplicate_header": "Repeated header",
    "unauthorized": "No valid key",
    "forbidden": "Not allowed",
    "not_found": "Not found",
    "method_not_allowed": "Method not allowed",
    "request_timeout": "The request did not come in time",
    "conflict": "Not possible in this state",
    "idempotency_conflict": "Idempotency key used for something else",
    "payload_too_large": "Too large",
    "unsupported_media_type": "Not JSON by its content type",
    "misdirected": "Another process serves this",
    "validation_failed": "Something is wrong with the request",
    "account_required": "Which account?",
    "rate_limited": "Rate limit exceeded",
    "head_too_large": "Too many headers",
    "internal_error": "An error of ours",
    "unavailable": "Not possible now",
}
"""What each code means, in a few words."""


class Refusal(NamedTuple):
    """An answer that refuses."""

    status: int
    headers: Headers
    body: bytes


def refusal_of(error: Exception) -> Refusal:
    """The answer to a request that ended with this error. One that nobody foresaw is logged and told without detail."""
    if isinstance(error, errors.Invalid):
        return problem(error.code, error.detail, problems=error.problems)
    if isinstance(error, errors.ServiceError):
        return problem(error.code, error.detail, retry_after_s=error.retry_after_s)
    if isinstance(error, store_errors.Unavailable):
        return unavailable()
    if isinstance(error, store_errors.Conflict):
        return problem("conflict", str(error))
    _log.error("a request ended with an unforeseen error", exc_info=error)
    return problem("internal_error", "The server's log says more. Nothing is known about whether the request was done.")


def unavailable() -> Refusal:
    """The answer while the database cannot do what is needed, or not in time."""
    return problem("unavailable", "The database cannot do this now. Try again in a moment.", retry_after_s=1)


def problem(
    code: str, detail: str, *, problems: Sequence[Problem] = (), retry_after_s: int | None = None, headers: Headers = ()
) -> Refusal:
    """An answer with one of the codes of STATUS."""
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
    # What was sent may hold halves of surrogate pairs, which UTF-8 cannot carry.
    return Refusal(status, all_headers, json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
