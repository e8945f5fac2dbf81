"""Types for the API's lists, which are divided into pages, and functions that request the pages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote

from uplift_webhooks.api.failures import ApiMisaddressed

JsonObject = dict[str, Any]
"""A JSON object in an API request or response. The API reference describes its fields."""


class Versioned(dict[str, Any]):
    """An object with its ETag, for `if_match`."""

    __slots__ = ("etag",)

    def __init__(self, fields: JsonObject, etag: str) -> None:
        super().__init__(fields)
        self.etag = etag


Instant = str | datetime
"""A timestamp: ISO 8601, or a datetime with a time zone."""
Order = Literal["desc", "asc"]
"""The order of a list: newest or oldest first."""
PAGE_ITEMS: Final = 200
"""Number of items per page when a call iterates over all items."""


class Request(Protocol):
    """The type of `Client.request`, which makes one API call and returns the decoded response."""

    def __call__(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make an API call. Raises ApiFailure if the server rejects the call or does not respond."""
        ...  # pragma: no cover


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    data: list[JsonObject]
    next_cursor: str | None
    """The `cursor` of the next page. None on the last page, except in a list of events in ascending order."""
    has_more: bool
    """Whether there are more items after this page."""
    prev_cursor: str | None = None
    """The `cursor` of the previous page, or None on the first page."""


def page_of(path: str, answer: object) -> Page:
    """Convert a decoded response to a Page. Raises ApiMisaddressed if the response is not a list."""
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise ApiMisaddressed(
            f"The response to GET {path} contains no list, so it is not from an Uplift Webhooks server."
        )
    cursor = answer.get("next_cursor")
    has_more = bool(answer.get("has_more", cursor is not None))
    return Page(answer["data"], cursor, has_more, answer.get("prev_cursor"))


def get_page(request: Request, path: str, query: Mapping[str, object]) -> Page:
    """Request one page of a list. Raises ApiFailure if the request fails."""
    return page_of(path, request("GET", path, query=query))


def pages(request: Request, path: str, query: Mapping[str, object]) -> Iterator[Page]:
    """Yield every page of a list. Request each page only when the caller needs it."""
    asked = {"limit": PAGE_ITEMS, **{name: value for name, value in query.items() if value is not None}}
    while True:
        page = get_page(request, path, asked)
        yield page
        if not page.has_more:
            return
        asked["cursor"] = page.next_cursor


def items(found: Iterator[Page]) -> Iterator[JsonObject]:
    """Yield the items of all pages. A page can be empty even if more pages follow."""
    for page in found:
        yield from page.data


def segment(text: str) -> str:
    """Return an ID as a path segment. Raises ValueError if the ID is empty, `.` or `..`."""
    if text in {"", ".", ".."}:
        raise ValueError("An ID must not be empty, '.' or '..'.")
    return quote(text, safe="")
