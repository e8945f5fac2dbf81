"""Responses that clients and proxies can cache."""

from collections.abc import Mapping

from fastapi import Request
from starlette.responses import Response


def cached_response(
    request: Request, body: bytes, etag: str, media_type: str, headers: Mapping[str, str], cache_control: str
) -> Response:
    """Create a response with an ETag: 304 without a body if the client already has the content."""
    headers = {**headers, "cache-control": cache_control, "etag": etag}
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def _matches(tags: str, etag: str) -> bool:
    """Compare an If-None-Match header weakly (RFC 9110, section 13.1.2)."""
    return any(each.strip().removeprefix("W/") in {etag, "*"} for each in tags.split(","))
