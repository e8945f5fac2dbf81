"""Pages of lists. One extra row shows whether there is a next page."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from uplift_server.store.records import Page

T = TypeVar("T")


def page_of(rows: Sequence[T], limit: int, key: Callable[[T], tuple[int, ...]]) -> Page[T]:
    """Return a page of up to `limit` of the `limit` + 1 rows that were fetched. `key` returns the key of a row."""
    items = list(rows[:limit])
    return Page(items, key(items[-1]) if len(rows) > limit else None)
