"""The documentation pages."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from uplift_server.api.documentation.documents import ADDRESSES, HOME, OTHER_NAMES

if TYPE_CHECKING:
    from uplift_server.api.documentation.pages import Page

router = APIRouter(tags=["Server"])
PAGE_POLICY: Final = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""The Content-Security-Policy of every page, which allows only the server's own stylesheet."""

_HEADERS: Final = {"content-security-policy": PAGE_POLICY, "x-content-type-options": "nosniff"}
_CACHE: Final = "public, max-age=300"
"""How long clients use a copy without revalidation, and see old pages after an upgrade."""


@router.head("/docs", include_in_schema=False)
@router.get("/docs", summary="Read the documentation", response_class=HTMLResponse)
async def get_guide(request: Request) -> Response:
    """Public. Returns the quickstart, with links to all other pages."""
    return await _answer(request, HOME)


@router.head("/docs/{document}", include_in_schema=False)
@router.get("/docs/{document}", summary="Read a page of the documentation", response_class=HTMLResponse)
async def get_document(request: Request, document: str) -> Response:
    """Public. Returns a page such as `/docs/errors`, or the test vectors at `/docs/vectors.json`."""
    return await _answer(request, f"{HOME}/{document}")


@router.head("/docs/{rest:path}", include_in_schema=False)
@router.get("/docs/{rest:path}", include_in_schema=False)
async def get_no_document(request: Request, rest: str) -> Response:
    """Handle other addresses below /docs/."""
    return await _answer(request, f"{HOME}/{rest}")


@router.get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request) -> Response:
    """Public. Returns the OpenAPI document."""
    body, etag = await asyncio.to_thread(_openapi, request.app.openapi)
    return _cached(request, body, etag, "application/json")


async def _answer(request: Request, path: str) -> Response:
    if path not in ADDRESSES:
        meant = path.rstrip("/")
        meant = OTHER_NAMES.get(meant, meant)
        if meant in ADDRESSES:
            return RedirectResponse(meant, 308)
        return HTMLResponse(await asyncio.to_thread(_missing_page), 404, headers=_HEADERS)
    # In a thread, because this takes up to half a second, which would delay events.
    page = await asyncio.to_thread(_page, path, request.app.openapi)
    return _cached(request, page.body, page.etag, page.media_type)


def _cached(request: Request, body: bytes, etag: str, media_type: str) -> Response:
    """Return a document that does not change while the process runs, or 304 for a client that has it."""
    headers = {**_HEADERS, "cache-control": _CACHE, "etag": etag}
    if _known(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


@cache
def _openapi(openapi: Callable[[], dict[str, Any]]) -> tuple[bytes, str]:
    """Return the OpenAPI document as JSON, and its ETag."""
    body = json.dumps(openapi(), ensure_ascii=False, separators=(",", ":")).encode()
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def _page(path: str, openapi: Callable[[], dict[str, Any]]) -> "Page":
    # Imported on demand, to save memory in servers without documentation readers.
    from uplift_server.api.documentation.pages import page  # noqa: PLC0415

    return page(path, openapi)


def _missing_page() -> bytes:
    from uplift_server.api.documentation.pages import missing_page  # noqa: PLC0415 - see `_page`

    return missing_page()


def _known(tags: str, etag: str) -> bool:
    """Whether an If-None-Match header matches the tag, by weak comparison (RFC 9110, section 13.1.2)."""
    return any(each.strip().removeprefix("W/") in {etag, "*"} for each in tags.split(","))
