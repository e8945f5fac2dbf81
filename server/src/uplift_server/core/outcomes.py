"""From an exchange to the outcome of an attempt, and from an outcome to words.

One sentence of cause and one of remedy for each class of failure; every edge (API, CLI, dashboard, mail) uses these.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from uplift_server.core.exchange import Exchange, Failure


class Outcome(IntEnum):
    """The class of an attempt's result. The number is what the store keeps."""

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

    @property
    def text(self) -> str:
        """The name the outside world sees, such as `server_error`."""
        return self.name.lower()


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


def classify(exchange: Exchange) -> Outcome:
    """The outcome of an attempt: success is a complete exchange with a status of 200 to 299, and nothing else."""
    if exchange.failure is not None:
        return _BY_FAILURE[exchange.failure]
    status = exchange.status_code or 0
    if status == 429:
        return Outcome.THROTTLED
    return _BY_STATUS_CLASS.get(status // 100, Outcome.PROTOCOL_ERROR)


def is_ours(exchange: Exchange) -> bool:
    """Whether a failure is no fault of the receiver and so must never count against its health."""
    return exchange.failure in (Failure.EGRESS, Failure.BLOCKED)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an attempt failed, in words."""

    cause: str
    remedy: str

    @property
    def hint(self) -> str:
        """Both sentences, as the API shows them."""
        return f"{self.cause} {self.remedy}"
