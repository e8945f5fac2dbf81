"""Handing mail to the operator's mail server, each exchange with it under one deadline."""

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
from uplift_server.mail.failures import MailNotSent, Step, answer, refused, unreachable

if TYPE_CHECKING:
    import aiosmtplib

EXCHANGE_SECONDS: Final = 60.0
"""The deadline of opening a connection, and that of handing one message over it: servers take their time to check."""
QUIT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class MailConnection:
    """An open connection, ready for messages."""

    encrypted: bool
    logged_in: bool
    _relay: "SmtpServer"
    _client: "aiosmtplib.SMTP"

    async def send(self, sender: str, recipient: str, message: bytes) -> None:
        """Hand over one message for one mail address. Raises MailNotSent unless the server has accepted it."""
        from aiosmtplib import SMTPResponseException, SMTPServerDisconnected  # noqa: PLC0415 - see `SmtpServer.connected`

        step: Step = "sender"
        try:
            async with self._relay.deadline():
                await self._client.mail(sender)
                step = "recipient"
                await self._client.rcpt(recipient)
                step = "message"
                await self._client.data(message)
        except SMTPResponseException as error:
            await self._reset()
            raise refused(error, step, disconnected=not self._client.is_connected) from error
        except (SMTPServerDisconnected, OSError, TimeoutError) as error:
            # Whatever it still answers would be taken for the answer to something else.
            _leave(self._client)
            raise unreachable(str(self._relay), error) from error

    async def _reset(self) -> None:
        """Forget the refused message; a server that cannot even do that is left."""
        from aiosmtplib import SMTPException  # noqa: PLC0415

        try:
            async with self._relay.deadline():
                await self._client.rset()
        except (SMTPException, OSError, TimeoutError):
            _leave(self._client)


class SmtpServer:
    """The operator's mail server.

    Where a password is sent or the URL says `smtps`, the connection is encrypted and the server's certificate
    verified, by the system's authorities and those in `ca_file`. Otherwise STARTTLS is used where it is offered, and
    the certificate is not looked at: whoever could present a false one could as well hide the offer.
    """

    def __init__(
        self,
        server: MailServer,
        *,
        own_name: str,
        ca_file: str | None = None,
        exchange_seconds: float = EXCHANGE_SECONDS,
    ) -> None:
        """`own_name` is the host name or address this server is known by, told to the mail server."""
        self._server = server
        self._own_name = _greeting_name(own_name)
        self._ca_file = ca_file
        self._seconds = exchange_seconds
        self._deadline: asyncio.Timeout | None = None
        self._tls: ssl.SSLContext | None = None

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """The one that an operator configured, who must have."""
        assert config.smtp_url is not None, "without one no mail is sent"
        own_name = urlsplit(config.public_url).hostname or "localhost"
        return cls(parse_mail_server(config.smtp_url), own_name=own_name, ca_file=config.egress_ca_file)

    def __str__(self) -> str:
        """Host and port, without the login."""
        host = self._server.host
        return f"{f'[{host}]' if ':' in host else host}:{self._server.port}"

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[MailConnection]:
        """An open connection, logged in where there is a login. Raises MailNotSent."""
        # A server that sends no mail should not carry this in memory.
        from aiosmtplib import SMTP, SMTPException  # noqa: PLC0415

        server = self._server
        if self._tls is None:
            try:
                # Reading all authorities takes longer than a loop that delivers may be held up.
                self._tls = await asyncio.to_thread(self._make_tls)
            except OSError as error:
                cause = f"the file of certificate authorities cannot be read: {error}"
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
                async with self.deadline():
                    await self._open(client)
            except (SMTPException, OSError, TimeoutError) as error:
                raise unreachable(str(self), error) from error
            encrypted = client.get_transport_info("sslcontext") is not None
            yield MailConnection(encrypted, server.password is not None, self, client)
            if client.is_connected:
                with contextlib.suppress(SMTPException, OSError, TimeoutError):
                    async with asyncio.timeout(min(QUIT_SECONDS, self._seconds)):
                        # `quit` of the library would close politely; see `_leave`.
                        await client.execute_command(b"QUIT")
        finally:
            _leave(client)

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
                    f"{self} does not offer STARTTLS, so it is not told the password",
                    "let it offer STARTTLS, use smtps:// with a port that has TLS from the start, or remove user and "
                    "password from UPLIFT_SMTP_URL if it needs none",
                )
        if server.user is None or server.password is None:
            return
        try:
            await client.login(server.user, server.password)
        except SMTPAuthenticationError as error:
            raise MailNotSent(
                f"{self} refuses the login: {answer(error)}",
                "correct user and password in UPLIFT_SMTP_URL; characters such as @ / : % # must be percent-encoded",
            ) from error
        except SMTPException as error:
            if not client.is_connected:
                raise
            raise MailNotSent(
                f"{self} offers no way to log in that we know",
                "remove user and password from UPLIFT_SMTP_URL if it needs none, or let it offer AUTH PLAIN",
            ) from error

    def hurry(self, seconds: float) -> None:
        """End what is under way within so many seconds; whatever begins later has no more, either."""
        self._seconds = min(self._seconds, seconds)
        if self._deadline is not None and not self._deadline.expired():
            when = self._deadline.when()
            hurried = asyncio.get_running_loop().time() + self._seconds
            self._deadline.reschedule(hurried if when is None else min(when, hurried))

    @contextlib.asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """One deadline over all that is done within. Raises TimeoutError."""
        async with asyncio.timeout(self._seconds) as running:
            self._deadline = running
            try:
                yield
            finally:
                self._deadline = None

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


def _leave(client: "aiosmtplib.SMTP") -> None:
    """End the connection at once: a polite end would wait for the other side's, and nothing is left to be heard."""
    transport = client.transport
    client.close()
    if transport is not None:
        cast(asyncio.WriteTransport, transport).abort()


def _greeting_name(own_name: str) -> str:
    """A host name, or an address in the form that EHLO has for it (RFC 5321, section 4.1.3)."""
    try:
        address = ip_address(own_name.strip("[]"))
    except ValueError:
        return own_name
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"
