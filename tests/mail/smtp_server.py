"""A real SMTP server that stores accepted messages, and rejects or hangs on demand."""

import asyncio
import contextlib
import email.policy
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "uplift@example.com", "pa:ss/wörd%@"


@dataclass(frozen=True)
class Received:
    """An accepted message."""

    sender: str
    recipient: str
    content: bytes
    encrypted: bool
    logged_in: bool

    @property
    def message(self) -> EmailMessage:
        return email.message_from_bytes(self.content, policy=email.policy.default)  # type: ignore[arg-type]

    @property
    def text(self) -> str:
        """The plain body."""
        part = self.message.get_body(("plain",))
        assert part is not None
        return str(part.get_content()).replace("\r\n", "\n")

    @property
    def html(self) -> str:
        """The HTML body."""
        part = self.message.get_body(("html",))
        assert part is not None
        return str(part.get_content())


Rejection = Callable[[str], str | None]
"""Returns the response that rejects a recipient, or None to accept the recipient."""


class SmtpStub:
    """An SMTP server that stores messages in `received`, commands in `commands`, and logins in `passwords`."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.commands: list[str] = []
        self.passwords: list[tuple[str, str]] = []
        self.reject_sender: str | None = None
        self.reject_recipient: Rejection = lambda _: None
        self.reject_message: Rejection = lambda _: None
        self.hang_at: str | None = None
        """The command (`MAIL` or `DATA`) that gets no response until `resume`."""
        self.hold_response = False
        """Whether the server stores a message but sends no response until `resume`."""
        self.names: list[str] = []
        """The EHLO names of clients."""
        self.port = 0
        self._login = False
        self._hanging: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.names.append(hostname)
        self.commands.append("EHLO")
        # aiosmtpd always offers logins over TLS.
        return [each for each in responses if self._login or "AUTH" not in each]

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.commands.append("MAIL")
        if self.hang_at == "MAIL":
            await self._hang()
        if self.reject_sender is not None:
            return self.reject_sender
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.commands.append("RCPT")
        rejection = self.reject_recipient(address)
        if rejection is not None:
            return rejection
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.commands.append("DATA")
        if self.hang_at == "DATA":
            await self._hang()
        (recipient,) = envelope.rcpt_tos
        rejection = self.reject_message(recipient)
        if rejection is not None:
            return rejection
        content, sender = envelope.content, envelope.mail_from
        assert isinstance(content, bytes)
        assert sender is not None
        encrypted = session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None
        self.received.append(Received(sender, recipient, content, encrypted, bool(session.authenticated)))
        if self.hold_response:
            await self._hang()
        return "250 OK"

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.commands.append("QUIT")
        return "221 Bye"

    async def _hang(self) -> None:
        self._hanging = asyncio.Event()
        await self._hanging.wait()

    @property
    def is_hanging(self) -> bool:
        """Whether a client waits for a response."""
        return self._hanging is not None

    def resume(self) -> None:
        """Send the delayed responses."""
        assert self._loop is not None
        assert self._hanging is not None
        self.hang_at = None
        self._loop.call_soon_threadsafe(self._hanging.set)

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        """Accept only USER with PASSWORD."""
        found = (data.login.decode(), data.password.decode())
        self.passwords.append(found)
        return AuthResult(success=found == (USER, PASSWORD), handled=False)

    def open(
        self,
        *,
        starttls: ssl.SSLContext | None = None,
        tls: ssl.SSLContext | None = None,
        login: bool = False,
        port: int = 0,
    ) -> "SmtpStub":
        """Listen, optionally with STARTTLS, TLS from the start, or required logins."""
        options: dict[str, Any] = {"tls_context": starttls}
        self._login = login
        if login:
            options |= {"authenticator": self.authenticate, "auth_required": True, "auth_require_tls": tls is None}
        listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop, listening, options, tls, port))
        self._thread.start()
        assert listening.wait(10)
        return self

    def close(self) -> None:
        """Stop listening, and close all connections."""
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._thread = None

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: threading.Event,
        options: dict[str, Any],
        tls: ssl.SSLContext | None,
        port: int,
    ) -> None:
        asyncio.set_event_loop(loop)
        transports: list[Any] = []

        def serve() -> SMTP:
            with warnings.catch_warnings():
                # aiosmtpd does not count TLS from the start as TLS.
                warnings.simplefilter("ignore", UserWarning)
                session = SMTP(self, loop=loop, hostname="mail.test", **options)
            transports.append(session)
            return session

        server = loop.run_until_complete(loop.create_server(serve, "127.0.0.1", port, ssl=tls))
        self.port = server.sockets[0].getsockname()[1]
        listening.set()
        loop.run_forever()
        server.close()
        for session in transports:
            # Python 3.11.2 cannot abort a TLS transport that has ended.
            with contextlib.suppress(AttributeError):
                session.transport.abort()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])
