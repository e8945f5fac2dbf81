"""Responses to requests for the documentation.

The server renders each response on the first request, and caches the response until the server stops.
"""

import json
from collections.abc import Callable
from functools import cache, partial
from html import escape
from importlib import resources
from threading import Lock
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from uplift_server import __version__
from uplift_server.api.caching import Content, digest
from uplift_server.api.documentation.documents import (
    FILES,
    INDEX,
    NAVIGATION,
    PAGES,
    REFERENCE,
    SCRIPT,
    STYLE,
    file_of,
    is_image,
    served,
)
from uplift_server.api.documentation.markdown import Article, article, inline
from uplift_server.api.documentation.reference import reference
from uplift_server.api.documentation.search import QUERY_CHARACTERS_MAX, Section, find, sections

HTML: Final = "text/html; charset=utf-8"

OpenApi = Callable[[], dict[str, Any]]

_ASSETS: Final = {
    STYLE: ("style.css", "text/css; charset=utf-8"),
    SCRIPT: ("script.js", "text/javascript; charset=utf-8"),
}
_TYPES: Final = {"json": "application/json", "svg": "image/svg+xml", "png": "image/png"}
"""The media types of files that the server sends unchanged. The keys are file extensions."""


_EXAMPLE_URL: Final = b"https://webhooks.example"
"""The server URL in the documentation files' examples. Pages show the URL of the running server instead."""
_rendering: Final = Lock()


def page(address: str, openapi: OpenApi) -> Content:
    """Return the response for one of ADDRESSES, or for the address of an image.

    The first call for an address renders the response.
    """
    with _rendering:
        return _page(address, openapi)


def search_page(query: str, openapi: OpenApi) -> Content:
    """Render the search results as a page, for browsers without JavaScript."""
    query = query[:QUERY_CHARACTERS_MAX].strip()
    with _rendering:
        index = _index(openapi)
    return Content.of(
        _framed(Article("Search", "", ()), None, "search.html", query=query, results=find(index, query)), HTML
    )


@cache
def missing_page() -> bytes:
    """Render the 404 page for an address that does not exist."""
    return _framed(Article("Page not found", "", ()), None, "missing.html")


@cache
def _page(address: str, openapi: OpenApi) -> Content:
    if address in _ASSETS:
        name, media_type = _ASSETS[address]
        return Content.of(_asset(name), media_type)
    if address == INDEX:
        return Content.of(_index_json(_index(openapi)), _TYPES["json"])
    media_type = _TYPES.get(address.rpartition(".")[2], "")
    if media_type:
        return Content.of(file_of(address[1:] if is_image(address) else FILES[address]).read_bytes(), media_type)
    html = _framed(_article(address, openapi), address)
    return Content.of(html.replace(_EXAMPLE_URL, _server_url(openapi)), HTML)


@cache
def _article(address: str, openapi: OpenApi) -> Article:
    if address == REFERENCE:
        return reference(openapi())
    source = FILES[address]
    return article(file_of(source).read_text(encoding="utf-8"), partial(served, source=source))


@cache
def _index(openapi: OpenApi) -> tuple[Section, ...]:
    """Return the sections of all pages, for the search."""
    articles = [(each.address, _article(each.address, openapi)) for each in PAGES]
    return tuple(section for address, each in articles for section in sections(address, each.title, each.html))


def _server_url(openapi: OpenApi) -> bytes:
    servers = openapi().get("servers")
    return escape(servers[0]["url"]).encode() if servers else _EXAMPLE_URL


def _index_json(index: tuple[Section, ...]) -> bytes:
    """Encode the search index for `script.js` as JSON: a list of pages, and a list of sections.

    Each section contains the position of its page in the list of pages.
    """
    pages = list(dict.fromkeys((each.address, each.page) for each in index))
    numbers = {address: number for number, (address, _) in enumerate(pages)}
    rows = [(numbers[each.address], each.anchor, each.heading, each.text) for each in index]
    return json.dumps({"pages": pages, "sections": rows}, ensure_ascii=False, separators=(",", ":")).encode()


def _framed(shown: Article, address: str | None, template: str = "page.html", **values: object) -> bytes:
    """Render a complete page from an article and the navigation. `address` is the address of the article."""
    number = next((number for number, each in enumerate(PAGES) if each.address == address), None)
    html = _template(template).render(
        article=shown,
        address=address,
        navigation=NAVIGATION,
        previous=PAGES[number - 1] if number else None,
        following=PAGES[number + 1] if number is not None and number + 1 < len(PAGES) else None,
        # Pages from a new version must not use cached files from an old one.
        style=f"{STYLE}?{digest(_asset('style.css'))}",
        script=f"{SCRIPT}?{digest(_asset('script.js'))}",
        version=__version__,
        **values,
    )
    return html.encode()


def _asset(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = lambda text: Markup(inline(text))  # noqa: S704 - `inline` escapes HTML
    return environment.get_template(name)
