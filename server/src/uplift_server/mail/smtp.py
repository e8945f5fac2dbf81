"""SMTP client for the operator's mail server. Each exchange with the server has a timeout."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Self, cast
from urllib.parse import urlsplit

from uplift_server.config import Config
from uplift_server.core.people.mail_settings import MailServer, parse_mail_server
from uplift_server.mail.failures import MailNotSent, Step, rejected, response_text, unreachable

if TYPE_CHECKING:
    import aiosmtplib

EXCHANGE_SECONDS: Final = 60.0
"""Timeout for opening a connection, and for sending a message, in seconds.

The timeout is long, because mail servers check messages before they respond.
"""
QUIT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class MailConnection:
    """An open connection to the mail server, ready to send messages."""

    encrypted: bool
    logged_in: bool
    _server: "SmtpServer"
    _client: "aiosmtplib.SMTP"

    async def send(self, sender: str, recipient: str, message: bytes) -> None:
        """Send one message to one address. Raises MailNotSent if the server does not accept the message."""
        from aiosmtplib import SMTPResponseException, SMTPServerDisconnected  # noqa: PLC0415 - see `SmtpServer.connected`

        step: Step = "sender"
        try:
            async with self._server.timeout():
                await self._client.mail(sender)
                step = "recipient"
                await self._client.rcpt(recipient)
                step = "message"
                await self._client.data(message)
        except SMTPResponseException as error:
            await self._reset()
            raise rejected(error, step, disconnected=not self._client.is_connected) from error
        except (SMTPServerDisconnected, OSError, TimeoutError) as error:
            # Close the connection. Otherwise, a late response would be mistaken for the response to the next command.
            _abort(self._client)
            raise unreachable(str(self._server), error) from error

    async def _reset(self) -> None:
        """Discard the message that the mail server rejected.

        If the server does not confirm that it discarded the message, close the connection.
        """
        from aiosmtplib import SMTPException  # noqa: PLC0415

        try:
            async with self._server.timeout():
                await self._client.rset()
        except (SMTPException, OSError, TimeoutError):
            _abort(self._client)


class SmtpServer:
    """The operator's mail server.

    If the URL contains a password or begins with `smtps`, the client encrypts the connection. It verifies the
    certificate against the system's certificate authorities and those in `ca_file`. With any other URL, the client uses
    STARTTLS without verification if the server offers STARTTLS. Verification would add no protection, because an
    attacker could also suppress the offer.
    """

    def __init__(
        self,
        server: MailServer,
        *,
        own_name: str,
        ca_file: str | None = None,
        exchange_seconds: float = EXCHANGE_SECONDS,
    ) -> None:
        """Create a client. `own_name` is the host name or address with which this server identifies itself (EHLO)."""
        self._server = server
        self._own_name = _ehlo_name(own_name)
        self._ca_file = ca_file
        self._seconds = exchange_seconds
        self._timeout: asyncio.Timeout | None = None
        self._tls: ssl.SSLContext | None = None

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Create a client for the mail server in a configuration. The configuration must contain a mail server."""
        assert config.smtp_url is not None, "the caller checks `sends_mail`"
        own_name = urlsplit(config.public_url).hostname or "localhost"
        return cls(parse_mail_server(config.smtp_url), own_name=own_name, ca_file=config.egress_ca_file)

    def __str__(self) -> str:
        """Return the mail server's host and port, without the login."""
        host = self._server.host
        return f"{f'[{host}]' if ':' in host else host}:{self._server.port}"

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[MailConnection]:
        """Open a connection, and log in if a login is configured. Raises MailNotSent."""
        # Import only on servers that send email.
        from aiosmtplib import SMTP, SMTPException  # noqa: PLC0415

        server = self._server
        if self._tls is None:
            try:
                # Loading the trusted certificates would block the event loop for too long.
                self._tls = await asyncio.to_thread(self._make_tls)
            except OSError as error:
                cause = f"the server cannot read the CA file: {error}"
                raise MailNotSent(cause, "correct UPLIFT_EGRESS_CA_FILE") from error
        client = SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls_from_the_start,
            start_tls=False,
            tls_context=self._tls,
            local_hostname=self._own_name,
            timeout=None,
        )
        try:
            try:
                async with self.timeout():
                    await self._open(client)
            except (SMTPException, OSError, TimeoutError) as error:
                raise unreachable(str(self), error) from error
            encrypted = client.get_transport_info("sslcontext") is not None
            yield MailConnection(encrypted, server.password is not None, self, client)
            if client.is_connected:
                with contextlib.suppress(SMTPException, OSError, TimeoutError):
                    async with asyncio.timeout(min(QUIT_SECONDS, self._seconds)):
                        # The library's `quit` would wait until the server closes the connection. See `_abort`.
                        await client.execute_command(b"QUIT")
        finally:
            _abort(client)

    async def _open(self, client: "aiosmtplib.SMTP") -> None:
        from aiosmtplib import SMTPAuthenticationError, SMTPException  # noqa: PLC0415

        server = self._server
        await client.connect()
        await client.ehlo()
        if not server.tls_from_the_start:
            if client.supports_extension("starttls"):
                await client.starttls()
                await client.ehlo()
            elif server.protected:
                raise MailNotSent(
                    f"{self} does not offer STARTTLS, but a login requires encryption",
                    "enable STARTTLS, use smtps:// and a port with implicit TLS, or remove the user and password from "
                    "UPLIFT_SMTP_URL if the mail server does not require them",
                )
        if server.user is None or server.password is None:
            return
        try:
            await client.login(server.user, server.password)
        except SMTPAuthenticationError as error:
            raise MailNotSent(
                f"{self} rejected the login: {response_text(error)}",
                "correct the user and password in UPLIFT_SMTP_URL; percent-encode characters such as @ / : % #",
            ) from error
        except SMTPException as error:
            if not client.is_connected:
                raise
            raise MailNotSent(
                f"{self} does not offer a supported authentication method",
                "enable AUTH PLAIN, or remove the user and password from UPLIFT_SMTP_URL if the mail server does not "
                "require them",
            ) from error

    def shorten_timeout(self, seconds: float) -> None:
        """Reduce the timeout to `seconds` for the current exchange and all later ones."""
        self._seconds = min(self._seconds, seconds)
        if self._timeout is not None and not self._timeout.expired():
            when = self._timeout.when()
            earliest = asyncio.get_running_loop().time() + self._seconds
            self._timeout.reschedule(earliest if when is None else min(when, earliest))

    @contextlib.asynccontextmanager
    async def timeout(self) -> AsyncIterator[None]:
        """Limit the duration of the exchange in the `with` block. Raises TimeoutError."""
        async with asyncio.timeout(self._seconds) as running:
            self._timeout = running
            try:
                yield
            finally:
                self._timeout = None

    def _make_tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._server.protected:
            context.load_default_certs()
            if self._ca_file is not None:
                context.load_verify_locations(cafile=self._ca_file)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _abort(client: "aiosmtplib.SMTP") -> None:
    """Close the connection immediately. A regular TLS shutdown would wait for the server."""
    transport = client.transport
    client.close()
    if transport is not None:
        cast(asyncio.WriteTransport, transport).abort()


def _ehlo_name(own_name: str) -> str:
    """Return this server's name for EHLO.

    The name is a host name, or an address literal for an IP address (RFC 5321, section 4.1.3).
    """
    try:
        address = ip_address(own_name.strip("[]"))
    except ValueError:
        return own_name
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"
