"""Pages for operators: one module per noun."""

from itertools import chain
from typing import Final

from uplift_server.dashboard.pages.operator import accounts, endpoints, event_types, fleet, outbox, system, traces
from uplift_server.dashboard.routes import Page

PAGES: Final[tuple[Page, ...]] = tuple(
    chain.from_iterable(module.PAGES for module in (fleet, accounts, endpoints, traces, event_types, outbox, system))
)
"""All pages and forms for operators."""
