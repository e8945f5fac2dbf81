"""The pages as they are sent. Each is made when it is first asked for, and kept: none changes while a server runs."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from threading import Lock
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from uplift_server import __version__
from uplift_server.api.documentation.documents import FILES, REFERENCE, SHELVES, STYLE, served, text_of
from uplift_server.api.documentation.markdown import Article, article
from uplift_server.api.documentation.reference import reference

HTML: Final = "text/html; charset=utf-8"

OpenApi = Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Page:
    """What is sent, and the entity tag by which a client knows it again."""

    body: bytes
    media_type: str
    etag: str


_making: Final = Lock()


def page(address: str, openapi: OpenApi) -> Page:
    """The page at one of ADDRESSES. Takes a moment the first time."""
    with _making:
        return _page(address, openapi)


@cache
def missing_page() -> bytes:
    """What is shown where there is no page."""
    return _framed(Article("No such page", "", ()), None, "missing.html")


@cache
def _page(address: str, openapi: OpenApi) -> Page:
    if address == STYLE:
        return _sent(_style(), "text/css; charset=utf-8")
    if address == REFERENCE:
        return _sent(_framed(reference(openapi()), address), HTML)
    source = FILES[address]
    text = text_of(source)
    if source.endswith(".json"):
        return _sent(text.encode(), "application/json")
    return _sent(_framed(article(text, partial(served, source=source)), address), HTML)


def _sent(body: bytes, media_type: str) -> Page:
    return Page(body, media_type, f'"{_digest(body)}"')


def _framed(shown: Article, address: str | None, template: str = "page.html") -> bytes:
    """An article among the documents; `address` is its own."""
    html = _template(template).render(
        article=shown,
        address=address,
        shelves=SHELVES,
        # A new version's pages never meet an old one's style in a cache.
        style=f"{STYLE}?{_digest(_style())}",
        version=__version__,
    )
    return html.encode()


def _style() -> bytes:
    return resources.files(__package__).joinpath("style.css").read_bytes()


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
