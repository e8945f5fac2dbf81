"""Error responses in `application/problem+json` (RFC 9457) with stable codes. This module does not use FastAPI."""

import json
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from uplift_server.core.problems import Problem
from uplift_server.service import errors
from uplift_server.service.problem_documents import STATUS, problem_document
from uplift_server.store import errors as store_errors

MEDIA_TYPE: Final = "application/problem+json"
Headers = Sequence[tuple[bytes, bytes]]

_log = structlog.get_logger("uplift.api")


class ErrorResponse(NamedTuple):
    """An error response: status, headers and body."""

    status: int
    headers: Headers
    body: bytes


def error_response_of(error: Exception) -> ErrorResponse:
    """Return the response for an error. Log an unexpected error, but omit its details from the response."""
    if isinstance(error, errors.ServiceError):
        return problem(error.code, error.detail, problems=error.problems, retry_after_s=error.retry_after_s)
    if isinstance(error, store_errors.Unavailable):
        return unavailable(error.advice)
    if isinstance(error, store_errors.Conflict):
        return problem("conflict", str(error))
    _log.error("request failed with unexpected error", exc_info=error)
    detail = "An internal error occurred, and the server may not have completed the request. Try again later."
    return problem("internal_error", detail)


def unavailable(advice: str = store_errors.Unavailable.advice) -> ErrorResponse:
    """Return the error response for a database or event stream that is unavailable or too slow."""
    return problem("unavailable", advice, retry_after_s=1)


def problem(
    code: str, detail: str, *, problems: Sequence[Problem] = (), retry_after_s: int | None = None, headers: Headers = ()
) -> ErrorResponse:
    """Return an error response. `code` is one of the codes in STATUS."""
    status, body = STATUS[code], problem_document(code, detail, problems)
    all_headers = [(b"content-type", MEDIA_TYPE.encode()), *headers]
    if status == 401:
        all_headers.append((b"www-authenticate", b'Bearer realm="uplift"'))
    if retry_after_s is not None:
        all_headers.append((b"retry-after", str(retry_after_s).encode()))
    # Request values may contain lone surrogates, which UTF-8 cannot encode.
    return ErrorResponse(status, all_headers, json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
