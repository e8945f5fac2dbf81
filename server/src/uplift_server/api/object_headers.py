"""Headers for objects: `Location` of new ones, `ETag` of their version, and `If-Match` of updates."""

from starlette.requests import Request
from starlette.responses import Response

from uplift_server.service.versions import Record, Versions, version_of


def send_location(response: Response, *segments: str) -> None:
    """Set the path of a new object: the segments after `/v1`. They need no escaping."""
    response.headers["location"] = "/".join(("/v1", *segments))


def send_version(response: Response, record: Record) -> None:
    """Set the ETag of an object."""
    response.headers["etag"] = f'"{version_of(record)}"'


def expected_versions(request: Request) -> Versions:
    """Return the versions in `If-Match`; None without the header.

    A proxy that compresses responses can make ETags weak. They still identify one version.
    """
    tags = request.headers.getlist("if-match")
    return frozenset(tag.strip().removeprefix("W/").strip('"') for tag in ",".join(tags).split(",")) if tags else None
