"""The message between the engine and the sender: a request out, an exchange back.

Nothing else passes the seam, so the sending side can live in a process of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from uplift_server.core.http.exchange import Exchange


class Target(NamedTuple):
    """Where an endpoint's requests go; made once for each endpoint, and looked up by for every attempt.

    The hash of a tuple takes a quarter of the time of a frozen dataclass's.
    """

    host: str
    """Lowercase ASCII name or address literal, IPv6 without brackets."""
    port: int
    encrypted: bool
    account: int = 0
    """Whose endpoint it is. Connections are not shared between accounts: what a receiver writes unasked after one
    request must never be taken for the answer to somebody else's."""


class Request(NamedTuple):
    """One POST, ready to be written. One is made for every attempt: a tuple costs a third of a frozen dataclass."""

    target: Target
    head: bytes
    """Request line and headers with the empty line that ends them."""
    body: bytes
    context: Any
    """Whatever the caller wants back with the exchange; the sender does not look at it."""


Done = Callable[[Request, Exchange], None]
"""Called once for every request, on the event loop, never before `send` has returned."""
