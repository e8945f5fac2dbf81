"""Routes for the documentation pages and the OpenAPI document."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from uplift_server.api.caching import Content, cached_content
from uplift_server.api.documentation.documents import ADDRESSES, HOME, MOVED, SEARCH, is_image
from uplift_server.core.limits import SEARCHES_WAITING_MAX

router = APIRouter(tags=["Server"])

_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_IMAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
"""Content-Security-Policy for images that a browser opens as pages.

It allows inline styles, which SVG files contain.
"""
_CACHE: Final = "public, max-age=300"
"""Cache-Control header for pages. After an upgrade, readers see old pages for at most 5 minutes."""
_T = TypeVar("_T")


class _Renderer:
    """Renders one page at a time in a separate thread, so that rendering does not delay events or other calls."""

    def __init__(self) -> None:
        self.searches = 0
        """The number of queued and running searches."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="documentation")

    async def run(self, render: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, render)


_renderer: Final = _Renderer()


@router.head("/docs", include_in_schema=False)
@router.get("/docs", summary="Read the documentation", response_class=HTMLResponse)
async def get_quickstart(request: Request) -> Response:
    """Public. Returns the quickstart, with links to all other pages."""
    return await _answer(request, HOME)


@router.head(SEARCH, include_in_schema=False)
@router.get(SEARCH, include_in_schema=False)
async def search_documents(request: Request) -> Response:
    """Search the documentation. Browsers without JavaScript use this page."""
    if _renderer.searches >= SEARCHES_WAITING_MAX:
        headers = {**_headers(_PAGE_POLICY), "retry-after": "1"}
        return PlainTextResponse("Too many searches at the moment. Try again in a second.\n", 503, headers=headers)
    query = request.query_params.get("q", "")
    _renderer.searches += 1
    try:
        page = await _renderer.run(partial(_search_page, query, request.app.openapi))
    finally:
        _renderer.searches -= 1
    return _sent(request, page)


@router.head("/docs/{document}", include_in_schema=False)
@router.get(
    "/docs/{document}",
    summary="Read a page of the documentation",
    response_class=HTMLResponse,
    responses={
        404: {"content": {"text/html": {"schema": {"type": "string"}}}, "description": "The page does not exist."}
    },
)
async def get_document(request: Request, document: str) -> Response:
    """Public. Returns a page such as `/docs/errors`, or the test vectors at `/docs/vectors.json`."""
    return await _answer(request, f"{HOME}/{document}")


@router.head("/docs/{rest:path}", include_in_schema=False)
@router.get("/docs/{rest:path}", include_in_schema=False)
async def get_other_document(request: Request, rest: str) -> Response:
    """Serve the images in subfolders of `docs/`, and redirect addresses that end with a slash."""
    return await _answer(request, f"{HOME}/{rest}")


@router.head("/openapi.json", include_in_schema=False)
@router.get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request) -> Response:
    """Public. Returns the OpenAPI document."""
    return _sent(request, await _renderer.run(partial(_openapi, request.app.openapi)))


async def _answer(request: Request, path: str) -> Response:
    if path not in ADDRESSES and not is_image(path):
        target = path.rstrip("/")
        target = MOVED.get(target, target)
        if target in ADDRESSES:
            return RedirectResponse(target, 308)
        return HTMLResponse(await _renderer.run(_missing_page), 404, headers=_headers(_PAGE_POLICY))
    # The first request imports the renderer, which takes up to half a second: the event loop must not wait for it.
    page = await _renderer.run(partial(_page, path, request.app.openapi))
    return _sent(request, page)


def _sent(request: Request, content: Content) -> Response:
    policy = _IMAGE_POLICY if content.media_type.startswith("image/") else _PAGE_POLICY
    return cached_content(request, content, _headers(policy), _CACHE)


def _headers(policy: str) -> dict[str, str]:
    return {"content-security-policy": policy, "x-content-type-options": "nosniff"}


@cache
def _openapi(openapi: Callable[[], dict[str, Any]]) -> Content:
    return Content.of(json.dumps(openapi(), ensure_ascii=False, separators=(",", ":")).encode(), "application/json")


def _page(path: str, openapi: Callable[[], dict[str, Any]]) -> Content:
    # Import on the first request, to save memory on servers whose documentation is never read.
    from uplift_server.api.documentation.pages import page  # noqa: PLC0415

    return page(path, openapi)


def _search_page(query: str, openapi: Callable[[], dict[str, Any]]) -> Content:
    from uplift_server.api.documentation.pages import search_page  # noqa: PLC0415 - see `_page`

    return search_page(query, openapi)


def _missing_page() -> bytes:
    from uplift_server.api.documentation.pages import missing_page  # noqa: PLC0415 - see `_page`

    return missing_page()
