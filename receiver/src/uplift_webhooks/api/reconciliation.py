"""What a receiver may have missed: all events in order, from where it was last seen to be complete."""

from collections.abc import Iterable, Iterator
from typing import Final

from uplift_webhooks.api.pages import PAGE_ITEMS, Instant, JsonObject, Page, Request, get_page


class Reconciliation:
    """The events after a cursor, oldest first, each once; and the cursor to go on from later.

    >>> run = client.reconcile(stored_cursor)       # doctest: +SKIP
    >>> for event in run:                           # doctest: +SKIP
    ...     handle_if_new(event["id"])
    ...     store(run.cursor)
    >>> store(run.cursor)                           # doctest: +SKIP

    An event has the fields of the list (`id`, `type`, `created_at`, `deliveries`); `client.events.fetch(id)` gives it
    as it was sent. Being cut off costs nothing: whoever goes on from a stored cursor gets every event that was not
    handed over before, and at most a page again.
    """

    def __init__(
        self, request: Request, cursor: str | None, types: Iterable[str] | None, created_after: Instant | None
    ) -> None:
        self._request: Final = request
        self._types: Final = None if types is None else _wanted(types) or None
        self._created_after: Final = created_after
        self.cursor = cursor
        """Store it when the event handed over last has been handled, and once more at the end. None: the beginning."""

    def __iter__(self) -> Iterator[JsonObject]:
        """Hand over what follows `cursor`, and stop where nothing more does for now. Raises ApiFailure."""
        has_more = True
        while has_more:
            page = self._page()
            yield from self._hand_over(page)
            has_more = page.has_more

    def _page(self) -> Page:
        """What follows `cursor`, which stays where it is. Raises ApiFailure."""
        query = {"order": "asc", "limit": PAGE_ITEMS, "created_after": self._created_after, "type": self._only_type()}
        return get_page(self._request, "/v1/events", {**query, "cursor": self.cursor})

    def _hand_over(self, page: Page) -> Iterator[JsonObject]:
        """The events of a page, and the cursor moved on with the last of them."""
        chosen = [event for event in page.data if self._wants(str(event.get("type")))]
        yield from chosen[:-1]
        # Whoever handles the last one and stores the cursor then is done with the page.
        self.cursor = page.next_cursor
        yield from chosen[-1:]

    def _only_type(self) -> str | None:
        """What the server can filter by: one type. It says so where there is no such type."""
        [only, *others] = self._types or [""]
        return None if others or not only or only.endswith(".*") else only

    def _wants(self, type_name: str) -> bool:
        return self._types is None or any(
            type_name == wanted or (wanted.endswith(".*") and type_name.startswith(wanted[:-1]))
            for wanted in self._types
        )


def _wanted(types: Iterable[str]) -> list[str]:
    if isinstance(types, str):
        raise ValueError("types is a list of names and patterns, such as ['movement.*'].")
    return list(types)
