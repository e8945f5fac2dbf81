"""Severity of problems, and of failing endpoints."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

CRITICAL_ENDPOINTS_MIN: Final = 10
"""With fewer broken endpoints, only a share of at least half is critical."""


class Severity(StrEnum):
    """How urgent a problem is. The values are used in the API and as CSS classes."""

    OK = "ok"
    ATTENTION = "attention"
    CRITICAL = "critical"


_ORDER: Final = tuple(Severity)


def worst(severities: Iterable[Severity]) -> Severity:
    """Return the most urgent severity; OK if there is none."""
    return max(severities, key=_ORDER.index, default=Severity.OK)


def of_endpoints(broken: int, delivering: int) -> Severity:
    """Return the severity of broken endpoints: CRITICAL from half of them, or from ten that are at least 10%.

    `broken` endpoints are failing, or the server disabled them. `delivering` also includes the other enabled ones.
    """
    if not broken:
        return Severity.OK
    is_critical = 2 * broken >= delivering or (broken >= CRITICAL_ENDPOINTS_MIN and 10 * broken >= delivering)
    return Severity.CRITICAL if is_critical else Severity.ATTENTION
