"""Parses `--forward-to`, the URL of the local server."""

from dataclasses import dataclass
from urllib.parse import urlsplit

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Target:
    """The parsed URL of the local server."""

    scheme: str
    host: str
    port: int
    path: str
    """The path, including the query if there is one."""

    @property
    def authority(self) -> str:
        """Host and port, as in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The URL of the local server without its path."""
        return f"{self.scheme}://{self.authority}"

    @property
    def url(self) -> str:
        """The full URL of the local server."""
        return self.origin + self.path

    @property
    def local(self) -> bool:
        """Whether the host is `localhost` or a loopback address."""
        return self.host in LOCAL_HOSTS


_PORTS = {"http": 80, "https": 443}


def read_target(text: str) -> Target:
    """Parse `5000`, `:5000/path`, `/path`, `host:port/path` or a URL. Raises ValueError with a message for users."""
    written = text.strip()
    if written.isdecimal() or written.partition("/")[0].isdecimal():
        written = f"localhost:{written}"
    elif written.startswith((":", "/")):
        written = f"localhost{written}"
    if "://" not in written:
        written = f"http://{written}"
    if not all("!" <= character <= "~" for character in written):
        raise ValueError("the URL contains a space or another character that is not allowed")
    try:
        parts = urlsplit(written)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"the URL cannot be parsed: {error}") from error
    if parts.scheme not in _PORTS:
        raise ValueError(f"the URL starts with {parts.scheme}://, but only http:// and https:// are allowed")
    if not parts.hostname:
        raise ValueError("the URL has no host")
    if "@" in parts.netloc:
        raise ValueError("the URL contains a user name or password")
    try:
        # Find host names that asyncio cannot encode for the connection.
        parts.hostname.encode("idna")
    except UnicodeError:
        raise ValueError("a label of the host is empty or longer than 63 characters") from None
    if port == 0:
        raise ValueError("port 0 is not allowed")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port, path)
