"""Derives the outcome of an attempt from its HTTP exchange."""

from typing import Final

from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.named_codes import NamedCode


class Outcome(NamedCode):
    """The result of an attempt. The database stores the result as a number."""

    DELIVERED = 0
    REDIRECT = 1
    CLIENT_ERROR = 2
    SERVER_ERROR = 3
    THROTTLED = 4
    TIMEOUT = 5
    DNS_ERROR = 6
    CONNECT_ERROR = 7
    TLS_ERROR = 8
    PROTOCOL_ERROR = 9
    BLOCKED = 10


RESPONDED: Final = frozenset({Outcome.REDIRECT, Outcome.CLIENT_ERROR, Outcome.SERVER_ERROR, Outcome.THROTTLED})
"""The outcomes of failed attempts that received a complete response."""

_BY_FAILURE: Final = {
    Failure.TIMEOUT: Outcome.TIMEOUT,
    Failure.DNS: Outcome.DNS_ERROR,
    Failure.CONNECT: Outcome.CONNECT_ERROR,
    Failure.TLS: Outcome.TLS_ERROR,
    Failure.PROTOCOL: Outcome.PROTOCOL_ERROR,
    Failure.BLOCKED: Outcome.BLOCKED,
    Failure.EGRESS: Outcome.CONNECT_ERROR,
}

_BY_STATUS_CLASS: Final = {
    2: Outcome.DELIVERED,
    3: Outcome.REDIRECT,
    4: Outcome.CLIENT_ERROR,
    5: Outcome.SERVER_ERROR,
}
_OTHER_STATUS: Final = Outcome.PROTOCOL_ERROR
_OWN_FAULTS: Final = frozenset({Failure.EGRESS, Failure.BLOCKED})


def classify(exchange: Exchange) -> Outcome:
    """Return the outcome of an attempt. A complete exchange with status 200 to 299 is a success."""
    if exchange.failure is not None:
        return _BY_FAILURE[exchange.failure]
    status = exchange.status_code or 0
    if status == 429:
        return Outcome.THROTTLED
    return _BY_STATUS_CLASS.get(status // 100, _OTHER_STATUS)


def is_own_fault(exchange: Exchange) -> bool:
    """Return whether an exchange failed because we do not allow the connection, or because our egress failed.

    Such a failure does not affect the endpoint's health.
    """
    return exchange.failure in _OWN_FAULTS
