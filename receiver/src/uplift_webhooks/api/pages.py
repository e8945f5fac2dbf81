"""Lists, a page at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from urllib.parse import quote

from uplift_webhooks.api.failures import ApiMisaddressed

JsonObject = dict[str, Any]
"""An object of the API, with the fields that docs/api.md gives it."""
Instant = str | datetime
"""ISO 8601, or an instant with its time zone."""
PAGE_ITEMS: Final = 200
"""Asked for at a time where everything is."""


class Request(Protocol):
    """`Client.request`: one call, by method and path, and its answer."""

    def __call__(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Raises ApiFailure."""
        ...  # pragma: no cover


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    data: list[JsonObject]
    next_cursor: str | None
    """Where the next page begins: give it back as `cursor`. None where nothing follows."""
    has_more: bool
    """Whether to ask for the next page now."""


def page_of(path: str, answer: object) -> Page:
    """One page, from the answer to a GET of its path. Raises ApiMisaddressed."""
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise ApiMisaddressed(f"What answered GET {path} is no Uplift Webhooks server: it gave no list.")
    cursor = answer.get("next_cursor")
    return Page(answer["data"], cursor, bool(answer.get("has_more", cursor is not None)))


def get_page(request: Request, path: str, query: Mapping[str, object]) -> Page:
    """One page. Raises ApiFailure."""
    return page_of(path, request("GET", path, query=query))


def pages(request: Request, path: str, query: Mapping[str, object]) -> Iterator[Page]:
    """Every page of a list, each asked for when it is wanted."""
    asked = {"limit": PAGE_ITEMS, **{name: value for name, value in query.items() if value is not None}}
    while True:
        page = get_page(request, path, asked)
        yield page
        if not page.has_more:
            return
        asked["cursor"] = page.next_cursor


def items(found: Iterator[Page]) -> Iterator[JsonObject]:
    """What is on the pages. A page may be empty although more follow."""
    for page in found:
        yield from page.data


def segment(text: str) -> str:
    """An id as a part of a path. Raises ValueError for a text that would name something else than one thing."""
    if text in {"", ".", ".."}:
        raise ValueError("An id such as 'ep_…' is not empty.")
    return quote(text, safe="")
