"""Renders an email as a message with headers, text and HTML.

The message depends only on the notification. Therefore, a message that is resent after a crash is identical, except for
the time in a late warning when the server will disable the endpoints.
"""

import textwrap
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from email.utils import format_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from uplift_server.core.people.mail_settings import Mailbox
from uplift_server.mail.emails import Email

if TYPE_CHECKING:
    from jinja2 import Template

LINE_CHARACTERS_MAX: Final = 72


class _Policy(EmailPolicy):
    """The SMTP policy of `email.policy`, except that long Message-IDs are not folded."""

    def fold(self, name: str, value: Any) -> str:
        if name.lower() == "message-id":
            return f"{name}: {value}\r\n"
        return str(super().fold(name, value))

    def fold_binary(self, name: str, value: Any) -> bytes:
        return self.fold(name, value).encode("ascii")


_POLICY: Final = _Policy(linesep=SMTP.linesep, max_line_length=SMTP.max_line_length)


def message(email: Email, *, sender: Mailbox, recipient: str, message_id: str, created_at: int) -> bytes:
    """Return an email as a complete message in ASCII, with CRLF line endings.

    `message_id` must be unique and consist of letters and digits. `created_at` is in Unix ms.
    """
    made = EmailMessage(policy=_POLICY)
    made["From"] = Address(sender.name, addr_spec=sender.address)
    made["To"] = Address(addr_spec=recipient)
    made["Subject"] = email.subject
    made["Date"] = format_datetime(datetime.fromtimestamp(created_at // 1000, UTC))
    made["Message-ID"] = f"<{message_id}@{sender.address.rpartition('@')[2]}>"
    # Suppress out-of-office replies (RFC 3834; the second header is for Exchange).
    made["Auto-Submitted"] = "auto-generated"
    made["X-Auto-Response-Suppress"] = "All"
    # Use ASCII and short lines, because they work with every mail server.
    made.set_content(plain(email), cte="quoted-printable")
    made.add_alternative(html(email), subtype="html", cte="quoted-printable")
    made.set_boundary(f"={message_id}")
    return made.as_bytes()


def plain(email: Email) -> str:
    """Return the plain text version of an email."""
    parts = [_wrapped(email.title), *map(_wrapped, email.opening)]
    parts.append("Next steps:\n" + "\n".join(_wrapped(step, "* ", "  ") for step in email.steps))
    # Do not wrap URLs.
    parts.append(f"{email.link[0]}:\n{email.link[1]}")
    parts.append("\n".join(_wrapped(f"{label}: {value}", "", "    ") for label, value in email.details))
    parts.append(f"-- \n{_wrapped(email.closing)}")
    return "\n\n".join(parts) + "\n"


def html(email: Email) -> str:
    """Return the HTML version of an email. The HTML loads no external resources."""
    return _template().render(email=email)


def _wrapped(text: str, first: str = "", later: str = "") -> str:
    return textwrap.fill(
        text,
        LINE_CHARACTERS_MAX,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


@cache
def _template() -> "Template":
    # Import only on servers that send email.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("uplift_server.mail", "."), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("email.html")
