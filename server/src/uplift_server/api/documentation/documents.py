"""The documentation's navigation, with each page's address and file."""

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uplift_server

HOME: Final = "/docs"
REFERENCE: Final = "/docs/api"
SEARCH: Final = "/docs/search"
INDEX: Final = "/docs/search.json"
STYLE: Final = "/docs/style.css"
SCRIPT: Final = "/docs/script.js"

_PACKAGED: Final = Path(uplift_server.__file__).parent / "documents"
"""The documentation folder in an installed server. `hatch_build.py` copies the files from the repository."""
_CHECKOUT: Final = Path(uplift_server.__file__).parents[3]
_IMAGE: Final = re.compile(r"/docs/(?:[a-z0-9-]+/)?[a-z0-9-]+\.(?:svg|png)")


@dataclass(frozen=True, slots=True)
class Document:
    """A document with its title in the navigation."""

    address: str
    title: str
    source: str | None = None
    """The path of the file in the repository, or None for the generated API reference."""


@dataclass(frozen=True, slots=True)
class Group:
    """A section of the navigation, with a title."""

    title: str
    documents: tuple[Document, ...]


NAVIGATION: Final = (
    Group(
        "Integrators",
        (
            Document(HOME, "Quickstart", "docs/quickstart.md"),
            Document("/docs/receiving", "Receiving webhooks", "docs/receiving.md"),
            Document("/docs/retries", "Retries and endpoint lifecycle", "docs/retries.md"),
            Document("/docs/filters", "Filters", "docs/filters.md"),
            Document("/docs/catalog", "Event catalog", "docs/catalog.md"),
            Document("/docs/library", "Python library", "receiver/README.md"),
            Document("/docs/uplift", "`uplift` command", "docs/uplift.md"),
            Document("/docs/concepts", "Concepts", "docs/concepts.md"),
            Document("/docs/troubleshooting", "Troubleshooting", "docs/troubleshooting.md"),
            Document("/docs/faq", "FAQ", "docs/faq.md"),
        ),
    ),
    Group(
        "Emitters",
        (
            Document("/docs/sending", "Sending events", "docs/sending.md"),
            Document("/docs/outbox", "Transactional outbox", "docs/outbox.md"),
        ),
    ),
    Group(
        "Reference",
        (
            Document(REFERENCE, "API reference"),
            Document("/docs/generate-a-client", "Generate a client", "docs/generate-a-client.md"),
            Document("/docs/errors", "Error codes", "docs/errors.md"),
            Document("/docs/outcomes", "Outcomes of attempts", "docs/outcomes.md"),
            Document("/docs/addresses", "Endpoint URLs and addresses", "docs/addresses.md"),
            Document("/docs/vectors.json", "Test vectors (JSON)", "docs/vectors.json"),
        ),
    ),
    Group(
        "Operators",
        (
            Document("/docs/deployment", "Deployment", "docs/deployment.md"),
            Document("/docs/kubernetes", "Kubernetes", "docs/kubernetes.md"),
            Document("/docs/postgresql", "PostgreSQL", "docs/postgresql.md"),
            Document("/docs/nats", "NATS JetStream", "docs/nats.md"),
            Document("/docs/backup", "Backup and restore", "docs/backup.md"),
            Document("/docs/upgrade", "Upgrade", "docs/upgrade.md"),
            Document("/docs/configuration", "Configuration", "docs/configuration.md"),
            Document("/docs/monitoring", "Monitoring and alerts", "docs/monitoring.md"),
            Document("/docs/runbook", "Runbook", "docs/runbook.md"),
            Document("/docs/cli", "`uplift-server` command", "docs/cli.md"),
            Document("/docs/security", "Security", "docs/security.md"),
            Document("/docs/single-sign-on", "Single sign-on", "docs/single-sign-on.md"),
            Document("/docs/erasure", "Erasure of personal data", "docs/erasure.md"),
            Document("/docs/embedding", "Embedding and theming", "docs/embedding.md"),
            Document("/docs/benchmarks", "Benchmarks", "docs/benchmarks.md"),
        ),
    ),
)

PAGES: Final = tuple(
    document for group in NAVIGATION for document in group.documents if not document.address.endswith(".json")
)
"""The documents that are HTML pages, in navigation order."""
FILES: Final = {
    document.address: document.source
    for group in NAVIGATION
    for document in group.documents
    if document.source is not None
}
"""The file of each document. The keys are addresses."""
ADDRESSES: Final = frozenset({*FILES, REFERENCE, INDEX, STYLE, SCRIPT})
"""The paths of all documents, the search index, the style sheet and the script. Image paths are not included."""
MOVED: Final = {f"{HOME}/guide": HOME, f"{HOME}/quickstart": HOME, f"{HOME}/api-reference": REFERENCE}
"""The current address for each old or alternative address."""
_ADDRESSES_OF: Final = {source: address for address, source in FILES.items()}


def file_of(source: str) -> Path:
    """Return the path of a repository file, either in the installed package or in the checkout."""
    return (_PACKAGED if _PACKAGED.is_dir() else _CHECKOUT) / source


def is_image(address: str) -> bool:
    """Return whether an address belongs to an image in `docs/` or in a subfolder."""
    return _IMAGE.fullmatch(address) is not None and file_of(address[1:]).is_file()


def served(target: str, source: str) -> str | None:
    """Resolve a link in a file to an address on this server, or to None if the server does not serve the target.

    `target` is the link as written in `source`. Complete URLs and absolute paths stay unchanged.
    """
    if target.startswith(("https://", "http://", "mailto:", "#", "/")):
        return target
    path, mark, anchor = target.partition("#")
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if is_image(f"/{wanted}"):
        return f"/{wanted}"
    address = _ADDRESSES_OF.get(wanted)
    return None if address is None else f"{address}{mark}{anchor}"
