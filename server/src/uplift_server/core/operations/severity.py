"""Severity levels of problems, and the rule that derives a level from the number of broken endpoints."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

CRITICAL_ENDPOINTS_MIN: Final = 10
"""Minimum number of broken endpoints for CRITICAL if fewer than half of the endpoints are broken.

In this case, at least 10% of the endpoints must also be broken.
"""


class Severity(StrEnum):
    """The urgency of a problem. The API and the CSS classes use these values."""

    OK = "ok"
    ATTENTION = "attention"
    CRITICAL = "critical"


_ORDER: Final = tuple(Severity)


def worst(severities: Iterable[Severity]) -> Severity:
    """Return the most urgent severity, or OK if there are no problems."""
    return max(severities, key=_ORDER.index, default=Severity.OK)


def of_endpoints(broken: int, delivering: int) -> Severity:
    """Return the severity of broken endpoints.

    The severity is CRITICAL if at least half of the `delivering` endpoints are broken, or if at least ten endpoints and
    10% of the `delivering` endpoints are broken. `broken` is the number of endpoints that are failing or that the
    server disabled. `delivering` is the number of endpoints that are enabled or that the server disabled.
    """
    if not broken:
        return Severity.OK
    is_critical = 2 * broken >= delivering or (broken >= CRITICAL_ENDPOINTS_MIN and 10 * broken >= delivering)
    return Severity.CRITICAL if is_critical else Severity.ATTENTION
