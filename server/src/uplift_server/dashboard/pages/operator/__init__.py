"""Pages for operators, one module per topic."""

from itertools import chain
from typing import Final

from uplift_server.dashboard.pages.operator import (
    accounts,
    audit_log,
    endpoints,
    event_types,
    fleet,
    keys,
    outbox,
    system,
    traces,
)
from uplift_server.dashboard.routes import Page

_MODULES: Final = (fleet, accounts, endpoints, traces, audit_log, event_types, keys, outbox, system)
PAGES: Final[tuple[Page, ...]] = tuple(chain.from_iterable(module.PAGES for module in _MODULES))
"""The routes for all operator pages and forms."""
