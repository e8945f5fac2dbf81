"""Interface between the engine and the sender: the engine passes a request, and gets an exchange back."""

from collections.abc import Callable
from typing import Any, NamedTuple

from uplift_server.core.http.exchange import Exchange


class Target(NamedTuple):
    """Destination of an endpoint's requests, and the key of its idle connections.

    It is a tuple because the hash of a frozen dataclass takes four times as long.
    """

    host: str
    """Lowercase ASCII name, or address literal (IPv6 without brackets)."""
    port: int
    encrypted: bool
    account: int = 0
    """Accounts share no connections, so that bytes after a response never become another account's response."""


class Request(NamedTuple):
    """A POST request. It is a tuple because creating a frozen dataclass for every attempt takes three times as long."""

    target: Target
    head: bytes
    """Request line and headers, with the empty line at their end."""
    body: bytes
    context: Any
    """Value for the caller's `done`. The sender ignores it."""


Done = Callable[[Request, Exchange], None]
"""Called once for each request, on the event loop, after `send` has returned."""
