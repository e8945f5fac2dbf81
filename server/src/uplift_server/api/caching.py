"""Creates responses that clients and proxies can cache, with an ETag and optional gzip compression."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request
from starlette.responses import Response


@dataclass(frozen=True, slots=True)
class Content:
    """A response body and the same body compressed with gzip, with its media type and its ETag."""

    body: bytes
    compressed: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, body: bytes, media_type: str) -> "Content":
        """Create the content from an uncompressed body: compress the body with gzip, and compute its ETag."""
        return cls(body, gzip.compress(body, 6, mtime=0), media_type, f'"{digest(body)}"')


def digest(body: bytes) -> str:
    """Return the first 16 hexadecimal digits of a body's SHA-256 digest, for its ETag."""
    return hashlib.sha256(body).hexdigest()[:16]


def cached_content(request: Request, content: Content, headers: Mapping[str, str], cache_control: str) -> Response:
    """Create a cacheable response. The body is compressed if the client accepts gzip."""
    headers = {**headers, "vary": "accept-encoding"}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return cached_response(request, content.body, content.etag, content.media_type, headers, cache_control)
    headers["content-encoding"] = "gzip"
    etag = f'{content.etag[:-1]}-gzip"'
    return cached_response(request, content.compressed, etag, content.media_type, headers, cache_control)


def cached_response(
    request: Request, body: bytes, etag: str, media_type: str, headers: Mapping[str, str], cache_control: str
) -> Response:
    """Create a response with an ETag.

    If the client already has the content, the response has the status code 304 and no body.
    """
    headers = {**headers, "cache-control": cache_control, "etag": etag}
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def _matches(tags: str, etag: str) -> bool:
    """Return whether an If-None-Match header matches an ETag (weak comparison, RFC 9110, section 13.1.2)."""
    return any(each.strip().removeprefix("W/") in {etag, "*"} for each in tags.split(","))
