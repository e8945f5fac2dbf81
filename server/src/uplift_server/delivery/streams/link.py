"""A connection to one NATS server, and requests to the JetStream API. Only this module imports the NATS client."""

import asyncio
import contextlib
import json
import logging
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import nats.errors
from nats.aio.client import Client, RawCredentials
from nats.protocol import parser

CONNECT_SECONDS: Final = 3.0
REQUEST_SECONDS: Final = 1.0
PING_SECONDS: Final = 1
"""The interval between pings, in seconds.

The client closes the connection after two pings without a response. Therefore, it detects a hanging server within about
3 s.
"""
HEADER_BYTES_MAX: Final = 256
"""The maximum size of the header that contains the message ID, in bytes.

NATS disconnects a client whose message and headers are too large.
"""
# The client starts TLS on an existing connection. Therefore, asyncio logs this warning whenever a TLS connection ends.
# Hide the warning, because an operator cannot prevent it.
_TLS_WARNING: Final = "returning true from eof_received() has no effect when using ssl"
logging.getLogger("asyncio").addFilter(lambda record: record.msg != _TLS_WARNING)
_API: Final = "$JS.API."
NOT_FOUND: Final = 404
_ERRORS: Final = (nats.errors.Error, OSError, TimeoutError, RuntimeError)
"""Errors of the client. The event loop raises RuntimeError for a message to a connection that was just reset."""
_NO_PERMISSION: Final = "permissions violation"
_PERMISSIONS_FIX: Final = "give the NATS user the permissions of the user uplift in deploy/nats/nats.conf"
_CREDENTIALS_FIX: Final = "correct the file in UPLIFT_NATS_CREDENTIALS_FILE"
_AUTHORITY_FIX: Final = (
    "add the CA certificate to the system's certificates with update-ca-certificates, or to the file in SSL_CERT_FILE"
    " if this variable is set"
)
_NAME_FIX: Final = "use a host name of the NATS server's certificate in UPLIFT_NATS_URL"
# The numbers are from OpenSSL's x509_vfy.h: expired, another host name, another IP address.
_CERTIFICATE_FIXES: Final = {10: "renew the NATS server's certificate", 62: _NAME_FIX, 64: _NAME_FIX}
_CLOSED: Final = (ConnectionResetError, BrokenPipeError)
_LOGIN_ENDED: Final = "the NATS server closed the connection during the login"
_WITHOUT_TLS: Final = "the NATS server does not use TLS"
_CREDENTIALS_MARKERS: Final = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")


class StreamUnavailable(Exception):
    """The process cannot reach NATS, NATS did not respond in time, or the stream cannot store messages."""

    def __init__(self, cause: str, how_to_fix: str = "") -> None:
        super().__init__(cause)
        self.how_to_fix = how_to_fix
        """How to fix the problem. Empty if it may end without a fix, for example when NATS elects a leader."""


def log_fields(error: Exception) -> dict[str, str]:
    """Return the cause of a failure for the log and, if known, how to fix it."""
    fix = error.how_to_fix if isinstance(error, StreamUnavailable) else ""
    return {"cause": str(error), **({"how_to_fix": fix} if fix else {})}


class StreamError(Exception):
    """JetStream rejected a request."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code


class Received(Protocol):
    """A message that a subscription received."""

    @property
    def subject(self) -> str:
        """The subject to which the message was published."""

    @property
    def reply(self) -> str:
        """The subject for a response to the message."""

    @property
    def data(self) -> bytes:
        """The content of the message."""

    @property
    def headers(self) -> Mapping[str, str] | None:
        """The headers of the message, if any."""


class NatsServer(NamedTuple):
    """The address of a NATS server, with the login if there is one."""

    address: str
    user: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> "NatsServer":
        """Parse a NATS URL, which may contain a user and password."""
        parts = urlsplit(url)
        user = None if parts.username is None else unquote(parts.username)
        password = None if parts.password is None else unquote(parts.password)
        return cls(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", user, password)


# A NATS subject can contain every character except space, tab, CR and LF, even other characters that `\s` matches.
# The NATS client cannot parse these other characters: a message with one would end every connection that receives it.
parser.MSG_RE, parser.HMSG_RE = (
    re.compile(each.pattern.replace(rb"[^\s]", rb"[^ \t\r\n]")) for each in (parser.MSG_RE, parser.HMSG_RE)
)


class _Client(Client):
    """A NATS client that accepts invalid subjects and headers, and that requires TLS for tls:// URLs.

    Emitters choose the subjects and headers, so an invalid subject or header must not end the connection.
    """

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Require TLS before the client sends the password.

        Without this, the client would use TLS only if the first message of the server, which is not encrypted, says so.
        An attacker between the client and the server could remove this request for TLS, and read the password.
        """
        if initial_connection and self._current_server is not None and self._current_server.uri.scheme == "tls":
            if not info.get("tls_required") and not info.get("tls_available"):
                raise nats.errors.Error(_WITHOUT_TLS)
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    @property
    def is_clustered(self) -> bool:
        """Whether the server belongs to a cluster."""
        return bool(self._server_info.get("cluster"))

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except (IndexError, UnicodeDecodeError):
            return None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Any:
        text = subject.decode("utf-8", "replace")
        return super()._build_message(sid, text.encode(), reply, data, headers)


