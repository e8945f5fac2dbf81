"""Opens connections for a listen session, and converts connection errors to Lost or Ended."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI

from uplift_webhooks.api.connections import proxy_to
from uplift_webhooks.cli.kit.errors import ExitCode

OPEN_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 1.0
FRAME_BYTES_MAX: Final = 4 * 1024 * 1024

_RESTARTING: Final = 1012
_GONE: Final = 4004
_ENDS: Final = {
    _GONE: ("the session was deleted", "repeat the command", ExitCode.NOT_FOUND),
    4009: (
        "another client connected to this session",
        "repeat the command to create your own session",
        ExitCode.FAILED,
    ),
    4000: (
        "the server rejected a response from this version of uplift-webhooks",
        "install the version of uplift-webhooks that matches the server",
        ExitCode.FAILED,
    ),
}
"""Close codes after which the listener does not reconnect, each with its cause, how to fix it, and an exit code."""
_PASSING: Final = frozenset({408, 425, 429})
"""Status codes of temporary errors, in addition to 500 and all higher codes."""


_REDIRECTS: Final = range(300, 400)
_HOST_CHARACTERS_MAX: Final = 200


class _Connect(connect):
    """A connection that does not follow redirects, because a redirect could lead to another source of events."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class Lost(Exception):
    """The connection is lost, and a new one can replace it. The message states the cause."""


class Ended(Exception):
    """The session has ended, and the listener must not reconnect."""

    def __init__(self, cause: str, remedy: str, code: ExitCode, *, unknown: bool = False) -> None:
        """If `unknown` is true, either the session was deleted or its key was revoked."""
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.code = code
        self.unknown = unknown


@dataclass(frozen=True)
class Address:
    """The URL of a session's stream, and the key for it."""

    api_url: str
    session: str
    headers: Mapping[str, str]

    def url(self, after: str | None) -> str:
        """Return the WebSocket URL. `after`: the position after which the stream continues."""
        parts = urlsplit(self.api_url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        path = f"{parts.path.rstrip('/')}/v1/listen-sessions/{quote(self.session, safe='')}/stream"
        return urlunsplit((scheme, parts.netloc, path, "" if after is None else urlencode({"after": after}), ""))


async def open_stream(address: Address, after: str | None, *, ping_seconds: float) -> ClientConnection:
    """Connect, through a proxy if the environment variables set one. Raises Lost or Ended if this fails.

    `ping_seconds` is the interval between pings and the timeout for each response, so a dead connection is detected
    within twice this time.
    """
    # Use the same proxy as the other API calls.
    proxy = proxy_to(urlsplit(address.api_url))
    try:
        return await _Connect(
            address.url(after),
            additional_headers=dict(address.headers),
            user_agent_header=None,
            proxy=None if proxy is None else proxy.url,
            open_timeout=OPEN_SECONDS,
            ping_interval=ping_seconds,
            ping_timeout=ping_seconds,
            close_timeout=CLOSE_SECONDS,
            max_size=FRAME_BYTES_MAX,
            # To respond to pings, the client must keep reading even if the local server is slow.
            # The queue stays short, because the server limits the number of events without a response.
            max_queue=None,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status in _REDIRECTS:
            raise _redirected(status, error.response.headers.get("location", "")) from error
        raise _rejected(status, _detail(error.response.body) or f"the server responded with {status}") from error
    except InvalidURI as error:
        raise Ended(f"the URL of the server is not valid: {error}", "correct --api-url", ExitCode.USAGE) from error
    except InvalidProxy as error:
        remedy = "correct HTTPS_PROXY, or add the server to NO_PROXY"
        # The text of the error contains the URL of the proxy, with its password.
        raise Ended(f"the proxy setting is not valid: {error.msg}", remedy, ExitCode.USAGE) from error
    except TimeoutError as error:
        raise Lost(f"no response within {OPEN_SECONDS:g} seconds") from error
    except (OSError, InvalidHandshake, EOFError) as error:
        raise Lost(reason(error)) from error


def abort(connection: ClientConnection) -> None:
    """Close a connection without the closing handshake."""
    connection.transport.abort()


def end_of(error: ConnectionClosed) -> Lost | Ended:
    """Convert the exception for a closed connection to Lost or Ended."""
    if error.rcvd is None:
        heard = error.sent is None or "keepalive" not in error.sent.reason
        return Lost("the connection was lost" if heard else "the server stopped responding")
    code = error.rcvd.code
    if code in _ENDS:
        cause, remedy, exit_code = _ENDS[code]
        return Ended(cause, remedy, exit_code, unknown=code == _GONE)
    if code == _RESTARTING:
        return Lost("the server is restarting")
    return Lost(f"the server closed the connection ({code}{f', {error.rcvd.reason}' if error.rcvd.reason else ''})")


def reason(error: BaseException) -> str:
    """Return the reason for a failed connection in a few words."""
    if isinstance(error, ConnectionRefusedError) or "Multiple exceptions" in str(error):
        return "no server responds at this address (connection refused)"
    if isinstance(error, EOFError):
        return "the connection was lost"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _rejected(status: int, detail: str) -> Lost | Ended:
    if status in _PASSING or status >= 500:
        return Lost(detail)
    if status in {401, 403}:
        return Ended(detail, "check the key: --api-key, UPLIFT_API_KEY or the profile", ExitCode.NOT_ALLOWED)
    if status == 404:
        return Ended(detail, "repeat the command: the server deletes unused sessions after a day", ExitCode.NOT_FOUND)
    return Ended(detail, "repeat the command", ExitCode.FAILED)


def _redirected(status: int, location: str) -> Ended:
    where = _origin(location)
    cause = f"the server responded with a redirect ({status}){where and f' to {where}'}"
    remedy = "set --api-url, UPLIFT_API_URL or the profile to the final URL of the server"
    return Ended(cause, remedy, ExitCode.USAGE)


def _origin(location: str) -> str:
    """Return a URL without its path and query, which may contain secrets.

    Return an empty string if the URL is not valid.
    """
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    if not host or len(host) > _HOST_CHARACTERS_MAX or not (host.isascii() and host.isprintable()):
        return ""
    return f"{'https' if parts.scheme in {'https', 'wss'} else 'http'}://{host}"


def _detail(body: bytes | bytearray) -> str:
    try:
        problem = json.loads(body)
    except ValueError:
        return ""
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return detail if isinstance(detail, str) else ""
