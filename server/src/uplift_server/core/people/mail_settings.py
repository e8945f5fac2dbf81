"""Parses the mail settings: the URL of the SMTP server, and the sender address of emails."""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from uplift_server.core.people.accounts import check_email, check_name

RELAY_PORT: Final = 25
SUBMISSION_PORT: Final = 587
TLS_PORT: Final = 465

_NOT_AN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_MAILBOX = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]*)>")


@dataclass(frozen=True, slots=True)
class MailServer:
    """The address of an SMTP server, the login, and the encryption of the connection."""

    host: str
    port: int
    tls_from_the_start: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def protected(self) -> bool:
        """Whether the connection must use TLS with a valid certificate."""
        return self.tls_from_the_start or self.password is not None


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The sender of emails: an email address, and a display name, which may be empty."""

    name: str
    address: str


def parse_mail_server(text: str) -> MailServer:
    """Parse `smtp://[user:password@]host[:port]`, or `smtps://` for TLS from the start.

    The default port is 25 without a login, 587 with a login, and 465 with TLS from the start. User and password are
    percent-encoded. Raises ValueError with a reason that does not quote the URL, because a URL can contain a password.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is not a valid URL") from None
    if parts.scheme not in ("smtp", "smtps"):
        raise ValueError("does not begin with smtp:// or smtps://")
    if parts.path.strip("/") or parts.query or parts.fragment or text[-1] in "?#":
        raise ValueError("has text after the host and port; in a password, percent-encode the characters / ? # @")
    host = parts.hostname or ""
    if not _is_host(host) or port == 0:
        raise ValueError("has no valid host or port")
    user, password = _credentials(parts)
    tls = parts.scheme == "smtps"
    default = TLS_PORT if tls else RELAY_PORT if password is None else SUBMISSION_PORT
    return MailServer(host, port or default, tls, user, password)


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            return "%" not in host and bool(ip_address(host))
        except ValueError:
            return False
    return _HOST.fullmatch(host) is not None and ".." not in host


def _credentials(parts: SplitResult) -> tuple[str | None, str | None]:
    userinfo, at, _ = parts.netloc.rpartition("@")
    if not at:
        return None, None
    user, _, password = userinfo.partition(":")
    if not user or not password:
        raise ValueError("has a user name without a password, or a password without a user name")
    if _NOT_AN_ESCAPE.search(userinfo) or "@" in userinfo:
        raise ValueError("has a % or an @ that is not percent-encoded in its user name or password")
    try:
        decoded = [unquote(each, errors="strict") for each in (user, password)]
    except UnicodeDecodeError:
        raise ValueError("has a user name or password that is not valid UTF-8 after percent-decoding") from None
    if not all(each.isprintable() for each in decoded):
        raise ValueError("has unprintable characters in its user name or password")
    return decoded[0], decoded[1]


def parse_mailbox(text: str) -> Mailbox:
    """Parse `address` or `Name <address>`. Raises ValueError with a message for users."""
    match = _MAILBOX.fullmatch(text.strip())
    name, address = (match["name"].strip(), match["address"]) if match else ("", text.strip())
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1]
    problem = check_email(address) or (check_name(name) if name else None)
    if problem is not None:
        raise ValueError(problem.message)
    return Mailbox(name, address)
