"""Checks whether the OpenAPI document describes a response. The API tests check every response that they receive."""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from uplift_server.api import openapi_document

_TRANSPORT: Final = frozenset({"cache-control", "connection", "content-length", "content-type", "date", "server"})
"""Response headers that any response can have and that the document need not describe."""
_ANY_REQUEST: Final = frozenset({"method_not_allowed", "misdirected", "head_too_large"})
"""Error codes that any operation can return. The response `default` describes them."""


def undocumented(method: str, target: str, status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """Return which part of a response the document does not describe and where to add it, or None."""
    document, operations = _document()
    path = target.partition("?")[0]
    call = next((call for call, pattern in operations if pattern.fullmatch(f"{method} {path}")), None)
    if call is None or path.startswith("/docs"):
        return None
    code = json.loads(body)["code"] if "problem" in headers.get("content-type", "") else None
    if code in _ANY_REQUEST:
        return None
    described = document["paths"][call.partition(" ")[2]][method.lower()]["responses"].get(str(status), {})
    described = _resolved(document, described)
    if code is not None and f"`{code}`:" not in described.get("description", ""):
        return f"{call} responds with the code {code}. Add it to OPERATIONS in api/openapi_operations.py."
    if not described:
        return f"{call} responds with {status}. Add the status to `responses` of the route."
    known = {name.lower(): _resolved(document, each) for name, each in described.get("headers", {}).items()}
    unknown = sorted(headers.keys() - known.keys() - _TRANSPORT)
    if unknown:
        return (
            f"{call} responds with the headers {unknown}. Add them to RESPONSE_HEADERS in api/openapi_errors.py, and to"
            " the operation in api/openapi_operations.py."
        )
    missing = sorted(name for name, each in known.items() if each.get("required") and name not in headers)
    return f"{call} responds with {status} without the required headers {missing}." if missing else None


@cache
def _document() -> tuple[Any, list[tuple[str, re.Pattern[str]]]]:
    """Return the document, and each operation with the pattern of its requests. Literal paths come first."""
    document = openapi_document()
    calls = [f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item]
    calls.sort(key=lambda call: call.count("{"))
    return document, [(call, re.compile(re.sub(r"{\w+}", "[^/]+", call))) for call in calls]


def _resolved(document: Any, value: Any) -> Any:
    if "$ref" not in value:
        return value
    _, kind, name = value["$ref"].rsplit("/", 2)
    return document["components"][kind][name]
