"""The files that pages refer to: vendored scripts, our own, and the style. Their URLs change with their content."""

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
FILES: Final = ("dashboard.css", "dashboard.js", "icon.svg", "vendor/htmx.min.js", "vendor/htmx-ext-sse.min.js")
PATH: Final = "/assets"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent."""

    body: bytes
    media_type: str
    url: str
    """With a digest of its content, so that it may be kept for good."""


@cache
def asset(name: str) -> Asset | None:
    """One of FILES; None for any other name."""
    if name not in FILES:
        return None
    body = resources.files(__package__).joinpath("static", *name.split("/")).read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:16]
    return Asset(body, _MEDIA_TYPES[name.rpartition(".")[2]], f"{PATH}/{name}?{digest}")


def url_of(name: str) -> str:
    """The URL of one of FILES, for a page."""
    found = asset(name)
    assert found is not None, f"there is no asset {name}"
    return found.url
