"""Public package index for pip and uv (PEP 503 and PEP 691). It contains only the library `uplift-webhooks`."""

import asyncio
import hashlib
import re
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from functools import cache
from html import escape
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

import uplift_server
from uplift_server.api.caching import cached_response

router = APIRouter(include_in_schema=False)

PROJECT: Final = "uplift-webhooks"
JSON: Final = "application/vnd.pypi.simple.v1+json"
HTML: Final = "application/vnd.pypi.simple.v1+html"

_FILE: Final = f"uplift_webhooks-{uplift_server.__version__}-py3-none-any.whl"
PLACES: Final = (
    Path(uplift_server.__file__).parent / "wheels" / _FILE,
    Path(uplift_server.__file__).parents[3] / "dist" / _FILE,
)
"""The path of the wheel in an installed server, where `server/hatch_build.py` puts it, and its path in a checkout."""
_HEADERS: Final = {"content-security-policy": "default-src 'none'", "x-content-type-options": "nosniff"}
_PAGE_CACHE: Final = "public, max-age=300"
_FILE_CACHE: Final = "public, max-age=31536000, immutable"
"""Cache-Control header for the wheel. Its URL contains its digest, so the content at a URL never changes."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel, and the data about it that a package index publishes."""

    body: bytes
    sha256: str
    requires_python: str

    @property
    def address(self) -> str:
        """The path of the wheel below `/packages/`."""
        return f"files/{self.sha256[:16]}/{_FILE}"


@router.head("/packages/simple")
@router.get("/packages/simple")
async def get_index_without_slash() -> Response:
    """Redirect to the URL with a trailing slash."""
    return RedirectResponse("simple/", 308)


@router.head("/packages/simple/")
@router.get("/packages/simple/")
async def get_index(request: Request) -> Response:
    """Return the start page of the index, which lists the library."""
    html = f'<a href="{PROJECT}/">{PROJECT}</a>'
    return _page(request, "Packages", html, {"projects": [{"name": PROJECT}]})


@router.head("/packages/simple/{project}")
@router.get("/packages/simple/{project}")
async def get_project_without_slash(project: str) -> Response:
    """Redirect to the URL with a trailing slash."""
    return RedirectResponse(f"{PROJECT}/", 308) if _is_project(project) else _not_found(_NO_PROJECT)


@router.head("/packages/simple/{project}/")
@router.get("/packages/simple/{project}/")
async def get_project(request: Request, project: str) -> Response:
    """Return the library's page, which lists the wheel."""
    if not _is_project(project):
        return _not_found(_NO_PROJECT)
    if project != PROJECT:
        return RedirectResponse(f"../{PROJECT}/", 308)
    try:
        wheel = await _wheel()
    except FileNotFoundError:
        return _not_found(_NO_WHEEL)
    address = f"../../{wheel.address}"
    html = (
        f'<a href="{address}#sha256={wheel.sha256}" data-requires-python="{escape(wheel.requires_python)}">{_FILE}</a>'
    )
    file = {
        "filename": _FILE,
        "url": address,
        "hashes": {"sha256": wheel.sha256},
        "requires-python": wheel.requires_python,
    }
    return _page(request, f"Files of {PROJECT}", html, {"name": PROJECT, "files": [file]})


@router.head("/packages/files/{digest}/{name}")
@router.get("/packages/files/{digest}/{name}")
async def get_file(request: Request, digest: str, name: str) -> Response:
    """Send the library's wheel."""
    try:
        wheel = await _wheel()
    except FileNotFoundError:
        return _not_found(_NO_WHEEL)
    if f"files/{digest}/{name}" != wheel.address:
        return _not_found(f"This file does not exist. For a list of files, see /packages/simple/{PROJECT}/.\n")
    return cached_response(request, wheel.body, f'"{wheel.sha256}"', "application/zip", _HEADERS, _FILE_CACHE)


async def _wheel() -> Wheel:
    is_cached = library_wheel.cache_info().currsize
    return library_wheel() if is_cached else await asyncio.to_thread(library_wheel)


@cache
def library_wheel() -> Wheel:
    """Read the library's wheel. The wheel has the same version as the server.

    Raises FileNotFoundError if the server runs from a checkout without a built wheel.
    """
    path = next((each for each in PLACES if each.is_file()), None)
    if path is None:
        raise FileNotFoundError(_FILE)
    with ZipFile(path) as files:
        metadata = files.read(f"uplift_webhooks-{uplift_server.__version__}.dist-info/METADATA")
    body = path.read_bytes()
    requires_python = BytesHeaderParser().parsebytes(metadata)["Requires-Python"]
    return Wheel(body, hashlib.sha256(body).hexdigest(), requires_python)


_NO_PROJECT: Final = f"This index contains only {PROJECT}. Get other packages from your usual index.\n"
_NO_WHEEL: Final = f"{_FILE} is not built. Run scripts/setup in the checkout of the server.\n"


def _is_project(name: str) -> bool:
    """Return whether a name is the project's name after PEP 503 normalization."""
    return re.sub(r"[-_.]+", "-", name).lower() == PROJECT


def _page(request: Request, title: str, html: str, content: dict[str, object]) -> Response:
    accepted = request.headers.get("accept", "")
    media_type = next((each for each in (JSON, HTML) if each in accepted), "text/html; charset=utf-8")
    if media_type == JSON:
        body = msgspec.json.encode({"meta": {"api-version": "1.0"}, **content})
    else:
        head = f'<meta charset="utf-8"><meta name="pypi:repository-version" content="1.0"><title>{title}</title>'
        body = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{html}\n</body></html>\n'.encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return cached_response(request, body, etag, media_type, {**_HEADERS, "vary": "accept"}, _PAGE_CACHE)


def _not_found(text: str) -> Response:
    return PlainTextResponse(text, 404, headers=_HEADERS)