class Link:
    """A connection to one NATS server.

    The connection ends at its first failure. The event stream then opens another connection.
    """

    def __init__(self) -> None:
        self._client = _Client()
        self._error: Exception | None = None
        """The connection's latest error."""
        self.closed = asyncio.Event()

    @classmethod
    async def connect(cls, server: NatsServer, credentials_file: str | None) -> "Link":
        """Connect to a server. Raises StreamUnavailable."""
        link = cls()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await link._open(server, credentials_file)
        except StreamUnavailable:
            raise
        except Exception as error:  # The client and its parser of keys also raise their own errors and TypeError.
            with contextlib.suppress(Exception):
                await link.close()
            failure = link._error or error
            text = _LOGIN_ENDED if isinstance(failure, _CLOSED) else str(failure) or "timeout"
            raise StreamUnavailable(f"{server.address}: {text}", _how_to_connect(failure)) from error
        return link

    async def _open(self, server: NatsServer, credentials_file: str | None) -> None:
        credentials = None if credentials_file is None else await asyncio.to_thread(_credentials, credentials_file)
        await self._client.connect(
            servers=[server.address],
            name="uplift-webhooks",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            ping_interval=PING_SECONDS,
            # Without a limit, a message that waits for a hanging server waits even after the connection has ended.
            flush_timeout=REQUEST_SECONDS,
            error_cb=self._note_error,
            closed_cb=self._note_closed,
            user=server.user,
            password=server.password,
            user_credentials=credentials,
        )

    async def _note_error(self, error: Exception) -> None:
        self._error = error

    async def _note_closed(self) -> None:
        self.closed.set()

    @property
    def cause(self) -> str:
        """The connection's latest error, which explains why the connection ended."""
        return str(self._error or "connection closed")

    @property
    def message_bytes_max(self) -> int:
        """The maximum size of a message (with its headers) that the server accepts, in bytes."""
        return self._client.max_payload

    @property
    def is_clustered(self) -> bool:
        """Whether the NATS server belongs to a cluster."""
        return self._client.is_clustered

    @property
    def server_version(self) -> tuple[int, int, int]:
        """The version of the NATS server."""
        version = self._client.connected_server_version
        return version.major, version.minor, version.patch

    def new_inbox(self) -> str:
        """Return a unique subject for responses."""
        return self._client.new_inbox()

    async def subscribe(self, subject: str, receive: Callable[[Received], None]) -> None:
        """Call `receive` with every message on a subject. Raises StreamUnavailable."""

        async def callback(message: Received) -> None:
            receive(message)

        with _failures():
            await self._client.subscribe(subject, cb=callback)

    async def publish(
        self, subject: str, payload: bytes = b"", *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Publish a message without waiting for a response. Raises StreamUnavailable."""
        with _failures():
            await self._client.publish(subject, payload, reply, headers)

    async def store(self, subject: str, payload: bytes, message_id: str) -> None:
        """Publish a message, and wait until its stream has stored it. Raises StreamUnavailable or StreamError."""
        _raise_error(await self._request(subject, payload, {"Nats-Msg-Id": message_id}, REQUEST_SECONDS))

    async def call(
        self, operation: str, body: Mapping[str, object] | None = None, *, seconds: float = REQUEST_SECONDS
    ) -> dict[str, Any]:
        """Call an operation of the JetStream API. Raises StreamUnavailable or StreamError."""
        payload = b"" if body is None else json.dumps(body).encode()
        return _raise_error(await self._request(_API + operation, payload, None, seconds))

    async def _request(self, subject: str, payload: bytes, headers: dict[str, str] | None, seconds: float) -> bytes:
        with _failures():
            try:
                response = await self._client.request(subject, payload, timeout=seconds, headers=headers)
            except nats.errors.TimeoutError:
                # NATS does not respond to a request for which the user has no permission.
                if _NO_PERMISSION in self.cause and f'"{subject.lower()}"' in self.cause:
                    raise StreamUnavailable(self.cause, _PERMISSIONS_FIX) from None
                raise
            return response.data

    async def close(self) -> None:
        """Send the queued messages, and close the connection."""
        with contextlib.suppress(*_ERRORS):
            async with asyncio.timeout(REQUEST_SECONDS):
                await self._client.close()
        self.closed.set()


def _credentials(path: str) -> RawCredentials:
    """Read a credentials file. Raises StreamUnavailable.

    The client never stops reading a file without a JWT. A tool that renews the file can write it in steps.
    """
    try:
        content = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StreamUnavailable(f"the credentials file {path} is not readable: {error}", _CREDENTIALS_FIX) from error
    if not all(each in content for each in _CREDENTIALS_MARKERS):
        cause = f"the credentials file {path} is not complete: it must contain a user JWT and a seed"
        raise StreamUnavailable(cause, _CREDENTIALS_FIX)
    return RawCredentials(content)


def _how_to_connect(error: Exception) -> str:
    """Return how to fix a failed connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATE_FIXES.get(error.verify_code, _AUTHORITY_FIX)
    if str(error) == _WITHOUT_TLS:
        return "enable TLS on the NATS server, or use nats:// in UPLIFT_NATS_URL"
    # The server closes the connection after it has rejected a login, often before the client has read the response.
    if "auth" in str(error).lower() or isinstance(error, _CLOSED):
        return (
            "correct the user and the password in UPLIFT_NATS_URL, or the file in UPLIFT_NATS_CREDENTIALS_FILE; the log"
            " of the NATS server contains rejected logins"
        )
    return "start the NATS server, or correct UPLIFT_NATS_URL"


class _failures(contextlib.AbstractContextManager[None]):  # noqa: N801 - used like a function
    """Convert the client's errors to StreamUnavailable."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, nats.errors.NoRespondersError):
            raise StreamUnavailable("JetStream is not enabled, or the stream has no leader") from error
        if isinstance(error, _ERRORS):
            raise StreamUnavailable(str(error) or "timeout") from error


def _raise_error(response: bytes) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(response)
    except ValueError as error:
        raise StreamUnavailable("NATS sent an unexpected response") from error
    failure = content.get("error")
    if failure is not None:
        raise StreamError(int(failure.get("code", 0)), str(failure.get("description", "")))
    return content
