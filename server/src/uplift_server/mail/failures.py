"""The reasons why an email was not sent, as text for the operator."""

import os
import re
import socket
import ssl
from typing import TYPE_CHECKING, Final, Literal

from uplift_server.core.texts import printable

if TYPE_CHECKING:
    from aiosmtplib import SMTPResponseException

RESPONSE_CHARACTERS_SHOWN_MAX: Final = 200
_AUTHENTICATION_REQUIRED: Final = 530
_OF_THE_SENDER: Final = re.compile(r"5\.(7\.|1\.[78]\b)")
"""The enhanced status codes (RFC 3463) of policies and of wrong senders. Mail servers also send them at later steps."""

_ENHANCED: Final = re.compile(r"\d\.\d+\.\d+\b")
_UNKNOWN_ADDRESS: Final = re.compile(r"5\.(1\.([1236]|10)|2\.1)\b")
"""The enhanced status codes (RFC 3463, RFC 7505) of addresses and mailboxes that do not exist."""

Step = Literal["sender", "recipient", "message"]
_REMEDIES: Final[dict[Step, str]] = {
    "sender": "correct UPLIFT_MAIL_FROM, or configure the mail server to accept this sender",
    "recipient": "check the email address; if it is correct, check the log of the mail server",
    "message": "check the log of the mail server",
}


class MailNotSent(Exception):
    """An email was not sent. `cause` and `remedy` are text for the operator, and contain no secrets."""

    def __init__(self, cause: str, remedy: str, *, permanent: bool = False, disconnected: bool = True) -> None:
        """`permanent` means that retries cannot succeed.

        `disconnected` means that the connection cannot send more emails.
        """
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.permanent = permanent
        self.disconnected = disconnected


def rejected(error: "SMTPResponseException", step: Step, *, disconnected: bool) -> MailNotSent:
    """Return the error for a rejected email. `step` is the part of the email that the mail server rejected."""
    # Only the rejection of an address that does not exist is permanent. Other problems, such as a quota, can end.
    is_unknown = _ENHANCED.match(error.message) is None or _UNKNOWN_ADDRESS.match(error.message) is not None
    permanent = step == "recipient" and error.code >= 500 and error.code != _AUTHENTICATION_REQUIRED and is_unknown
    is_of_sender = step == "sender" or _OF_THE_SENDER.match(error.message) is not None
    cause = f"the mail server rejected the {step}: {response_text(error)}"
    remedy = _REMEDIES["sender" if is_of_sender else step]
    return MailNotSent(cause, remedy, permanent=permanent, disconnected=disconnected)


def unreachable(server: str, error: Exception) -> MailNotSent:
    """Return the error for a failed connection to the mail server."""
    # Import only on servers that send email.
    from aiosmtplib import SMTPResponseException  # noqa: PLC0415

    cause = _root_cause(error)
    if isinstance(error, TimeoutError):
        return MailNotSent(f"{server} did not respond in time", "check that the mail server is running and reachable")
    if isinstance(error, SMTPResponseException):
        return _connection_rejected(server, error)
    if isinstance(cause, ssl.SSLError):
        return _no_tls(server, cause)
    if isinstance(cause, socket.gaierror):
        return MailNotSent(f"the host of {server} does not resolve", "correct UPLIFT_SMTP_URL or the DNS record")
    if isinstance(cause, OSError) and cause.errno:
        # Show only the operating system's message, because event loops add addresses and error lists to it.
        return MailNotSent(
            f"cannot connect to {server}: {os.strerror(cause.errno).lower()}",
            "start the mail server, or correct the host and port in UPLIFT_SMTP_URL",
        )
    return MailNotSent(f"{server} closed the connection", "check the log of the mail server")


def _connection_rejected(server: str, error: "SMTPResponseException") -> MailNotSent:
    if error.code < 0:  # the library's code for an invalid response
        return MailNotSent(f"{server} is not an SMTP server", "correct the host and port in UPLIFT_SMTP_URL")
    return MailNotSent(f"{server} rejected the connection: {response_text(error)}", "check the log of the mail server")


def _no_tls(server: str, error: ssl.SSLError) -> MailNotSent:
    if isinstance(error, ssl.SSLCertVerificationError):
        return MailNotSent(
            f"the certificate of {server} is not trusted: {error.verify_message}",
            "give the mail server a certificate for the host in UPLIFT_SMTP_URL, or add the server's CA certificate to"
            " UPLIFT_EGRESS_CA_FILE",
        )
    return MailNotSent(
        f"the TLS handshake with {server} failed: {(error.reason or str(error)).replace('_', ' ').lower()}",
        "use smtps:// only for a port with implicit TLS, such as 465, and smtp:// for other ports",
    )


def response_text(error: "SMTPResponseException") -> str:
    """Return the mail server's response to a command as one line."""
    text = printable(" ".join(f"{error.code} {error.message}".split()))
    return text if len(text) <= RESPONSE_CHARACTERS_SHOWN_MAX else f"{text[: RESPONSE_CHARACTERS_SHOWN_MAX - 1]}…"


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
