"""The documentation, for people. Public."""

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
"""The Content-Security-Policy of every page: nothing but the style that is served beside it."""

_HEADERS: Final = {"content-security-policy": PAGE_POLICY, "x-content-type-options": "nosniff"}
_CACHE: Final = "public, max-age=300"
"""How long a copy is good without asking: after an upgrade nobody reads old pages for longer."""


@router.head("/docs", include_in_schema=False)
@router.get("/docs", summary="The integrator's guide", response_class=HTMLResponse)
async def get_guide(request: Request) -> Response:
    """Public. Leads to all other documents."""
    return await _answer(request, HOME)


@router.head("/docs/{document}", include_in_schema=False)
@router.get("/docs/{document}", summary="One of the other documents", response_class=HTMLResponse)
async def get_document(request: Request, document: str) -> Response:
    """Public. Such as `/docs/errors`, `/docs/api-reference` and, as JSON, `/docs/vectors.json`."""
    return await _answer(request, f"{HOME}/{document}")


@router.head("/docs/{rest:path}", include_in_schema=False)
@router.get("/docs/{rest:path}", include_in_schema=False)
async def get_no_document(request: Request, rest: str) -> Response:
    """What else begins like a document: with a slash too many, or not there."""
    return await _answer(request, f"{HOME}/{rest}")


@router.get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request) -> Response:
    """Public. The OpenAPI document."""
    body, etag = await asyncio.to_thread(_openapi, request.app.openapi)
    return _cached(request, body, etag, "application/json")


async def _answer(request: Request, path: str) -> Response:
    if path not in ADDRESSES:
        meant = path.rstrip("/")
        meant = OTHER_NAMES.get(meant, meant)
        if meant in ADDRESSES:
            return RedirectResponse(meant, 308)
        return HTMLResponse(await asyncio.to_thread(_missing_page), 404, headers=_HEADERS)
    # Loading and making takes up to half a second, in which events want to be taken and sent.
    page = await asyncio.to_thread(_page, path, request.app.openapi)
    return _cached(request, page.body, page.etag, page.media_type)


def _cached(request: Request, body: bytes, etag: str, media_type: str) -> Response:
    """A document that does not change while the process runs; 304 for a client that has it."""
    headers = {**_HEADERS, "cache-control": _CACHE, "etag": etag}
    if _known(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


@cache
def _openapi(openapi: Callable[[], dict[str, Any]]) -> tuple[bytes, str]:
    """The OpenAPI document in JSON, and its ETag."""
    body = json.dumps(openapi(), ensure_ascii=False, separators=(",", ":")).encode()
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def _page(path: str, openapi: Callable[[], dict[str, Any]]) -> "Page":
    # A server whose documentation nobody reads should not carry what makes it in memory.
    from uplift_server.api.documentation.pages import page  # noqa: PLC0415

    return page(path, openapi)


def _missing_page() -> bytes:
    from uplift_server.api.documentation.pages import missing_page  # noqa: PLC0415 - see `_page`

    return missing_page()


def _known(tags: str, etag: str) -> bool:
    """Whether an If-None-Match names the tag, or any; compared weakly, as RFC 9110 13.1.2 has it."""
    return any(each.strip().removeprefix("W/") in {etag, "*"} for each in tags.split(","))
