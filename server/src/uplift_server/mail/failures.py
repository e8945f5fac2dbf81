"""Why mail could not be handed over, in words for the operator."""

import os
import socket
import ssl
from typing import TYPE_CHECKING, Final, Literal

from uplift_server.core.texts import printable

if TYPE_CHECKING:
    from aiosmtplib import SMTPResponseException

ANSWER_CHARACTERS_SHOWN_MAX: Final = 200
_AUTHENTICATION_REQUIRED: Final = 530

Step = Literal["sender", "recipient", "message"]
_REMEDIES: Final[dict[Step, str]] = {
    "sender": "correct UPLIFT_MAIL_FROM, or let the mail server send for this address and this login",
    "recipient": "correct the mail address; if it is right, see the mail server's log",
    "message": "see the mail server's log for what it has against the message",
}


class MailNotSent(Exception):
    """Why mail could not be handed over. Both sentences are for the operator and hold no secret."""

    def __init__(self, cause: str, remedy: str, *, for_good: bool = False, disconnected: bool = True) -> None:
        """`for_good`: another attempt is of no use. `disconnected`: nothing more can be sent over this connection."""
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.for_good = for_good
        self.disconnected = disconnected


def refused(error: "SMTPResponseException", step: Step, *, disconnected: bool) -> MailNotSent:
    """A message was refused, by what was said last of it."""
    # What is wrong with the sender or the login is wrong with all mail, until the operator corrects it.
    for_good = error.code >= 500 and step != "sender" and error.code != _AUTHENTICATION_REQUIRED
    cause = f"the mail server does not take the {step}: {answer(error)}"
    return MailNotSent(cause, _REMEDIES[step], for_good=for_good, disconnected=disconnected)


def unreachable(server: str, error: Exception) -> MailNotSent:
    """The server cannot be talked to, or no longer."""
    # A server that sends no mail should not carry the library in memory.
    from aiosmtplib import SMTPResponseException  # noqa: PLC0415

    cause = _root(error)
    if isinstance(error, TimeoutError):
        return MailNotSent(f"{server} did not answer in time", "see whether it runs and is reachable")
    if isinstance(error, SMTPResponseException):
        return _unwelcome(server, error)
    if isinstance(cause, ssl.SSLError):
        return _no_tls(server, cause)
    if isinstance(cause, socket.gaierror):
        return MailNotSent(f"the host of {server} does not resolve", "correct UPLIFT_SMTP_URL, or DNS")
    if isinstance(cause, OSError) and cause.errno:
        # Event loops put addresses and lists of errors into the text; the system's own word says it.
        return MailNotSent(
            f"{server} cannot be reached: {os.strerror(cause.errno).lower()}",
            "start it, or correct host and port in UPLIFT_SMTP_URL",
        )
    return MailNotSent(f"{server} ended the connection", "see the mail server's log")


def _unwelcome(server: str, error: "SMTPResponseException") -> MailNotSent:
    if error.code < 0:  # the library's for what it cannot read
        return MailNotSent(f"what answers at {server} does not speak SMTP", "correct host and port in UPLIFT_SMTP_URL")
    return MailNotSent(f"{server} does not want us now: {answer(error)}", "see the mail server's log")


def _no_tls(server: str, error: ssl.SSLError) -> MailNotSent:
    if isinstance(error, ssl.SSLCertVerificationError):
        return MailNotSent(
            f"the certificate of {server} is not trusted: {error.verify_message}",
            "give it a certificate for the host in UPLIFT_SMTP_URL, or add its authority to UPLIFT_EGRESS_CA_FILE",
        )
    return MailNotSent(
        f"no TLS connection with {server} comes about: {(error.reason or str(error)).replace('_', ' ').lower()}",
        "use smtps:// only for a port that has TLS from the start (465), smtp:// for all others",
    )


def answer(error: "SMTPResponseException") -> str:
    """What the server said, in one line."""
    text = printable(" ".join(f"{error.code} {error.message}".split()))
    return text if len(text) <= ANSWER_CHARACTERS_SHOWN_MAX else f"{text[: ANSWER_CHARACTERS_SHOWN_MAX - 1]}…"


def _root(error: BaseException) -> BaseException:
    """What the library's error was raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
