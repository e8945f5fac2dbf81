"""Reconciliation: read all events after a stored cursor, oldest first, to find missed events."""

from collections.abc import Iterable, Iterator
from typing import Final

from uplift_webhooks.api.pages import PAGE_ITEMS, Instant, JsonObject, Page, Request, get_page


class Reconciliation:
    """The events after a cursor, oldest first, and the cursor to continue from.

    >>> run = client.reconcile(stored_cursor)       # doctest: +SKIP
    >>> for event in run:                           # doctest: +SKIP
    ...     handle_if_new(event["id"])
    ...     store(run.cursor)
    >>> store(run.cursor)                           # doctest: +SKIP

    An event has the fields of `client.events.list` (`id`, `type`, `created_at`, `test`, `deliveries`). For its data,
    call `client.events.fetch(id)`. The iteration skips erased events, because they have no data. After an interruption,
    continue from the stored cursor. You then miss no events, and receive at most one page of events twice.
    """

    def __init__(
        self,
        request: Request,
        cursor: str | None,
        types: Iterable[str] | None,
        created_after: Instant | None,
        *,
        include_tests: bool,
    ) -> None:
        self._request: Final = request
        self._types: Final = None if types is None else _wanted(types) or None
        self._created_after: Final = created_after
        self._include_tests: Final = include_tests
        # A program that was interrupted in the first page may have stored an empty text.
        self.cursor = cursor or None
        """The cursor for the next reconciliation, or None to begin with the first event.

        Store the cursor after you handle each event, and once at the end.
        """

    def __iter__(self) -> Iterator[JsonObject]:
        """Yield the events after `cursor`, up to the newest. Raises ApiFailure if a request fails."""
        has_more = True
        while has_more:
            page = self._page()
            yield from self._events_of(page)
            has_more = page.has_more

    def _page(self) -> Page:
        """Return the page after `cursor`, without changing `cursor`."""
        query = {"order": "asc", "limit": PAGE_ITEMS, "created_after": self._created_after, "type": self._only_type()}
        return get_page(self._request, "/v1/events", {**query, "cursor": self.cursor})

    def _events_of(self, page: Page) -> Iterator[JsonObject]:
        """Yield the events of a page. Before yielding the last event, set `cursor` to the next page."""
        chosen = [event for event in page.data if self._wants(event)]
        yield from chosen[:-1]
        # The caller stores the cursor after each event.
        # The last event completes the page, so move the cursor before yielding this event.
        self.cursor = page.next_cursor
        yield from chosen[-1:]

    def _only_type(self) -> str | None:
        """Return the event type to pass to the server as a filter.

        Return None if the caller selected all types, several types or a pattern.
        """
        [only, *others] = self._types or [""]
        return None if others or not only or only.endswith(".*") else only

    def _wants(self, event: JsonObject) -> bool:
        if event.get("erased_at") or (event.get("test") is True and not self._include_tests):
            return False
        type_name = str(event.get("type"))
        return self._types is None or any(
            type_name == wanted or (wanted.endswith(".*") and type_name.startswith(wanted[:-1]))
            for wanted in self._types
        )


def _wanted(types: Iterable[str]) -> list[str]:
    if isinstance(types, str):
        raise ValueError("types must be a list of names and patterns, such as ['movement.*'].")
    return list(types)
