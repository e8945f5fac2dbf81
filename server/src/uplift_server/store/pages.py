"""Stretches of long lists: one row more than asked for tells whether anything follows."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from uplift_server.store.records import Page

T = TypeVar("T")


def page_of(rows: Sequence[T], limit: int, key: Callable[[T], tuple[int, ...]]) -> Page[T]:
    """A page of at most `limit` of the rows, of which up to `limit` + 1 were fetched; `key` gives a row's place."""
    items = list(rows[:limit])
    return Page(items, key(items[-1]) if len(rows) > limit else None)
