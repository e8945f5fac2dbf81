"""Static files: scripts and styles. The URL of a file contains a digest of its content."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

_MEDIA_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
FILES: Final = ("dashboard.css", "dashboard.js", "live.js", "icon.svg", "vendor/htmx.min.js")
PATH: Final = "/assets"


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file with its media type."""

    body: bytes
    media_type: str
    url: str
    """The URL of the file. It contains a digest of the content, so that browsers can cache the file for a year."""


@cache
def asset(name: str) -> Asset | None:
    """Return the file with this name, or None if FILES does not contain the name."""
    if name not in FILES:
        return None
    body = resources.files(__package__).joinpath("static", *name.split("/")).read_bytes()
    return create_asset(name, body, _MEDIA_TYPES[name.rpartition(".")[2]])


def create_asset(name: str, body: bytes, media_type: str) -> Asset:
    """Return a static file with its URL."""
    digest = hashlib.sha256(body).hexdigest()[:16]
    return Asset(body, media_type, f"{PATH}/{name}?{digest}")


def url_of(name: str) -> str:
    """Return the URL of the file with this name in FILES."""
    found = asset(name)
    assert found is not None, f"unknown asset: {name}"
    return found.url
