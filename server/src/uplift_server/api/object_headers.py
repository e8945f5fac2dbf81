"""Response headers and request headers for objects: `Location` for new objects, `ETag`, and `If-Match` for updates."""

from starlette.requests import Request
from starlette.responses import Response

from uplift_server.service.versions import Record, Versions, version_of


def send_location(response: Response, *segments: str) -> None:
    """Set `Location` to the path of a new object. `segments` follow `/v1` and need no escaping."""
    response.headers["location"] = "/".join(("/v1", *segments))


def send_version(response: Response, record: Record) -> None:
    """Set the ETag of an object."""
    response.headers["etag"] = f'"{version_of(record)}"'


def expected_versions(request: Request) -> Versions:
    """Return the versions in `If-Match`, or None if the request has no such header.

    Weak ETags are also valid, because a proxy that compresses responses can make ETags weak.
    """
    tags = request.headers.getlist("if-match")
    return frozenset(tag.strip().removeprefix("W/").strip('"') for tag in ",".join(tags).split(",")) if tags else None
