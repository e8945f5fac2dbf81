"""Which documents are served, where, and where their text comes from."""

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uplift_server

HOME: Final = "/docs"
STYLE: Final = "/docs/style.css"
REFERENCE: Final = "/docs/api-reference"

_PACKAGED: Final = Path(uplift_server.__file__).parent / "documents"
"""In an installation: the files under their paths in the repository, put there by `server/hatch_build.py`."""
_CHECKOUT: Final = Path(uplift_server.__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Document:
    """One entry of the navigation."""

    address: str
    title: str
    source: str | None = None
    """Its file, as a path in the repository; None: made from something else, or a part of another document."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Documents for the same people."""

    title: str
    documents: tuple[Document, ...]


SHELVES: Final = (
    Shelf(
        "For integrators",
        (
            Document(HOME, "The guide", "docs/guide.md"),
            Document("/docs#the-catalog", "Catalog of events"),
            Document("/docs/library", "Python library", "receiver/README.md"),
            Document("/docs/uplift", "The command uplift", "docs/uplift.md"),
            Document("/docs/api", "HTTP API", "docs/api.md"),
            Document(REFERENCE, "API reference"),
            Document("/docs/errors", "Error codes", "docs/errors.md"),
            Document("/docs/outcomes", "Outcomes of attempts", "docs/outcomes.md"),
            Document("/docs/addresses", "Addresses of endpoints", "docs/addresses.md"),
            Document("/docs/vectors.json", "Test vectors", "docs/vectors.json"),
        ),
    ),
    Shelf(
        "For operators",
        (
            Document("/docs/cli", "The command line", "docs/cli.md"),
            Document("/docs/configuration", "Configuration", "docs/configuration.md"),
            Document("/docs/deployment", "Deployment", "docs/deployment.md"),
            Document("/docs/monitoring", "Monitoring", "docs/monitoring.md"),
            Document("/docs/benchmarks", "Benchmarks", "docs/benchmarks.md"),
        ),
    ),
)


FILES: Final = {
    document.address: document.source
    for shelf in SHELVES
    for document in shelf.documents
    if document.source is not None
}
"""What is served as it is in a file, by address."""
ADDRESSES: Final = frozenset({*FILES, REFERENCE, STYLE})
"""Wherever there is a page."""
OTHER_NAMES: Final = {f"{HOME}/guide": HOME}
"""Where else people look for a page, and where it is."""
_ADDRESSES_OF: Final = {source: address for address, source in FILES.items()}


def text_of(source: str) -> str:
    """The text of a file, given as a path in the repository: from the installation or, in a checkout, from there."""
    root = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    return (root / source).read_text(encoding="utf-8")


def served(target: str, source: str) -> str | None:
    """Where a link in a file leads when it is served; None: to a file of the repository that is not.

    `target` is as it is written there: relative to the file, or a whole URL.
    """
    if target.startswith(("https://", "http://", "mailto:", "#", "/")):
        return target
    path, mark, anchor = target.partition("#")
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    address = _ADDRESSES_OF.get(wanted)
    return None if address is None else f"{address}{mark}{anchor}"
